"""CIFAR-10 for the experiments: the copy of the user, or a download from its author's page."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.experiments.trials import prepare_once
from alexnet.runtime.errors import AlexNetError, UsageError

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""From the page of its author."""

SIDE = 32
RECORD = 1 + 3 * SIDE**2  # a label, then the red, green and blue channels
QUICK_IMAGES = 20
"""Images per class and split with `--quick`."""


def cifar10(work: Path, data: Sequence[str], quick: bool = False) -> PreparedDataset:
    """Return CIFAR-10, prepared in `work`/data: 50,000 training and 10,000 test images of 32×32 pixels.

    `data`: at most one source that `prepare` takes; without one the original is downloaded. `quick`: only the first
    images of each class. Raises `AlexNetError` if the download fails or the source is not CIFAR-10.
    """
    if len(data) > 1:
        raise UsageError("this experiment takes one copy of CIFAR-10: give --data once")
    source: Any = data[0] if data else lambda: _original(work)
    dataset = prepare_once(source, work / "data", size=SIDE)
    if {"train", "test"} - set(dataset.splits) or len(dataset.classes) != 10:
        what = f"{len(dataset.classes)} classes in {' and '.join(dataset.splits)}"
        raise AlexNetError(
            f"{dataset.source} is not CIFAR-10: it has {what}, and CIFAR-10 has ten classes in train and test"
        )
    return prepare_once(lambda: list(_first(dataset)), work / "quick", size=SIDE, progress=False) if quick else dataset


def source_description(data: Sequence[str]) -> str:
    """Return which copy of CIFAR-10 was used, for a result."""
    return f"a copy: {Path(data[0]).name}" if data else f"the original: {ADDRESS}"


def _first(dataset: PreparedDataset) -> Iterator[tuple[np.ndarray, str, str]]:
    for name in ("train", "test"):
        split = dataset.split(name)
        for label, class_name in enumerate(dataset.classes):
            for index in np.flatnonzero(split.labels == label)[:QUICK_IMAGES].tolist():
                yield split[index][0], class_name, name


def _original(work: Path) -> Iterator[tuple[np.ndarray, str, str]]:
    """Yield the images of the binary version; it is downloaded to `work` if it is not there."""
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
    partial_file = archive.with_name(f"{archive.name}.part")
    try:
        download_url_to_file(ADDRESS, str(partial_file), progress=sys.stderr.isatty())
        if hashlib.md5(partial_file.read_bytes(), usedforsecurity=False).hexdigest() != MD5:
            raise AlexNetError(
                f"the MD5 checksum of {ADDRESS} differs from the one its author published; give your own copy with "
                "--data"
            )
        partial_file.replace(archive)
    except OSError as error:
        raise AlexNetError(f"{ADDRESS} cannot be downloaded ({error}); give your own copy with --data") from None
    finally:
        partial_file.unlink(missing_ok=True)
