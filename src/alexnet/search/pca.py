"""Principal components of stored features, with which the index and the binary codes begin."""

from __future__ import annotations

import numpy as np

COMPONENTS = 256
SAMPLE_SIZE = 20_000
SEED = 0


def random_sample(stored: np.ndarray) -> np.ndarray:
    """Read at most `SAMPLE_SIZE` random rows of `stored`, always the same ones, in their order."""
    rows = np.random.default_rng(SEED).choice(len(stored), min(SAMPLE_SIZE, len(stored)), replace=False)
    return stored[np.sort(rows)]


def principal_components(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the first principal components of a sample.

    Parameters
    ----------
    sample : ndarray
        (n, d) float32.

    Returns
    -------
    mean : ndarray
        (d,) float32.
    components : ndarray
        (c, d) float32, of length 1; at most 256.
    """
    from sklearn.utils.extmath import randomized_svd

    mean = sample.mean(axis=0)
    count = min(COMPONENTS, *sample.shape)
    _, _, components = randomized_svd(sample - mean, count, n_iter=4, random_state=SEED)
    return mean, components.astype(np.float32)
