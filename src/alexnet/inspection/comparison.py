"""Compare trained networks on the same images: paired tests, intervals of the difference, images that differ.

Accuracies are compared by the exact McNemar test and Newcombe's interval for paired proportions (Newcombe 1998, method
10), areas under the ROC curve by a paired bootstrap that is stratified by class. Where the images have weights, both
differences are weighted, and that of the accuracies is tested by a paired bootstrap too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import Evaluation, evaluate
from alexnet.evaluation.metrics import binary_scores, wilson_interval
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_csv

SIGNIFICANCE_LEVEL = 0.05
CONFIDENCE = 0.95
RESAMPLES = 2000


class Difference(NamedTuple):
    """A metric of two networks and its difference.

    Attributes
    ----------
    first, second : float
        The metric of each, 0 to 1.
    difference : float
        The second minus the first.
    interval : tuple of (float, float)
        Of the difference, 95% confidence.
    p_value : float
        Of the null hypothesis that both are equal, two-sided.
    adjusted_p_value : float or None
        The p-value adjusted for several comparisons, where there are several.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    adjusted_p_value: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the difference is statistically significant at a level of 5%, by the adjusted p-value."""
        p = self.p_value if self.adjusted_p_value is None else self.adjusted_p_value
        return f"statistically significant (p = {p:.2g})" if p < SIGNIFICANCE_LEVEL else f"within noise (p = {p:.2g})"

    def to_dict(self) -> dict[str, Any]:
        """Return the values and the verdict in their JSON form."""
        return {**self._asdict(), "verdict": self.verdict}


@dataclass(frozen=True)
class Pair:
    """The comparison of one network with the first one.

    Attributes
    ----------
    first, second : str
        The runs.
    accuracy : Difference
        Of the top-1 accuracies.
    only_first_correct, only_second_correct : int
        Images that only one of them classifies correctly.
    differing : int
        Images for which they predict different classes.
    roc_auc : Difference or None
        Of the areas under the ROC curve; None unless there are two classes and images of both.
    certainty : dict of str to Difference
        With soft labels: of the accuracies on images with a "certain" and with a "doubtful" label.
    """

    first: str
    second: str
    accuracy: Difference
    only_first_correct: int
    only_second_correct: int
    differing: int
    roc_auc: Difference | None = None
    certainty: dict[str, Difference] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in its JSON form."""
        result = {
            "first": self.first,
            "second": self.second,
            "accuracy": self.accuracy.to_dict(),
            "only_first_correct": self.only_first_correct,
            "only_second_correct": self.only_second_correct,
            "differing": self.differing,
        }
        if self.roc_auc is not None:
            result["roc_auc"] = self.roc_auc.to_dict()
        if self.certainty:
            result["certainty"] = {name: difference.to_dict() for name, difference in self.certainty.items()}
        return result


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes
    ----------
    evaluations : list of Evaluation
        The evaluation of each run, in order.
    pairs : list of Pair
        Each other run compared with the first.
    """

    evaluations: list[Evaluation]
    pairs: list[Pair]

    @property
    def differing(self) -> np.ndarray:
        """Indices of the images for which not all runs predict the same class, ascending, int64."""
        predicted = np.stack([evaluation.predictions.predicted for evaluation in self.evaluations])
        return np.flatnonzero((predicted != predicted[0]).any(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in its JSON form."""
        first = self.evaluations[0]
        return {
            "data": first.data,
            "split": first.split.name,
            "views": first.views,
            "n_samples": len(first.predictions),
            "weighted": first.predictions.weights is not None,
            "differing": len(self.differing),
            "pairs": [pair.to_dict() for pair in self.pairs],
        }

    def write_differences(self, file: str | os.PathLike[str]) -> None:
        """Write a CSV of the images for which not all runs predict the same class.

        Parameters
        ----------
        file : str or path
            Columns: path, label, and of each run the prediction and its probability.

        Raises
        ------
        AlexNetError
            If the file cannot be written.
        """
        first = self.evaluations[0]
        numbers = range(1, len(self.evaluations) + 1)
        rows = [["path", "label", *(name for n in numbers for name in (f"prediction_{n}", f"probability_{n}"))]]
        for i in self.differing.tolist():
            cells = [
                cell
                for e in self.evaluations
                for cell in (e.classes[e.predictions.ranked[i, 0]], f"{e.predictions.ranked_probabilities[i, 0]:.6g}")
            ]
            rows.append([first.split.paths(i), first.classes[first.predictions.labels[i]], *cells])
        try:
            write_csv(Path(file), rows)
        except OSError as error:
            raise AlexNetError(f"{file} cannot be written: {error.strerror or error}") from error


