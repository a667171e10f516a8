"""The recipe `small` on few images: does the training loss fall in the first tenth of a run with every seed?"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.experiments import solar_cells
from alexnet.experiments.trials import prepare_once
from alexnet.runtime.files import write_csv
from alexnet.runtime.provenance import provenance, write_result
from alexnet.training.train import set_up_training

# (defective, functional) training cells; None: all 1,968 of the demo.
SETS: dict[str, tuple[int, int] | None] = {"12": (6, 6), "200": (100, 100), "95:5": (10, 190), "2000": None}


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str) -> str:
    """Start a training for each set and seed under `work`, stop it after a tenth, and write `results`.

    Finished trials are not repeated. Returns a summary of one line.
    """
    sets = {name: _measure(name, work / name.replace(":", "-"), seeds) for name in SETS}
    report = {
        "description": "mean training loss over the last quarter of the first tenth of a run, and `chance_loss`, the "
        "loss of a classifier that predicts the class frequencies",
        "sets": sets,
        **provenance(command),
    }
    write_result(results, report)
    worst = {name: max(entry["losses"]) / entry["chance_loss"] for name, entry in sets.items()}
    return "largest loss as a share of the chance loss: " + ", ".join(
        f"{name} {share:.0%}" for name, share in worst.items()
    )


def _measure(name: str, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    data = prepare_once(partial(_source, folder / "cells.csv", SETS[name]), folder / "data", split={}).path
    losses = []
    for seed in seeds:
        training = set_up_training(
            data, folder / f"seed-{seed}", resume=(folder / f"seed-{seed}").exists(), seed=seed, init="he"
        )
        tenth = training.total_steps // 10
        if training.state.counters.step < tenth:
            training.train(tenth)
        steps = [step["loss"] for step in training.run.metrics("step") if tenth * 3 // 4 < step["step"] <= tenth]
        losses.append(statistics.mean(steps))
    counts = training.training.class_counts
    shares = [count / sum(counts) for count in counts]
    return {
        "class_counts": counts,
        "steps": training.total_steps,
        "measured_over_steps": [tenth * 3 // 4 + 1, tenth],
        "chance_loss": -sum(share * math.log(share) for share in shares),
        "seeds": list(seeds),
        "losses": losses,
    }


def _source(path: Path, counts: tuple[int, int] | None) -> Path:
    """Write the training cells of the demo, or the first `counts` cells of each class."""
    rows = list(csv.reader(solar_cells.write_source(path).read_text(encoding="utf-8").splitlines()))[1:]
    training = [row for row in rows if row[2] == "train"]
    if counts is not None:
        limits = zip(solar_cells.CLASSES, counts, strict=True)
        training = [row for label, count in limits for row in [r for r in training if r[1] == label][:count]]
    write_csv(path, [["path", "label", "split"], *training])
    return path
