"""Cases A, B and E14: what a source is understood to be. One function per case, named by its number."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import pickle
import re
import shlex
import socket
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_trees import jpeg, write_files

from alexnet import plan_source, prepare
from alexnet.data.sources.interpretation import interpret
from alexnet.data.sources.items import Item, Source
from alexnet.data.sources.plan import SourcePlan
from alexnet.data.sources.registry import Request, register_source, unregister_source
from alexnet.data.sources.walking import image_files
from alexnet.runtime.errors import AlexNetError, UsageError

Counts = dict[str, dict[str, int]]


JPEG = jpeg()


def names(folder: str, count: int, ending: str = ".jpg") -> list[str]:
    return [f"{folder}/{number}{ending}" for number in range(count)]


def build(root: Path, files: Iterable[str] | dict[str, bytes | str]) -> Path:
    """A tree of files: images, but for those whose content is given."""
    return write_files(root, files if isinstance(files, dict) else dict.fromkeys(files, JPEG))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "source"


def counts(plan: SourcePlan) -> Counts:
    return plan.counts


def merged(plan: SourcePlan) -> dict[str, int]:
    """Class → images in all splits."""
    total: dict[str, int] = {}
    for per_class in plan.counts.values():
        for name, number in per_class.items():
            total[name] = total.get(name, 0) + number
    return total


def ignored(plan: SourcePlan) -> dict[str, int]:
    return {left.first: left.files for left in plan.ignored}


def said(plan: SourcePlan) -> str:
    return "\n".join(plan.lines())


def commands(message: str) -> list[list[str]]:
    """The options of each `alexnet prepare` command that a message names."""
    return [shlex.split(found)[4:] for found in re.findall(r"`(alexnet prepare [^`]*)`", message)]


def options_of(arguments: list[str]) -> dict[str, Any]:
    """The keyword arguments of a command's options."""
    from alexnet.data.splitting import parse_folders

    found: dict[str, Any] = {}
    for name, value in zip(arguments[::2], arguments[1::2], strict=True):
        key = name.removeprefix("--").replace("-", "_")
        found[key] = parse_folders(value) if key == "splits" else value
    return found


def ambiguous(root: Path, **options: Any) -> list[SourcePlan | str]:
    """Check that a source is refused with two readings or more, and run the command of each."""
    with pytest.raises(UsageError) as error:
        plan_source(root, **options)
    readings: list[SourcePlan | str] = []
    found = commands(str(error.value))
    assert found, str(error.value)
    for arguments in found:
        try:
            readings.append(plan_source(root, **options_of(arguments)))
        except AlexNetError as failure:
            readings.append(str(failure))
    return readings


# A1: enclosing folders with files beside them


def test_a1_an_enclosing_folder_with_a_license(tmp_path: Path) -> None:
    files = {f"flower_photos/{name}/{n}.jpg": JPEG for name in ("daisy", "roses", "tulips") for n in range(5)}
    files["flower_photos/LICENSE.txt"] = b"CC-BY"
    with tarfile.open(tmp_path / "flower_photos.tgz", "w:gz") as archive:
        archive.add(build(tmp_path / "x", files) / "flower_photos", "flower_photos")
    plan = plan_source(tmp_path / "flower_photos.tgz")
    assert merged(plan) == {"daisy": 5, "roses": 5, "tulips": 5}
    assert ignored(plan) == {"flower_photos/LICENSE.txt": 1}


def test_a1_a_hugging_face_folder_with_a_readme(root: Path) -> None:
    build(root, {**dict.fromkeys([*names("data/train/a", 4), *names("data/train/b", 4)], JPEG), "README.md": "# set"})
    build(root, names("data/test/a", 2) + names("data/test/b", 2))
    assert counts(plan_source(root)) == {"train": {"a": 4, "b": 4}, "test": {"a": 2, "b": 2}}


def test_a1_a_preview_image_beside_the_enclosing_folder(root: Path) -> None:
    build(root, ["preview.jpg", *names("set/v2/images/a", 9), *names("set/v2/images/b", 9)])
    plan = plan_source(root)
    assert merged(plan) == {"a": 9, "b": 9}
    assert ignored(plan) == {"preview.jpg": 1}


def test_a1_documents_beside_the_enclosing_folder(root: Path) -> None:
    build(root, ["docs/figure.png", *names("flowers/daisy", 9), *names("flowers/rose", 9)])
    assert merged(plan_source(root)) == {"daisy": 9, "rose": 9}


def test_a1_one_folder_of_class_folders_beside_a_small_one(root: Path) -> None:
    build(root, [*names("mixed/screens", 1)] + [f"flowers/{name}/{n}.jpg" for name in "abc" for n in range(20)])
    outer, inner = "flowers", ["a", "b", "c"]
    readings = ambiguous(root)
    assert [sorted(merged(reading)) for reading in readings if isinstance(reading, SourcePlan)] == [
        inner,
        [outer, "mixed"],
    ]


# A2: folders of splits


def test_a2_seg_train_doubled_beside_seg_pred(root: Path) -> None:
    for split, number in (("train", 6), ("test", 2)):
        build(root, [f"seg_{split}/seg_{split}/{name}/{n}.jpg" for name in ("sea", "street") for n in range(number)])
    build(root, names("seg_pred/seg_pred", 7))
    plan = plan_source(root)
    assert counts(plan) == {"train": {"sea": 6, "street": 6}, "test": {"sea": 2, "street": 2}}
    assert ignored(plan) == {"seg_pred/": 7}
    assert "seg_train/seg_train/" in said(plan)
    assert "no validation split" in said(plan)
    assert "--split val=0.1" in said(plan)


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("training_set", "test_set", "test"),
        ("train_images", "val_images", "val"),
        ("Training", "Validation", "val"),
        ("TrainData", "TestData", "test"),
        ("train", "valid", "val"),
        ("trainset", "testset", "test"),
        ("train2017", "val2017", "val"),
        ("1.Training", "2.Validation", "val"),
        ("dataset_train", "dataset_test", "test"),
        ("asl_alphabet_train", "asl_alphabet_test", "test"),
        ("TRAIN", "DEV", "val"),
        ("훈련", "검증", "val"),
    ],
)
def test_a2_names_of_splits(train: str, other: str, split: str, root: Path) -> None:
    build(root, [f"around/{train}/{name}/{n}.jpg" for name in "ab" for n in range(4)])
    build(root, [f"around/{other}/{name}/{n}.jpg" for name in "ab" for n in range(2)])
    assert counts(plan_source(root)) == {"train": {"a": 4, "b": 4}, split: {"a": 2, "b": 2}}


