"""What probabilities are worth, against the labels: accuracies, log-loss, classes, thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet.runtime.errors import AlexNetError, UsageError

TOP = 5
CURVE_POINTS = 100
SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Predictions:
    """What is kept of each image, so that memory does not grow with the number of classes.

    `labels`: (n,) int64, what is right. `ranked`: (n, k) int64, the k = min(5, classes) most probable classes, the
    first one the prediction; equal probabilities in the order of the classes. `ranked_probabilities`: (n, k) float64.
    `label_probability`: (n,) float64, of the right class.
    """

    labels: np.ndarray
    ranked: np.ndarray
    ranked_probabilities: np.ndarray
    label_probability: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
        """Of `probabilities` (n, classes) and `labels` (n,)."""
        k = min(TOP, probabilities.shape[1])
        ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        rows = np.arange(len(labels))
        labels = np.asarray(labels, dtype=np.int64)
        best = np.take_along_axis(probabilities, ranked, axis=1)
        return cls(labels, ranked.astype(np.int64), best, probabilities[rows, labels])

    @classmethod
    def joined(cls, parts: Iterable[Predictions]) -> Predictions:
        """Those of all parts, in order."""
        fields = ((p.labels, p.ranked, p.ranked_probabilities, p.label_probability) for p in parts)
        return cls(*(np.concatenate(column) for column in zip(*fields, strict=True)))


def accuracy(predictions: Predictions, k: int = 1) -> float:
    """Share of images whose class is among the k most probable, 0 to 1."""
    return float((predictions.ranked[:, :k] == predictions.labels[:, None]).any(axis=1).mean())


def log_loss(predictions: Predictions) -> float:
    """Mean of −ln of the right class's probability, in nats."""
    return float(-np.log(np.maximum(predictions.label_probability, SMALLEST)).mean())


def confusion(predictions: Predictions, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64: row the right class, column the predicted one."""
    cells = predictions.labels * classes + predictions.ranked[:, 0]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(predictions: Predictions, classes: int) -> list[dict[str, Any]]:
    """For each class: `n` images of it, `accuracy` and `top5` on them, `precision` and `recall`.

    The accuracy on the images of a class is its recall. None where there is nothing to divide by.
    """
    counts = np.bincount(predictions.labels, minlength=classes)
    predicted = np.bincount(predictions.ranked[:, 0], minlength=classes)
    right = predictions.labels == predictions.ranked[:, 0]
    hits = np.bincount(predictions.labels[right], minlength=classes)
    in_top = (predictions.ranked == predictions.labels[:, None]).any(axis=1)
    top_hits = np.bincount(predictions.labels[in_top], minlength=classes)
    return [
        {
            "n": int(counts[c]),
            "accuracy": _ratio(hits[c], counts[c]),
            "top5": _ratio(top_hits[c], counts[c]),
            "precision": _ratio(hits[c], predicted[c]),
            "recall": _ratio(hits[c], counts[c]),
        }
        for c in range(classes)
    ]


def interval(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `n`: how far chance alone may have moved it."""
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def scores(predictions: Predictions, positive: int) -> tuple[np.ndarray, np.ndarray]:
    """Of two classes: probability of the positive one (n,) float64, and whether it is the right one (n,) bool."""
    is_positive = predictions.labels == positive
    # The probability of either class as it is, so that one close to 0 keeps its digits.
    column = (predictions.ranked == positive).argmax(axis=1)
    return predictions.ranked_probabilities[np.arange(len(column)), column], is_positive


def roc_auc(score: np.ndarray, is_positive: np.ndarray) -> float | None:
    """Area under the ROC curve: probability that a positive image scores above a negative one; None without both."""
    from sklearn.metrics import roc_auc_score

    if is_positive.all() or not is_positive.any():
        return None
    return float(roc_auc_score(is_positive, score))


def threshold_curve(score: np.ndarray, is_positive: np.ndarray, points: int = CURVE_POINTS) -> list[dict[str, Any]]:
    """Precision and recall over thresholds: what `probability >= threshold` as the rule gives.

    One row a distinct probability, rising; at most `points` of them, spread evenly over the images, both ends among
    them. Empty without positive images.
    """
    rows = _all_thresholds(score, is_positive)
    if len(rows) > points:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, points).round().astype(int)]
    return rows


def threshold_for_recall(score: np.ndarray, is_positive: np.ndarray, recall: float) -> dict[str, Any]:
    """The highest threshold that finds at least the share `recall` of the positive images, and what it costs.

    Raises `UsageError` for a recall outside 0 < recall ≤ 1, `AlexNetError` without positive images.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall is {recall:g}; it is a share above 0, up to 1")
    rows = _all_thresholds(score, is_positive)
    if not rows:
        raise AlexNetError("no image of the positive class: there is no recall to wish for")
    # 0.95 of 20 images is 19 of them: a rounding error in 19/20 must not ask for the twentieth.
    return max((row for row in rows if row["recall"] >= recall - 1e-12), key=lambda row: row["threshold"])


@dataclass(frozen=True)
class Bin:
    """Images whose most probable class has a probability above `low`, up to `high`.

    `confidence`: the mean of those probabilities; `accuracy`: how often that class was right. Both None without
    images.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def calibration(predictions: Predictions, bins: int = 10) -> list[Bin]:
    """How often the network is right when it says how sure it is, over `bins` equal parts of 0 to 1."""
    sure = predictions.ranked_probabilities[:, 0]
    right = predictions.ranked[:, 0] == predictions.labels
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    confidence = np.bincount(which, weights=sure, minlength=bins)
    hits = np.bincount(which, weights=right, minlength=bins)
    return [
        Bin(
            float(edges[b]), float(edges[b + 1]), int(counts[b]), *(_ratio(x[b], counts[b]) for x in (confidence, hits))
        )
        for b in range(bins)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: mean of |accuracy - confidence| over the images, 0 to 1 (Guo et al. 2017)."""
    gaps = [b.n * abs(b.accuracy - b.confidence) for b in bins if b.accuracy is not None and b.confidence is not None]
    return float(sum(gaps) / sum(b.n for b in bins))


def _all_thresholds(score: np.ndarray, is_positive: np.ndarray) -> list[dict[str, Any]]:
    if not is_positive.any():
        return []
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last_of_value = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    found = np.cumsum(is_positive[order])[last_of_value]
    flagged = last_of_value + 1
    positives = int(is_positive.sum())
    negatives = len(score) - positives
    rows = [
        {
            "threshold": float(falling[at]),
            "precision": float(hits / count),
            "recall": float(hits / positives),
            "false_positive_rate": _ratio(count - hits, negatives),
        }
        for at, hits, count in zip(last_of_value, found, flagged, strict=True)
    ]
    return rows[::-1]


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
