"""The lineage in one figure: what each network added, its size, and the switch that takes the addition away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet.experiments.trials import write_with_figure
from alexnet.network.model import AlexNet
from alexnet.report.style import BLUE, INK, LINE, MUTED, ORANGE, Figure, bare, drawn, new
from alexnet.runtime.provenance import provenance

CLASSES = {"lenet5-1998": 10}
"""Number of classes that a network was published with; 1,000 for the others."""


@dataclass(frozen=True)
class Step:
    """A network, or a method, of a year.

    Attributes
    ----------
    year : int
        Year of its publication.
    label : str
        Its name.
    variant : str or None
        The network here; None for the hand-made features.
    additions : tuple of (str, str)
        What it added, and the command that shows it or takes it away.
    """

    year: int
    label: str
    variant: str | None
    additions: tuple[tuple[str, str], ...]


STEPS = (
    Step(1998, "LeNet-5", "lenet5-1998", (("convolution, learned end to end", "train --variant lenet5-1998"),)),
    Step(2010, "SIFT, Fisher vectors, SVM", None, (("features by hand, learned last step", "baseline"),)),
    Step(
        2012,
        "AlexNet",
        "paper",
        (
            ("ReLU", "train --recipe paper --activation tanh"),
            ("response normalization", "train --recipe paper --normalization none"),
            ("overlapping pooling", "train --recipe paper --pooling non-overlapping"),
            ("dropout", "train --recipe paper --dropout 0"),
            ("random crops and flips", "train --recipe paper --crop-position center --flip none"),
            ("PCA color augmentation", "train --recipe paper --color-jitter 0"),
            ("two GPUs", "train --recipe paper --variant paper-half"),
        ),
    ),
    Step(2014, "VGG-16", "vgg16", (("depth, 3×3 convolutions", "train --variant vgg16 --drop-layer conv5_2"),)),
    Step(
        2015,
        "ResNet-50",
        "resnet50",
        (
            ("batch normalization", "train --variant resnet50 --normalization none"),
            ("shortcuts around each block", "train --variant resnet50 --drop-layer block3_2"),
        ),
    ),
)


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str) -> str:
    """Count the parameters and multiply-adds of each network, and draw the lineage. Nothing is trained.

    Returns a summary of one line per network.
    """
    del work, seeds
    steps = [_entry(step) for step in STEPS]
    report = {
        "description": "parameters and multiply-adds for one image, counted from the tables of layers at their nominal "
        "input and published number of classes; the command shows an addition or takes it away",
        "steps": steps,
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    return "\n".join(f"{step['year']} {step['label']}: {_size(step) or 'no network'}" for step in steps)


def _entry(step: Step) -> dict[str, Any]:
    entry: dict[str, Any] = {"year": step.year, "label": step.label, "variant": step.variant}
    if step.variant:
        with torch.device("meta"):
            costs = AlexNet(step.variant, CLASSES.get(step.variant, 1000)).costs()
        entry["parameters"] = sum(cost.parameters for cost in costs)
        entry["multiply_adds"] = sum(cost.multiply_adds for cost in costs)
    additions = [{"what": what, "command": f"alexnet {command}"} for what, command in step.additions]
    return entry | {"additions": additions}


def _size(step: dict[str, Any]) -> str:
    if not step["variant"]:
        return ""
    return f"{step['parameters']:,} parameters, {step['multiply_adds']:,} multiply-adds"


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Each network on a line of years from top to bottom; beside each addition the command."""
    lines = sum(1 + len(step["additions"]) for step in report["steps"])
    drawing = new(0.24 * lines + 0.5, width=9.6)
    axes = drawing.subplots()
    bare(axes)
    axes.set_xlim(0, 100)
    axes.set_ylim(lines, -0.5)
    axes.set_title("Additions of each network, and the switch of each (alexnet …)")
    axes.plot([7.5, 7.5], [0.3, lines - len(report["steps"][-1]["additions"]) - 0.7], color=LINE, linewidth=2)
    row = 0.3
    for step in report["steps"]:
        axes.plot([7.5], [row], "o", color=BLUE if step["variant"] else MUTED, markersize=7)
        axes.text(0, row, step["year"], va="center", weight="bold")
        axes.text(10, row, step["label"], va="center", weight="bold", color=INK)
        axes.text(44, row, _size(step), va="center", color=MUTED, fontsize=8.5)
        for addition in step["additions"]:
            row += 1
            axes.text(12, row, f"+ {addition['what']}", va="center", color=ORANGE)
            axes.text(
                44, row, addition["command"].removeprefix("alexnet "), va="center", family="monospace", fontsize=8
            )
        row += 1
    return drawing
