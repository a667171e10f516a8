"""Copies of images are found as near duplicates."""

import numpy as np
from PIL import Image

from alexnet.experiments.copies import KINDS, growth, measure


def test_copies_of_distinct_images_are_found() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(60):
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        images.append(np.asarray(noise.resize((96, 96), Image.Resampling.BICUBIC)))
    found = measure(np.stack(images), np.arange(60) % 2, 10.0, seeds=(0,))
    assert found["images"] == 60
    assert found["named"] == found["named_across"] == 0
    assert set(found["found"]) == set(KINDS)
    assert min(values["mean"] for values in found["found"].values()) > 0.9
    assert 0 < found["share_of_preparation"] < 0.5


def test_the_search_grows_with_the_number_of_images_and_finds_the_copies() -> None:
    few, many = growth(4_000), growth(16_000)
    assert (few["found"], few["others"]) == (40, 0)
    assert many["found"] >= 0.9 * many["copies"]
    assert many["peak_bytes_per_image"] < 1.5 * few["peak_bytes_per_image"]