def test_a2_splits_within_each_class(root: Path) -> None:
    build(root, [f"{name}/{split}/{n}.jpg" for name in ("cat", "dog") for split in ("train", "val") for n in range(3)])
    assert counts(plan_source(root)) == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 3, "dog": 3}}


def test_a2_classes_whose_names_contain_a_split(root: Path) -> None:
    build(root, [*names("bullet_train", 6), *names("passenger_train", 6), *names("tram", 6)])
    plan = plan_source(root)
    assert merged(plan) == {"bullet_train": 6, "passenger_train": 6, "tram": 6}


def test_a2_classes_called_train_and_test_are_said(root: Path) -> None:
    build(root, [*names("train", 6), *names("car", 6), *names("test", 6)])
    plan = plan_source(root)
    assert merged(plan) == {"train": 6, "car": 6, "test": 6}
    assert "called as a split and taken as a class" in said(plan)


def test_a2_a_class_called_train_with_folders(root: Path) -> None:
    build(root, [f"train/{name}/{n}.jpg" for name in ("steam", "diesel") for n in range(4)])
    build(root, [f"car/{name}/{n}.jpg" for name in ("suv", "sedan") for n in range(4)])
    splits, folders = ambiguous(root)
    assert isinstance(splits, SourcePlan)
    assert isinstance(folders, SourcePlan)
    assert merged(splits) == {"steam": 4, "diesel": 4}
    assert merged(folders) == {"car": 8, "train": 8}


def test_a2_splits_that_hold_no_classes(root: Path) -> None:
    build(root, [*(f"train/{n:03}x.jpg" for n in range(6)), *(f"test/{n:03}y.jpg" for n in range(3))])
    (folders,) = ambiguous(root)
    assert isinstance(folders, SourcePlan)
    assert merged(folders) == {"train": 6, "test": 3}


def test_a2_a_split_without_classes_beside_one_with(root: Path) -> None:
    build(root, [*names("train/a", 5), *names("train/b", 5), *names("test", 4)])
    plan = plan_source(root)
    assert counts(plan) == {"train": {"a": 4, "b": 4}, "val": {"a": 1, "b": 1}}
    assert ignored(plan) == {"test/": 4}


def test_a2_variants_of_one_set(root: Path) -> None:
    """PlantVillage: the same images in color, gray and segmented."""
    build(root, [f"{kind}/{name}/{n}.jpg" for kind in ("color", "grayscale") for name in "abc" for n in range(4)])
    readings = ambiguous(root)
    assert [merged(reading) for reading in readings if isinstance(reading, SourcePlan)] == [
        {"color": 12, "grayscale": 12},
        {"a": 8, "b": 8, "c": 8},
        {"a": 4, "b": 4, "c": 4},
    ]


def test_a2_images_and_masks(root: Path) -> None:
    build(root, [f"{kind}/{n:03}x.jpg" for kind in ("images", "masks") for n in range(5)])
    with pytest.raises(AlexNetError, match="segmentation dataset"):
        plan_source(root)
    for number in range(5):
        (root / f"images/{number:03}x.jpg").unlink()
    build(root / "images", names("a", 4) + names("b", 4))
    plan = plan_source(root)
    assert merged(plan) == {"a": 4, "b": 4}
    assert ignored(plan) == {"masks/": 5}


def test_a2_a_copy_of_the_splits_beside_them(root: Path) -> None:
    """chest_xray/chest_xray/, as Kaggle packs it."""
    for at in ("", "chest_xray/"):
        build(root, [f"{at}{split}/{name}/{n}.jpg" for split in ("train", "val") for name in "ab" for n in range(3)])
    plan = plan_source(root)
    assert counts(plan) == {"train": {"a": 3, "b": 3}, "val": {"a": 3, "b": 3}}
    assert ignored(plan) == {"chest_xray/": 12}


def test_a2_options_choose(root: Path) -> None:
    build(root, [f"{part}/{name}/{n}.jpg" for part in ("fold1", "fold2", "fold3") for name in "ab" for n in range(3)])
    plan = plan_source(root, splits={"train": ["fold1", "fold2"], "val": ["fold3"]})
    assert counts(plan) == {"train": {"a": 6, "b": 6}, "val": {"a": 3, "b": 3}}
    assert merged(plan_source(root, root="fold1")) == {"a": 3, "b": 3}
    with pytest.raises(UsageError, match="no folder 'nothing'"):
        plan_source(root, root="nothing")
    with pytest.raises(UsageError, match="no folder 'nothing'"):
        plan_source(root, splits={"train": ["nothing"]})


def test_a2_only_a_test_split(root: Path) -> None:
    build(root, [*names("test/a", 5), *names("test/b", 5)])
    for reading in ambiguous(root):
        assert isinstance(reading, SourcePlan)
        assert merged(reading) == {"a": 5, "b": 5}


# Classes in file names


@pytest.mark.parametrize("pattern", ["{}.{}.jpg", "{}_{:03}.jpg", "{}-{}.jpg", "{} ({}).jpg", "{}{:02}.jpg"])
def test_a2_classes_in_file_names(pattern: str, root: Path) -> None:
    build(root, [pattern.format(name, n) for name in ("cat", "dog") for n in range(6)])
    plan = plan_source(root)
    assert merged(plan) == {"cat": 6, "dog": 6}
    assert "the classes are in the file names" in said(plan)


def test_a2_dogs_vs_cats_of_kaggle(root: Path) -> None:
    build(root, [f"train/{name}.{n}.jpg" for name in ("cat", "dog") for n in range(10)])
    build(root, [f"test1/{n}.jpg" for n in range(5)])
    plan = plan_source(root)
    assert counts(plan) == {"train": {"cat": 8, "dog": 8}, "val": {"cat": 2, "dog": 2}}
    assert list(ignored(plan).values()) == [5]


@pytest.mark.parametrize(
    "files",
    [
        [*(f"IMG_{n}.jpg" for n in range(6)), *(f"DSC_{n}.jpg" for n in range(6))],
        [f"{n:04}.jpg" for n in range(6)],
        [f"person_{n:02}_front.jpg" for n in range(6)],
        ["a.jpg", "b.jpg"],
    ],
)
def test_a2_names_from_cameras_are_no_classes(files: list[str], root: Path) -> None:
    with pytest.raises(AlexNetError, match="no classes in"):
        plan_source(build(root, files))


# A3: classes without an image


def test_a3_a_class_without_a_readable_image(root: Path, tmp_path: Path) -> None:
    build(root, [*names("a", 30), *names("b", 30)])
    build(root, {f"c/{n}.heic": b"\0\0\0\x18ftypheic" + bytes(50) for n in range(3)})
    with pytest.raises(AlexNetError, match=r"1 class without a training image that can be read \('c'\), such as c/"):
        prepare(root, tmp_path / "data", size=8, workers=1, max_bad=0.1, progress=False)
    for file in (root / "c").iterdir():
        file.unlink()
    dataset = prepare(root, tmp_path / "data", size=8, workers=1, max_bad=0.1, progress=False)
    assert dataset.classes == ["a", "b"]


