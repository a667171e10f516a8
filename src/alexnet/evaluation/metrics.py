"""Metrics of class probabilities against labels, and the registry of one's own.

A metric of one's own is a function of the labels and the probabilities, as scikit-learn has them. `evaluate` prints it,
and its JSON and the report contain it:

>>> from sklearn.metrics import f1_score
>>> from alexnet.evaluation.metrics import register_metric
>>> def macro_f1(labels, probabilities):
...     return f1_score(labels, probabilities.argmax(axis=1), average="macro")
>>> register_metric("macro_f1", macro_f1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet.runtime.errors import AlexNetError, UsageError

TOP = 5
CURVE_POINTS = 100
SORTED_CLASSES = 100
"""Up to this many classes the probabilities of an image are sorted to find the largest."""
SMALLEST = np.finfo(np.float64).tiny

Metric = Callable[[np.ndarray, np.ndarray], float]
"""A function of labels (n,) int64 and probabilities (n, classes) float64."""

_registry: dict[str, Metric] = {}


def register_metric(name: str, function: Metric) -> None:
    """Add a metric to the table, the JSON and the report of `evaluate` in this process.

    Registering a name again replaces the earlier function. While a metric is registered, `evaluate` keeps all
    probabilities: 8 bytes for each image and class.

    Parameters
    ----------
    name : str
        The name that is printed, and the key in the JSON.
    function : callable
        Takes labels (n,) int64, indices of classes, and probabilities (n, classes) float64; returns a number.

    Raises
    ------
    UsageError
        If the name is empty or the function can't be called.

    Examples
    --------
    See the top of `alexnet.evaluation.metrics`.
    """
    if not name or not isinstance(name, str):
        raise UsageError(f"the name of a metric is {name!r}; it must be a non-empty string")
    if not callable(function):
        raise UsageError(f"metric {name!r} is {function!r}; it must be a function of labels and probabilities")
    _registry[name] = function


def registered_metrics() -> dict[str, Metric]:
    """The metrics that were registered, by name."""
    return dict(_registry)


def compute_registered(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The value of every registered metric.

    Raises
    ------
    AlexNetError
        If a metric raises an error or does not return a number; the message names it.
    """
    values = {}
    for name, function in _registry.items():
        try:
            values[name] = float(function(labels, probabilities))
        except Exception as error:
            raise AlexNetError(f"metric {name!r} failed: {type(error).__name__}: {error}") from error
    return values


