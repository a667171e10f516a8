"""Image sets for comparisons at 256×256 pixels: the solar cells, or the first images of another set."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.sources.interpretation import interpret
from alexnet.data.sources.items import Reader
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import SOLAR, dataset_name
from alexnet.experiments.trials import prepare_once
from alexnet.runtime.errors import UsageError

TRAINING_IMAGES, TEST_IMAGES = 2000, 1000
"""Images used of a set other than the solar cells, the same number of each class, so that a training takes minutes."""
QUICK_TRAINING_IMAGES, QUICK_TEST_IMAGES = 48, 16
QUICK_SIZE = 72
FIRST_IMAGES = 20
SMALL_SIZE, SIZE = 64, 256
"""Side in pixels of the prepared images of a set, whose images are no larger than `SMALL_SIZE`, or larger."""


def image_set(
    work: Path,
    data: Sequence[str],
    quick: bool = False,
    *,
    size: int = SIZE,
    training: int = TRAINING_IMAGES,
    tested: int = TEST_IMAGES,
) -> PreparedDataset:
    """Return all solar cells, or the first images of `data`, any source that `prepare` takes, at `size` pixels.

    The evaluation uses the test split. If a source has none, its val split becomes the test split; if it has neither,
    a fifth of the images is held out.
    """
    folder = work / (dataset_name(data) or SOLAR)
    if len(data) > 1:
        raise UsageError("this experiment takes one image set: give --data once")

    def source() -> Path:
        return Path(data[0]) if data else solar_cells.write_source(folder / "cells.csv")

    if quick:
        return subset(source, folder / "few", QUICK_SIZE)
    return prepare_once(
        lambda: first_per_class(source(), training, tested) if data else source(), folder / "data", size=size
    )


def subset(source: Callable[[], Path], data: Path, size: int) -> PreparedDataset:
    """Return the small dataset of `--quick`: the first images of each class at a small size."""
    return prepare_once(
        lambda: first_per_class(source(), QUICK_TRAINING_IMAGES, QUICK_TEST_IMAGES), data, size=size, progress=False
    )


def test_split(dataset: PreparedDataset) -> Split:
    """Return the split that the networks are evaluated on."""
    return dataset.split(dataset.measured_on or "test")


def all_images(source: str | Path) -> Iterator[tuple[bytes, str, str | None]]:
    """Yield (bytes, class, split) of every image of a source that `prepare` takes."""
    with TemporaryDirectory() as spool:
        reader = Reader()
        for item in interpret(source, Path(spool)).items:
            yield reader.read(item), item.label, item.split


def first_per_class(source: Path, training: int, tested: int) -> Iterator[tuple[bytes, str, str | None]]:
    """Yield (bytes, class, split) of the first images of each class: `training` and `tested` images in all."""
    with TemporaryDirectory() as spool:
        items, reader = list(interpret(source, Path(spool)).items), Reader()
        classes = len({item.label for item in items})
        test = "test" if any(item.split == "test" for item in items) else "val"
        limits = {None: training, "train": training, test: tested}
        counts: Counter[tuple[str, str | None]] = Counter()
        for item in items:
            counts[item.label, item.split] += 1
            limit = max(1, limits.get(item.split, 0) // classes)
            if item.split in limits and counts[item.label, item.split] <= limit:
                yield reader.read(item), item.label, "test" if item.split == test else item.split


def prepared_size(source: str | Path) -> int:
    """Return the side in pixels of the prepared images: `SMALL_SIZE` if the first images are no larger, else `SIZE`."""
    with TemporaryDirectory() as spool:
        reader = Reader()
        for item in itertools.islice(interpret(source, Path(spool)).items, FIRST_IMAGES):
            with Image.open(io.BytesIO(reader.read(item))) as image:
                if max(image.size) > SMALL_SIZE:
                    return SIZE
    return SMALL_SIZE