def test_a3_an_empty_class_folder_is_named(root: Path) -> None:
    build(root, [*names("a", 4), *names("b", 4)])
    (root / "c").mkdir()
    plan = plan_source(root)
    assert merged(plan) == {"a": 4, "b": 4}
    assert ignored(plan) == {"c/": 1}


def test_a3_a_class_only_in_validation(root: Path) -> None:
    build(root, [*names("train/a", 4), *names("train/b", 4), *names("val/a", 2), *names("val/c", 2)])
    with pytest.raises(AlexNetError, match=r"1 class of .* without an image to train on \('c'\)"):
        plan_source(root)


def test_a3_a_split_without_a_class(root: Path) -> None:
    build(root, [*names("train/a", 4), *names("train/b", 4), *names("val/a", 2)])
    assert "split val has no image of 1 class ('b')" in said(plan_source(root))


def test_a3_one_class(root: Path) -> None:
    with pytest.raises(AlexNetError, match=r"only one class in .*, 'a': a classifier needs at least two"):
        plan_source(build(root, names("a", 4)))


# A4: files beside images


@pytest.mark.parametrize("ending", [".json", ".xml", ".txt", ".aae", ".xmp"])
def test_a4_a_file_beside_every_image(ending: str, root: Path, tmp_path: Path) -> None:
    build(root, [*names("a", 5), *names("b", 5)])
    build(root, dict.fromkeys([*names("a", 5, ending), *names("b", 5, ending)], "{}"))
    plan = plan_source(root)
    assert merged(plan) == {"a": 5, "b": 5}
    assert list(ignored(plan).values()) == [10]
    assert len(list(image_files(root))) == 10
    dataset = prepare(root, tmp_path / "data", size=8, workers=1, progress=False)
    assert dataset.left_out == []


# A5: what the program wrote


