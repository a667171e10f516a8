"""The demo: every step on real images, from preparation to the report, within 15 minutes on two cores."""

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
from alexnet.experiments.trials import prepare_once, train_once
from alexnet.prediction.classifier import Classifier
from alexnet.runtime.files import write_atomic

CHANGES: dict[str, Any] = {"flip": "square"}
"""Changes to the recipe: a solar cell has no preferred orientation, so all eight symmetries of a square are used."""

SHOWN_CELLS = 10
SVG_COLUMNS = 92
_SCRATCH_HINT = "With --scratch, the demo also trains from scratch for comparison.\n\n"


def demo(
    out: str | os.PathLike[str] = "demo-out",
    seed: int = 0,
    scratch: bool = False,
    image: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Prepare, train, evaluate, predict and report on the solar cells.

    An interrupted demo continues; a finished one shows its result again.

    Parameters
    ----------
    out : path
        Folder for everything the demo writes.
    seed : int
        Random seed.
    scratch : bool
        Also train from scratch. Otherwise the table shows the stored result (`FROM_SCRATCH`).
    image : path, optional
        SVG file to which the tables are also written.

    Returns
    -------
    Evaluation
        Test metrics of the network that is fine-tuned from the starter.

    Raises
    ------
    AlexNetError
        If `image` cannot be written.
    """
    if image is not None:
        check_can_write(image)
    from alexnet.report.report import write_report

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    data, run, from_scratch = folder / "data", folder / "run", folder / "from-scratch"
    show = Console(stderr=True, highlight=False).print
    start = time.monotonic()
    show(
        "[bold]2,624 electroluminescence images of solar cells[/]; defects are dark.\n"
        "Deitsch et al., elpv-dataset, CC BY-NC-SA 4.0; 1,968 training and 656 test images.\n"
    )
    show("[bold]1  Prepare[/]")
    dataset = prepare_once(partial(solar_cells.write_source, folder / "cells.csv"), data)
    show("\n[bold]2  Train[/]")
    train_once(data, run, seed=seed, **CHANGES)
    if scratch:
        show("\nTrain from scratch")
        train_once(data, from_scratch, seed=seed, init="he", **CHANGES)
    show("\n[bold]3  Evaluate[/] on the test split")
    result = _evaluate(run, dataset)
    without = _evaluate(from_scratch, dataset) if scratch else None
    show("\n[bold]4  Predict[/]")
    console = Console(record=True, width=SVG_COLUMNS if image else None)
    console.print(_cells_table(run, dataset))
    console.print(_result_table(result, without))
    if image:
        write_atomic(Path(image), console.export_svg(title="alexnet demo").encode())
    show("\n[bold]5  Report[/]")
    report = write_report(run, dataset, evaluation=result)
    minutes = (time.monotonic() - start) / 60
    show(
        f"\n{minutes:.1f} minutes. The run is in {run}, the prepared dataset in {data}.\n"
        "For your own images, with one folder per class:\n\n"
        f"  {_command()} prepare IMAGES data\n"
        f"  {_command()} train data --out run\n"
        f"  {_command()} evaluate run --data data\n"
        f"  {_command()} predict run IMAGE\n"
        f"  {_command()} report run --data data\n\n"
        f"{'' if scratch else _SCRATCH_HINT}The report, to open in a browser:",
        soft_wrap=True,
    )
    print(report)
    return result


def _evaluate(run: Path, dataset: PreparedDataset) -> Evaluation:
    return evaluate(run, dataset, split="test", views=10, precision="auto")


def _cells_table(run: Path, dataset: PreparedDataset) -> Table:
    """Ten test cells, evenly spaced, with their predictions."""
    split = dataset.split("test")
    chosen = np.linspace(0, len(split) - 1, SHOWN_CELLS).astype(int).tolist()
    classifier = Classifier.load(run)
    table = Table("cell", "label", "prediction", "probability", "", title="Ten test cells")
    for index, prediction in zip(chosen, classifier.predict([split.paths(i) for i in chosen]), strict=True):
        truth = dataset.classes[split.labels[index]]
        correct = prediction.label == truth
        name = Path(split.paths(index)).name
        table.add_row(
            name, truth, prediction.label, f"{prediction.probability:.0%}", "" if correct else "[red]incorrect[/]"
        )
    return table


def _result_table(result: Evaluation, without: Evaluation | None) -> Table:
    """The accuracy with and without pretrained weights, and published accuracies, best first."""
    majority = max(result.split.class_counts) / len(result.split)
    rows = {name: (percent, "published") for name, percent in solar_cells.PUBLISHED.items()}
    rows["AlexNet, fine-tuned from the starter, this run, ten views"] = (100 * result.accuracy, "measured now")
    if without:
        rows["AlexNet from scratch, this run, ten views"] = (100 * without.accuracy, "measured now")
    else:
        rows["AlexNet from scratch, mean of five seeds, ten views"] = (solar_cells.FROM_SCRATCH, "stored result")
    rows['always "functional"'] = (100 * majority, "class frequency")
    table = Table("", "accuracy", "", title="656 test cells")
    for name, (percent, source) in sorted(rows.items(), key=lambda row: -row[1][0]):
        style = "bold" if source == "measured now" else None
        table.add_row(name, f"{percent:.2f}%", source, style=style)
    return table


def _command() -> str:
    """The command to run `alexnet` here."""
    return ".venv/bin/alexnet" if Path(".venv/bin/alexnet").exists() else "alexnet"
