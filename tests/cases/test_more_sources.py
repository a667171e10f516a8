"""Further cases A and B, as datasets of other tools and people have them. One function per case."""

from __future__ import annotations

import io
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet import AlexNetError, UsageError, plan_source
from alexnet.data.preparation import parse_folders


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 50, 90)).save(file, "JPEG")
    return file.getvalue()


JPEG = jpeg()


def build(root: Path, images: list[str], texts: dict[str, str | bytes] | None = None) -> Path:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)
    for name, text in (texts or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def images(*folders: str, count: int = 6) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(count)]


def table(header: str, row: str, labels: list[str]) -> str:
    return header + "\n" + "".join(row.format(number, label) + "\n" for number, label in enumerate(labels))


def said(root: Path, **options: Any) -> str:
    return "\n".join(plan_source(root, **options).lines())


def readings(root: Path) -> list[list[str]]:
    """The classes of each reading that the message of an ambiguous source offers, by its commands."""
    with pytest.raises(UsageError) as error:
        plan_source(root)
    found = []
    for line in re.findall(r"`(alexnet prepare [^`]*)`", str(error.value)):
        name, value = shlex.split(line)[4:6]
        options: dict[str, Any] = {name.removeprefix("--").replace("-", "_"): value}
        if "splits" in options:
            options = {"splits": parse_folders(value)}
        try:
            found.append(plan_source(root, **options).classes)
        except AlexNetError as refused:
            found.append([str(refused)])
    return found


def test_objects_that_each_hold_splits_and_class_folders(tmp_path: Path) -> None:
    """Several objects of MVTec AD: the classes may be the objects or good and broken."""
    folders = [f"{item}/{part}" for item in ("bottle", "cable") for part in ("train/good", "train/broken", "test/good")]
    assert readings(build(tmp_path / "set", images(*folders)))[:2] == [["bottle", "cable"], ["broken", "good"]]


@pytest.mark.parametrize("copy", ["train (copy)", "train_old", "train_augmented"])
def test_a_second_training_folder_beside_the_splits(copy: str, tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(*(f"{part}/{name}" for part in ("train", copy, "val") for name in "ab")))
    assert readings(root) == [["a", "b"], ["a", "b"]]


def test_a_table_whose_ids_name_several_images_is_said(tmp_path: Path) -> None:
    text = table("id,label", "{},{}", ["a", "b"] * 2)
    root = build(tmp_path / "set", images("p1", "p2", count=4), {"l.csv": text})
    assert "l.csv beside the class folders says classes and is not used: line 2: 0: 2 files have this name" in said(
        root
    )


def test_a_measured_value_is_no_class(tmp_path: Path) -> None:
    values = [f"{0.13 * number + 0.011:.3f}" for number in range(12)]
    root = build(tmp_path / "set", images("img", count=12), {"l.csv": table("file,target", "{}.jpg,{}", values)})
    with pytest.raises(AlexNetError, match=r"12 decimal numbers, such as 0.011, a measured value"):
        plan_source(root)


def test_grades_in_halves_are_classes(tmp_path: Path) -> None:
    root = build(
        tmp_path / "set", images("img", count=12), {"l.csv": table("file,grade", "{}.jpg,{}", ["0.5", "1.5"] * 6)}
    )
    assert plan_source(root).classes == ["0.5", "1.5"]


def test_whole_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    root = build(tmp_path / "set", images("img"), {"l.csv": table("file;label", "{}.jpg;{}", ["0,0", "1,0"] * 3)})
    assert plan_source(root).classes == ["0", "1"]


def test_a_class_that_may_be_a_missing_label_is_said(tmp_path: Path) -> None:
    root = build(tmp_path / "set", images("img"), {"l.csv": table("file,label", "{}.jpg,{}", ["NA", "a", "b"] * 2)})
    assert "class 'NA': if that marks a missing label" in said(root)


def test_boxes_of_one_class_in_each_image(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},1\n{n}.jpg,{'ab'[n % 2]},5\n" for n in range(6))
    root = build(tmp_path / "set", images("img"), {"l.csv": "filename,class,xmin\n" + rows})
    assert "6 rows that repeat an image are not used" in said(root)


def test_a_workbook_beside_a_folder_of_images_is_named(tmp_path: Path) -> None:
    root = build(tmp_path / "set", images("img"), {"labels.xlsx": b"PK\x03\x04"})
    with pytest.raises(UsageError, match=r"if labels.xlsx names the classes, save it as CSV"):
        plan_source(root)


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat ")])
def test_a_class_folder_of_another_spelling_in_validation(names: tuple[str, str], tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(f"train/{names[0]}", "train/dog", f"val/{names[1]}", "val/dog"))
    with pytest.raises(AlexNetError, match="have one name"):
        plan_source(root)


def test_unicode_forms_that_differ_between_splits(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "사과") for form in ("NFC", "NFD"))
    root = build(tmp_path / "set", images(f"train/{composed}", "train/b", f"val/{decomposed}", "val/b"))
    assert plan_source(root).classes == ["b", "사과"]


def test_tables_of_one_column_per_class_in_each_split(tmp_path: Path) -> None:
    """Roboflow's multi-class export: train/_classes.csv with spaces after the commas."""
    root = tmp_path / "set"
    for part, count in (("train", 6), ("valid", 4)):
        rows = "".join(f"{part}{n}_jpg.rf.0a{n}.jpg, {n % 2}, {1 - n % 2}\n" for n in range(count))
        names = [f"{part}/{part}{n}_jpg.rf.0a{n}.jpg" for n in range(count)]
        build(root, names, {f"{part}/_classes.csv": "filename, cat, dog\n" + rows})
    assert plan_source(root).counts == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 2, "dog": 2}}


def test_what_systems_leave_behind_is_not_there(tmp_path: Path) -> None:
    junk = dict.fromkeys(
        (".DS_Store", "a/.DS_Store", "__MACOSX/a/._0.jpg", "a/Thumbs.db", "a/._1.jpg", ".git/x.jpg"), "x"
    )
    plan = plan_source(build(tmp_path / "set", images("a", "b"), junk))
    assert plan.images == 12
    assert not plan.ignored