def test_a5_the_output_folder_within_the_source(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(root, [*names("cat", 5), *names("dog", 5)])
    monkeypatch.chdir(root)
    for data in ("data", "again"):
        dataset = prepare(".", data, size=8, workers=1, progress=False)
        assert dataset.classes == ["cat", "dog"]
    build(root, {"run/config.json": "{}", "run/metrics.jsonl": "", "run/figure.png": JPEG})
    plan = plan_source(".")
    assert merged(plan) == {"cat": 5, "dog": 5}
    assert ignored(plan) == {"again/": 2, "run/": 1}
    with pytest.raises(AlexNetError, match="is a prepared dataset already: train on it"):
        plan_source("data")
    with pytest.raises(AlexNetError, match="is a run folder"):
        plan_source("run")


# A6: one split only


def test_a6_only_training_images(root: Path) -> None:
    build(root, [*names("train/a", 10), *names("train/b", 5)])
    plan = plan_source(root)
    assert counts(plan) == {"train": {"a": 8, "b": 4}, "val": {"a": 2, "b": 1}}
    assert "0.2 of the training images" in said(plan)


def test_a6_one_parquet_file(root: Path) -> None:
    root.mkdir()
    pq.write_table(pa.table({"image": [JPEG] * 10, "label": ["a", "b"] * 5}), root / "train.parquet")
    for source in (root, root / "train.parquet"):
        assert counts(plan_source(source)) == {"train": {"a": 4, "b": 4}, "val": {"a": 1, "b": 1}}


# A7 to A9: names


def windows_zip(path: Path, encoding: str = "cp949", names: tuple[str, str] = ("사과", "배")) -> Path:
    """A zip as Windows writes it, names in the code page without the flag of UTF-8; `zipfile` cannot write one."""
    body, directory = b"", b""
    for number in range(8):
        name = f"{names[number % 2]}/{number}.jpg".encode(encoding)
        sizes = struct.pack("<III", zlib.crc32(JPEG), len(JPEG), len(JPEG))
        common = struct.pack("<HHHHH", 20, 0, 0, 0, 0x21) + sizes + struct.pack("<HH", len(name), 0)
        offset = len(body)
        body += b"PK\3\4" + common + name + JPEG
        directory += b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 8, 8, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def test_a7_korean_names_in_a_zip_from_windows(tmp_path: Path) -> None:
    plan = plan_source(windows_zip(tmp_path / "fruit.zip"))
    assert merged(plan) == {"사과": 4, "배": 4}
    assert "CP949" in said(plan)
    assert "--encoding" in said(plan)


def test_a7_other_encodings_are_asked_for(tmp_path: Path) -> None:
    path = windows_zip(tmp_path / "fruit.zip", "shift_jis", ("りんご", "なし"))
    with pytest.raises(UsageError, match=r"names are not UTF-8; .*shift_jis: 'りんご.*--encoding"):
        plan_source(path)
    assert merged(plan_source(path, encoding="shift_jis")) == {"りんご": 4, "なし": 4}
    with pytest.raises(UsageError, match="'klingon' does not exist"):
        plan_source(path, encoding="klingon")


def test_a7_utf8_names_without_the_flag(tmp_path: Path) -> None:
    assert merged(plan_source(windows_zip(tmp_path / "fruit.zip", "utf-8", ("사과", "배")))) == {"사과": 4, "배": 4}


def test_a7_utf8_names_with_the_flag(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "fruit.zip", "w") as archive:
        for number in range(8):
            archive.writestr(f"{('사과', '배')[number % 2]}/{number}.jpg", JPEG)
    assert merged(plan_source(tmp_path / "fruit.zip")) == {"사과": 4, "배": 4}


def test_a8_two_unicode_forms_are_one_class(root: Path) -> None:
    composed = "사과"
    decomposed = unicodedata.normalize("NFD", composed)
    build(
        root,
        [*names(f"train/{composed}", 3), *names(f"val/{decomposed}", 3), *names("train/배", 3), *names("val/배", 3)],
    )
    assert counts(plan_source(root)) == {"train": {"배": 3, "사과": 3}, "val": {"배": 3, "사과": 3}}
    table = root.parent / "table.csv"
    table.write_text(
        "path,label\n"
        + "".join(f"source/train/{name}/{n}.jpg,{name}\n" for name in (decomposed, "배") for n in range(3))
    )
    assert merged(plan_source(table)) == {"사과": 3, "배": 3}
    assert not any("without an image" in warning for warning in plan_source(table).warnings)


def test_a9_folder_names_that_are_not_utf8(root: Path) -> None:
    build(root, names("b", 4))
    for name in (b"\xbb\xe7\xb0\xfa", b"caf\xe9"):
        folder = os.path.join(os.fsencode(root), name)
        os.mkdir(folder)
        with open(os.path.join(folder, b"1.jpg"), "wb") as file:
            file.write(JPEG)
        if name.startswith(b"caf"):
            with pytest.raises(UsageError, match="names are not UTF-8") as error:
                plan_source(root)
            str(error.value).encode()
            assert set(merged(plan_source(root, encoding="cp1252"))) == {"b", "café"}
        else:
            assert merged(plan_source(root)) == {"b": 4, "사과": 1}
        os.unlink(os.path.join(folder, b"1.jpg"))
        os.rmdir(folder)


# A10: links and special files


def test_a10_pipes_and_sockets(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(root, [*names("a", 4), *names("b", 4)])
    os.mkfifo(root / "a" / "pipe.jpg")
    monkeypatch.chdir(root / "b")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        plan = plan_source(root)
    assert merged(plan) == {"a": 4, "b": 4}
    assert set(ignored(plan)) == {"a/pipe.jpg", "b/socket.png"}
    assert prepare(root, tmp_path / "data", size=8, workers=1, progress=False).left_out == []


def test_a10_links_to_class_folders_and_loops(root: Path) -> None:
    build(root, [*names("pool/a", 4), *names("pool/b", 4)])
    for split in ("train", "val"):
        (root / "set" / split).mkdir(parents=True)
        for name in "ab":
            (root / "set" / split / name).symlink_to(root / "pool" / name)
    (root / "set" / "train" / "a" / "loop").symlink_to(root / "set")
    plan = plan_source(root / "set")
    assert counts(plan) == {"train": {"a": 4, "b": 4}, "val": {"a": 4, "b": 4}}
    assert any("a link to a folder above it" in left.reason for left in plan.ignored)


def test_a10_broken_links_are_images_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    build(root, [*names("a", 4), *names("b", 4)])
    (root / "a" / "9.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(AlexNetError, match=r"a/9\.jpg: a link to a file that does not exist"):
        prepare(root, tmp_path / "data", size=8, workers=1, progress=False)


def test_a10_hard_links_in_a_tar(root: Path, tmp_path: Path) -> None:
    build(root, names("a", 3))
    (root / "b").mkdir()
    os.link(root / "a/0.jpg", root / "b/0.jpg")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(root, ".")
    assert merged(plan_source(tmp_path / "set.tar")) == {"a": 3, "b": 1}


# A11: what is no source


def test_a11_a_web_address() -> None:
    with pytest.raises(UsageError) as error:
        plan_source("https://example.com/flowers.zip")
    assert "https://example.com/flowers.zip is a web address" in str(error.value)
    assert "`curl -L -o flowers.zip https://example.com/flowers.zip`" in str(error.value)
    with pytest.raises(UsageError, match=r"https://example\.com/a\.zip is a web address"):
        plan_source(Path("https://example.com/a.zip"))
    with pytest.raises(UsageError, match="s3://bucket/images is an address"):
        plan_source("s3://bucket/images")


def test_a11_a_zstandard_tar(root: Path, tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.add(build(root, [*names("a", 2), *names("b", 2)]), "set")
    with pa.output_stream(str(tmp_path / "set.tar.zst"), compression="zstd") as file:
        file.write(plain.getvalue())
    assert merged(plan_source(tmp_path / "set.tar.zst")) == {"a": 2, "b": 2}


@pytest.mark.parametrize("packed", [False, True])
def test_a11_mnist_as_its_authors_publish_it(packed: bool, root: Path, tmp_path: Path) -> None:
    for split, number in (("train", 20), ("t10k", 10)):
        images = np.random.default_rng(0).integers(0, 256, (number, 28, 28), np.uint8)
        files = {
            f"{split}-images-idx3-ubyte": struct.pack(">IIII", 2051, number, 28, 28) + images.tobytes(),
            f"{split}-labels-idx1-ubyte": struct.pack(">II", 2049, number) + bytes(n % 2 for n in range(number)),
        }
        build(root, {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if packed else files)
    assert counts(plan_source(root)) == {"train": {"0": 10, "1": 10}, "test": {"0": 5, "1": 5}}
    first = root / ("train-images-idx3-ubyte" + ".gz" * packed)
    assert merged(plan_source(first)) == {"0": 15, "1": 15}
    dataset = prepare(root, tmp_path / "data", size=28, workers=1, progress=False)
    assert (dataset.split("test").gather(np.arange(10))[..., 0] == images).all()


def cifar(kind: str) -> dict[str, bytes]:
    rows = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)
    names = [b"airplane", b"automobile"]
    files = {}
    for batch in ("data_batch_1", "test_batch"):
        if kind == "python":
            files[batch] = pickle.dumps({b"data": rows, b"labels": [0, 1, 0, 1]}, 2)
        else:
            files[f"{batch}.bin"] = b"".join(bytes([n % 2]) + row.tobytes() for n, row in enumerate(rows))
    if kind == "python":
        files["batches.meta"] = pickle.dumps({b"label_names": names}, 2)
    else:
        files["batches.meta.txt"] = b"airplane\nautomobile\n"
    return files


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_a11_cifar_as_its_authors_publish_it(kind: str, tmp_path: Path) -> None:
    folder = "cifar-10-batches-py" if kind == "python" else "cifar-10-batches-bin"
    build(tmp_path / "x" / folder, cifar(kind))
    with tarfile.open(tmp_path / f"cifar-10-{kind}.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x" / folder, folder)
    for source in (tmp_path / "x", tmp_path / f"cifar-10-{kind}.tar.gz"):
        plan = plan_source(source)
        assert counts(plan) == {"train": {"airplane": 2, "automobile": 2}, "test": {"airplane": 2, "automobile": 2}}


def test_a11_a_batch_of_cifar_runs_no_code(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    files = cifar("python")
    files["data_batch_1"] = pickle.dumps(Command())
    with pytest.raises(AlexNetError, match="damaged batch of CIFAR"):
        plan_source(build(tmp_path / "cifar-10-batches-py", files))
    assert not (tmp_path / "ran").exists()


def test_a11_tiny_imagenet(root: Path) -> None:
    wnids = ("n01443537", "n01629819")
    build(root, [f"train/{wnid}/images/{wnid}_{n}.JPEG" for wnid in wnids for n in range(4)])
    build(root, {f"train/{wnid}/{wnid}_boxes.txt": "x" for wnid in wnids})
    build(root, [f"val/images/val_{n}.JPEG" for n in range(2)] + ["test/images/test_0.JPEG"])
    lines = "".join(f"val_{n}.JPEG\t{wnids[n]}\t0\t0\t62\t62\n" for n in range(2))
    build(root, {"val/val_annotations.txt": lines, "wnids.txt": "\n".join(wnids)})
    build(root, {"words.txt": "n01443537\tgoldfish\nn01629819\tsalamander\n"})
    assert counts(plan_source(root)) == {"train": dict.fromkeys(wnids, 4), "val": dict.fromkeys(wnids, 1)}


def test_a11_cub(root: Path) -> None:
    files = [f"{cls}/{cls}_{n}.jpg" for cls in ("001.Albatross", "002.Auklet") for n in range(3)]
    build(root / "CUB_200_2011/images", files)
    rows = list(enumerate(files, 1))
    build(
        root / "CUB_200_2011",
        {
            "images.txt": "".join(f"{n} {name}\n" for n, name in rows),
            "image_class_labels.txt": "".join(f"{n} {int(name[2])}\n" for n, name in rows),
            "classes.txt": "1 001.Albatross\n2 002.Auklet\n",
            "train_test_split.txt": "".join(f"{n} {int(n % 3 != 0)}\n" for n, _ in rows),
        },
    )
    assert counts(plan_source(root)) == {
        "train": {"001.Albatross": 2, "002.Auklet": 2},
        "test": {"001.Albatross": 1, "002.Auklet": 1},
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"images/train/0x.jpg": JPEG, "labels/train/0x.txt": "0 .5 .5 .1 .1"}, r"object detection dataset \(YOLO"),
        ({"JPEGImages/0x.jpg": JPEG, "Annotations/0x.xml": "<a/>"}, r"object detection dataset \(Pascal VOC"),
        ({"train.tfrecord": "x"}, "a TensorFlow record file"),
        ({"train.zip": "x", "test.zip": "x"}, "test.zip is a damaged zip file"),
    ],
)
def test_a11_other_datasets(files: dict[str, Any], expected: str, root: Path) -> None:
    with pytest.raises(AlexNetError, match=expected):
        plan_source(build(root, files))


def test_a11_yolo_classification(root: Path) -> None:
    build(root, [f"{split}/{name}/{n}.jpg" for split in ("train", "val", "test") for name in "ab" for n in range(2)])
    build(root, {"train.cache": "x", "val.cache": "x", "data.yaml": "x"})
    assert {split: sum(found.values()) for split, found in plan_source(root).counts.items()} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }


# Tables beside images


def rows(names: Iterable[str], label: Callable[[int], str], header: str = "file_name,label") -> str:
    return header + "\n" + "".join(f"{name},{label(n)}\n" for n, name in enumerate(names))


@pytest.mark.parametrize(
    ("table", "header", "shown"),
    [
        ("metadata.csv", "file_name,label", "train/{}.jpg"),
        ("labels.csv", "id,breed", "{}"),
        ("train.csv", "image_id,label", "{}.jpg"),
        ("_annotations.csv", "filename,class", "{}.jpg"),
        ("train_labels.csv", "id,label", "{}"),
        ("data.csv", "Image Path,Class Name", "train\\{}.jpg"),
    ],
)
def test_a2_a_table_beside_the_images(table: str, header: str, shown: str, root: Path) -> None:
    build(root, [f"train/x{n}q.jpg" for n in range(8)] + [f"test/y{n}q.jpg" for n in range(3)])
    build(root, {table: rows((shown.format(f"x{n}q") for n in range(8)), lambda n: "ab"[n % 2], header)})
    build(root, {"sample_submission.csv": rows([f"y{n}q" for n in range(3)], lambda n: "a", header)})
    plan = plan_source(root)
    assert merged(plan) == {"a": 4, "b": 4}
    assert sum(left.files for left in plan.ignored if left.reason.startswith("not in")) == 3


def test_a2_a_table_in_each_split(root: Path) -> None:
    for split in ("train", "valid"):
        build(root, [f"{split}/{split}{n}q.jpg" for n in range(4)])
        build(
            root,
            {
                f"{split}/_classes.csv": rows(
                    [f"{split}{n}q.jpg" for n in range(4)],
                    lambda n: f"{n % 2},{1 - n % 2}",
                    "filename,cat,dog",
                )
            },
        )
    assert counts(plan_source(root)) == {"train": {"cat": 2, "dog": 2}, "val": {"cat": 2, "dog": 2}}


def test_a2_metadata_jsonl(root: Path) -> None:
    build(root, [f"train/x{n}q.jpg" for n in range(4)])
    lines = "".join(json.dumps({"file_name": f"x{n}q.jpg", "label": n % 2}) + "\n" for n in range(4))
    build(root, {"train/metadata.jsonl": lines})
    assert merged(plan_source(root)) == {"0": 2, "1": 2}


def test_a2_a_table_that_says_other_classes_than_the_folders(root: Path) -> None:
    """HAM10000: images in two folders of parts, classes in a table."""
    build(root, [f"scans_{part}/{part}x{n}q.jpg" for part in "ab" for n in range(6)])
    table = rows((f"{part}x{n}q" for part in "ab" for n in range(6)), lambda n: ("mel", "nv")[n % 2], "image_id,dx")
    build(root, {"metadata.csv": table})
    folders, by_table = ambiguous(root)
    assert isinstance(folders, SourcePlan)
    assert isinstance(by_table, SourcePlan)
    assert merged(folders) == {"scans_a": 6, "scans_b": 6}
    assert merged(by_table) == {"mel": 6, "nv": 6}


def test_a2_parts_of_a_set_and_a_table(root: Path) -> None:
    build(root, [f"images_part_{part}/{part}x{n}q.jpg" for part in (1, 2) for n in range(6)])
    table = rows((f"{part}x{n}q" for part in (1, 2) for n in range(6)), lambda n: ("mel", "nv")[n % 2], "image_id,dx")
    build(root, {"metadata.csv": table})
    assert merged(plan_source(root)) == {"mel": 6, "nv": 6}


def test_a2_a_test_split_whose_classes_are_in_a_table(root: Path) -> None:
    """GTSRB: class folders to train on, and a table for the test images."""
    build(root, [f"Train/{name}/{name}{n}q.png" for name in "01" for n in range(4)])
    build(root, [f"Test/{n}q.png" for n in range(4)] + ["Meta/0.png", "Meta/1.png"])
    build(root, {"Test.csv": rows((f"Test/{n}q.png" for n in range(4)), lambda n: f"{n % 2}", "Path,ClassId")})
    training = [f"Train/{name}/{name}{n}q.png" for name in "01" for n in range(4)]
    build(root, {"Train.csv": rows(training, lambda n: f"{n // 4}", "Path,ClassId")})
    plan = plan_source(root)
    assert counts(plan) == {"train": {"0": 4, "1": 4}, "test": {"0": 2, "1": 2}}
    assert ignored(plan)["Meta/"] == 2


def test_a2_tiny_imagenet_in_an_archive(root: Path, tmp_path: Path) -> None:
    build(root, [f"train/{wnid}/images/{wnid}_{n}.JPEG" for wnid in ("n01", "n02") for n in range(4)])
    build(root, [f"val/images/val_{n}.JPEG" for n in range(4)] + ["test/images/test_0.JPEG"])
    lines = "".join(f"val_{n}.JPEG\tn0{n % 2 + 1}\t0\t0\t62\t62\n" for n in range(4))
    build(root, {"val/val_annotations.txt": lines, "wnids.txt": "n01\nn02\n"})
    with tarfile.open(tmp_path / "tiny.tar", "w") as archive:
        archive.add(root, "tiny-imagenet-200")
    assert counts(plan_source(tmp_path / "tiny.tar")) == {"train": {"n01": 4, "n02": 4}, "val": {"n01": 2, "n02": 2}}


def test_a2_masks_beside_images_with_classes_in_their_names(root: Path) -> None:
    """Oxford-IIIT Pet: the trimaps are called as the images are."""
    files = [f"{name}_{n}" for name in ("Abyssinian", "beagle") for n in range(4)]
    build(root, [f"images/{name}.jpg" for name in files] + [f"annotations/trimaps/{name}.png" for name in files])
    build(root, {"annotations/list.txt": "".join(f"{name} 1 1 1\n" for name in files)})
    plan = plan_source(root)
    assert merged(plan) == {"Abyssinian": 4, "beagle": 4}
    assert ignored(plan)["annotations/"] == 8


def test_a2_class_files_of_webdataset(root: Path, tmp_path: Path) -> None:
    build(root, {f"{n:04}.jpg": JPEG for n in range(6)} | {f"{n:04}.cls": str(n % 2) for n in range(6)})
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as archive:
        archive.add(root, ".")
    assert merged(plan_source(tmp_path / "shard-000000.tar")) == {"0": 3, "1": 3}


def test_a2_classes_that_contain_different_splits(root: Path) -> None:
    build(root, [f"{name}/indoors/{n}.jpg" for name in ("steam train", "test tube", "cat") for n in range(3)])
    assert merged(plan_source(root)) == {"steam train": 3, "test tube": 3, "cat": 3}


def test_a2_a_class_called_train_beside_one_with_a_split_in_its_name(root: Path) -> None:
    build(root, ["train/0x.jpg", "train/indoors/1x.jpg", *names("test tube", 2)])
    readings = [reading for reading in ambiguous(root) if isinstance(reading, SourcePlan)]
    assert {"train": 2, "test tube": 2} in [merged(reading) for reading in readings]


def test_a2_a_flat_test_folder_of_the_same_name_as_the_training_folder(root: Path) -> None:
    """ASL Alphabet: asl_alphabet_test/asl_alphabet_test/A_test.jpg."""
    build(root, [f"asl_train/asl_train/{name}/{n}q.jpg" for name in "AB" for n in range(5)])
    build(root, ["asl_test/asl_test/A_test.jpg", "asl_test/asl_test/B_test.jpg"])
    plan = plan_source(root)
    assert counts(plan) == {"train": {"A": 4, "B": 4}, "val": {"A": 1, "B": 1}}
    assert ignored(plan) == {"asl_test/": 2}


def test_a2_a_folder_called_data_beside_others(root: Path) -> None:
    build(root, [*names("data/a", 5), *names("data/b", 5), *names("c", 2)])
    readings = [merged(reading) for reading in ambiguous(root) if isinstance(reading, SourcePlan)]
    assert readings == [{"a": 5, "b": 5}, {"c": 2, "data": 10}]


def test_b3_no_row_has_its_image(tmp_path: Path) -> None:
    table = table_of(tmp_path / "x", PLAIN)
    (tmp_path / "tables").mkdir()
    moved = table.rename(tmp_path / "tables" / "labels.csv")
    with pytest.raises(AlexNetError, match=r"none of the 6 images of .* can be used") as error:
        plan_source(moved)
    assert commands(str(error.value)) == [["--root", "FOLDER"]]
    assert merged(plan_source(moved, root=str(tmp_path / "x"))) == {"a": 3, "b": 3}


def test_a2_a_class_name_with_a_line_break(root: Path) -> None:
    build(root, [*names("a\nb", 4), *names("c", 4)])
    lines = plan_source(root).lines()
    assert all("\n" not in line for line in lines)


# B: tables


def table_of(tmp_path: Path, text: str | bytes, name: str = "labels.csv", images: int = 6) -> Path:
    build(tmp_path, [f"{n}.jpg" for n in range(images)])
    build(tmp_path, {name: text})
    return tmp_path / name


PLAIN = "path,label\n" + "".join(f"{n}.jpg,{'ab'[n % 2]}\n" for n in range(6))


@pytest.mark.parametrize("rows_after", [3, 20000])
def test_b1_a_stray_quotation_mark(rows_after: int, tmp_path: Path) -> None:
    text = 'path,label\n0.jpg,a\n1.jpg,"b\n' + "".join(f"{n % 6}.jpg,a\n" for n in range(rows_after))
    with pytest.raises(AlexNetError, match=r"labels\.csv, line 3: a quotation mark"):
        plan_source(table_of(tmp_path, text))


def test_b1_a_quotation_mark_that_another_closes(tmp_path: Path) -> None:
    text = 'path,label\n0.jpg,a\n"1.jpg,b\n2.jpg,a\n3.jpg",b\n4.jpg,a\n'
    with pytest.raises(AlexNetError, match=r"labels\.csv, line 3: a quotation mark"):
        plan_source(table_of(tmp_path, text))


@pytest.mark.parametrize(
    "encoded",
    [
        codecs.BOM_UTF8 + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n").encode(),
        b"\n" + PLAIN.encode(),
        PLAIN.replace("path,label", '"Path" , "Label"').replace(" , ", ",").encode(),
        PLAIN.replace("path", "filename").replace("label", "class").encode(),
        PLAIN.replace(".jpg", "").replace("path", "id").encode(),
        b"".join(b'"' + line.replace(b",", b'","') + b'"\r\n' for line in PLAIN.encode().split()),
        b",path,label\n" + b"".join(b"%d,%d.jpg,%s\n" % (n, n, b"ab"[n % 2 : n % 2 + 1]) for n in range(6)),
        PLAIN.replace("0.jpg", "./0.jpg").replace("1.jpg", ".\\1.jpg").encode(),
        PLAIN.replace("0.jpg", "C:\\Users\\me\\photos\\0.jpg").encode(),
        PLAIN.replace("0.jpg", "/home/someone/photos/0.jpg").encode(),
    ],
)
def test_b_tables_by_other_programs(encoded: bytes, tmp_path: Path) -> None:
    plan = plan_source(table_of(tmp_path, encoded))
    assert merged(plan) == {"a": 3, "b": 3}
    assert not any("without an image" in warning for warning in plan.warnings)


def test_b_korean_labels_in_cp949(tmp_path: Path) -> None:
    text = PLAIN.replace(",a", ",사과").replace(",b", ",배")
    plan = plan_source(table_of(tmp_path, text.encode("cp949")))
    assert merged(plan) == {"사과": 3, "배": 3}
    assert "CP949" in said(plan)
    latin = PLAIN.replace(",a", ",Käfer").encode("cp1252")
    with pytest.raises(UsageError, match=r"is not UTF-8 text \(line 2\).*--encoding"):
        plan_source(table_of(tmp_path, latin))
    assert merged(plan_source(tmp_path / "labels.csv", encoding="cp1252")) == {"Käfer": 3, "b": 3}


@pytest.mark.parametrize(
    ("label", "line"), [('"[0, 2]"', 2), ("cat|outdoor", 2), ('"a, b"', 2), ("a b", 2), ("\"['a', 'b']\"", 2)]
)
def test_b2_several_labels(label: str, line: int, tmp_path: Path) -> None:
    text = PLAIN.replace("0.jpg,a", f"0.jpg,{label}")
    with pytest.raises(AlexNetError, match=rf"line {line}: .* is several labels; a classifier needs one class"):
        plan_source(table_of(tmp_path, text))


def test_b2_commas_in_a_label_are_not_several_labels(tmp_path: Path) -> None:
    text = PLAIN.replace(",a", ',"tench, Tinca tinca"')
    assert merged(plan_source(table_of(tmp_path, text))) == {"tench, Tinca tinca": 3, "b": 3}


def test_b2_one_image_under_two_labels(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"line 8: 0\.jpg is 'b', and 'a' in line 2"):
        plan_source(table_of(tmp_path, PLAIN + "0.jpg,b\n"))
    plan = plan_source(table_of(tmp_path, PLAIN + "./0.jpg,a\n"))
    assert merged(plan) == {"a": 3, "b": 3}
    assert "1 row that repeats an image" in said(plan)


def test_b2_several_marked_columns(tmp_path: Path) -> None:
    text = "path,cat,dog\n0.jpg,1,0\n1.jpg,0,1\n2.jpg,1,1\n"
    with pytest.raises(AlexNetError, match=r"line 4: 2 classes marked \('cat', 'dog'\)"):
        plan_source(table_of(tmp_path, text))
    assert merged(plan_source(table_of(tmp_path, text.replace("1,1", "1.0,0.0")))) == {"cat": 2, "dog": 1}


def test_b2_several_labels_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [JPEG] * 3, "label": [[0], [0, 2], [1]]}), tmp_path / "train.parquet")
    with pytest.raises(AlexNetError, match=r"row 1: the label is \[0, 2\], several classes"):
        plan_source(tmp_path / "train.parquet")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~/nothing.jpg", "no such file"),
        ("https://example.com/0.jpg", "a web address"),
        (".", "a folder, not an image"),
        ("nothing.jpg", "no such file"),
        ("pipe.jpg", "a named pipe, socket or device"),
        ("pipe.tif", "a named pipe, socket or device"),
    ],
)
def test_b3_rows_without_an_image(path: str, reason: str, tmp_path: Path) -> None:
    table = table_of(tmp_path / "source", PLAIN.replace("2.jpg", path))
    for name in ("pipe.jpg", "pipe.tif"):
        os.mkfifo(tmp_path / "source" / name)
    with pytest.raises(AlexNetError) as error:
        prepare(table, tmp_path / "data", size=8, workers=1, progress=False)
    assert reason in str(error.value)
    assert path.startswith("pipe") or "line 4" in str(error.value)
    dataset = prepare(table, tmp_path / "data", size=8, workers=1, max_bad=0.5, progress=False)
    assert len(dataset.left_out) == 1


