"""An index that scales: 256 bytes an image in lists of what is near each other, and the best of them looked at again.

The features go to their 256 principal components, of 8 bits each, in about as many lists as the square root of their
number. A query reads a few lists, and the exact distance decides among the best that it finds there, read from the
memory-mapped features. Approximate in one way only: a near image may be in a list that was not read, or be missed
among the best; the distances are exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np

from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.search.components import SEED, principal_components, sample_of
from alexnet.search.exact import rerank

PROBES = 32  # lists that a query reads
SHORTLIST = 128  # and images whose exact distance it asks for, at least
ROWS = 4096


def build(path: Path, stored: np.ndarray, faiss: Any) -> None:
    """Write the index of `stored` (n, d) float32."""
    sample = sample_of(stored)
    mean, components = principal_components(sample)
    width, count = components.shape[0], round(len(stored) ** 0.5)
    lists = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(width), width, count, faiss.ScalarQuantizer.QT_8bit)
    lists.cp.seed = SEED
    lists.cp.min_points_per_centroid = 1  # a warning otherwise
    lists.train((sample - mean) @ components.T)
    with progress(len(stored), "index") as bar:
        for start in range(0, len(stored), ROWS):
            block = stored[start : start + ROWS]
            lists.add((block - mean) @ components.T)
            bar.advance(len(block))
    projection = faiss.LinearTransform(stored.shape[1], width, True)
    faiss.copy_array_to_vector(components.ravel(), projection.A)
    faiss.copy_array_to_vector(-components @ mean, projection.b)
    projection.is_trained = True

    def write(file: IO[bytes]) -> None:
        faiss.write_index(faiss.IndexPreTransform(projection, lists), faiss.PyCallbackIOWriter(file.write))

    write_atomic(path, write)


class Lists:
    """The index at `path`, memory-mapped, of the features `stored`."""

    def __init__(self, path: Path, stored: np.ndarray, faiss: Any) -> None:
        self.stored = stored
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        faiss.extract_index_ivf(self._index).nprobe = PROBES

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `exact.nearest`, but for images that are missed; row -1 at distance inf where none was found."""
        _, candidates = self._index.search(queries, min(max(SHORTLIST, 4 * k), len(self.stored)))
        return rerank(queries, self.stored, candidates, min(k, len(self.stored)))
