"""Nearest images by Euclidean distance in the feature layer, fc7 (paper, section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alexnet.report.style import GREEN, MUTED, RED, Figure, canvas, drawn, fit, place


@drawn
def nearest_images(
    queries: np.ndarray,
    query_labels: Sequence[str],
    found: np.ndarray,
    found_labels: Sequence[Sequence[str]],
) -> Figure:
    """Draw each query image in a row with its nearest images (paper, figure 4, right).

    Parameters
    ----------
    queries
        (n, h, w, 3) uint8.
    query_labels
        One label per query.
    found
        (n, k, h, w, 3) uint8, the nearest first.
    found_labels
        Their labels; green where equal to the query's, else red.
    """
    count, k = found.shape[:2]
    side, gap, cell = 0.86, 0.06, 1.12
    figure, axes = canvas(0.3 + count * cell, 0.2 + (k + 1) * (side + gap) + gap)
    axes.text(0.1, 0.2, "query", fontsize=8, color=MUTED)
    axes.text(0.1 + side + 3 * gap, 0.2, "nearest training images", fontsize=8, color=MUTED)
    for row, label in enumerate(query_labels):
        top = 0.3 + row * cell
        place(axes, queries[row], 0.1, top, side)
        axes.text(0.1, top + side + 0.14, fit(label, side, 7), fontsize=7)
        for column, other in enumerate(found_labels[row]):
            left = 0.1 + 2 * gap + (column + 1) * (side + gap)
            place(axes, found[row, column], left, top, side)
            color = GREEN if other == label else RED
            axes.text(left, top + side + 0.14, fit(other, side, 7), fontsize=7, color=color)
    return figure
