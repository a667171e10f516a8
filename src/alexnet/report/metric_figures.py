"""Figures of an evaluation: confusion matrix, per-class metrics, ROC and precision-recall curves, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import Evaluation
from alexnet.report.style import BLUE, INK, MUTED, ON, ORANGE, RED, Figure, drawn, fit, new
from alexnet.runtime.errors import UsageError

MAX_NUMBERED = 12
"""Up to this many classes the confusion matrix has the count in each cell."""
MAX_NAMED = 40
"""Up to this many classes the confusion matrix has class names beside it."""
MAX_DRAWN = 1000
"""Classes up to which a cell of the confusion matrix is drawn for each pair: more than a screen has pixels."""
MAX_CLASSES = 30
"""Classes in the figure of per-class metrics."""
NAME_WIDTH = 1.6
"""Inches for a class name beside an axis."""
DEFAULT_THRESHOLD = 0.5
"""The threshold at which the more probable of two classes is predicted."""


@drawn
def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrix: rows are true classes, columns predicted ones, color is the share of the row.

    Parameters
    ----------
    evaluation
        With more than `MAX_NUMBERED` classes the cells have no numbers, with more than `MAX_NAMED` no names, and with
        more than `MAX_DRAWN` a cell is several classes.
    """
    names = evaluation.classes
    counts = evaluation.confusion_matrix if len(names) <= MAX_DRAWN else _grouped_matrix(evaluation)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new(0.9 + min(4.4, 0.75 * len(names) + 0.8))
    axes = figure.subplots()
    axes.grid(False)
    axes.set_title("Confusion matrix")
    axes.spines[:].set_visible(False)
    if len(names) <= MAX_NUMBERED:
        _cells(axes, counts, shares)
    else:
        axes.imshow(_colors(shares), extent=(0, len(names), len(names), 0), aspect="auto")
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    axes.tick_params(length=0)
    if len(names) <= MAX_NAMED:
        size = min(9, 240 / len(names))  # small enough not to overlap
        ticks = np.arange(len(names)) + 0.5
        names = [fit(name, NAME_WIDTH, size) for name in names]
        slanted = len(names) > 4 or max(map(len, names)) > 14
        axes.set_xticks(ticks, names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(ticks, names)
        axes.tick_params(labelsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def _grouped_matrix(evaluation: Evaluation) -> np.ndarray:
    """The confusion matrix of `MAX_DRAWN` groups of consecutive classes."""
    groups = np.arange(len(evaluation.classes)) * MAX_DRAWN // len(evaluation.classes)
    true, predicted = (groups[values] for values in (evaluation.predictions.labels, evaluation.predictions.predicted))
    return np.bincount(true * MAX_DRAWN + predicted, minlength=MAX_DRAWN**2).reshape(MAX_DRAWN, MAX_DRAWN)


def _colors(shares: np.ndarray) -> np.ndarray:
    """Blue on the diagonal, orange elsewhere, opacity by share: (n, n) → (n, n, 4), 0 to 1.

    The square root makes one confusion in a hundred visible.
    """
    diagonal = np.eye(len(shares), dtype=bool)[..., None]
    colors = np.where(diagonal, to_rgb(BLUE), to_rgb(ORANGE))
    return np.concatenate([colors, np.sqrt(shares)[..., None]], axis=2)


def _cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 15 if len(counts) <= 3 else 11 if len(counts) <= 6 else 8.5
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        color = BLUE if row == column else ORANGE
        # Non-empty cells differ from empty ones; text stays legible on the fullest, in light and dark mode.
        alpha = 0.06 + 0.46 * share if counts[row, column] else 0.03
        gap = 0.02 if len(counts) <= 6 else 0.04
        cell = (column + gap, row + gap)
        axes.add_patch(Rectangle(cell, 1 - 2 * gap, 1 - 2 * gap, facecolor=color, alpha=alpha, linewidth=0))
        axes.text(column + 0.5, row + 0.5, f"{counts[row, column]:,}", ha="center", va="center", color=INK, size=size)
        if len(counts) <= 3:
            below = row + 0.74
            axes.text(column + 0.5, below, f"{share:.1%} of row", ha="center", va="center", color=INK, size=8.5)


@drawn
def per_class(evaluation: Evaluation) -> Figure:
    """Plot the recall (with its 95% interval) and the precision of each class.

    With more than `MAX_CLASSES` classes, those with the lowest recall.
    """
    rows = by_recall(evaluation)
    cut = len(rows) > MAX_CLASSES
    rows = rows[:MAX_CLASSES]
    figure = new(1.3 + (0.42 if len(rows) <= 8 else 0.3) * len(rows))
    axes = figure.subplots()
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    has_label = False
    for y, (_, row) in enumerate(rows):
        axes.plot(metrics.wilson_interval(row["recall"], row["support"]), (y, y), color=BLUE, alpha=0.3, linewidth=6)
        label = None if y else "recall (95% interval)"
        axes.plot(row["recall"], y, "o", color=BLUE, markersize=8, label=label)
        if row["precision"] is not None:
            label = None if has_label else "precision"
            axes.plot(row["precision"], y, "D", color=ORANGE, markersize=6.5, label=label)
            has_label = True
    names = [f"{fit(name, NAME_WIDTH, 9)} ({row['support']:,})" for name, row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(
        f"The {len(rows)} classes with the lowest recall" if cut else "Recall and precision per class (images)"
    )
    figure.legend(loc="outside lower right", ncols=2, handlelength=1, columnspacing=1.2)
    return figure


def by_recall(evaluation: Evaluation) -> list[tuple[str, dict[str, Any]]]:
    """Names and metrics of the classes that have images, the lowest recall first."""
    rows = [(name, row) for name, row in evaluation.per_class().items() if row["support"]]
    return sorted(rows, key=lambda item: item[1]["recall"])


@drawn
def roc_curve(evaluation: Evaluation) -> Figure:
    """Plot the ROC curve of two classes, with the default threshold and the one for `evaluation.recall`.

    Raises
    ------
    UsageError
        The number of classes is not two.
    """
    score, is_positive = _scores(evaluation)
    rows = metrics.threshold_curve(score, is_positive, points=400)
    figure = new(4.1)
    axes = figure.subplots()
    false_positive_rates = [row["false_positive_rate"] for row in rows] + [0.0]
    recalls = [row["recall"] for row in rows] + [0.0]
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    if None not in false_positive_rates:
        axes.fill_between(false_positive_rates, recalls, color=BLUE, alpha=0.08, linewidth=0)
        axes.plot(false_positive_rates, recalls, color=BLUE)
        for point in chosen_thresholds(evaluation):
            _mark(axes, point["false_positive_rate"], point["recall"], point, left=point["false_positive_rate"] > 0.6)
    area = metrics.roc_auc(score, is_positive)
    axes.set_title(_class_title("ROC curve", evaluation, "AUC " + ("undefined" if area is None else f"{area:.3f}")))
    _share_axes(axes, "false positive rate", "recall")
    return figure


@drawn
def precision_recall_curve(evaluation: Evaluation) -> Figure:
    """Plot the precision-recall curve of two classes, with the default threshold and the one for `evaluation.recall`.

    Raises
    ------
    UsageError
        The number of classes is not two.
    """
    score, is_positive = _scores(evaluation)
    rows = metrics.threshold_curve(score, is_positive, points=400)
    figure = new(4.1)
    axes = figure.subplots()
    share = float(is_positive.mean())
    axes.axhline(share, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.text(0.01, share + 0.015, f"chance level {share:.0%}", color=MUTED, size=8.5)
    axes.plot([row["recall"] for row in rows], [row["precision"] for row in rows], color=BLUE)
    for point in chosen_thresholds(evaluation):
        _mark(axes, point["recall"], point["precision"], point, left=point["recall"] > 0.35)
    axes.set_title(_class_title("Precision-recall curve", evaluation))
    _share_axes(axes, "recall", "precision")
    return figure


def _class_title(curve: str, evaluation: Evaluation, note: str = "") -> str:
    name = fit(evaluation.classes[evaluation.positive or 0], 1.5, 10.5, bold=True)
    return f"{curve} of “{name}”{f', {note}' if note else ''}"


def chosen_thresholds(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the rows of `metrics.threshold_curve` at the default threshold and at the one for `evaluation.recall`.

    Returns
    -------
    list of dict
        Each with its `name`, "default" or "chosen". `threshold` is the lowest score that is predicted positive.

    Raises
    ------
    UsageError
        The number of classes is not two.
    """
    score, is_positive = _scores(evaluation)
    rows = metrics.threshold_curve(score, is_positive, points=len(score))
    above = [row for row in rows if row["threshold"] >= DEFAULT_THRESHOLD]
    chosen = [{"name": "default", **above[0]}] if above else []
    if evaluation.recall is not None and is_positive.any():
        chosen.append({"name": "chosen", **metrics.threshold_for_recall(score, is_positive, evaluation.recall)})
    return chosen


def _scores(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    if evaluation.positive is None:
        raise UsageError(f"thresholds need two classes; these are {len(evaluation.classes)}")
    return metrics.binary_scores(evaluation.predictions, evaluation.positive)


def _mark(axes: Axes, x: float, y: float, point: dict[str, Any], left: bool) -> None:
    """A dot at a threshold, labeled on the side away from the curve."""
    is_chosen = point["name"] == "chosen"
    color = RED if is_chosen else INK
    threshold = point["threshold"] if is_chosen else DEFAULT_THRESHOLD
    axes.plot(x, y, "o", color=color, markersize=8, markeredgecolor=ON, markeredgewidth=1.4, clip_on=False, zorder=4)
    axes.annotate(
        f"{'chosen ' if is_chosen else ''}threshold {threshold:.3g}",
        (x, y),
        xytext=(-9 if left else 9, -6),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=color,
        size=9,
    )


def _share_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


@drawn
def reliability_diagram(evaluation: Evaluation) -> Figure:
    """Plot accuracy against confidence (calibration); below, the number of images per bin of confidence."""
    bins = metrics.calibration_bins(evaluation.predictions)
    error = metrics.calibration_error(bins)
    figure = new(4.1)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    upper.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    for b in bins:
        if b.accuracy is None or b.confidence is None:
            continue
        x = b.confidence
        upper.plot((x, x), (x, b.accuracy), color=ORANGE, linewidth=2.2, solid_capstyle="butt")
        upper.plot((x, x), metrics.wilson_interval(b.accuracy, b.count), color=BLUE, alpha=0.25, linewidth=5)
        upper.plot(x, b.accuracy, "o", color=BLUE, markersize=7)
    upper.set_ylim(0, 1.04)
    upper.set_title(f"Calibration: expected calibration error {error:.1%}")
    upper.set_ylabel("accuracy")
    lower.bar([(b.low + b.high) / 2 for b in bins], [b.count for b in bins], width=0.086, color=BLUE, alpha=0.55)
    lower.set_ylabel("images")
    lower.set_xlabel("confidence")
    # The confidence, the largest probability, is at least 1 / classes.
    lower.set_xlim(max(0.0, np.floor(10 / len(evaluation.classes)) / 10 - 0.02), 1.01)
    for axis in (upper.yaxis, lower.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
