"""Photographs for the comparisons at AlexNet's own 256×256: the solar cells, or the first of another set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.sources.interpretation import interpret
from alexnet.data.sources.items import Reader
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import set_name
from alexnet.experiments.trials import prepared
from alexnet.runtime.errors import UsageError

SOLAR = "solar"
TRAINING, TESTED = 2000, 1000
"""Images taken of a set that is not the solar cells, evenly from its classes, so that a training takes minutes."""
QUICK_TRAINING, QUICK_TESTED = 48, 16
QUICK_SIZE = 72


def photographs(work: Path, data: Sequence[str], quick: bool = False) -> PreparedDataset:
    """The solar cells, all of them, or the first images of `data`, a source of any kind that `prepare` takes.

    They are measured on "test"; of a source without one "val" becomes it, of one without both a fifth is "val".
    """
    folder = work / (set_name(data) or SOLAR)
    if len(data) > 1:
        raise UsageError("--data names one set of photographs")

    def source() -> Path:
        return Path(data[0]) if data else solar_cells.write_source(folder / "cells.csv")

    if quick:
        return few(source, folder / "few", QUICK_SIZE)
    return prepared(lambda: first_of_each(source(), TRAINING, TESTED) if data else source(), folder / "data")


def few(source: Callable[[], Path], data: Path, size: int) -> PreparedDataset:
    """What `--quick` takes of a set: its first images, small."""
    return prepared(lambda: first_of_each(source(), QUICK_TRAINING, QUICK_TESTED), data, size=size, progress=False)


def test_images(dataset: PreparedDataset) -> Split:
    """What the networks are measured on."""
    return dataset.split(dataset.measured_on or "test")


def first_of_each(source: Path, training: int, tested: int) -> Iterator[tuple[bytes, str, str | None]]:
    """So many images to train on and to be tested on, the first of each class: (bytes, class, split)."""
    with TemporaryDirectory() as spool:
        items, reader = list(interpret(source, Path(spool)).items), Reader()
        classes = len({item.label for item in items})
        test = "test" if any(item.split == "test" for item in items) else "val"
        room = {None: training, "train": training, test: tested}
        taken: Counter[tuple[str, str | None]] = Counter()
        for item in items:
            taken[item.label, item.split] += 1
            if taken[item.label, item.split] <= max(1, room.get(item.split, 0) // classes) and item.split in room:
                yield reader.read(item), item.label, "test" if item.split == test else item.split
