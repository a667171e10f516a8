"""The features of a split's images, stored beside the run, and search among them.

`RUN/search/SPLIT-FINGERPRINT/` holds `features.npy` and, for the methods "index" and "codes" after their first use,
their file and a JSON file, written last, with their recall. The fingerprint is that of the weights and the images.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from alexnet.data.dataset import PreparedDataset
from alexnet.data.loading import evaluation_batches
from alexnet.evaluation.evaluate import check_compatible
from alexnet.evaluation.predictor import Member
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.runs.run import Run, update_checksum
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import notify, progress
from alexnet.search import binary_codes, exact, inverted_file

METHODS = ("auto", "exact", "index", "codes")
MAX_EXACT_IMAGES = 20_000
"""Largest number of images for which "auto" searches exactly: some tens of milliseconds."""
DISTANCE_TOLERANCE = 1e-4
"""Distances below this share of the query's norm are rounding, which depends on the batch size: they count as 0."""
RECALL_AT = (10, 100)
"""Numbers of results for which recall is measured."""

_FOLDER = "search"
_FEATURES = "features.npy"
_FILES = {"index": "index.faiss", "codes": "codes.safetensors"}
_FORMAT_VERSION = 2
_QUERIES = 100  # that the recall of a method is measured with

Method = inverted_file.InvertedFile | binary_codes.BinaryCodes


def open_index(
    run: str | os.PathLike[str] | Member,
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str = "train",
    device: str | None = None,
) -> Index:
    """Open the index of a split for search by similarity in fc7.

    The activations of fc7 are computed when a split is first opened, with a progress bar, and stored in `RUN/search/`.
    For other weights or another dataset they are computed again.

    Parameters
    ----------
    run : str, path or Member
        A run folder, or a run that is loaded already.
    data : str, path or PreparedDataset
        The prepared dataset.
    split : str
        Its split.
    device : str, optional
        Where the features are computed; by default the best device.

    Returns
    -------
    Index
        The index.

    Raises
    ------
    AlexNetError
        If the run has no weights or does not fit the dataset, the split does not exist or is empty, or the features
        can't be written.
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
    """The features of a split's images; opened with `open_index`.

    Attributes
    ----------
    dataset : PreparedDataset
        The dataset.
    split : Split
        Its split; `nearest` returns positions in it.
    """

    def __init__(self, folder: Path, member: Member, dataset: PreparedDataset, split: str) -> None:
        self.folder, self.member, self.dataset = folder, member, dataset
        self.split = dataset.split(split)
        self._methods: dict[str, Method] = {}

    def __len__(self) -> int:
        return len(self.split)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Compute the features of prepared images, (N, size, size, 3) uint8 RGB → (N, 4096) float32."""
        return next(layer_features(self.member.network, self.member.preprocess, [images]))

    def nearest(self, features: np.ndarray, k: int, method: str = "auto") -> tuple[np.ndarray, np.ndarray]:
        """Find the images nearest to each row of `features`, in ascending order of distance.

        Parameters
        ----------
        features : ndarray
            (Q, D) float32, as from `features`.
        k : int
            Number of images.
        method : str
            "exact"; "index", which is fast for any number of images and approximate; "codes", by the Hamming distance
            of binary codes; "auto", exact for up to 20,000 images and the index for more. The index and the codes are
            built at their first use, and stored.

        Returns
        -------
        distances : ndarray
            (Q, k) float32; k is at most the number of images. An image of the split is at distance 0 from itself.
        positions : ndarray
            Positions in the split, (Q, k) int64; -1, at distance Inf, where the index finds fewer.

        Raises
        ------
        AlexNetError
            If faiss is missing, which "exact" does not require.
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
        return np.where(distances < DISTANCE_TOLERANCE * lengths, np.float32(0), distances), images

    def recall(self, method: str = "auto") -> dict[str, float]:
        """Return the share of an image's ten nearest that a method finds.

        Parameters
        ----------
        method : str
            As for `nearest`.

        Returns
        -------
        dict of str to float
            Recall, 0 to 1, among the first "10" and the first "100" results. It was measured when the method was
            built, on 100 images of the split, each without itself; empty for a split of one image.
        """
        method = choose_method(method, len(self))
        if method == "exact":
            return {str(count): 1.0 for count in RECALL_AT}
        self._open(method)
        recall: dict[str, float] = json.loads(self._about(method).read_bytes())["recall"]
        return recall

    @cached_property
    def stored(self) -> np.ndarray:
        """The activations of fc7 of every image, (len(self), 4096) float32, memory-mapped."""
        stored: np.ndarray = np.load(self.folder / _FEATURES, mmap_mode="r", allow_pickle=False)
        return stored

    def prepare(self) -> None:
        """Compute the features, unless they are stored already."""
        file = self.folder / _FEATURES
        if file.is_file():
            return
        with _locked(self.folder):
            for other in self.folder.parent.glob(f"{self.split.name}-*"):
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
            if not file.is_file():
                write_atomic(file, self._write_features)

    @property
    def layer(self) -> str:
        """Name of the layer whose activations are compared: fc7 of the paper's network."""
        return self.member.network.feature_layer

    def _write_features(self, file: IO[bytes]) -> None:
        batches = (batch.images.numpy() for batch in evaluation_batches(self.split, BATCH_SIZE))
        with progress(len(self), f"{self.layer} of {self.split.name} images") as bar:
            for features in layer_features(self.member.network, self.member.preprocess, batches):
                if not np.isfinite(features).all():
                    raise AlexNetError(
                        f"{self.member.run.path}: the activations of {self.layer} have NaN or Inf values: the training "
                        "diverged"
                    )
                if not bar.done:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(self), features.shape[1])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(features.astype("<f4").tobytes())
                bar.advance(len(features))

    def _open(self, method: str) -> Method:
        """The index or the codes; built, if they do not exist."""
        if method not in self._methods:
            if not self._about(method).is_file():
                with _locked(self.folder):
                    if not self._about(method).is_file():
                        self._build(method)
            self._methods[method] = self._read(method)
        return self._methods[method]

    def _build(self, method: str) -> None:
        file = self.folder / _FILES[method]
        if method == "index":
            inverted_file.build(file, self.stored, _faiss())
        else:
            binary_codes.build(file, self.stored)
        about = {"recall": self._measure(self._read(method)), "faiss": _faiss().__version__}
        write_atomic(self._about(method), json.dumps(about, indent=1).encode() + b"\n")

    def _read(self, method: str) -> Method:
        file = self.folder / _FILES[method]
        try:
            if method == "index":
                return inverted_file.InvertedFile(file, self.stored, _faiss())
            return binary_codes.BinaryCodes(file, _faiss())
        except Exception as error:
            raise AlexNetError(
                f"{file} can't be read ({error}): remove its folder, which is then built again"
            ) from error

    def _about(self, method: str) -> Path:
        return self.folder / f"{method}.json"

    def _measure(self, method: Method) -> dict[str, float]:
        ten = min(10, len(self) - 1)
        if not ten:
            return {}
        images = np.unique(np.linspace(0, len(self) - 1, _QUERIES).round().astype(np.int64))
        queries = self.stored[images]
        with progress(len(self), "measure recall") as bar:
            _, nearest = exact.nearest(queries, self.stored, ten + 1, done=bar.advance)
        _, results = method.nearest(queries, RECALL_AT[-1] + 1)
        recall = {}
        for count in RECALL_AT:
            found = [
                np.intersect1d(_others(nearest[row], image)[:ten], _others(results[row], image)[:count])
                for row, image in enumerate(images)
            ]
            recall[str(count)] = float(np.mean([len(rows) / ten for rows in found]))
        return recall


