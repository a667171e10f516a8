"""The directions in which stored features differ most: what the index and the codes begin with."""

from __future__ import annotations

import numpy as np

COMPONENTS = 256
SAMPLE = 20_000
SEED = 0


def sample_of(stored: np.ndarray, size: int = SAMPLE) -> np.ndarray:
    """At most `size` of the rows, drawn from the seed, in memory."""
    rows = np.random.default_rng(SEED).choice(len(stored), min(size, len(stored)), replace=False)
    return stored[np.sort(rows)]


def principal_components(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) and the first principal components (c, d), of length 1, of a sample (n, d); all float32."""
    from sklearn.utils.extmath import randomized_svd

    mean = sample.mean(axis=0)
    count = min(COMPONENTS, *sample.shape)
    _, _, components = randomized_svd(sample - mean, count, n_iter=4, random_state=SEED)
    return mean, components.astype(np.float32)
