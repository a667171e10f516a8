"""Ensembles: the weights of the averaged probabilities of several trained networks (paper, section 5.1)."""

from __future__ import annotations

import numpy as np


def optimal_coefficients(label_probability: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """The coefficients of the weighted average with the smallest log loss.

    Expectation maximization from equal coefficients. The log loss is convex in them, so this is the global minimum.

    Parameters
    ----------
    label_probability : ndarray
        (n, members), the probability that each member gives to the label of each image; the log loss of an average
        depends on nothing else.
    tolerance : float
        Largest distance of the log loss from its minimum, in nats.

    Returns
    -------
    ndarray
        (members,) float64, at least 0 and with sum 1.
    """
    p = np.maximum(label_probability, np.finfo(np.float64).tiny)
    weights = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(10_000):
        gain = (p / (p @ weights)[:, None]).mean(axis=0)
        # By convexity the log loss is at most max(gain) - 1 above the minimum.
        if gain.max() - 1 <= tolerance:
            break
        weights = weights * gain
    return weights / weights.sum()
