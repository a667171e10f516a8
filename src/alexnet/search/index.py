"""The pictures of a split as points in fc7, on disk beside the run, and what is near a picture among them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loader import evaluation_batches
from alexnet.errors import AlexNetError, UsageError
from alexnet.evaluation.ensemble import Member
from alexnet.evaluation.evaluate import check_fit
from alexnet.files import locked, write_whole
from alexnet.progress import progress
from alexnet.run import Run
from alexnet.search import exact
from alexnet.search.features import BATCH_SIZE, fc7_features
from alexnet.training.precision import choose_device

METHODS = ("auto", "exact", "index", "codes")
FOLDER = "search"
FEATURES = "features.npy"
FORMAT_VERSION = 1
SAME = 1e-4
"""Distances below this share of the query's length are rounding, which differs with the size of a batch: shown as 0."""


def open_index(
    run: str | os.PathLike[str] | Member,
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str = "train",
    device: str | None = None,
) -> Index:
    """The pictures of a split of `data`, ready to be searched by what the network of `run` finds alike.

    `run`: a run folder, or one that is loaded already. The features of fc7 are computed when a split is first opened,
    with a progress bar, and kept in `RUN/search/`; for other weights or another dataset they are computed anew.

    Raises `AlexNetError` when the run has no weights, does not fit the dataset, the split does not exist or is empty,
    or nothing can be written there.
    """
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    opened = run.run if isinstance(run, Member) else Run.open(run)
    check_fit(opened, dataset, "its pictures can't be compared")
    if not len(dataset.split(split)):
        raise AlexNetError(f"split {split!r} of {dataset.path} has no pictures")
    member = run if isinstance(run, Member) else Member(opened, *opened.load(choose_device(device)))
    folder = opened.path / FOLDER / f"{split}-{_fingerprint(member, dataset)}"
    if not (folder / FEATURES).is_file():
        with _building(folder, f"the features of {split} pictures"):
            _clear(folder, split)
            _write_features(folder / FEATURES, member, dataset.split(split))
    return Index(folder, member, dataset, split)


class Index:
    """The pictures of a split as points in fc7; opened with `open_index`.

    dataset, split: where they are from; what `nearest` returns are positions in `split`.
    """

    def __init__(self, folder: Path, member: Member, dataset: PreparedDataset, split: str) -> None:
        self.folder, self.member, self.dataset = folder, member, dataset
        self.split = dataset.split(split)
        self.stored: np.ndarray = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.stored)

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Prepared pictures (N, size, size, 3) uint8 RGB as `nearest` takes them: (N, 4096) float32."""
        return next(fc7_features(self.member.network, self.member.preprocess, [pictures]))

    def nearest(self, features: np.ndarray, k: int, method: str = "auto") -> tuple[np.ndarray, np.ndarray]:
        """What is nearest to each row of `features` (Q, D) float32, the nearest first.

        Returns distances (Q, k) float32 and positions in the split (Q, k) int64; fewer than `k` where the split has
        fewer. A picture that is in the split itself is nearest to itself, at distance 0.
        """
        if method not in METHODS:
            raise UsageError(f"no method {method!r}; there are: {', '.join(METHODS)}")
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        distances, pictures = exact.nearest(features, self.stored, k)
        return _without_rounding(distances, features), pictures


def _without_rounding(distances: np.ndarray, features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.where(distances < SAME * lengths, np.float32(0), distances)


def _fingerprint(member: Member, dataset: PreparedDataset) -> str:
    """What the features depend on, in 16 hex digits: weights, preprocessing, pictures, and how it is all stored."""
    config = member.run.config
    said = [FORMAT_VERSION, config.crop, config.side, config.scale, config.recipe.mean, dataset.checksums()]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    state = {**member.network.state_dict(), "": member.preprocess.mean}
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


@contextmanager
def _building(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder that all searches of a run are in: what two processes need at once, one makes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder.parent / "lock"
        with ExitStack() as held:
            try:
                held.enter_context(locked(lock))
            except BlockingIOError:
                print(f"another alexnet works on {what}: waiting for it", file=sys.stderr)
                held.enter_context(locked(lock, wait=True))
            yield
    except OSError as error:
        raise AlexNetError(f"{folder} can't be written: {error.strerror or error}") from error


def _clear(folder: Path, split: str) -> None:
    """Remove what is there of other weights or pictures, and what a killed process left half-written."""
    for other in folder.parent.glob(f"{split}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _write_features(path: Path, member: Member, split: Split) -> None:
    if path.is_file():  # another process made it while this one waited
        return

    def write(file: IO[bytes]) -> None:
        shape: tuple[int, ...] = ()
        with progress(len(split), f"fc7 of {split.name} pictures") as bar:
            pictures = (batch.pictures.numpy() for batch in evaluation_batches(split, BATCH_SIZE))
            for features in fc7_features(member.network, member.preprocess, pictures):
                if not np.isfinite(features).all():
                    raise AlexNetError(
                        f"{member.run.path}: the activations of fc7 are not finite: its weights are not sound"
                    )
                if not shape:
                    shape = (len(split), features.shape[1])
                    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                file.write(features.tobytes())
                bar.advance(len(features))

    write_whole(path, write)
