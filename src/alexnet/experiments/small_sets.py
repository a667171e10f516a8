"""The recipe `small` on few images: does the training loss fall in the first tenth of a run, whatever the seed?"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.experiments import solar_cells
from alexnet.experiments.trials import prepared
from alexnet.runtime.files import write_atomic
from alexnet.runtime.provenance import provenance, write_result
from alexnet.training.train import set_up_training

# (defective, functional) training cells; None: all 1,968 of the demo.
SETS: dict[str, tuple[int, int] | None] = {"12": (6, 6), "200": (100, 100), "95:5": (10, 190), "2000": None}


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str) -> str:
    """Begin a training for each set and seed under `work`, stop it after a tenth, and write `results`.

    What was trained before, there, is not trained again. Returns a line that says what came out.
    """
    sets = {name: _measure(name, work / name.replace(":", "-"), seeds) for name in SETS}
    report = {
        "what": "mean training loss over the last quarter of the first tenth of a run; guessing has `guessing`",
        "sets": sets,
        **provenance(command),
    }
    write_result(results, report)
    worst = {name: max(entry["losses"]) / entry["guessing"] for name, entry in sets.items()}
    return "worst loss, as a share of guessing's: " + ", ".join(f"{name} {share:.0%}" for name, share in worst.items())


def _measure(name: str, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    data = prepared(partial(_source, folder / "cells.csv", SETS[name]), folder / "data").path
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
        "guessing": -sum(share * math.log(share) for share in shares),
        "seeds": list(seeds),
        "losses": losses,
    }


def _source(path: Path, counts: tuple[int, int] | None) -> Path:
    """The demo's training cells, or the first so many of each class."""
    rows = list(csv.reader(solar_cells.write_source(path).read_text().splitlines()))[1:]
    training = [row for row in rows if row[2] == "train"]
    if counts is not None:
        wanted = zip(solar_cells.CLASSES, counts, strict=True)
        training = [row for label, count in wanted for row in [r for r in training if r[1] == label][:count]]
    lines = ["path,label,split", *(",".join(row) for row in training)]
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path
