"""CIFAR-10 for the experiments that need it: the user's own copy, or fetched from its author's page."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.experiments.trials import prepared
from alexnet.runtime.errors import AlexNetError, UsageError

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""As the page of its author says."""

SIDE = 32
RECORD = 1 + 3 * SIDE**2  # a class, then the red, green and blue maps
QUICK_IMAGES = 20
"""How many images a class of each split `--quick` takes."""


def cifar10(work: Path, data: Sequence[str], quick: bool = False) -> PreparedDataset:
    """CIFAR-10, prepared in `work`/data: 50,000 training and 10,000 test images of 32×32.

    `data`: at most one source of any kind that `prepare` takes; without one the original is fetched. `quick`: of its
    images only the first few. Raises `AlexNetError` where it can't be fetched or is something else.
    """
    if len(data) > 1:
        raise UsageError("--data names one copy of CIFAR-10")
    source: Any = data[0] if data else lambda: _original(work)
    dataset = prepared(source, work / "data", size=SIDE)
    if {"train", "test"} - set(dataset.splits) or len(dataset.classes) != 10:
        what = f"{len(dataset.classes)} classes in {' and '.join(dataset.splits)}"
        raise AlexNetError(f"{dataset.source} is not CIFAR-10 but {what}; it has ten, in train and test")
    return prepared(lambda: list(_first(dataset)), work / "few", size=SIDE, progress=False) if quick else dataset


def source_words(data: Sequence[str]) -> str:
    """Which copy of CIFAR-10 the images are from, as a result says it."""
    return f"a copy: {Path(data[0]).name}" if data else f"the original: {ADDRESS}"


def _first(dataset: PreparedDataset) -> Iterator[tuple[np.ndarray, str, str]]:
    for name in ("train", "test"):
        split = dataset.split(name)
        for label, class_name in enumerate(dataset.classes):
            for index in np.flatnonzero(split.labels == label)[:QUICK_IMAGES].tolist():
                yield split[index][0], class_name, name


def _original(work: Path) -> Iterator[tuple[np.ndarray, str, str]]:
    """The images of the binary version, fetched unless it is in `work` already."""
    archive = work / Path(ADDRESS).name
    if not archive.exists():
        _fetch(archive)
    with tarfile.open(archive) as tar:
        names = _member(tar, "batches.meta.txt").decode().split()
        for split, batches in (("train", [f"data_batch_{n}.bin" for n in range(1, 6)]), ("test", ["test_batch.bin"])):
            for batch in batches:
                records = np.frombuffer(_member(tar, batch), np.uint8).reshape(-1, RECORD)
                for record in records:
                    yield record[1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0), names[record[0]], split


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"cifar-10-batches-bin/{name}")
    assert file is not None
    return file.read()


def _fetch(archive: Path) -> None:
    from torch.hub import download_url_to_file

    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.part")
    try:
        download_url_to_file(ADDRESS, str(part), progress=sys.stderr.isatty())
        if hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest() != MD5:
            raise AlexNetError(f"{ADDRESS} is not the file that its author's page describes: its MD5 is another")
        part.replace(archive)
    except OSError as error:
        raise AlexNetError(f"{ADDRESS} can't be fetched ({error}); give your own copy with --data") from None
    finally:
        part.unlink(missing_ok=True)
