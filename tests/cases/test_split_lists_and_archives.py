"""Cases A: lists of the images of each split, and archives inside folders. One function per case."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from file_trees import Files, jpeg, tar_bytes, write_files, zip_bytes

from alexnet import AlexNetError, plan_source, prepare


def images(names: Iterable[str]) -> Files:
    return {name: jpeg(number) for number, name in enumerate(names)}


def in_classes(folder: str = "", count: int = 6) -> list[str]:
    return [f"{folder}{name}/{number}.jpg" for name in ("cat", "dog") for number in range(count)]


def lines(numbers: Iterable[int], form: str) -> bytes:
    return "\n".join(form.format(name, n) for name in ("cat", "dog") for n in numbers).encode()


SPLITS = {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}}


@pytest.mark.parametrize(
    "form",
    ["{}/{}", "{}/{}.jpg", "images/{}/{}.jpg", "./images/{}/{}.jpg", "C:\\data\\images\\{}\\{}.jpg", "{}/{}.jpg 0"],
    ids=["ids", "paths", "from the root", "dot", "windows", "with a number"],
)
def test_lists_of_splits_without_classes(form: str, tmp_path: Path) -> None:
    """Food-101: meta/train.txt and images/CLASS/*.jpg."""
    root = write_files(tmp_path / "food", images(in_classes("images/")))
    write_files(root, {"meta/train.txt": lines(range(4), form), "meta/test.txt": lines(range(4, 6), form)})
    write_files(root, {"meta/classes.txt": b"cat\ndog\n", "meta/labels.txt": b"Cat\nDog\n"})
    plan = plan_source(root)
    assert plan.counts == SPLITS
    assert "'meta/test.txt', 'meta/train.txt' say the splits" in "\n".join(plan.lines())
    assert plan_source(root, classes_from="folder").counts["train"] == {"cat": 5, "dog": 5}


def test_lists_of_splits_in_json(tmp_path: Path) -> None:
    root = write_files(tmp_path / "food", images(in_classes("images/")))
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        per_class = {name: [f"{name}/{n}" for n in numbers] for name in ("cat", "dog")}
        write_files(root, {f"meta/{split}.json": json.dumps(per_class).encode()})
        write_files(root, {f"meta/{split}.txt": lines(numbers, "{}/{}")})
    assert plan_source(root).counts == SPLITS


def test_tables_of_splits_that_repeat_the_classes_of_the_folders(tmp_path: Path) -> None:
    """EuroSAT: train.csv and test.csv of Filename, Label and ClassName."""
    root = write_files(tmp_path / "eurosat", images(in_classes()))
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        rows = [f"{n},{name}/{n}.jpg,{k},{name}" for k, name in enumerate(("cat", "dog")) for n in numbers]
        write_files(root, {f"{split}.csv": "\n".join([",Filename,Label,ClassName", *rows]).encode()})
    assert plan_source(root).counts == SPLITS


def test_lists_of_splits_where_the_classes_are_in_file_names(tmp_path: Path) -> None:
    """Oxford-IIIT Pets: images/cat_1.jpg and lines such as "cat_1 1 1 1"."""
    root = write_files(tmp_path / "pets", images(f"images/{name}_{n}.jpg" for name in ("cat", "dog") for n in range(6)))
    write_files(root, {"annotations/trainval.txt": lines(range(4), "{}_{} 1 1 1")})
    write_files(root, {"annotations/test.txt": lines(range(4, 6), "{}_{} 1 1 1")})
    assert plan_source(root).counts == SPLITS
    assert "--classes-from name ignores them" in "\n".join(plan_source(root).lines())
    assert plan_source(root, classes_from="name").counts["train"] == {"cat": 5, "dog": 5}


def test_the_lists_of_all_splits_in_one_json_file(tmp_path: Path) -> None:
    parts = {"train": range(4), "test": range(4, 6)}
    splits = {split: [f"{name}/{n}.jpg" for name in ("cat", "dog") for n in parts[split]] for split in parts}
    root = write_files(tmp_path / "set", {**images(in_classes()), "split.json": json.dumps(splits).encode()})
    plan = plan_source(root)
    assert plan.counts == SPLITS
    assert not plan.ignored


def test_lists_without_one_for_training(tmp_path: Path) -> None:
    """Speech Commands names what is for validation and testing; all else is for training."""
    root = write_files(tmp_path / "set", images(in_classes()))
    write_files(root, {"validation_list.txt": lines([4], "{}/{}.jpg"), "testing_list.txt": lines([5], "{}/{}.jpg")})
    one = {"cat": 1, "dog": 1}
    assert plan_source(root).counts == {"train": {"cat": 4, "dog": 4}, "val": one, "test": one}


def test_images_in_no_list_are_counted(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", images(in_classes(count=8)))
    write_files(root, {"train.txt": lines(range(4), "{}/{}.jpg"), "test.txt": lines(range(4, 6), "{}/{}.jpg")})
    plan = plan_source(root)
    assert plan.counts == SPLITS
    assert [(left.files, left.reason) for left in plan.ignored] == [(4, "in none of the lists of splits")]


def test_the_first_of_several_folds_is_used_and_said(tmp_path: Path) -> None:
    """DTD: labels/train1.txt … test10.txt."""
    root = write_files(tmp_path / "dtd", images(in_classes("images/")))
    for fold in (1, 2, 10):
        numbers = [(n + fold) % 6 for n in range(6)]
        write_files(root, {f"labels/train{fold}.txt": lines(numbers[:4], "{}/{}.jpg")})
        write_files(root, {f"labels/test{fold}.txt": lines(numbers[4:], "{}/{}.jpg")})
    plan = plan_source(root)
    assert plan.counts == SPLITS
    assert "of several folds of lists, fold 1 is used and 2, 10 are not" in "\n".join(plan.lines())


def test_a_list_of_training_and_validation_images_beside_both(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", images(in_classes()))
    for name, numbers in (("train", range(3)), ("val", [3]), ("trainval", range(4)), ("test", [4, 5])):
        write_files(root, {f"{name}.txt": lines(numbers, "{}/{}.jpg")})
    assert {split: sum(n.values()) for split, n in plan_source(root).counts.items()} == {
        "train": 6,
        "val": 2,
        "test": 4,
    }


def test_an_image_in_two_lists_is_refused_with_the_option_that_works(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", images(in_classes()))
    write_files(root, {"train.txt": lines(range(5), "{}/{}.jpg"), "test.txt": lines(range(4, 6), "{}/{}.jpg")})
    with pytest.raises(AlexNetError, match=r"--classes-from folder"):
        plan_source(root)
    assert plan_source(root, classes_from="folder").images == 12


def test_a_text_that_only_is_called_as_a_list(tmp_path: Path) -> None:
    root = write_files(
        tmp_path / "set", {**images(in_classes()), "train.txt": b"epochs 30\nloss 0.5\n", "test.txt": b"x\ny"}
    )
    plan = plan_source(root)
    assert set(plan.counts) == {"train", "val"}
    assert [(left.first, left.files) for left in plan.ignored] == [("test.txt", 2)]


# Archives inside a folder


@pytest.mark.parametrize("pack", [zip_bytes, partial(tar_bytes, mode="w:gz")])
@pytest.mark.parametrize("enclosing", ["", "{}/"], ids=["flat", "enclosed"])
def test_a_folder_of_one_archive_per_split(pack: Callable[[Files], bytes], enclosing: str, tmp_path: Path) -> None:
    ending = "zip" if pack is zip_bytes else "tar.gz"
    files = {}
    for split, count in (("train", 4), ("test", 2)):
        files[f"{split}.{ending}"] = pack(images(in_classes(enclosing.format(split), count)))
    root = write_files(tmp_path / "set", {**files, "sample_submission.csv": b"id,label\n1,cat\n"})
    plan = plan_source(root)
    assert plan.counts == SPLITS
    assert "2 archives in the folder read as folders" in "\n".join(plan.lines())
    dataset = prepare(root, tmp_path / "data", size=8, progress=False)
    assert dataset.counts == {"train": 8, "test": 4}


@pytest.mark.parametrize("enclosing", ["", "{}/"], ids=["flat", "enclosed"])
def test_a_folder_of_one_archive_per_class(enclosing: str, tmp_path: Path) -> None:
    files = {
        f"{name}.zip": zip_bytes(images(f"{enclosing.format(name)}{n}.jpg" for n in range(6)))
        for name in ("cat", "dog")
    }
    plan = plan_source(write_files(tmp_path / "set", files))
    assert {split: dict(counts) for split, counts in plan.counts.items()} == {
        "train": {"cat": 5, "dog": 5},
        "val": {"cat": 1, "dog": 1},
    }


def test_parts_in_archives_and_a_table(tmp_path: Path) -> None:
    """Images in images_001.tar.gz, images_002.tar.gz, their classes in a table."""
    parts = {part: images(f"images/{part}{n}.jpg" for n in range(4)) for part in (1, 2)}
    files = {f"images_{part:03}.tar.gz": tar_bytes(content, "w:gz") for part, content in parts.items()}
    table = "image,label\n" + "\n".join(f"{part}{n}.jpg,{'ab'[n % 2]}" for part in (1, 2) for n in range(4))
    plan = plan_source(write_files(tmp_path / "set", {**files, "labels.csv": table.encode()}))
    assert plan.images == 8
    assert plan.classes == ["a", "b"]


def test_an_archive_beside_its_unpacked_images_is_ignored(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", {**images(in_classes()), "all.zip": zip_bytes(images(in_classes()))})
    plan = plan_source(root)
    assert plan.images == 12
    assert [left.first for left in plan.ignored] == ["all.zip"]


def test_a_damaged_archive_in_a_folder_is_named(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", {"cat.zip": zip_bytes(images(["1.jpg"])), "dog.zip": b"PK\x03\x04 broken"})
    with pytest.raises(AlexNetError, match=r"dog\.zip is a damaged zip file"):
        plan_source(root)


def test_archives_beside_a_stray_image_are_named(tmp_path: Path) -> None:
    archives = {f"{name}.zip": zip_bytes(images(f"{n}.jpg" for n in range(3))) for name in ("cat", "dog")}
    root = write_files(tmp_path / "set", {**archives, "preview.jpg": jpeg()})
    with pytest.raises(AlexNetError, match=r"cat\.zip is an archive, and is read where the folder holds no image"):
        plan_source(root)
    (root / "preview.jpg").unlink()
    assert plan_source(root).classes == ["cat", "dog"]
