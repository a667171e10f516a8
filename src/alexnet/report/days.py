"""The days of a sort as a figure: confidences, and shares of unsure and unknown images, beside those of validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alexnet.report.style import BLUE, LINE, MUTED, ORANGE, RED, Figure, drawn, new

if TYPE_CHECKING:
    from alexnet.inspection.drift import Day, Validation


@drawn
def draw_days(days: Sequence[Day], validation: Validation | None) -> Figure:
    """Draw a point per day: the median confidence with the 10% and 90% quantiles, and the shares.

    Parameters
    ----------
    days : sequence of Day
        At least one.
    validation : Validation or None
        Drawn as horizontal lines.
    """
    figure = new(4.6, 7.2)
    above, below = figure.subplots(2, 1, sharex=True)
    x = np.arange(len(days))
    low, median, high = (np.array([day.confidence[i] for day in days]) for i in range(3))
    above.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0)
    above.plot(x, median, "o-", color=BLUE, markersize=4, label="median; band: 10% to 90%")
    for name, color in (("unsure", ORANGE), ("unknown", RED)):
        shares = np.array([getattr(day, name) for day in days])
        below.plot(x, shares, "o-", color=color, markersize=4, label=name, clip_on=False)
        if validation is not None:
            below.axhline(getattr(validation, name), color=color, linestyle="--", linewidth=1)
    if validation is not None:
        above.axhline(float(np.median(validation.confidences)), color=BLUE, linestyle="--", linewidth=1)
        above.plot([], [], color=MUTED, linestyle="--", linewidth=1, label="validation")
    rates = np.array([max(day.unsure, day.unknown) for day in days])
    for axes, names, top in ((above, {"confidence"}, high), (below, {"unsure", "unknown"}, rates)):
        marked = [i for i, day in enumerate(days) if names & set(day.differs)]
        if marked:
            label = "differs from validation (p < 0.001)"
            axes.plot(
                x[marked], top[marked], "*", color=RED, markersize=9, linestyle="none", label=label, clip_on=False
            )
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.legend(loc="lower left" if axes is above else "upper left", ncols=2)
        axes.spines["bottom"].set_color(LINE)
    above.set_title("Confidence of each day")
    below.set_title("Unsure and unknown images of each day")
    above.set_ylim(0, 1.03)
    below.set_ylim(0, max(0.05, below.get_ylim()[1] * 1.25))
    shown = x[:: max(1, len(days) // 8)]
    below.set_xticks(shown, [days[i].day for i in shown], rotation=30, ha="right")
    return figure
