"""Ensembles: the weights of the averaged probabilities of several trained networks (paper, section 5.1)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from alexnet.runs.run import CROSS_VALIDATION
from alexnet.runtime.errors import AlexNetError


def fold_runs(folder: Path) -> list[Path]:
    """The run folders of the finished folds of a cross-validation.

    Raises
    ------
    AlexNetError
        If no fold is finished, or the folder cannot be read.
    """
    try:
        numbers = sorted(map(int, json.loads((folder / CROSS_VALIDATION).read_text(encoding="utf-8"))["folds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlexNetError(f"{folder / CROSS_VALIDATION} cannot be read: {error}") from error
    if not numbers:
        raise AlexNetError(f"no fold of {folder} is finished; continue with the same `alexnet crossval` command")
    return [folder / f"fold-{number}" for number in numbers]


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
