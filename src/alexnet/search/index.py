"""The images of a split as points in fc7, on disk beside the run, and what is near an image among them.

`RUN/search/SPLIT-FINGERPRINT/` holds `features.npy`, and for the methods "index" and "codes", once they were asked for,
their file and a JSON file, written last, with what they find. The fingerprint is that of the weights and the images.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from alexnet.data.dataset import PreparedDataset
from alexnet.data.loading import evaluation_batches
from alexnet.evaluation.ensemble import Member
from alexnet.evaluation.evaluate import check_compatible
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.runs.run import Run, add_tensors
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.search import codes, exact, lists

METHODS = ("auto", "exact", "index", "codes")
EXACT_UP_TO = 20_000
"""So many images are searched exactly unless told otherwise: some tens of milliseconds."""
SAME = 1e-4
"""Distances below this share of the query's length are rounding, which differs with the size of a batch: they are 0."""
FIRST = (10, 100)

_FOLDER = "search"
_FEATURES = "features.npy"
_FILES = {"index": "index.faiss", "codes": "codes.safetensors"}
_FORMAT_VERSION = 1
_QUERIES = 100  # that a method is measured on


def open_index(
    run: str | os.PathLike[str] | Member,
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str = "train",
    device: str | None = None,
) -> Index:
    """The images of a split of `data`, ready to be searched by what the network of `run` finds alike.

    `run`: a run folder, or one that is loaded already. The activations of fc7 are computed when a split is first
    opened, with a progress bar, and kept in `RUN/search/`; for other weights or another dataset they are computed anew.

    Raises `AlexNetError` when the run has no weights or does not fit the dataset, the split does not exist or is empty,
    or nothing can be written there.
    """
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    opened = run.run if isinstance(run, Member) else Run.open(run)
    check_compatible(opened, dataset, "its images can't be compared")
    if not len(dataset.split(split)):
        raise AlexNetError(f"split {split!r} of {dataset.path} has no images")
    member = run if isinstance(run, Member) else Member(opened, *opened.load(choose_device(device)))
    index = Index(opened.path / _FOLDER / f"{split}-{_fingerprint(member, dataset)}", member, dataset, split)
    index.prepare()
    return index