def test_b3_a_nul(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"labels\.csv, line 4: a NUL character"):
        plan_source(table_of(tmp_path, PLAIN.replace("2.jpg", "2\0.jpg")))


def test_b3_rows_without_bytes(tmp_path: Path) -> None:
    image = [{"bytes": JPEG, "path": None}, {"bytes": None, "path": None}, {"bytes": JPEG, "path": None}] * 2
    pq.write_table(pa.table({"image": image, "label": ["a", "b"] * 3}), tmp_path / "train.parquet")
    with pytest.raises(AlexNetError, match=r"train\.parquet#1: no image in this row"):
        prepare(tmp_path / "train.parquet", tmp_path / "data", size=8, workers=1, progress=False)


def test_b4_labels_as_floats(tmp_path: Path) -> None:
    text = PLAIN.replace(",a", ",0.0").replace(",b", ",1.0")
    assert merged(plan_source(table_of(tmp_path, text))) == {"0": 3, "1": 3}
    assert merged(plan_source(table_of(tmp_path, text.replace("0.jpg,0.0", "0.jpg,0.5")))) == {
        "0.5": 1,
        "0.0": 2,
        "1.0": 3,
    }
    pq.write_table(pa.table({"image": [JPEG] * 4, "label": [0.0, 1.0, 0.0, 1.0]}), tmp_path / "train.parquet")
    assert merged(plan_source(tmp_path / "train.parquet")) == {"0": 2, "1": 2}