@dataclass(frozen=True)
class Predictions:
    """The predictions that metrics need, so that memory does not grow with the number of classes.

    Parameters
    ----------
    labels : ndarray
        (n,) int64, the true class of each image.
    ranked : ndarray
        (n, k) int64, the k = min(5, classes) most probable classes; the first one is the prediction. Classes of equal
        probability are in the order of the classes.
    ranked_probabilities : ndarray
        (n, k) float64, the probabilities of `ranked`.
    label_probability : ndarray
        (n,) float64, the probability of the true class.
    weights : ndarray or None
        (n,) float64, how much each image counts; None: all alike. Shares, means and areas use them; counts of images
        (support, confusion matrix, calibration, thresholds) do not.
    """

    labels: np.ndarray
    ranked: np.ndarray
    ranked_probabilities: np.ndarray
    label_probability: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """(n,) int64, the most probable class of each image."""
        return self.ranked[:, 0]

    @property
    def confidence(self) -> np.ndarray:
        """(n,) float64, the probability of the most probable class."""
        return self.ranked_probabilities[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool, whether the prediction is the label."""
        return self.predicted == self.labels

    @property
    def effective_size(self) -> float:
        """The number of equally weighted images that say as much: (sum of weights)² / sum of their squares."""
        if self.weights is None:
            return float(len(self))
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def where(self, chosen: np.ndarray) -> Predictions:
        """The predictions of the images that `chosen` (n,) bool selects."""
        return Predictions(
            self.labels[chosen],
            self.ranked[chosen],
            self.ranked_probabilities[chosen],
            self.label_probability[chosen],
            None if self.weights is None else self.weights[chosen],
        )

    @classmethod
    def from_probabilities(cls, probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
        """Keep what metrics need of `probabilities` (n, classes) and `labels` (n,)."""
        k = min(TOP, probabilities.shape[1])
        rows = np.arange(len(labels))
        labels = np.asarray(labels, dtype=np.int64)
        if probabilities.shape[1] <= SORTED_CLASSES:
            ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        else:  # k passes, for there is no need to sort thousands of classes
            rest, ranked = probabilities.copy(), np.empty((len(labels), k), dtype=np.int64)
            for place in range(k):
                ranked[:, place] = rest.argmax(axis=1)
                rest[rows, ranked[:, place]] = -np.inf
        best = np.take_along_axis(probabilities, ranked, axis=1)
        return cls(labels, ranked.astype(np.int64), best, probabilities[rows, labels])

    @classmethod
    def concatenate(cls, parts: Iterable[Predictions]) -> Predictions:
        """The predictions of several batches as one, in order."""
        fields = ((p.labels, p.ranked, p.ranked_probabilities, p.label_probability) for p in parts)
        return cls(*(np.concatenate(column) for column in zip(*fields, strict=True)))


def accuracy(predictions: Predictions, k: int = 1) -> float:
    """Top-k accuracy, 0 to 1: the share of images, by weight, whose label is among the k most probable classes."""
    hits = (predictions.ranked[:, :k] == predictions.labels[:, None]).any(axis=1)
    return float(np.average(hits, weights=predictions.weights))


def balanced_accuracy(predictions: Predictions, classes: int) -> float:
    """The mean recall of the classes that have images, 0 to 1."""
    recalls = [row["recall"] for row in per_class(predictions, classes) if row["recall"] is not None]
    return float(np.mean(recalls))


def log_loss(predictions: Predictions) -> float:
    """The mean of −ln p of the label, in nats."""
    losses = -np.log(np.maximum(predictions.label_probability, SMALLEST))
    return float(np.average(losses, weights=predictions.weights))


def confusion_matrix(predictions: Predictions, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64: one row for each true class, one column for each predicted class."""
    cells = predictions.labels * classes + predictions.predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def confused_cells(predictions: Predictions, classes: int) -> np.ndarray:
    """The cells of the confusion matrix that are not 0 and not on its diagonal, without the matrix.

    Returns
    -------
    numpy.ndarray
        (k, 3) int64: true class, predicted class, images; most images first, then in the order of the classes.
    """
    wrong = ~predictions.correct
    cells, counts = np.unique(predictions.labels[wrong] * classes + predictions.predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.stack([*np.divmod(cells[order], classes), counts[order]], axis=1)


def per_class(predictions: Predictions, classes: int) -> list[dict[str, Any]]:
    """Metrics of each class.

    Returns
    -------
    list of dict
        For each class its `support` (number of images) and, 0 to 1, `precision`, `recall`, `f1` and `top5_accuracy`;
        None where they are undefined because there is nothing to divide by.
    """
    import sklearn.metrics

    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        predictions.labels,
        predictions.predicted,
        labels=range(classes),
        sample_weight=predictions.weights,
        zero_division=np.nan,
    )
    in_top = (predictions.ranked == predictions.labels[:, None]).any(axis=1)
    each = np.ones(len(predictions)) if predictions.weights is None else predictions.weights
    top_hits = np.bincount(predictions.labels, each * in_top, minlength=classes)
    mass = np.bincount(predictions.labels, each, minlength=classes)
    images = np.bincount(predictions.labels, minlength=classes)
    return [
        {
            "support": int(images[c]),
            "precision": _defined(precision[c]),
            "recall": _defined(recall[c]),
            "f1": _defined(f1[c]),
            "top5_accuracy": _ratio(top_hits[c], mass[c]),
        }
        for c in range(classes)
    ]


def precision_recall_f1(
    true: np.ndarray, predicted: np.ndarray, counts: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, from the cells of a confusion matrix.

    Parameters
    ----------
    true, predicted : ndarray
        (k,) classes of each cell.
    counts : ndarray
        (k,) number, or weight, of its images.
    classes : int
        Number of classes.

    Returns
    -------
    tuple of ndarray
        (classes,) each; NaN where there is nothing to divide by.
    """
    hits = np.bincount(true, counts * (true == predicted), minlength=classes)
    of_class = np.bincount(true, counts, minlength=classes)
    as_class = np.bincount(predicted, counts, minlength=classes)
    with np.errstate(invalid="ignore"):
        return hits / as_class, hits / of_class, 2 * hits / (of_class + as_class)


def macro_averages(table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, float]:
    """Means over the classes of `precision_recall_f1`.

    A class without images counts in none. A class that is never predicted has no precision; its F1 is 0.
    """
    precision, recall, f1 = table
    known = ~np.isnan(recall)
    return {
        "macro_precision": _mean(precision[known]),
        "macro_recall": _mean(recall[known]),
        "macro_f1": _mean(f1[known]),
    }


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def macro(predictions: Predictions, classes: int) -> dict[str, float]:
    """Precision, recall and F1, averaged over the classes that have images: each class counts alike."""
    each = np.ones(len(predictions)) if predictions.weights is None else predictions.weights
    return macro_averages(precision_recall_f1(predictions.labels, predictions.predicted, each, classes))


def wilson_interval(share: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Parameters
    ----------
    share : float
        The proportion, 0 to 1.
    n : float
        Number of trials; of weighted images their effective number.
    confidence : float
        Confidence level, 0 to 1.
    """
    low, high = wilson_bounds(np.array(share), np.array(n, dtype=np.float64), confidence)
    return float(low), float(high)


def wilson_bounds(shares: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score intervals of many proportions: the lower and the upper ends, of the same shape."""
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    center = (shares + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(shares * (1 - shares) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return np.maximum(0.0, center - half), np.minimum(1.0, center + half)


def binary_scores(predictions: Predictions, positive: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a binary problem.

    Parameters
    ----------
    predictions : Predictions
        Of two classes.
    positive : int
        Index of the positive class.

    Returns
    -------
    score : ndarray
        (n,) float64, the probability of the positive class.
    is_positive : ndarray
        (n,) bool, whether the positive class is the label.
    """
    is_positive = predictions.labels == positive
    # The probability of either class as it is, so that one close to 0 keeps its digits.
    column = (predictions.ranked == positive).argmax(axis=1)
    return predictions.ranked_probabilities[np.arange(len(column)), column], is_positive


def roc_auc(score: np.ndarray, is_positive: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    """Area under the ROC curve; None unless there are positive and negative images."""
    import sklearn.metrics

    if is_positive.all() or not is_positive.any():
        return None
    return float(sklearn.metrics.roc_auc_score(is_positive, score, sample_weight=weights))


def threshold_curve(score: np.ndarray, is_positive: np.ndarray, points: int = CURVE_POINTS) -> list[dict[str, Any]]:
    """Precision, recall and false positive rate over the thresholds of the rule `score >= threshold`.

    Parameters
    ----------
    score, is_positive : ndarray
        As `binary_scores` returns them.
    points : int
        Largest number of rows.

    Returns
    -------
    list of dict
        `threshold`, `precision`, `recall` and `false_positive_rate` (None without negative images) of distinct scores
        in rising order, spread evenly, the lowest and the highest among them. Empty without positive images.
    """
    rows = _all_thresholds(score, is_positive)
    if len(rows) > points:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, points).round().astype(int)]
    return rows


def threshold_for_recall(score: np.ndarray, is_positive: np.ndarray, recall: float) -> dict[str, Any]:
    """The highest threshold whose recall is at least `recall`.

    Returns
    -------
    dict
        A row as in `threshold_curve`.

    Raises
    ------
    UsageError
        If `recall` is not above 0 and at most 1.
    AlexNetError
        If there are no positive images.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall is {recall:g}; it must be above 0 and at most 1")
    rows = _all_thresholds(score, is_positive)
    if not rows:
        raise AlexNetError("there are no images of the positive class: recall is undefined")
    # 0.95 of 20 images is 19 of them: a rounding error in 19/20 must not ask for the twentieth.
    return max((row for row in rows if row["recall"] >= recall - 1e-12), key=lambda row: row["threshold"])


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence lies above `low` and at most at `high`.

    Parameters
    ----------
    low, high : float
        Bounds of the confidence.
    count : int
        Number of images.
    confidence : float or None
        Their mean confidence; None without images.
    accuracy : float or None
        Their accuracy; None without images.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(predictions: Predictions, bins: int = 10) -> list[CalibrationBin]:
    """Confidence and accuracy of the predictions over `bins` equal parts of 0 to 1, for a reliability diagram."""
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, predictions.confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    confidence = np.bincount(which, weights=predictions.confidence, minlength=bins)
    hits = np.bincount(which, weights=predictions.correct, minlength=bins)
    return [
        CalibrationBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            count=int(counts[b]),
            confidence=_ratio(confidence[b], counts[b]),
            accuracy=_ratio(hits[b], counts[b]),
        )
        for b in range(bins)
    ]


def calibration_error(bins: list[CalibrationBin]) -> float:
    """Expected calibration error, 0 to 1: the mean of |accuracy - confidence| over the images (Guo et al. 2017)."""
    gaps = [
        b.count * abs(b.accuracy - b.confidence) for b in bins if b.accuracy is not None and b.confidence is not None
    ]
    return float(sum(gaps) / sum(b.count for b in bins))


def _all_thresholds(score: np.ndarray, is_positive: np.ndarray) -> list[dict[str, Any]]:
    """A row as in `threshold_curve` for each distinct score, in rising order."""
    import sklearn.metrics

    if not is_positive.any():
        return []
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(is_positive, score)
    false_positive_rates: list[float | None] = [None] * len(thresholds)
    if not is_positive.all():
        rates, _, _ = sklearn.metrics.roc_curve(is_positive, score, drop_intermediate=False)
        false_positive_rates = rates[:0:-1].tolist()  # from the highest threshold down, after one above all scores
    return [
        {"threshold": float(t), "precision": float(p), "recall": float(r), "false_positive_rate": f}
        for t, p, r, f in zip(thresholds, precision[:-1], recall[:-1], false_positive_rates, strict=True)
    ]


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
