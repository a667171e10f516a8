"""Images with their most probable classes (paper, figure 4, left), and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from alexnet.evaluation.evaluate import Evaluation
from alexnet.evaluation.metrics import Predictions
from alexnet.report.style import BLUE, MUTED, RED, Figure, canvas, drawn, fit, place

COLUMNS = 4
SIDE, GAP, EDGE, BAR = 1.45, 0.12, 0.1, 0.19  # inches: image, gap, margin, height of a bar


def spread_over_classes(predictions: Predictions, count: int) -> np.ndarray:
    """Select up to `count` images from all classes in turn, evenly spaced within a class; indices (n,) int64."""
    present, sizes = np.unique(predictions.labels, return_counts=True)
    # With more classes than images, an evenly spaced subset of the classes.
    if len(present) > count:
        chosen = np.linspace(0, len(present) - 1, count).round().astype(int)
        present, sizes = present[chosen], sizes[chosen]
    each = -(-count // len(present))
    by_class = [
        np.flatnonzero(predictions.labels == c)[np.linspace(0, n - 1, min(each, n)).round().astype(int)]
        for c, n in zip(present, sizes, strict=True)
    ]
    turns = [rows[turn] for turn in range(each) for rows in by_class if turn < len(rows)]
    return np.array(turns[:count], dtype=np.int64)


def most_confident_mistakes(predictions: Predictions, count: int) -> np.ndarray:
    """Select up to `count` misclassified images, the highest confidence first; indices (n,) int64."""
    wrong = np.flatnonzero(~predictions.correct)
    order = np.argsort(-predictions.ranked_probabilities[wrong, 0], kind="stable")
    return wrong[order[:count]]


def most_confident_correct(predictions: Predictions, count: int) -> np.ndarray:
    """Select up to `count` correctly classified images, the most confident of every class in turn."""
    correct = np.flatnonzero(predictions.correct)
    order = correct[np.argsort(-predictions.ranked_probabilities[correct, 0], kind="stable")]
    turn = np.zeros(len(order), dtype=np.int64)
    for c in np.unique(predictions.labels[order]):
        of_class = predictions.labels[order] == c
        turn[of_class] = np.arange(of_class.sum())
    return order[np.argsort(turn, kind="stable")][:count]


@drawn
def top_five(evaluation: Evaluation, indices: Sequence[int] | np.ndarray) -> Figure:
    """Draw images of the split with their true class and the five most probable classes, the correct one in blue."""
    return _gallery(evaluation, np.asarray(indices))


@drawn
def mistakes(evaluation: Evaluation, count: int = 8) -> Figure:
    """Draw the most confident mistakes as `top_five` does; an empty figure when there are none."""
    return _gallery(evaluation, most_confident_mistakes(evaluation.predictions, count))


def _gallery(evaluation: Evaluation, indices: np.ndarray) -> Figure:
    predictions = evaluation.predictions
    bars = predictions.ranked.shape[1]
    cell = 0.26 + SIDE + 0.05 + BAR * bars + 0.12
    rows = -(-len(indices) // COLUMNS)
    figure, axes = canvas(max(1, rows) * cell, 2 * EDGE + COLUMNS * SIDE + (COLUMNS - 1) * GAP)
    for number, (index, image) in enumerate(zip(indices, evaluation.split.gather(indices), strict=True)):
        left, top = EDGE + number % COLUMNS * (SIDE + GAP), number // COLUMNS * cell
        label = predictions.labels[index]
        title = fit(evaluation.classes[label], SIDE, 8.5, bold=True)
        axes.text(left, top + 0.2, title, fontsize=8.5, fontweight="bold")
        place(axes, image, left, top + 0.26, SIDE)
        answers = zip(predictions.ranked[index], predictions.ranked_probabilities[index], strict=True)
        for row, (answer, share) in enumerate(answers):
            color = BLUE if answer == label else RED if not row else MUTED
            _bar(axes, left, top + 0.31 + SIDE + BAR * row, evaluation.classes[answer], share, color)
    return figure


def _bar(axes: Axes, left: float, top: float, name: str, share: float, color: str) -> None:
    """A class name over the bar of its probability."""
    height = 0.86 * BAR
    axes.add_patch(Rectangle((left, top), SIDE, height, facecolor=MUTED, alpha=0.1, linewidth=0))
    axes.add_patch(Rectangle((left, top), SIDE * share, height, facecolor=color, alpha=0.4, linewidth=0))
    middle = top + height / 2
    axes.text(left + 0.05, middle, fit(name, SIDE - 0.45, 7), va="center_baseline", fontsize=7)
    axes.text(left + SIDE - 0.05, middle, f"{share:.0%}", va="center_baseline", ha="right", fontsize=7)