class Index:
    """The images of a split as points in fc7; opened with `open_index`.

    dataset, split: where they are from; what `nearest` returns are positions in `split`.
    """

    def __init__(self, folder: Path, member: Member, dataset: PreparedDataset, split: str) -> None:
        self.folder, self.member, self.dataset = folder, member, dataset
        self.split = dataset.split(split)
        self._opened: dict[str, lists.Lists | codes.Codes] = {}

    def __len__(self) -> int:
        return len(self.split)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (N, size, size, 3) uint8 RGB as `nearest` takes them: (N, 4096) float32."""
        return next(layer_features(self.member.network, self.member.preprocess, [images]))

    def nearest(self, features: np.ndarray, k: int, method: str = "auto") -> tuple[np.ndarray, np.ndarray]:
        """What is nearest to each row of `features` (Q, D) float32, the nearest first.

        `method`: "exact"; "index", which is fast for any number of images and may miss one; "codes", by the number of
        bits that differ between binary codes; "auto", exact for up to 20,000 images and the index for more. What the
        last two need is built when it is first asked for, and kept.

        Returns distances (Q, k) float32 and positions in the split (Q, k) int64; fewer than `k` where the split has
        fewer, and -1 at distance inf where the index does not find as many. An image that is in the split itself is
        nearest to itself, at distance 0. Raises `AlexNetError` where faiss is missing, which the exact search does not
        need.
        """
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        method = choose_method(method, len(self))
        features = np.ascontiguousarray(features, dtype=np.float32)
        if method == "exact":
            distances, images = exact.nearest(features, self.stored, k)
        else:
            distances, images = self._open(method).nearest(features, k)
        if method == "codes":
            return distances, images
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        return np.where(distances < SAME * lengths, np.float32(0), distances), images

    def found(self, method: str = "auto") -> dict[str, float]:
        """Of an image's ten nearest, the share that `method` has among its first 10 and its first 100.

        Measured when the method was built, on 100 images of the split, each without itself; empty for one image.
        """
        method = choose_method(method, len(self))
        if method == "exact":
            return {str(first): 1.0 for first in FIRST}
        self._open(method)
        found: dict[str, float] = json.loads(self._about(method).read_bytes())["found"]
        return found

    @cached_property
    def stored(self) -> np.ndarray:
        """The activations of fc7 of every image, (len, 4096) float32, memory-mapped."""
        stored: np.ndarray = np.load(self.folder / _FEATURES, mmap_mode="r", allow_pickle=False)
        return stored

    def prepare(self) -> None:
        """Compute the features, unless they are there."""
        file = self.folder / _FEATURES
        if file.is_file():
            return
        with _held(self.folder):
            for other in self.folder.parent.glob(f"{self.split.name}-*"):
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
            if not file.is_file():
                write_atomic(file, self._write_features)

    def _write_features(self, file: IO[bytes]) -> None:
        batches = (batch.images.numpy() for batch in evaluation_batches(self.split, BATCH_SIZE))
        with progress(len(self), f"fc7 of {self.split.name} images") as bar:
            for features in layer_features(self.member.network, self.member.preprocess, batches):
                if not np.isfinite(features).all():
                    raise AlexNetError(f"{self.member.run.path}: fc7 is not finite: its weights are not sound")
                if not bar.done:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(self), features.shape[1])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(features.astype("<f4").tobytes())
                bar.advance(len(features))

    def _open(self, method: str) -> lists.Lists | codes.Codes:
        """The index or the codes, built where they are not yet."""
        if method not in self._opened:
            if not self._about(method).is_file():
                with _held(self.folder):
                    if not self._about(method).is_file():
                        self._build(method)
            self._opened[method] = self._read(method)
        return self._opened[method]

    def _build(self, method: str) -> None:
        file = self.folder / _FILES[method]
        if method == "index":
            lists.build(file, self.stored, _faiss())
        else:
            codes.build(file, self.stored)
        about = {"found": self._measure(self._read(method)), "faiss": _faiss().__version__}
        write_atomic(self._about(method), json.dumps(about, indent=1).encode() + b"\n")

    def _read(self, method: str) -> lists.Lists | codes.Codes:
        file = self.folder / _FILES[method]
        try:
            return lists.Lists(file, self.stored, _faiss()) if method == "index" else codes.Codes(file, _faiss())
        except Exception as error:
            raise AlexNetError(f"{file} can't be read ({error}): remove the folder, it is built again") from error

    def _about(self, method: str) -> Path:
        return self.folder / f"{method}.json"

    def _measure(self, method: lists.Lists | codes.Codes) -> dict[str, float]:
        ten = min(10, len(self) - 1)
        if not ten:
            return {}
        asked = np.unique(np.linspace(0, len(self) - 1, _QUERIES).round().astype(np.int64))
        queries = self.stored[asked]
        with progress(len(self), "how many of the nearest are found") as bar:
            _, near = exact.nearest(queries, self.stored, ten + 1, done=bar.advance)
        _, found = method.nearest(queries, FIRST[-1] + 1)
        shares = {}
        for first in FIRST:
            both = [
                np.intersect1d(_others(near[row], image)[:ten], _others(found[row], image)[:first])
                for row, image in enumerate(asked)
            ]
            shares[str(first)] = float(np.mean([len(common) / ten for common in both]))
        return shares


def choose_method(name: str, images: int) -> str:
    """The method of that name; for "auto" the one that suits so many images.

    Raises `UsageError` for one that does not exist, `AlexNetError` where it needs faiss and that is missing.
    """
    if check_choice(name, METHODS, "method") == "auto":
        name = "exact" if images <= EXACT_UP_TO else "index"
    if name != "exact":
        _faiss()
    return name


def _others(rows: np.ndarray, image: int) -> np.ndarray:
    return rows[rows != image]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise AlexNetError(
            "this search needs faiss: pip install 'alexnet[search]' (the exact one does not: --method exact)"
        ) from None
    return faiss


def _fingerprint(member: Member, dataset: PreparedDataset) -> str:
    """What the features depend on, in 16 hex digits: weights, preprocessing, images, and how it is all stored."""
    config = member.run.config
    said = [_FORMAT_VERSION, config.crop_size, config.input_size, config.scale, config.recipe.mean, dataset.checksums()]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    add_tensors(digest, {**member.network.state_dict(), "mean": member.preprocess.mean})
    return digest.hexdigest()[:16]


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold what all searches of a run are kept in: of two processes that need the same, one builds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            lock = FileLock(folder.parent / "lock")
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                print(f"waiting for another process that builds {folder.parent}", file=sys.stderr)
                held.enter_context(lock)
            for leftover in folder.glob(".*.tmp"):  # of a process that was killed
                leftover.unlink()
            yield
    except OSError as error:
        raise AlexNetError(f"{folder} can't be written: {error.strerror or error}") from error