def choose_method(name: str, images: int) -> str:
    """Resolve "auto" for a number of images, and check that a method can be used.

    Raises
    ------
    UsageError
        If there is no such method.
    AlexNetError
        If it requires faiss, which is missing.
    """
    if check_choice(name, METHODS, "method") == "auto":
        name = "exact" if images <= MAX_EXACT_IMAGES else "index"
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
            "this method requires faiss: pip install 'alexnet[search]', or search with --method exact"
        ) from None
    return faiss


def _fingerprint(member: Member, dataset: PreparedDataset) -> str:
    """A checksum, in 16 hex digits, of all that the features depend on: weights, preprocessing, images, format."""
    config = member.run.config
    parts = [
        _FORMAT_VERSION,
        config.crop_size,
        config.input_size,
        config.scale,
        config.recipe.mean,
        dataset.checksums(),
    ]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    update_checksum(digest, {**member.network.state_dict(), "mean": member.preprocess.mean})
    return digest.hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the search folder of a run, so that of two processes that need the same file one builds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            lock = FileLock(folder.parent / "lock")
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                notify(f"waiting for another process that builds {folder.parent}")
                held.enter_context(lock)
            for leftover in folder.glob(".*.tmp"):  # of a process that was killed
                leftover.unlink()
            yield
    except OSError as error:
        raise AlexNetError(f"{folder} can't be written: {error.strerror or error}") from error
