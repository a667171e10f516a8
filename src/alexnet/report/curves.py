"""Training curves: loss, error rate, learning rate, speed, and the weights and updates of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from alexnet.report.style import BLUE, INK, LAYERS, MUTED, ORANGE, Figure, drawn, new
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError

DROP = 0.5
"""A learning rate below this share of the previous step's is a drop; no smooth schedule falls so fast."""


@drawn
def losses(run: Run) -> Figure:
    """Plot the loss of every step and of every epoch, with the learning-rate drops; below, the learning rate.

    Raises
    ------
    AlexNetError
        No step has been recorded yet.
    """
    steps, epochs = _steps(run), run.metrics("epoch")
    figure, upper, lower = _two_panels()
    upper.plot(_times(run, steps), [step["loss"] for step in steps], color=BLUE, alpha=0.25, linewidth=0.9)
    _curve(upper, epochs, "train_loss", BLUE, "training")
    _curve(upper, epochs, "validation_loss", ORANGE, "validation")
    highest = max([epoch["train_loss"] for epoch in epochs] or [step["loss"] for step in steps])
    upper.set_ylim(0, 1.25 * highest)
    _finish_upper(upper, run, "Loss (nats)")
    lower.plot(_times(run, steps), [step["lr"] for step in steps], color=INK, linewidth=1.3)
    lower.set_ylim(0, 1.15 * max(step["lr"] for step in steps) or 1)
    if run.config.recipe.schedule != "cosine" and len({step["lr"] for step in steps}) > 1:
        lower.set_ylim(auto=True)
        lower.set_yscale("log")
        _powers(lower)
    else:
        lower.yaxis.set_major_locator(MaxNLocator(2))
    _finish_lower(lower, run, "Learning rate")
    return figure


@drawn
def error_rates(run: Run) -> Figure:
    """Plot the training and validation error rates per epoch, with the learning-rate drops; below, the speed.

    Raises
    ------
    AlexNetError
        No epoch has been completed yet.
    """
    epochs = run.metrics("epoch")
    if not epochs:
        raise AlexNetError(f"{run.path}: no epoch has been completed yet, so there is no error rate to plot")
    figure, upper, lower = _two_panels()
    _curve(upper, epochs, "train_error", BLUE, "training")
    _curve(upper, epochs, "validation_error", ORANGE, "validation")
    upper.set_ylim(bottom=0)
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _finish_upper(upper, run, "Error rate")
    lower.plot([e["epoch"] for e in epochs], [e["images_per_second"] for e in epochs], color=INK, linewidth=1.3)
    lower.set_ylim(bottom=0)
    lower.yaxis.set_major_locator(MaxNLocator(2))
    _finish_lower(lower, run, "Images per second")
    return figure


@drawn
def layer_weights(run: Run) -> Figure:
    """Plot the mean absolute weight of each layer after every epoch, as printed by the 2012 code.

    Raises
    ------
    AlexNetError
        No epoch has been completed yet.
    """
    return _layers(run, "weight", "Mean absolute weight")


@drawn
def layer_updates(run: Run) -> Figure:
    """Plot the mean absolute update of each layer in the last step of every epoch, as printed by the 2012 code.

    Raises
    ------
    AlexNetError
        No epoch has been completed yet.
    """
    return _layers(run, "update", "Mean absolute update in one step")


def _layers(run: Run, quantity: str, title: str) -> Figure:
    epochs = [epoch for epoch in run.metrics("epoch") if epoch.get("layers")]
    if not epochs:
        raise AlexNetError(f"{run.path}: no epoch has been completed yet, so there are no weights to plot")
    figure = new(3.3)
    axes = figure.subplots()
    names = list(epochs[0]["layers"])
    times = [epoch["epoch"] for epoch in epochs]
    for name, color in zip(names, _spread(LAYERS, len(names)), strict=True):
        values = np.array([epoch["layers"][name][quantity] for epoch in epochs])
        # A logarithmic scale has no zero: the update at learning rate 0 is omitted.
        axes.plot(times, np.where(values > 0, values, np.nan), color=color, label=name, marker=_marker(times))
    axes.set_title(title)
    axes.set_yscale("log")
    _powers(axes)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")
    figure.legend(loc="outside right center", handlelength=1.1, labelspacing=0.75)
    _mark_drops(axes, run, labeled=False)
    return figure


def learning_rate_drops(run: Run) -> list[tuple[float, float]]:
    """Find the learning-rate drops of a run.

    Returns
    -------
    list of (float, float)
        The time in epochs (the second epoch begins at time 1) and the learning rate from then on; empty for a
        schedule that decreases smoothly.
    """
    if run.config.recipe.schedule == "cosine":
        return []
    steps = _steps(run)
    times = _times(run, steps)
    return [
        (float(time), after["lr"])
        for time, (before, after) in zip(times, pairwise(steps), strict=False)
        if after["lr"] < DROP * before["lr"]
    ]


def _steps(run: Run) -> list[dict[str, Any]]:
    steps = run.metrics("step")
    if not steps:
        raise AlexNetError(f"{run.path}: no step has been recorded yet, so there is no curve to plot")
    return steps


def _times(run: Run, steps: Sequence[dict[str, Any]]) -> np.ndarray:
    """The end of each step, in epochs."""
    batch = run.config.recipe.batch_size
    images = run.config.dataset.get("counts", {}).get("train")
    known = [epoch["step"] / epoch["epoch"] for epoch in run.metrics("epoch")]
    per_epoch = -(-images // batch) if images else known[-1] if known else max(step["step"] for step in steps)
    return np.array([step["step"] for step in steps]) / per_epoch


def _two_panels() -> tuple[Figure, Axes, Axes]:
    figure = new(4.1)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1))
    return figure, upper, lower


def _curve(axes: Axes, epochs: list[dict[str, Any]], name: str, color: str, label: str) -> None:
    known = [(epoch["epoch"], epoch[name]) for epoch in epochs if name in epoch]
    if known:
        times, values = zip(*known, strict=True)
        axes.plot(times, values, color=color, label=label, marker=_marker(times), markersize=4)


def _marker(times: Sequence[Any]) -> str | None:
    """A dot for a single point, which has no line."""
    return "o" if len(times) == 1 else None


def _finish_upper(axes: Axes, run: Run, title: str) -> None:
    axes.set_title(title)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", ncols=2, handlelength=1.2, columnspacing=1.4, borderaxespad=0)
    _mark_drops(axes, run)


def _finish_lower(axes: Axes, run: Run, title: str) -> None:
    axes.set_title(title, fontsize=9, color=MUTED, fontweight="normal", pad=4)
    axes.set_xlabel("epoch")
    _mark_drops(axes, run, labeled=False)


def _mark_drops(axes: Axes, run: Run, labeled: bool = True) -> None:
    for time, rate in learning_rate_drops(run):
        axes.axvline(time, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        if labeled:
            axes.annotate(
                f"{rate:.3g}",
                (time, 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=8,
                color=MUTED,
            )


def _powers(axes: Axes) -> None:
    """Label the powers of ten of a logarithmic scale with plain numbers."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _spread(colors: Sequence[str], count: int) -> list[str]:
    """`count` of the colors, evenly spaced."""
    return [colors[i] for i in np.linspace(0, len(colors) - 1, count).round().astype(int)]