def test_b4_unique_labels_are_said(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{n}.jpg,thing {n}\n" for n in range(12))
    plan = plan_source(table_of(tmp_path, text, images=12))
    assert "12 classes for 12 images" in said(plan)
    assert "no validation split" in said(plan)


@pytest.mark.parametrize("values", [("True", "False"), ("1", "0"), ("true", ""), ("1.0", "0.0")])
def test_b4_a_column_is_valid(values: tuple[str, str], tmp_path: Path) -> None:
    lines = [f"{n}.jpg,{'ab'[n % 2]},{values[n < 4]}" for n in range(6)]
    plan = plan_source(table_of(tmp_path, "name,label,is_valid\n" + "\n".join(lines) + "\n"))
    assert counts(plan) == {"train": {"a": 2, "b": 2}, "val": {"a": 1, "b": 1}}


def test_b4_numbers_and_names_of_classes(tmp_path: Path) -> None:
    lines = [f"{n}.jpg,{n % 2},{('cat', 'dog')[n % 2]}" for n in range(6)]
    plan = plan_source(table_of(tmp_path, "path,class_id,class_name\n" + "\n".join(lines) + "\n"))
    assert merged(plan) == {"cat": 3, "dog": 3}


def test_b4_other_columns_are_not_splits(tmp_path: Path) -> None:
    lines = [f"{n}.jpg,{n % 2},{('rosendahl', 'vidir')[n % 2]}" for n in range(6)]
    plan = plan_source(table_of(tmp_path, "path,label,dataset\n" + "\n".join(lines) + "\n"))
    assert list(plan.counts) == ["train", "val"]


def test_b4_an_image_in_two_splits(tmp_path: Path) -> None:
    lines = [f"{n}.jpg,{n % 2},{('train', 'val')[n > 3]}" for n in range(6)]
    text = "path,label,split\n" + "\n".join([*lines, "0.jpg,0,val"]) + "\n"
    with pytest.raises(AlexNetError, match=r"line 8: 0\.jpg is in split val, and in train in line 2"):
        plan_source(table_of(tmp_path, text))


def test_b_names_in_another_case(tmp_path: Path) -> None:
    plan = plan_source(table_of(tmp_path, PLAIN.replace("0.jpg", "0.JPG")))
    assert merged(plan) == {"a": 3, "b": 3}
    assert not any("without an image" in warning for warning in plan.warnings)


def test_b_columns_that_are_not_known(tmp_path: Path) -> None:
    table = table_of(tmp_path, "file,width,kind\n" + "".join(f"{n}.jpg,9,{'ab'[n % 2]}\n" for n in range(6)))
    with pytest.raises(AlexNetError, match="needs the columns path and label") as error:
        plan_source(table)
    (arguments,) = commands(str(error.value))
    options = {name: value.replace("COLUMN", "kind") for name, value in options_of(arguments).items()}
    assert merged(plan_source(table, **options)) == {"a": 3, "b": 3}


def test_b4_a_chosen_column(tmp_path: Path) -> None:
    lines = [f"{n}.jpg,{n % 2},{'xyz'[n % 3]}" for n in range(6)]
    table = table_of(tmp_path, "path,label,site\n" + "\n".join(lines) + "\n")
    assert merged(plan_source(table)) == {"0": 3, "1": 3}
    assert merged(plan_source(table, classes_from=f"{table}:site")) == {"x": 2, "y": 2, "z": 2}
    assert merged(plan_source(tmp_path, classes_from=f"{table}:site")) == {"x": 2, "y": 2, "z": 2}


def test_b4_a_list_without_a_header(tmp_path: Path) -> None:
    text = "".join(f"images/{n}q.jpg {n % 2}\n" for n in range(6))
    build(tmp_path / "source", [f"images/{n}q.jpg" for n in range(6)])
    build(tmp_path / "source", {"train.txt": text})
    assert merged(plan_source(tmp_path / "source")) == {"0": 3, "1": 3}


# E14: the source changes while a preparation is unfinished


def test_e14_a_bad_file_is_removed(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(root, [*names("a", 6), *names("b", 6)])
    build(root, {"a/x.npy": b"\x93NUMPY junk"})
    with pytest.raises(AlexNetError):
        prepare(root, tmp_path / "data", size=8, workers=1, progress=False)
    (root / "a/x.npy").unlink()
    dataset = prepare(root, tmp_path / "data", size=8, workers=1)
    assert dataset.left_out == []
    assert len(dataset.split("train")) + len(dataset.split("val")) == 12


def test_e14_an_interrupted_preparation_notices_what_changed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet.data import preparation

    build(root, [*names("a", 6), *names("b", 6), *names("c", 6)])

    def interrupted(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "train-00000.arrow").write_bytes(b"")
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(preparation, "make_shards", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(root, tmp_path / "data", size=8, workers=1)
    for path in (root / "a").iterdir():
        path.unlink()
    build(root, ["b/new.jpg"])
    dataset = prepare(root, tmp_path / "data", size=8, workers=1)
    assert (
        "the source has changed since the preparation began (1 image added, 6 images removed)"
        in capsys.readouterr().err
    )
    assert dataset.classes == ["b", "c"]
    assert sorted(dataset.split("train").labels.tolist() + dataset.split("val").labels.tolist()) == [0] * 7 + [1] * 6
    dataset.verify()


# The plan and its options


def test_the_dry_run_prints_the_plan_and_writes_nothing(root: Path, command: Any, tmp_path: Path) -> None:
    build(root, [*names("train/a", 5), *names("train/b", 5), "README.md"])
    before = sorted(tmp_path.rglob("*"))
    done = command("prepare", root, "--dry-run")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "10 images, 2 classes" in done.stdout
    done = command("prepare", root, "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["counts"] == {"train": {"a": 4, "b": 4}, "val": {"a": 1, "b": 1}}
    assert plan["classes"] == ["a", "b"]
    assert plan["ignored"] == [{"reason": "not an image file (.md)", "files": 1, "first": "README.md"}]
    assert plan["drawn"] == {"val": 0.2}
    assert sorted(tmp_path.rglob("*")) == before
    assert command("prepare", root).returncode == 2
    assert command("prepare", root, tmp_path / "data", "--json").returncode == 2


def test_an_ambiguous_source_ends_with_invalid_usage(root: Path, command: Any) -> None:
    build(root, [f"{kind}/{name}/{n}.jpg" for kind in ("color", "gray") for name in "abc" for n in range(4)])
    done = command("prepare", root, "data")
    assert done.returncode == 2
    assert f"`alexnet prepare {root} data --classes-from folder`" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plan_is_what_is_prepared(root: Path, tmp_path: Path) -> None:
    build(root, [*names("cat", 7), *names("dog", 13)])
    shares = {"val": 0.1, "test": 0.3}
    plan = plan_source(root, split=shares)
    dataset = prepare(root, tmp_path / "data", size=8, split=shares, workers=1, progress=False)
    assert {
        name: dict(zip(dataset.classes, dataset.split(name).class_counts, strict=True)) for name in dataset.splits
    } == plan.counts


def test_a_registered_format_is_asked_first(root: Path, tmp_path: Path) -> None:
    build(root, {"images/1.jpg": JPEG, "images/2.jpg": JPEG, "index.txt": "cat images/1.jpg\ndog images/2.jpg\n"})

    def list_images(request: Request) -> Source:
        lines = (request.path / "index.txt").read_text(encoding="utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines]
        items = [Item(name, label, None, str(request.path / name)) for label, name in pairs]
        return Source(items, kind="folder with index.txt")

    register_source("index", lambda path: (path / "index.txt").is_file(), list_images)
    try:
        plan = plan_source(root)
        with pytest.raises(UsageError, match="'index' is registered already"):
            register_source("index", Path.is_dir, list_images)
    finally:
        unregister_source("index")
    assert plan.kind == "folder with index.txt"
    assert merged(plan) == {"cat": 1, "dog": 1}
    assert list(interpret(Source([], kind="x"), tmp_path).items) == []
