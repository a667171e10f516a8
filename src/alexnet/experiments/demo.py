"""The demo: the whole way on real photographs, from the images to the report, within a quarter of an hour."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import Evaluation, check_can_write, evaluate
from alexnet.experiments import solar_cells
from alexnet.experiments.trials import prepared, trained
from alexnet.prediction.classifier import Classifier
from alexnet.runtime.files import write_atomic

CHANGES: dict[str, Any] = {"flip": "square"}
"""What the demo sets beside the recipe that `auto` picks: a cell looks as well upside down, or lying on its side."""

CELLS_SHOWN = 10
SVG_COLUMNS = 92
_WITHOUT = "The same again with --scratch trains without the starter features too, beside this.\n\n"


def demo(
    out: str | os.PathLike[str] = "demo-out",
    seed: int = 0,
    scratch: bool = False,
    image: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Prepare, train, evaluate, predict and report on the solar cells; everything is written under `out`.

    Run again it goes on where it was stopped, and when all is done shows the result again. `scratch` also trains
    without the starter features, which else is a number measured before. `image` names an SVG file to draw the tables
    to. Returns what was measured of the network from the starter. Raises `AlexNetError` where that can't be written.
    """
    if image is not None:
        check_can_write(image)
    from alexnet.report.report import (
        write_report,
    )  # imported now, so that a missing dependency is reported at once

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    data, run, from_scratch = folder / "data", folder / "run", folder / "from-scratch"
    say = Console(stderr=True, highlight=False).print
    start = time.monotonic()
    say(
        "[bold]2,624 photographs of solar cells[/], taken by the light they give off under current; defects are dark.\n"
        "Deitsch et al., elpv-dataset, CC BY-NC-SA 4.0; 1,968 to learn from, 656 to be tested on.\n"
    )
    say("[bold]1  prepare[/]")
    dataset = prepared(partial(solar_cells.write_source, folder / "cells.csv"), data)
    say("\n[bold]2  train[/]")
    trained(data, run, seed=seed, **CHANGES)
    if scratch:
        say("\nand from scratch")
        trained(data, from_scratch, seed=seed, init="he", **CHANGES)
    say("\n[bold]3  measure[/], on cells the network has never seen")
    result = _measured(run, dataset)
    without = _measured(from_scratch, dataset) if scratch else None
    say("\n[bold]4  use[/]")
    console = Console(record=True, width=SVG_COLUMNS if image else None)
    console.print(_cells_table(run, dataset))
    console.print(_result_table(result, without))
    if image:
        write_atomic(Path(image), console.export_svg(title="alexnet demo").encode())
    say("\n[bold]5  see[/] what it has learned")
    report = write_report(run, dataset, evaluation=result)
    minutes = (time.monotonic() - start) / 60
    say(
        f"\n{minutes:.1f} minutes; everything is in {folder}: the run in {run}, the prepared images in {data}.\n"
        "Your own images, one folder a class:\n\n"
        f"  {_command()} prepare IMAGES data\n"
        f"  {_command()} train data --out run\n"
        f"  {_command()} evaluate run --data data\n"
        f"  {_command()} predict run IMAGE\n"
        f"  {_command()} show run --data data\n\n"
        f"{'' if scratch else _WITHOUT}What this network has learned, as a page to open in a browser:",
        soft_wrap=True,
    )
    print(report)
    return result


def _measured(run: Path, dataset: PreparedDataset) -> Evaluation:
    return evaluate(run, dataset, split="test", views=10, precision="auto")


def _cells_table(run: Path, dataset: PreparedDataset) -> Table:
    """Ten cells of the test, evenly spaced, with the network's answer."""
    split = dataset.split("test")
    chosen = np.linspace(0, len(split) - 1, CELLS_SHOWN).astype(int).tolist()
    classifier = Classifier.load(run)
    table = Table("cell", "is", "the network says", "probability", "", title="Ten cells of the test")
    for index, prediction in zip(chosen, classifier.predict([split.paths(i) for i in chosen]), strict=True):
        truth = dataset.classes[split.labels[index]]
        right = prediction.label == truth
        name = Path(split.paths(index)).name
        table.add_row(name, truth, prediction.label, f"{prediction.probability:.0%}", "" if right else "[red]wrong[/]")
    return table


def _result_table(result: Evaluation, without: Evaluation | None) -> Table:
    """The accuracy beside that without the starter and those that others published, best first."""
    majority = max(result.split.class_counts) / len(result.split)
    rows = {name: (percent, "published") for name, percent in solar_cells.PUBLISHED.items()}
    rows["AlexNet from the starter features, this run, ten views"] = (100 * result.top1, "measured now")
    if without:
        rows["AlexNet from scratch, this run, ten views"] = (100 * without.top1, "measured now")
    else:
        rows["AlexNet from scratch, mean of five runs, ten views"] = (solar_cells.FROM_SCRATCH, "measured before")
    rows['always "functional"'] = (100 * majority, "counted")
    table = Table("", "accuracy", "", title="656 cells that the network has never seen")
    for name, (percent, how) in sorted(rows.items(), key=lambda row: -row[1][0]):
        style = "bold" if how == "measured now" else None
        table.add_row(name, f"{percent:.2f}%", how, style=style)
    return table


def _command() -> str:
    """How this person calls `alexnet`."""
    return ".venv/bin/alexnet" if Path(".venv/bin/alexnet").exists() else "alexnet"
