"""Exact nearest neighbors by Euclidean distance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ROWS = 1024  # that are read at a time: 16 MB of fc7
SPARE_CANDIDATES = 32


def nearest(
    queries: np.ndarray,
    stored: np.ndarray,
    k: int,
    spare: int = SPARE_CANDIDATES,
    done: Callable[[int], None] = lambda rows: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors nearest to each query, in ascending order of distance.

    Parameters
    ----------
    queries : ndarray
        (n, d) float32.
    stored : ndarray
        (m, d) float32; a memory map is read once, in order.
    k : int
        Number of neighbors.
    spare : int
        Number of additional candidates.
    done : callable
        Called with the number of rows after each block that was read.

    Returns
    -------
    distances : ndarray
        (n, min(k, m)) float32.
    rows : ndarray
        (n, min(k, m)) int64, ascending among equal distances.

    Notes
    -----
    Matrix products find ``k + spare`` candidates, with the rounding error of a difference of large numbers. The
    distances of the candidates are then computed from the differences of the vectors. A query for which that error
    could exclude a nearer vector from the candidates is repeated with more of them.
    """
    k = min(k, len(stored))
    kept = k + spare
    candidates = np.empty((len(queries), 0), dtype=np.int64)
    bounds = np.empty((len(queries), 0), dtype=np.float32)  # lower bounds of the candidates' squared distances
    beyond = np.full(len(queries), np.inf, dtype=np.float32)  # and of all other vectors'
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
    uncertain = np.flatnonzero(distances.max(axis=1, initial=0).astype(np.float64) ** 2 > beyond)
    if len(uncertain):
        distances[uncertain], rows[uncertain] = nearest(queries[uncertain], stored, k, 8 * spare)
    return distances, rows


def rerank(queries: np.ndarray, stored: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of given candidates.

    Parameters
    ----------
    queries, stored, k
        As for `nearest`.
    candidates : ndarray
        Rows of `stored` for each query, (n, c) int64; -1 for none.

    Returns
    -------
    distances, rows : ndarray
        As from `nearest`, but always (n, k); a place without a neighbor has distance Inf and row -1.
    """
    distances = np.full((len(queries), k), np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for number, query in enumerate(queries):
        own = np.sort(candidates[number][candidates[number] >= 0])
        differences = stored[own] - query
        computed = np.sqrt(np.einsum("cd,cd->c", differences, differences))
        best = np.argsort(computed, kind="stable")[:k]
        distances[number, : len(best)], rows[number, : len(best)] = computed[best], own[best]
    return distances, rows