def compare(
    runs: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str | None = None,
    views: int = 10,
    batch_size: int = 64,
    precision: str = "float32",
    positive: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    device: str | None = None,
) -> Comparison:
    """Compare runs on the images of a split. Each run is compared with the first.

    Parameters
    ----------
    runs : sequence of str or path
        At least two run folders; a folder of `alexnet crossval` is the ensemble of its folds.
    data : str, path or PreparedDataset
        The prepared dataset.
    split, views, batch_size, precision, positive, device
        As in `alexnet.evaluate`.
    resamples : int
        Number of bootstrap resamples for the area under the ROC curve.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        If there are fewer than two runs, or an argument is out of range.
    AlexNetError
        If a run and the dataset do not fit together.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs at least two runs")
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}; it must be at least 1")
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    evaluations = [
        evaluate(
            run,
            dataset,
            split=split,
            views=views,
            batch_size=batch_size,
            precision=precision,
            positive=positive,
            raw=True,
            device=device,
        )
        for run in runs
    ]
    first, *others = evaluations
    correct, weights = first.predictions.correct, first.predictions.weights
    accuracies = _adjusted(
        [compare_accuracy(correct, other.predictions.correct, weights, resamples, seed) for other in others]
    )
    areas = [_compare_auc(first, other, resamples, seed) for other in others]
    if known := [area for area in areas if area is not None]:  # all or none
        areas = [*_adjusted(known)]
    pairs = [
        Pair(
            first=os.fspath(runs[0]),
            second=os.fspath(name),
            accuracy=accuracy,
            only_first_correct=int((correct & ~other.predictions.correct).sum()),
            only_second_correct=int((~correct & other.predictions.correct).sum()),
            differing=int((first.predictions.predicted != other.predictions.predicted).sum()),
            roc_auc=area,
            certainty=_compare_certainty(first, other, resamples, seed),
        )
        for name, other, accuracy, area in zip(runs[1:], others, accuracies, areas, strict=True)
    ]
    return Comparison(evaluations, pairs)


def compare_accuracy(
    first: np.ndarray,
    second: np.ndarray,
    weights: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare two classifiers by which images they classify correctly.

    Parameters
    ----------
    first, second : ndarray
        (n,) bool, of the same images.
    weights : ndarray, optional
        (n,) how much each image counts.
    resamples, seed : int
        Number of bootstrap resamples and their seed, for weighted images.

    Returns
    -------
    Difference
        With the p-value of the exact McNemar test; with weights, of the bootstrap.
    """
    if weights is not None:
        return _weighted_accuracy(first, second, weights, resamples, seed)
    n = len(first)
    both = int((first & second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    low, high = paired_interval(both, only_first, only_second, n - both - only_first - only_second)
    return Difference(
        first=float(first.mean()),
        second=float(second.mean()),
        difference=(only_second - only_first) / n,
        interval=(-high, -low),
        p_value=mcnemar(only_first, only_second),
    )


def _weighted_accuracy(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, resamples: int, seed: int
) -> Difference:
    rng, n = np.random.default_rng(seed), len(first)
    change = weights * (second.astype(np.float64) - first)
    drawn = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(rng.integers(n, size=n), minlength=n)
        drawn[i] = times @ change / max(times @ weights, 1e-300)
    values = [float(np.average(correct, weights=weights)) for correct in (first, second)]
    found = _bootstrapped(values, drawn)
    # The bootstrap has no width where the two agree on every image: Newcombe's interval of the effective number has.
    cells = [weights[a & b].sum() for a in (first, ~first) for b in (second, ~second)]
    low, high = paired_interval(*(np.array(cells) * weights.sum() / (weights**2).sum()))
    return found._replace(interval=(min(found.interval[0], -high), max(found.interval[1], -low)))


def _bootstrapped(values: Sequence[float], drawn: np.ndarray) -> Difference:
    """The difference of two values, from its resamples: percentile interval, and p-value from the smaller side of 0."""
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(
        first=values[0],
        second=values[1],
        difference=values[1] - values[0],
        interval=(float(low), float(high)),
        p_value=min(1.0, 2 * (int(tail) + 1) / (len(drawn) + 1)),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the exact McNemar test.

    Parameters
    ----------
    only_first, only_second : int
        Number of images that only the first, or only the second, classifies correctly.

    Returns
    -------
    float
        1 where the two never differ.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(
    both: float, only_first: float, only_second: float, neither: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval of the difference of two paired proportions, first minus second (Newcombe 1998, method 10).

    Parameters
    ----------
    both, only_first, only_second, neither : float
        Number of images, or their weight in effective images, that are correct for both classifiers, for one of them,
        and for neither.
    confidence : float
        Confidence level, 0 to 1.

    Returns
    -------
    tuple of (float, float)
    """
    n = both + only_first + only_second + neither
    hits = both + only_first, both + only_second
    p, q = hits[0] / n, hits[1] / n
    (p_low, p_high), (q_low, q_high) = (wilson_interval(count / n, n, confidence) for count in hits)
    margins = hits[0] * (n - hits[0]) * hits[1] * (n - hits[1])
    excess = both * neither - only_first * only_second
    correlation = 0.0
    if margins and (excess < 0 or excess > n / 2):
        correlation = (excess - (n / 2 if excess > 0 else 0)) / math.sqrt(margins)

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))

    return p - q - distance(p - p_low, q_high - q), p - q + distance(p_high - p, q - q_low)


def compare_auc(
    first: np.ndarray,
    second: np.ndarray,
    is_positive: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> Difference:
    """Compare two areas under the ROC curve by a paired bootstrap, stratified by class.

    Parameters
    ----------
    first, second : ndarray
        (n,) float64: the scores of the two classifiers.
    is_positive : ndarray
        (n,) bool, with images of both classes.
    resamples : int
        Number of resamples.
    seed : int
        Seed of the resamples.
    weights : ndarray, optional
        (n,) how much each image counts.

    Returns
    -------
    Difference
        With the percentile interval, and twice the smaller share of resamples on one side of 0 as the p-value.
    """
    areas = [_WeightedAuc(scores, is_positive) for scores in (first, second)]
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(is_positive), np.flatnonzero(~is_positive)]
    each = np.ones(len(is_positive)) if weights is None else weights
    times = np.empty(len(is_positive))
    drawn = np.empty(resamples)
    for i in range(resamples):
        for indices in members:
            times[indices] = np.bincount(rng.integers(len(indices), size=len(indices)), minlength=len(indices))
        drawn[i] = areas[1](times * each) - areas[0](times * each)
    return _bootstrapped([area(each) for area in areas], drawn)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of comparisons (Holm 1979).

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        In the same order, at most 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted


def _adjusted(differences: list[Difference]) -> list[Difference]:
    """The differences with p-values adjusted for their number; one alone as it is."""
    if len(differences) < 2:
        return differences
    adjusted = holm([difference.p_value for difference in differences])
    return [difference._replace(adjusted_p_value=p) for difference, p in zip(differences, adjusted, strict=True)]


class _WeightedAuc:
    """The area under the ROC curve as a function of weights of the images. Scores are sorted once."""

    def __init__(self, scores: np.ndarray, is_positive: np.ndarray) -> None:
        _, self._rank = np.unique(scores, return_inverse=True)
        self._positive = is_positive

    def __call__(self, weights: np.ndarray) -> float:
        positive = np.bincount(self._rank, weights=weights * self._positive)
        negative = np.bincount(self._rank, weights=weights * ~self._positive)
        below = np.cumsum(negative) - negative / 2  # ties count half
        return float(positive @ below / (positive.sum() * negative.sum()))


def _compare_auc(first: Evaluation, second: Evaluation, resamples: int, seed: int) -> Difference | None:
    if first.positive is None:
        return None
    score, is_positive = binary_scores(first.predictions, first.positive)
    if is_positive.all() or not is_positive.any():
        return None
    other, _ = binary_scores(second.predictions, first.positive)
    return compare_auc(score, other, is_positive, resamples, seed, first.predictions.weights)


def _compare_certainty(first: Evaluation, second: Evaluation, resamples: int, seed: int) -> dict[str, Difference]:
    """The difference of the accuracies on images with certain and with doubtful labels."""
    parts = first.certainty, second.certainty
    return {
        name: compare_accuracy(part.correct, parts[1][name].correct, part.weights, resamples, seed)
        for name, part in parts[0].items()
    }
