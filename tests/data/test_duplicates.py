"""Images that are equal or nearly so, in two splits or under two classes: named, and dropped or refused on demand."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from alexnet.data.near_duplicates import TABLES, WINDOW, candidates, find_near_duplicates, thumbnails
from alexnet.data.preparation import prepare
from alexnet.runtime.errors import AlexNetError


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


def scenes(count: int, side: int = 96) -> list[Image.Image]:
    """Distinct images with structure of many sizes."""
    rng = np.random.default_rng(3)
    images = []
    for _ in range(count):
        total = np.full((side, side, 3), 110.0)
        for size in (4, 8, 16, 32):
            for channel in range(3):
                layer = rng.normal(0, 40 * size**-0.3, (size, size)).astype(np.float32)
                total[..., channel] += np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BICUBIC))
        images.append(Image.fromarray(total.clip(0, 255).astype(np.uint8)))
    return images


def compressed(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=40)
    return content.getvalue()


COPIES: dict[str, Callable[[Image.Image], Any]] = {
    "compressed": compressed,
    "rescaled": lambda image: image.resize((48, 48), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "cropped": lambda image: image.crop((3, 0, 96, 93)),
}


@pytest.fixture(scope="module")
def near_copies() -> list[tuple[Any, str, str]]:
    """40 scenes of two classes to train on and 12 to test; five test images are copies of training images."""
    drawn = scenes(52)
    images: list[tuple[Any, str, str]] = [(image, "ab"[i % 2], "train") for i, image in enumerate(drawn[:40])]
    images += [(image, "ab"[i % 2], "test") for i, image in enumerate(drawn[40:])]
    images += [(copy(drawn[i]), "ab"[i % 2], "test") for i, copy in enumerate(COPIES.values())]
    return [*images, (compressed(drawn[4]), "b", "test")]  # of an image of class a


def places(pair: dict[str, Any]) -> frozenset[str]:
    return frozenset(place["path"] for place in pair["images"])


def test_near_duplicates_are_named_and_kept(
    near_copies: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prepare(near_copies, tmp_path / "data", size=96, workers=1)
    found = data.index["near_duplicates"]
    names = [data.split("train").paths(i) for i in range(40)], [data.split("test").paths(i) for i in range(17)]
    assert {places(pair) for pair in found["pairs"]} == {frozenset((names[0][i], names[1][12 + i])) for i in range(5)}
    assert found["count"] == 5
    assert data.index["duplicates"]["count"] == 0
    assert data.counts == {"train": 40, "test": 17}
    said = capsys.readouterr().err
    assert "5 pairs of nearly equal images" in said
    assert "kept: accuracies on val and test are too high" in said


def test_drop_leaves_out_copies_of_test_images_but_no_image_under_two_classes(
    near_copies: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prepare(near_copies, tmp_path / "data", size=96, workers=1, duplicates="drop")
    train = data.split("train")
    reference = prepare(near_copies[4:], tmp_path / "reference", size=96, workers=1, progress=False)
    assert data.counts == {"train": 36, "test": 17}
    assert train.class_counts == np.bincount(train.labels).tolist() == [18, 18]
    np.testing.assert_array_equal(train.gather(np.arange(36)), reference.split("train").gather(np.arange(36)))
    np.testing.assert_array_equal(data.mean_image, reference.mean_image)
    np.testing.assert_array_equal(data.pca_eigenvectors, reference.pca_eigenvectors)
    data.verify()
    assert len(data.index["dropped_duplicates"]) == 4
    said = capsys.readouterr().err
    assert "dropped from train: 4 images" in said
    assert "not dropped: 1 pair under two classes" in said


def test_error_refuses_and_the_same_folder_can_be_finished(near_copies: list[Any], tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="5 pairs of equal or nearly equal images"):
        prepare(near_copies, tmp_path / "data", size=96, workers=1, progress=False, duplicates="error")
    assert not (tmp_path / "data" / "dataset.json").exists()
    assert prepare(near_copies, tmp_path / "data", size=96, progress=False).counts["train"] == 40


def test_what_every_part_looks_like_is_no_near_duplicate() -> None:
    """Parts with a common pattern and little noise are alike; a copy is more alike than that."""
    rng = np.random.default_rng(0)
    patterns = [np.asarray(image.convert("L"), dtype=np.float64) for image in scenes(2)]
    noisy = [pattern + rng.normal(0, 25, pattern.shape) for _ in range(40) for pattern in patterns]
    images = np.stack([np.repeat(one.clip(0, 255).astype(np.uint8)[..., None], 3, 2) for one in noisy])
    assert find_near_duplicates(thumbnails(images), np.arange(len(images))) == []
    brighter = np.concatenate([images, (images[5:6] * 0.9).astype(np.uint8)])
    found = find_near_duplicates(thumbnails(brighter), np.arange(len(brighter)))
    assert [(pair.first, pair.second) for pair in found] == [(5, 80)]


def test_the_number_of_candidates_is_bounded_where_all_images_are_alike() -> None:
    rng = np.random.default_rng(1)
    rows = np.ones((3000, 8), dtype=np.float32) + 1e-3 * rng.standard_normal((3000, 8), dtype=np.float32)
    assert len(candidates(rows / np.linalg.norm(rows, axis=1, keepdims=True))) <= 3000 * TABLES * WINDOW
