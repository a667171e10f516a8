"""How far images are scaled down, and which spots survive it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet import PreparedDataset
from alexnet.data.resize import filter_matrix, square
from alexnet.data.resolution import describe_crops, describe_scaling, kept_contrast, size_for, smallest_spot


@pytest.mark.parametrize(("spot", "side", "size"), [(2, 300, 100), (3, 300, 200), (4, 400, 100), (1, 300, 256)])
def test_the_contrast_is_that_of_scaled_images(spot: int, side: int, size: int) -> None:
    rng = np.random.default_rng(0)
    left = []
    for _ in range(300):
        image = np.full((side, side, 3), 60, np.uint8)
        x, y = rng.integers(side // 5, side - side // 5, 2)
        image[y : y + spot, x : x + spot] = 200
        left.append((int(square(image, size).max()) - 60) / 140)
    assert kept_contrast(spot, side / size) == pytest.approx(np.mean(left), abs=0.03)


def test_the_matrix_of_the_filter_scales_as_pillow_does() -> None:
    row = np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8)
    scaled = np.asarray(Image.fromarray(row[None].repeat(4, 0)).resize((70, 4), Image.Resampling.BILINEAR))[0]
    np.testing.assert_allclose(filter_matrix(300, 70) @ row, scaled, atol=0.51)


def test_the_smallest_spot_grows_with_the_factor_and_the_advised_size_keeps_three_pixels() -> None:
    assert [smallest_spot(factor) for factor in (0.5, 1, 1.2, 2, 4, 8)] == [1, 1, 2, 3, 5, 9]
    for side in (300, 1024, 4000):
        size = size_for(side)
        assert smallest_spot(side / size) <= 3 < smallest_spot(side / (size - 32))


def test_the_scaling_is_described() -> None:
    assert describe_scaling(np.array([300] * 3), 256) == [
        "the shorter side of the images has 300 pixels: scaled down to 256, factor 1.17"
    ]
    assert describe_scaling(np.array([64, 64]), 256) == [
        "the shorter side of the images has 64 pixels: enlarged to 256"
    ]
    assert describe_scaling(np.array([256, 256]), 256) == []
    lines = describe_scaling(np.array([600, 1024, 2000]), 256)
    assert lines[0].endswith("600 to 2000 pixels (median 1024): scaled down to 256, factor 4")
    assert lines[1].startswith("small objects may vanish: of a spot of fewer than 5 pixels")
    assert lines[1].endswith("prepare with --size 384")
    assert describe_crops(300, 256, 244, 195) == (
        "crops of 244 of 256 pixels, scaled to 195: images of 300 pixels are scaled down 1.47 times; a spot keeps half "
        "of its contrast from 2 pixels"
    )
    assert describe_crops(64, 256, 224, 224) == "crops of 224 of 256 pixels: images of 64 pixels are not scaled down"
    assert describe_crops(None, 256, 224, 224) == "crops of 224 of 256 pixels"


def test_prepare_says_the_factor_and_stores_the_side(tmp_path: Path, command: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        pixels = rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(content, "PNG")
        (folder / f"{number}.png").write_bytes(content.getvalue() if number else b"damaged")
    done = command("prepare", tmp_path / "images", tmp_path / "data", "--size", 64, "--max-bad", "50%")
    assert "the shorter side of the images has 300 pixels: scaled down to 64, factor 4.69\n" in done.stderr
    assert "small objects may vanish" in done.stderr
    assert PreparedDataset.open(tmp_path / "data").source_side == 300
