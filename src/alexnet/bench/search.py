"""Search in a million vectors of fc7's size: time of a query, files, and recall.

The vectors are synthetic: a point of 64 dimensions near the center of one of 1,000 classes goes through a random
network of two layers with ReLU. Like the activations of fc7 they are clustered, non-negative, sparse, and near a
surface of few dimensions. Queries are drawn from the same distribution and are not among the vectors. A million vectors
take 17 GB in the temporary folder (TMPDIR).

"cold" is measured after the features were dropped from the page cache, so that each is read from the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import faiss
import numpy as np

from alexnet.bench.parts import Settings
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.search import binary_codes, exact, inverted_file

DIMENSIONS = 4096
ROWS = 4096  # drawn at a time
QUERIES = 200
EXACT_QUERIES = 3

Nearest = Callable[..., tuple[np.ndarray, np.ndarray]]


class SyntheticVectors:
    """The distribution of the vectors."""

    def __init__(self) -> None:
        classes, inner, hidden = 1000, 64, 256
        rng = np.random.default_rng(0)
        self.centers = rng.normal(0, 1, (classes, inner)).astype(np.float32)
        self.first = rng.normal(0, inner**-0.5, (inner, hidden)).astype(np.float32)
        self.second = rng.normal(0, hidden**-0.5, (hidden, DIMENSIONS)).astype(np.float32)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Draw `count` vectors (count, 4096) float32."""
        rng = np.random.default_rng((1, seed))
        points = self.centers[rng.integers(len(self.centers), size=count)]
        points = points + 0.7 * rng.standard_normal(points.shape, dtype=np.float32)
        vectors = np.maximum(points @ self.first, 0) @ self.second
        return np.maximum(vectors - 0.2, 0, out=vectors)


def search(settings: Settings, *, count: int = 1_000_000) -> dict[str, Any]:
    """Measure exact search, the index and the binary codes on `count` vectors.

    Returns
    -------
    dict
        Seconds to build and bytes of each file; for each method milliseconds of a query, and recall at 10.
    """
    report = _measure(settings.folder, count)
    # The features are not mapped into memory here; those that are could not be dropped from the page cache.
    report["index"]["milliseconds, cold"] = _cold(settings.folder, count)
    return report


def _measure(folder: Path, count: int) -> dict[str, Any]:
    """All results but those that are read from the disk."""
    source = SyntheticVectors()
    features, index, codes = folder / "features.npy", folder / "index.faiss", folder / "codes.safetensors"
    seconds = {"vectors": _seconds(lambda: _write_vectors(features, source, count))}
    stored = np.load(features, mmap_mode="r")
    seconds["index"] = _seconds(lambda: inverted_file.build(index, stored, faiss))
    seconds["codes"] = _seconds(lambda: binary_codes.build(codes, stored))

    queries = source.draw(QUERIES, count + 1)
    with progress(count, "exact") as bar:
        _, expected = exact.nearest(queries, stored, 10, done=bar.advance)
    methods: dict[str, Nearest] = {
        "index": inverted_file.InvertedFile(index, stored, faiss).nearest,
        "codes": binary_codes.BinaryCodes(codes, faiss).nearest,
    }
    report: dict[str, Any] = {
        "description": f"the nearest of {count:,} vectors of {DIMENSIONS}: one query at a time, of {QUERIES}; "
        "memory is warm",
        "images": count,
        "seconds to build": {name: round(value, 1) for name, value in seconds.items()},
        "bytes on disk": {path.name: path.stat().st_size for path in (features, index, codes)},
        "exact": {
            "milliseconds": _spread([_milliseconds(exact.nearest, query, stored) for query in queries[:EXACT_QUERIES]])
        },
        "versions": {"faiss": faiss.__version__},
    }
    for name, nearest in methods.items():
        rows = nearest(queries, 100)[1]  # also reads the candidates of the timed queries into memory
        report[name] = {
            "milliseconds": _spread([_milliseconds(nearest, query) for query in queries]),
            "recall at 10": _recall(expected, nearest(queries, 10)[1]),
            "of the 10 nearest, in the first 100": _recall(expected, rows),
        }
    return report


def _write_vectors(path: Path, source: SyntheticVectors, count: int) -> None:
    def write(file: IO[bytes]) -> None:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (count, DIMENSIONS)}
        )
        with progress(count, "vectors") as bar:
            for start in range(0, count, ROWS):
                vectors = source.draw(min(ROWS, count - start), start)
                file.write(vectors.data)
                bar.advance(len(vectors))

    write_atomic(path, write)


def _cold(folder: Path, count: int) -> dict[str, float]:
    """Milliseconds of queries whose candidates are read from the disk; the index itself is in memory."""
    features = folder / "features.npy"
    queries = SyntheticVectors().draw(QUERIES, count + 2)
    with features.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    method = inverted_file.InvertedFile(folder / "index.faiss", np.load(features, mmap_mode="r"), faiss)
    return _spread([_milliseconds(method.nearest, query) for query in queries])


def _milliseconds(nearest: Nearest, query: np.ndarray, *stored: np.ndarray) -> float:
    """Milliseconds of one query for its ten nearest vectors."""
    return 1e3 * _seconds(lambda: nearest(query[None], *stored, 10))


def _spread(milliseconds: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(milliseconds, [0, 0.5, 0.95])
    return {"median": round(middle, 2), "least": round(low, 2), "95% below": round(high, 2)}


def _recall(expected: np.ndarray, found: np.ndarray) -> float:
    """Mean fraction of the `expected` rows of a query that are among the `found` ones."""
    return float(np.mean([np.isin(rows, others).mean() for rows, others in zip(expected, found, strict=True)]).round(4))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
