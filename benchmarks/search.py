"""Time, memory and recall of the search among many vectors of the size of fc7.

    python benchmarks/search.py [--images 1000000] [--folder FOLDER] [--keep] [--results docs/results]

The vectors are synthetic: a point of 64 dimensions near the center of one of 1,000 classes goes through a random
network of two layers with ReLU, so that they are clustered, not negative, sparse, and lie near a surface of few
dimensions, as the activations of fc7 do. Queries are drawn in the same way and are not among them. A million takes
17 GB in FOLDER.

"cold" is with the features dropped from the memory of the operating system, so that each is read from the disk.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import faiss
import numpy as np

from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.runtime.provenance import machine, provenance
from alexnet.search import binary_codes, exact, inverted_file

DIMENSIONS = 4096
ROWS = 4096
QUERIES = 200
EXACT_ALONE = 3


class Synthetic:
    """Source of the vectors."""

    def __init__(self, classes: int = 1000, inner: int = 64, hidden: int = 256) -> None:
        rng = np.random.default_rng(0)
        self.centers = rng.normal(0, 1, (classes, inner)).astype(np.float32)
        self.first = rng.normal(0, inner**-0.5, (inner, hidden)).astype(np.float32)
        self.second = rng.normal(0, hidden**-0.5, (hidden, DIMENSIONS)).astype(np.float32)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """`count` vectors (count, 4096) float32."""
        rng = np.random.default_rng((1, seed))
        points = self.centers[rng.integers(len(self.centers), size=count)]
        points = points + 0.7 * rng.standard_normal(points.shape, dtype=np.float32)
        vectors = np.maximum(points @ self.first, 0) @ self.second
        return np.maximum(vectors - 0.2, 0, out=vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="leave the files there, and use those that are")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    folder = arguments.folder / f"alexnet-search-{arguments.images}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report = measure(folder, arguments.images)
        # The features are no longer mapped here: mapped pages could not be dropped from memory.
        report["index"]["milliseconds, cold"] = cold(folder, arguments.images)
    finally:
        if not arguments.keep:
            for name in ("features.npy", "index.faiss", "codes.safetensors"):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
    command = ["python", "benchmarks/search.py", "--images", str(arguments.images)]
    report |= provenance(" ".join(command))
    report["versions"]["faiss"] = faiss.__version__
    text = json.dumps(report, indent=1)
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    name = f"search-{re.sub('[^a-z0-9]+', '-', machine().lower()).strip('-')}.json"
    write_atomic(arguments.results / name, text.encode() + b"\n")


def measure(folder: Path, count: int) -> dict[str, Any]:
    source = Synthetic()
    features, index, coder = folder / "features.npy", folder / "index.faiss", folder / "codes.safetensors"
    seconds = {}
    if not features.exists():
        seconds["vectors"] = timed(lambda: write_vectors(features, source, count))
    stored = np.load(features, mmap_mode="r")
    if not index.exists():
        seconds["index"] = timed(lambda: inverted_file.build(index, stored, faiss))
    if not coder.exists():
        seconds["codes"] = timed(lambda: binary_codes.build(coder, stored))

    queries = source.draw(QUERIES, count + 1)
    with progress(count, "exact") as bar:
        _, near = exact.nearest(queries, stored, 10, done=bar.advance)
    methods: dict[str, Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]] = {
        "index": inverted_file.InvertedFile(index, stored, faiss).nearest,
        "codes": binary_codes.BinaryCodes(coder, faiss).nearest,
    }
    report: dict[str, Any] = {
        "description": f"the nearest of {count:,} vectors of {DIMENSIONS}: one query at a time, of {QUERIES}; "
        "memory is warm",
        "images": count,
        "seconds to build": {name: round(value, 1) for name, value in seconds.items()},
        "bytes on disk": {path.name: path.stat().st_size for path in (features, index, coder)},
        "exact": {"milliseconds": spread([alone(exact.nearest, query, stored) for query in queries[:EXACT_ALONE]])},
    }
    for name, nearest in methods.items():
        rows = nearest(queries, 100)[1]  # the data that the measured queries read is now in memory
        report[name] = {
            "milliseconds": spread([alone(nearest, query) for query in queries]),
            "recall at 10": share(near, nearest(queries, 10)[1]),
            "of the 10 nearest, in the first 100": share(near, rows),
        }
    return report


def write_vectors(path: Path, source: Synthetic, count: int) -> None:
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


def cold(folder: Path, count: int) -> dict[str, float]:
    """Milliseconds of queries whose candidates are read from the disk; the index itself is in memory."""
    features, index = folder / "features.npy", folder / "index.faiss"
    queries = Synthetic().draw(QUERIES, count + 2)
    with features.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    method = inverted_file.InvertedFile(index, np.load(features, mmap_mode="r"), faiss)
    return spread([alone(method.nearest, query) for query in queries])


def alone(nearest: Callable[..., tuple[np.ndarray, np.ndarray]], query: np.ndarray, *stored: np.ndarray) -> float:
    """Milliseconds per query for its ten nearest vectors."""
    start = time.perf_counter()
    nearest(query[None], *stored, 10)
    return 1e3 * (time.perf_counter() - start)


def spread(milliseconds: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(milliseconds, [0, 0.5, 0.95])
    return {"median": round(middle, 2), "least": round(low, 2), "95% below": round(high, 2)}


def share(near: np.ndarray, found: np.ndarray) -> float:
    """Mean share of the rows of `near` that are among those of `found`."""
    return float(np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(near, found, strict=True)]).round(4))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
