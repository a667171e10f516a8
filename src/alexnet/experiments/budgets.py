"""Budgets: is the wall time of `alexnet train --budget` kept, and which accuracy does it buy, on the solar cells?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import SOLAR
from alexnet.experiments.demo import CHANGES
from alexnet.experiments.trials import place_of, prepare_once, run_trials, with_earlier
from alexnet.runs.recipe import as_seconds
from alexnet.runtime.provenance import provenance, write_result
from alexnet.training.train import train

BUDGETS = ("1m", "2m", "5m", "15m")
VIEWS = {"one_view": 1, "eight_views": 8, "ten_views": 10}


@dataclass(frozen=True)
class Trial:
    """A training with a budget and a seed."""

    budget: str
    seed: int

    @property
    def name(self) -> str:
        """Name such as ``"5m/0"``."""
        return f"{self.budget}/{self.seed}"


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, only: Sequence[str] = ()) -> str:
    """Run every trial, or those whose name starts with a prefix in `only`, and write all measurements so far.

    The trials of an existing `results` are kept. Returns a summary of one line per trial.
    """
    data = prepare_once(partial(solar_cells.write_source, work / "cells.csv"), work / "data")
    # The same images with the confidence of each label: certain and doubtful cells are reported apart.
    judged = prepare_once(partial(solar_cells.write_source, work / "judged.csv", confidences=True), work / "judged")
    trials = [Trial(budget, seed) for seed in seeds for budget in BUDGETS]

    def write(measured: dict[Trial, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        found = dict(sorted(with_earlier(results, measured, command).items(), key=lambda item: item[1]["budget"]))
        report = {
            "description": "trainings on the solar cells with a budget of wall time, from the start of the command to "
            "the written weights: planned and measured seconds, and the accuracy on the test cells; certain cells have "
            "raters who agree",
            "set": SOLAR,
            "images": data.counts,
            "changes": CHANGES,
            "trials": found,
            **provenance(command),
        }
        write_result(results, report)
        return found

    found = run_trials(trials, work, only, lambda trial: _measure(trial, work, data, judged), write)
    return "\n".join(
        f"{name}: {entry['seconds']:.0f} s of {entry['budget']:.0f} s ({entry['method']}, {entry['epochs']} epochs), "
        f"{entry['ten_views']['accuracy']:.2%} with ten views"
        for name, entry in found.items()
    )


def _measure(trial: Trial, work: Path, data: PreparedDataset, judged: PreparedDataset) -> dict[str, Any]:
    """Train with the budget, and evaluate; an interrupted training starts again, since its time would not be one."""
    run = place_of(work, trial.name, "")
    shutil.rmtree(run, ignore_errors=True)
    start = time.monotonic()
    trained = train(data.path, run, budget=trial.budget, seed=trial.seed, **CHANGES)
    seconds = time.monotonic() - start
    epochs, plan, recipe = trained.metrics("epoch"), trained.config.plan or {}, trained.config.recipe
    entry: dict[str, Any] = {
        "budget": as_seconds(trial.budget),
        "seconds": seconds,
        "planned_seconds": plan["seconds"],
        "method": plan["method"],
        "epochs": recipe.epochs,
        "input_size": trained.config.input_size,
        "changes_of_the_schedule": [
            {name: record[name] for name in ("step", "epochs", "epochs_before", "slowdown")}
            for record in trained.metrics("schedule")
        ],
        "train_error": epochs[-1]["train_error"],
    }
    for name, views in VIEWS.items():
        result = evaluate(run, judged, split="test", views=views, precision="auto")
        entry[name] = {
            "accuracy": result.accuracy,
            "roc_auc": result.binary_metrics()["roc_auc"],
            **{part: metrics.accuracy(predictions) for part, predictions in result.certainty.items()},
        }
    for file in run.glob("*.safetensors"):
        file.unlink()
    return entry
