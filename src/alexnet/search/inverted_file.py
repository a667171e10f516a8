"""An inverted-file index of 256 bytes per image, with exact distances.

Features are projected to their 256 principal components, of 8 bits each, and clustered into about as many lists as the
square root of their number. A query reads the nearest lists; the best candidates there are reranked by their exact
distance, from the memory-mapped features. The index is approximate in one way: a near image can be missed, because its
list was not read or because it was not among the candidates. The distances are exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np

from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.search.exact import rerank
from alexnet.search.pca import SEED, principal_components, random_sample

PROBES = 32  # lists that a query reads
MIN_CANDIDATES = 128  # images that are reranked, at least
ROWS = 4096  # that are added at a time


def build(path: Path, stored: np.ndarray, faiss: Any) -> None:
    """Build an index and write it.

    Parameters
    ----------
    path : Path
        The file to write.
    stored : ndarray
        The features, (n, d) float32.
    faiss : module
        The package faiss.
    """
    sample = random_sample(stored)
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


class InvertedFile:
    """An index that `build` wrote, memory-mapped.

    Parameters
    ----------
    path : Path
        Its file.
    stored : ndarray
        The features that it was built from, (n, d) float32.
    faiss : module
        The package faiss.
    """

    def __init__(self, path: Path, stored: np.ndarray, faiss: Any) -> None:
        self.stored = stored
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        faiss.extract_index_ivf(self._index).nprobe = PROBES

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest features, as `exact.nearest`; a place without one has row -1 and distance Inf."""
        _, candidates = self._index.search(queries, min(max(MIN_CANDIDATES, 4 * k), len(self.stored)))
        return rerank(queries, self.stored, candidates, min(k, len(self.stored)))
