"""Confidence intervals of the metrics of classes, of their macro averages and of the expected cost.

The F1 of a class has Wilson's interval. An average over classes has, at each end, the farther of two intervals: the
percentile bootstrap over the images (Efron 1979), and Wilson's intervals of the classes, combined by their squared
distances (Zou and Donner 2008). The bootstrap alone has no width where all images are classified correctly: it
draws nothing that was not seen, however few images there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alexnet.evaluation.metrics import Predictions, macro_averages, precision_recall_f1, wilson_bounds

RESAMPLES = 1000
CONFIDENCE = 0.95
"""Level of the confidence intervals of an evaluation."""


@dataclass(frozen=True)
class ClassIntervals:
    """Intervals of the metrics of classes and of their macro averages.

    Parameters
    ----------
    macro : dict of str to (float, float)
        By name, those of `alexnet.evaluation.metrics.macro_averages`; NaN where the average is undefined.
    f1 : list of (float, float) or None
        Of each class; None where F1 is undefined.
    """

    macro: dict[str, tuple[float, float]]
    f1: list[tuple[float, float] | None]


def class_intervals(
    predictions: Predictions, classes: int, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> ClassIntervals:
    """Intervals of F1 and of the macro averages of predictions.

    The F1 of a class is 2J / (1 + J), where J is the share of its hits in the images that have the class as label or
    as prediction. Wilson's interval of J therefore gives that of F1 (Lam 2023, arXiv:2309.14621).

    Parameters
    ----------
    predictions : Predictions
        With their weights, if any: intervals are then those of the effective number of images.
    classes : int
        Number of classes.
    resamples, seed : int
        Number of bootstrap resamples, and their seed.
    confidence : float
        Confidence level, 0 to 1.
    """
    first, counts = _groups(predictions.labels * classes + predictions.predicted, predictions.weights)
    true, predicted = predictions.labels[first], predictions.predicted[first]
    weight = np.ones(len(first)) if predictions.weights is None else predictions.weights[first]
    drawn: dict[str, list[float]] = {}
    for times in _resampled(counts, resamples, seed):
        for name, value in macro_averages(precision_recall_f1(true, predicted, times * weight, classes)).items():
            drawn.setdefault(name, []).append(value)

    def masses(each: np.ndarray) -> list[np.ndarray]:
        """Sums of each class: hits; images with the class as label, as prediction, and as one of them."""
        hits = np.bincount(true, counts * each * (true == predicted), minlength=classes)
        labeled, named = (np.bincount(of_class, counts * each, minlength=classes) for of_class in (true, predicted))
        return [hits, labeled, named, labeled + named - hits]

    hits, *wholes = masses(weight)
    squares = masses(weight**2)[1:]
    recall, precision, overlap = (
        _Shares.of(hits, whole, square, confidence) for whole, square in zip(wholes, squares, strict=True)
    )
    f1 = _Shares(*(2 * value / (1 + value) for value in overlap))
    known = ~np.isnan(recall.value)
    macro = {
        name: _farther(shares.mean(known), np.array(drawn[name]), confidence)
        for name, shares in (("macro_precision", precision), ("macro_recall", recall), ("macro_f1", f1))
    }
    of_classes = [None if np.isnan(value) else (float(low), float(high)) for value, low, high in zip(*f1, strict=True)]
    return ClassIntervals(macro, of_classes)


def cost_interval(
    costs: np.ndarray,
    each: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """The interval of the mean cost of images.

    The cost of an image lies between the smallest and the largest of its class; the place of the mean between
    them is a share with Wilson's interval. A rare and expensive mistake that the images do not contain is
    therefore in the interval.

    Parameters
    ----------
    costs : ndarray
        (classes, decisions) float64: the cost of each possible decision for an image of each class.
    each : ndarray
        (n,) float64: the cost of each image.
    labels : ndarray
        (n,) int64: the class of each image.
    weights : ndarray, optional
        (n,) how much each image counts.
    resamples, seed : int
        Number of bootstrap resamples, and their seed.
    confidence : float
        Confidence level, 0 to 1.
    """
    first, counts = _groups(labels, each, weights)
    weight = np.ones(len(first)) if weights is None else weights[first]
    value, of_class = each[first], labels[first]
    drawn = np.array([_mean(value, times * weight) for times in _resampled(counts, resamples, seed)])

    lowest, highest = costs.min(axis=1), costs.max(axis=1)
    whole, square, total = (
        np.bincount(of_class, counts * part, minlength=len(costs))
        for part in (weight, weight**2, weight * (value - lowest[of_class]))
    )
    scale = highest - lowest
    with np.errstate(invalid="ignore", divide="ignore"):
        hits = np.where(scale > 0, total / scale, 0)
    shares = _Shares.of(hits, whole, square, confidence)
    return _farther(_Shares(*(lowest + scale * part for part in shares)).mean(whole > 0, whole), drawn, confidence)


class _Shares(NamedTuple):
    """A value of each class with the ends of its interval, (classes,) each; NaN where it is undefined."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, hits: np.ndarray, whole: np.ndarray, square: np.ndarray, confidence: float) -> _Shares:
        """Hits as a share of the whole, weighted; `square` is the sum of the squared weights of the whole."""
        with np.errstate(invalid="ignore", divide="ignore"):
            value = hits / whole
            return cls(value, *wilson_bounds(value, whole**2 / square, confidence))

    def mean(self, chosen: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
        """The interval of the mean of the chosen classes where it is defined (Zou and Donner 2008)."""
        chosen = chosen & ~np.isnan(self.value)
        if not chosen.any():
            return np.nan, np.nan
        value, low, high = (part[chosen] for part in self)
        share = np.full(len(value), 1.0) if weights is None else weights[chosen]
        share = share / share.sum()
        mean = share @ value
        return (
            float(mean - np.sqrt(((share * (value - low)) ** 2).sum())),
            float(mean + np.sqrt(((share * (high - value)) ** 2).sum())),
        )


def _groups(*columns: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Groups of images that are equal in all columns: the first image and the number of images of each."""
    key = np.zeros(len(next(column for column in columns if column is not None)), dtype=np.int64)
    for column in columns:
        if column is not None:
            values, place = np.unique(column, return_inverse=True)
            _, key = np.unique(key * len(values) + place, return_inverse=True)
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    return first, counts


def _resampled(counts: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield for each resample of the images how many of each group it has, (groups,) int64."""
    rng, n = np.random.default_rng(seed), int(counts.sum())
    for _ in range(resamples):
        yield rng.multinomial(n, counts / n)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float(weights @ values / total) if total > 0 else np.nan


def _farther(interval: tuple[float, float], drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    """The farther end on each side: of an interval, and of the percentiles of the resamples."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return interval
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.fmin(interval[0], low)), float(np.fmax(interval[1], high))
