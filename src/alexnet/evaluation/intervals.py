"""Intervals by resampling: percentile bootstrap over the images (Efron 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alexnet.evaluation.metrics import Predictions, macro_averages, precision_recall_f1

RESAMPLES = 1000
CONFIDENCE = 0.95
"""Level of the confidence intervals of an evaluation."""


@dataclass(frozen=True)
class ClassIntervals:
    """Intervals of the metrics of classes and of their macro averages.

    Parameters
    ----------
    macro : dict of str to (float, float)
        By name, those of `alexnet.evaluation.metrics.macro_averages`.
    f1 : list of (float, float) or None
        Of each class; None where F1 is undefined in all resamples.
    """

    macro: dict[str, tuple[float, float]]
    f1: list[tuple[float, float] | None]


def class_intervals(
    predictions: Predictions, classes: int, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> ClassIntervals:
    """Resample the images, with their weights, and take the percentiles of the metrics."""
    cells, cell = np.unique(predictions.labels * classes + predictions.predicted, return_inverse=True)
    true, predicted = np.divmod(cells, classes)
    weights = predictions.weights
    macros: dict[str, list[float]] = {}
    f1 = np.empty((resamples, classes))
    for i, drawn in enumerate(_resampled(len(predictions), resamples, seed)):
        sums = np.bincount(cell, drawn if weights is None else drawn * weights, len(cells))
        table = precision_recall_f1(true, predicted, sums, classes)
        f1[i] = table[2]
        for name, value in macro_averages(table).items():
            macros.setdefault(name, []).append(value)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    return ClassIntervals(
        {name: _ends(np.array(values), ends) or (np.nan, np.nan) for name, values in macros.items()},
        [_ends(column, ends) for column in f1.T],
    )


def mean_interval(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """The interval of the (weighted) mean of values (n,)."""
    each = np.ones(len(values)) if weights is None else weights
    means = []
    for drawn in _resampled(len(values), resamples, seed):
        total = drawn @ each
        means.append((drawn * each) @ values / total if total > 0 else np.nan)
    return _ends(np.array(means), [(1 - confidence) / 2, (1 + confidence) / 2]) or (np.nan, np.nan)


def _resampled(n: int, resamples: int, seed: int) -> list[np.ndarray]:
    """How often each of n images is drawn, (n,) float64, for each resample."""
    rng = np.random.default_rng(seed)
    return [np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64) for _ in range(resamples)]


def _ends(values: np.ndarray, ends: list[float]) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, ends)
    return float(low), float(high)
