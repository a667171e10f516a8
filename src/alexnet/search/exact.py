"""The nearest of stored vectors by Euclidean distance, none missed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ROWS = 1024  # read at a time: 16 MB of fc7
SPARE = 32


def nearest(
    queries: np.ndarray,
    stored: np.ndarray,
    k: int,
    spare: int = SPARE,
    done: Callable[[int], None] = lambda rows: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` of `stored` (m, d) nearest to each of `queries` (n, d) by Euclidean distance, the nearest first.

    Both float32; `stored` may be a memory map, which is read once in order, and `done` told how many rows were.
    Returns distances (n, k) float32 and rows (n, k) int64, of equal distances the first row first; fewer than `k` where
    there are fewer.

    Products of matrices find `k + spare` candidates fast, with the error of a difference of large numbers; their
    distances are then computed from the differences themselves. Where that error could hide a nearer one behind the
    candidates, it is done again with more of them.
    """
    k = min(k, len(stored))
    kept = k + spare
    candidates = np.empty((len(queries), 0), dtype=np.int64)
    bounds = np.empty((len(queries), 0), dtype=np.float32)  # below the squared distance of each candidate
    beyond = np.full(len(queries), np.inf, dtype=np.float32)  # and of everything else
    squares = np.einsum("nd,nd->n", queries, queries)[:, None]
    # The rounding of a sum of d products, in any order, is at most d · 2^-24 of the product of the lengths.
    rounding = stored.shape[1] * 2.0**-24
    for start in range(0, len(stored), ROWS):
        block = stored[start : start + ROWS]
        of_both = squares + np.einsum("md,md->m", block, block)
        # (|q| + |x|)² is at most 2 (|q|² + |x|²).
        bounds = np.concatenate([bounds, (1 - 2 * rounding) * of_both - 2 * (queries @ block.T)], axis=1)
        rows = np.arange(start, start + len(block))
        candidates = np.concatenate([candidates, np.broadcast_to(rows, of_both.shape)], axis=1)
        if bounds.shape[1] > kept:
            order = np.argpartition(bounds, kept, axis=1)
            beyond = np.minimum(beyond, np.take_along_axis(bounds, order[:, kept, None], axis=1)[:, 0])
            bounds = np.take_along_axis(bounds, order[:, :kept], axis=1)
            candidates = np.take_along_axis(candidates, order[:, :kept], axis=1)
        done(len(block))
    distances, rows = rerank(queries, stored, candidates, k)
    unsure = np.flatnonzero(distances.max(axis=1, initial=0).astype(np.float64) ** 2 > beyond)
    if len(unsure):
        distances[unsure], rows[unsure] = nearest(queries[unsure], stored, k, 8 * spare)
    return distances, rows


def rerank(queries: np.ndarray, stored: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows `candidates` (n, c) of `stored`, -1 for none, the `k` nearest to each query: as `nearest`."""
    distances = np.full((len(queries), k), np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for number, query in enumerate(queries):
        mine = np.sort(candidates[number][candidates[number] >= 0])
        differences = stored[mine] - query
        found = np.sqrt(np.einsum("cd,cd->c", differences, differences))
        best = np.argsort(found, kind="stable")[:k]
        distances[number, : len(best)], rows[number, : len(best)] = found[best], mine[best]
    return distances, rows
