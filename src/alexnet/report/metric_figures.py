"""What the answers on a split are worth: who is taken for whom, each class, thresholds, and how sure is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import Evaluation
from alexnet.report.style import BLUE, INK, MUTED, ON, ORANGE, RED, Figure, clipped, drawn, new
from alexnet.runtime.errors import UsageError

NUMBERS_UP_TO = 12  # classes: more do not leave room for a number in each cell
NAMES_UP_TO = 40
MOST_CLASSES = 30
LONGEST = 22  # letters of a name beside an axis
EVEN = 0.5
"""The threshold of two classes at which the more probable one is answered."""


@drawn
def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Who is taken for whom: rows the right class, columns the answer, color the share of the row."""
    counts, names = evaluation.confusion, evaluation.classes
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new(0.9 + min(4.4, 0.75 * len(names) + 0.8))
    axes = figure.subplots()
    axes.grid(False)
    axes.set_title("Who is taken for whom")
    axes.spines[:].set_visible(False)
    if len(names) <= NUMBERS_UP_TO:
        _cells(axes, counts, shares)
    else:
        axes.imshow(_colors(shares), extent=(0, len(names), len(names), 0), aspect="auto")
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    axes.tick_params(length=0)
    if len(names) <= NAMES_UP_TO:
        names = [clipped(name, LONGEST) for name in names]
        slanted = len(names) > 4 or max(map(len, names)) > 14
        axes.set_xticks(
            np.arange(len(names)) + 0.5, names, rotation=45 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        axes.tick_params(labelsize=min(9, 240 / len(names)))  # of many, small enough to stand beside each other
    axes.set_xlabel("the network says")
    axes.set_ylabel("it is")
    return figure


def _colors(shares: np.ndarray) -> np.ndarray:
    """Blue on the diagonal, orange elsewhere, the clearer the greater the share: (n, n) → (n, n, 4), 0 to 1.

    The root lets one confusion in a hundred be seen.
    """
    right = np.eye(len(shares), dtype=bool)[..., None]
    colors = np.where(right, to_rgb(BLUE), to_rgb(ORANGE))
    return np.concatenate([colors, np.sqrt(shares)[..., None]], axis=2)


def _cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 15 if len(counts) <= 3 else 11 if len(counts) <= 6 else 8.5
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        color = BLUE if row == column else ORANGE
        # Cells with something in them differ from empty ones; letters can be read on the fullest, in light and dark.
        alpha = 0.06 + 0.46 * share if counts[row, column] else 0.03
        gap = 0.02 if len(counts) <= 6 else 0.04
        cell = (column + gap, row + gap)
        axes.add_patch(Rectangle(cell, 1 - 2 * gap, 1 - 2 * gap, facecolor=color, alpha=alpha, linewidth=0))
        axes.text(column + 0.5, row + 0.5, f"{counts[row, column]:,}", ha="center", va="center", color=INK, size=size)
        if len(counts) <= 3:
            axes.text(
                *(column + 0.5, row + 0.74, f"{share:.1%} of the row"),
                ha="center",
                va="center",
                color=INK,
                size=8.5,
            )


@drawn
def per_class(evaluation: Evaluation) -> Figure:
    """Of each class how much is found (recall, with its 95% interval) and how often its name is right (precision).

    Of many classes the 30 that are found least.
    """
    rows = [(name, row) for name, row in evaluation.per_class().items() if row["n"]]
    rows.sort(key=lambda item: item[1]["recall"])
    cut = len(rows) > MOST_CLASSES
    rows = rows[:MOST_CLASSES]
    figure = new(1.3 + (0.42 if len(rows) <= 8 else 0.3) * len(rows))
    axes = figure.subplots()
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    for y, (_, row) in enumerate(rows):
        axes.plot(metrics.interval(row["recall"], row["n"]), (y, y), color=BLUE, alpha=0.3, linewidth=6)
        axes.plot(
            row["recall"], y, "o", color=BLUE, markersize=8, label="found (recall, 95% interval)" if not y else None
        )
        if row["precision"] is not None:
            label = "right when said (precision)" if not y else None
            axes.plot(row["precision"], y, "D", color=ORANGE, markersize=6.5, label=label)
    axes.set_yticks(range(len(rows)), [f"{clipped(name, LONGEST)} ({row['n']:,})" for name, row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"The {len(rows)} classes found least" if cut else "Each class (and its images)")
    figure.legend(loc="outside lower right", ncols=2, handlelength=1, columnspacing=1.2)
    return figure


@drawn
def roc(evaluation: Evaluation) -> Figure:
    """For two classes: share found against false alarms over all thresholds, with the area under it.

    Marked: an even threshold, and the one for `evaluation.recall`. Raises `UsageError` for another number of classes.
    """
    score, is_positive = _scores(evaluation)
    rows = metrics.threshold_curve(score, is_positive, points=400)
    figure = new(4.1)
    axes = figure.subplots()
    alarms = [row["false_positive_rate"] for row in rows] + [0.0]
    found = [row["recall"] for row in rows] + [0.0]
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    if None not in alarms:
        axes.fill_between(alarms, found, color=BLUE, alpha=0.08, linewidth=0)
        axes.plot(alarms, found, color=BLUE)
        for point in chosen_thresholds(evaluation):
            _mark(axes, point["false_positive_rate"], point["recall"], point, left=point["false_positive_rate"] > 0.6)
    area = metrics.roc_auc(score, is_positive)
    name = evaluation.classes[evaluation.positive or 0]
    axes.set_title(f"Finding “{clipped(name, 18)}”: ROC, area " + ("undefined" if area is None else f"{area:.3f}"))
    _shares(axes, "false alarms", "found (recall)")
    return figure


@drawn
def precision_recall(evaluation: Evaluation) -> Figure:
    """For two classes: how often an alarm is right against the share found, over all thresholds.

    Marked: an even threshold, and the one for `evaluation.recall`. Raises `UsageError` for another number of classes.
    """
    score, is_positive = _scores(evaluation)
    rows = metrics.threshold_curve(score, is_positive, points=400)
    figure = new(4.1)
    axes = figure.subplots()
    share = float(is_positive.mean())
    axes.axhline(share, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.text(0.01, share + 0.015, f"by chance {share:.0%}", color=MUTED, size=8.5)
    axes.plot([row["recall"] for row in rows], [row["precision"] for row in rows], color=BLUE)
    for point in chosen_thresholds(evaluation):
        _mark(axes, point["recall"], point["precision"], point, left=point["recall"] > 0.35)
    axes.set_title(f"Finding “{clipped(evaluation.classes[evaluation.positive or 0], 18)}”: precision and recall")
    _shares(axes, "found (recall)", "right when said (precision)")
    return figure


def chosen_thresholds(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of `metrics.threshold_curve`, each with its `name`: the even threshold, and the wished one where there is.

    A row's `threshold` is the lowest score that it flags. Raises `UsageError` for another number of classes than two.
    """
    score, is_positive = _scores(evaluation)
    rows = metrics.threshold_curve(score, is_positive, points=len(score))
    above = [row for row in rows if row["threshold"] >= EVEN]
    chosen = [{"name": "even", **above[0]}] if above else []
    if evaluation.recall is not None and is_positive.any():
        chosen.append({"name": "chosen", **metrics.threshold_for_recall(score, is_positive, evaluation.recall)})
    return chosen


def _scores(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    if evaluation.positive is None:
        raise UsageError(f"thresholds are for two classes; these are {len(evaluation.classes)}")
    return metrics.scores(evaluation.predictions, evaluation.positive)


def _mark(axes: Axes, x: float, y: float, point: dict[str, Any], left: bool) -> None:
    """A dot at a threshold, and its words on the side where the curve is not."""
    wished = point["name"] == "chosen"
    color = RED if wished else INK
    threshold = point["threshold"] if wished else EVEN
    axes.plot(x, y, "o", color=color, markersize=8, markeredgecolor=ON, markeredgewidth=1.4, clip_on=False, zorder=4)
    axes.annotate(
        f"{'chosen ' if wished else ''}threshold {threshold:.3g}",
        (x, y),
        xytext=(-9 if left else 9, -6),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=color,
        size=9,
    )


def _shares(axes: Axes, across: str, up: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


@drawn
def reliability(evaluation: Evaluation) -> Figure:
    """How often the network is right, against how sure it says it is; below, how often it is so sure."""
    bins = metrics.calibration(evaluation.predictions)
    error = metrics.calibration_error(bins)
    figure = new(4.1)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    upper.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    for b in bins:
        if b.accuracy is None or b.confidence is None:
            continue
        sure = b.confidence
        upper.plot((sure, sure), (sure, b.accuracy), color=ORANGE, linewidth=2.2, solid_capstyle="butt")
        upper.plot((sure, sure), metrics.interval(b.accuracy, b.n), color=BLUE, alpha=0.25, linewidth=5)
        upper.plot(sure, b.accuracy, "o", color=BLUE, markersize=7)
    upper.set_ylim(0, 1.04)
    upper.set_title(f"Sure and right: calibration error {error:.1%}")
    upper.set_ylabel("right")
    lower.bar([(b.low + b.high) / 2 for b in bins], [b.n for b in bins], width=0.086, color=BLUE, alpha=0.55)
    lower.set_ylabel("images")
    lower.set_xlabel("how sure it says it is")
    # No answer of the most probable class can be less sure than guessing.
    lower.set_xlim(max(0.0, np.floor(10 / len(evaluation.classes)) / 10 - 0.02), 1.01)
    for axis in (upper.yaxis, lower.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
