"""Equal images in two splits or under two classes are named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def test_equal_images_across_splits_and_classes_are_named(
    striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    source = striped_folder(5, 6, 40)
    train, val = source / "train", source / "val"
    shutil.copy(train / "lying" / "0001.png", val / "lying" / "copy.png")
    with Image.open(train / "standing" / "0002.png") as image:
        image.save(train / "lying" / "other-file.bmp")  # other bytes, the same pixels
    shutil.copy(train / "lying" / "0003.png", train / "lying" / "harmless.png")  # one split, one class
    done = command("prepare", source, tmp_path / "data", "--size", 40)
    assert done.returncode == 0, done.stderr
    assert "2 pairs of equal images" in done.stderr
    found = json.loads((tmp_path / "data" / "dataset.json").read_text("utf-8"))["duplicates"]
    assert found["count"] == 2
    named = {frozenset((place["path"], place["split"], place["label"]) for place in pair) for pair in found["pairs"]}
    assert named == {
        frozenset({("train/lying/0001.png", "train", "lying"), ("val/lying/copy.png", "val", "lying")}),
        frozenset({("train/standing/0002.png", "train", "standing"), ("train/lying/other-file.bmp", "train", "lying")}),
    }
    assert "train/lying/0001.png (train, lying) = val/lying/copy.png (val, lying)" in done.stderr


def test_without_duplicates_nothing_is_said(
    striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    done = command("prepare", striped_folder(4, 4, 40), tmp_path / "data", "--size", 40)
    assert "equal images" not in done.stderr
    index = json.loads((tmp_path / "data" / "dataset.json").read_text("utf-8"))
    assert index["duplicates"] == {"count": 0, "pairs": []}
