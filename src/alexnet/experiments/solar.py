"""The training of the demo from scratch with several seeds: mean and standard deviation of the test accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments.demo import CHANGES
from alexnet.experiments.solar_cells import PUBLISHED, write_source
from alexnet.experiments.trials import measure_once, prepare_once, train_once
from alexnet.runs.run import Run
from alexnet.runtime.provenance import provenance, write_result


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, *, precision: str | None = None) -> str:
    """Train once per seed under `work` and write `results`. Finished trials are not repeated.

    `precision`: by default the faster one on this machine. Returns a summary of one line.
    """
    dataset = prepare_once(partial(write_source, work / "cells.csv"), work / "data")
    changes = {"init": "he", **CHANGES, **({"precision": precision} if precision else {})}
    runs = [
        measure_once(work / f"seed-{seed}.json", partial(_measure, work / f"seed-{seed}", dataset, seed, changes))
        for seed in seeds
    ]
    accuracies = [entry["views_10"]["top1"] for entry in runs]
    test = dataset.split("test")
    report = {
        "description": "accuracy on 656 test cells, trained from scratch on 1,968 cells; weights of the last epoch",
        "mean": statistics.mean(accuracies),
        "standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "majority": max(test.class_counts) / len(test),
        "published_percent": PUBLISHED,
        "changes": changes,
        "recipe": Run.open(work / f"seed-{seeds[0]}").config.recipe.to_dict(),
        "runs": runs,
        **provenance(command),
    }
    write_result(results, report)
    return f"accuracy {statistics.mean(accuracies):.2%} over {len(seeds)} seeds"


def _measure(run: Path, dataset: PreparedDataset, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one seed."""
    epochs = train_once(dataset.path, run, seed=seed, **changes).metrics("epoch")
    entry: dict[str, Any] = {
        "seed": seed,
        "training_seconds": sum(record["seconds"] for record in epochs),
        "train_loss": [record["train_loss"] for record in epochs],
    }
    for views in (1, 10):
        result = evaluate(run, dataset, split="test", views=views, precision=changes.get("precision", "auto"))
        entry[f"views_{views}"] = {
            "top1": result.accuracy,
            "log_loss": result.log_loss,
            "roc_auc": result.binary_metrics()["roc_auc"],
            "confusion": result.confusion_matrix.tolist(),
        }
    return entry
