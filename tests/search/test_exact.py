"""Exact search against brute force in float64."""

import numpy as np
import pytest

from alexnet.search.exact import nearest


def brute_force(queries: np.ndarray, stored: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.sqrt(((queries[:, None].astype(np.float64) - stored[None].astype(np.float64)) ** 2).sum(-1))
    rows = distances.argsort(axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


@pytest.mark.parametrize("count", [7, 500, 2500])
def test_nearest_are_those_of_brute_force(count: int) -> None:
    rng = np.random.default_rng(count)
    stored, queries = (rng.normal(0, 1, (n, 64)).astype(np.float32) for n in (count, 9))
    distances, rows = nearest(queries, stored, 5)
    exact, exact_rows = brute_force(queries, stored, 5)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(distances, exact, rtol=1e-5)


def test_rounding_of_large_numbers_hides_no_neighbor() -> None:
    """Far from zero the squared distances, about 1, are below the rounding of |q|² + |x|² - 2qx, about 4·10^7."""
    rng = np.random.default_rng(3)
    stored, queries = (rng.normal(1000, 0.1, (n, 40)).astype(np.float32) for n in (2000, 5))
    expanded = (queries**2).sum(1)[:, None] + (stored**2).sum(1) - 2 * queries @ stored.T
    exact, exact_rows = brute_force(queries, stored, 5)
    assert not np.array_equal(expanded.argsort(axis=1)[:, :5], exact_rows)  # the rounding does change the order
    distances, rows = nearest(queries, stored, 5)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(distances, exact, rtol=1e-5)


def test_ties_are_in_order_of_rows_and_k_is_limited_by_the_number_of_vectors() -> None:
    stored = np.eye(4, dtype=np.float32)[[0, 1, 0, 1]]
    distances, rows = nearest(stored[:1], stored, 6)
    np.testing.assert_array_equal(rows, [[0, 2, 1, 3]])
    np.testing.assert_allclose(distances, [[0, 0, 2**0.5, 2**0.5]])


def test_progress_counts_every_row() -> None:
    done: list[int] = []
    nearest(np.zeros((1, 4), np.float32), np.ones((2500, 4), np.float32), 3, done=done.append)
    assert sum(done) == 2500
