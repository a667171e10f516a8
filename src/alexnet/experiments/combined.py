"""A fine-tuned network, a linear SVM on Fisher vectors of SIFT descriptors, and the average of their probabilities.

The network has the default recipe. It is trained and tested on the same images as the baseline, and with the same
views. The networks and the baselines of all seeds are averaged, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import probabilities_by_member
from alexnet.evaluation.metrics import Predictions
from alexnet.experiments import demo, solar_cells
from alexnet.experiments.baseline import fit_alone
from alexnet.experiments.catalog import SOLAR, SOLAR_LARGE, named_sources
from alexnet.experiments.image_sets import QUICK_SIZE, subset, test_split
from alexnet.experiments.recipe_trials import QUICK
from alexnet.experiments.trials import (
    compare,
    prepare_once,
    run_trials,
    summarize,
    train_once,
    with_earlier,
)
from alexnet.runtime.provenance import provenance, read_result, write_result

FEATURES = "sift-fisher"
METHODS = ("network", "baseline", "average")
TOGETHER = ("networks", "baselines", "average")
"""The means over the seeds: of the networks, of the baselines, and of all of them."""


@dataclass(frozen=True)
class Setting:
    """The size of the prepared images of a set, and the values of the recipe that differ from the defaults."""

    size: int = 256
    changes: Mapping[str, Any] = field(default_factory=dict)


SETTINGS = {
    # Cells and aerial images have no upright orientation.
    SOLAR: Setting(changes=demo.CHANGES),
    "uc-merced": Setting(changes=demo.CHANGES),
    SOLAR_LARGE: Setting(
        300, {**demo.CHANGES, "crop_size": 284, "input_size": 283, "early_input_size": 195, "epochs": 40}
    ),
}


@dataclass(frozen=True)
class Trial:
    """A network and a baseline of one set with one seed."""

    set: str
    seed: int

    @property
    def name(self) -> str:
        """Name such as ``"solar/0"``."""
        return f"{self.set}/{self.seed}"

    @property
    def setting(self) -> Setting:
        """The setting of its set; the defaults for a set without one."""
        return SETTINGS.get(self.set, Setting())


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    quick: bool = False,
) -> str:
    """Run every trial, or those whose name starts with a prefix in `only`, and write all measurements so far.

    The sets are the solar cells in two sizes, and `data`: sources with train and test or val that `prepare` takes; with
    `quick` a few images of `data` alone. The trials of an existing `results` are kept. Returns a summary of one line
    per set.
    """
    sources: dict[str, Any] = {name: Path(source) for name, source in named_sources(data).items()}
    if not (quick and sources):
        cells = partial(solar_cells.write_source, work / "cells.csv")
        sources = {SOLAR: cells, SOLAR_LARGE: cells, **sources}
    trials = [Trial(name, seed) for seed in seeds for name in sources]

    def measure(trial: Trial) -> dict[str, Any]:
        source, folder = sources[trial.set], work / trial.set
        if quick:
            dataset = subset(source if callable(source) else lambda: source, folder / "few", QUICK_SIZE)
        else:
            dataset = prepare_once(source, folder / "data", size=trial.setting.size)
        return _measure(dataset, trial, folder / str(trial.seed), quick)

    rows = run_trials(trials, work, only, measure, partial(_write, results, command, work))
    return "\n".join(
        f"{name}: "
        + ", ".join(f"{row[method]['accuracy']['mean']:.2%} ({method})" for method in METHODS)
        + "".join(
            f", {row['together'][mean]['accuracy']:.2%} ({mean} of {len(row['together']['seeds'])} seeds)"
            for mean in TOGETHER
            if "together" in row
        )
        for name, row in rows.items()
    )


def _measure(dataset: PreparedDataset, trial: Trial, folder: Path, quick: bool) -> dict[str, Any]:
    """Train, fit and evaluate. The probabilities are kept for the means over the seeds, and the weights are removed."""
    of_set = dict(trial.setting.changes)
    changes = {**of_set, **(QUICK if quick else {})}
    run = train_once(dataset.path, folder / "run", seed=trial.seed, **changes)
    baseline = fit_alone(dataset, folder / "baseline", FEATURES, trial.seed)
    split = test_split(dataset)
    probabilities = probabilities_by_member([run.path, baseline.path], split, views=10)
    shares = dict(zip(METHODS, (*probabilities, probabilities.mean(axis=0)), strict=True))
    measured = {method: _scores(found, split.labels) for method, found in shares.items()}
    measured["network"]["seconds"] = sum(epoch["seconds"] for epoch in run.metrics("epoch"))
    measured["baseline"]["seconds"] = sum(baseline.config.seconds.values())
    shutil.rmtree(folder)
    np.savez(folder.with_name(_kept(trial)), probabilities=probabilities, labels=split.labels)
    return {**measured, "changes": of_set, "threads": torch.get_num_threads()}


def _kept(trial: Trial) -> str:
    """The name of the file of the probabilities of a trial."""
    return f"{trial.seed}.npz"


def _scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy and log loss; of two classes also the area under the ROC curve."""
    predictions = Predictions.from_probabilities(probabilities, labels)
    two = probabilities.shape[1] == 2
    return {
        "accuracy": metrics.accuracy(predictions),
        "log_loss": metrics.log_loss(predictions),
        "roc_auc": metrics.roc_auc(*metrics.binary_scores(predictions, 1)) if two else None,
    }


def _write(results: Path, command: str, work: Path, measured: dict[Trial, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Write the measurements so far with those of an existing file; return the rows of the table by set."""
    trials = dict(sorted(with_earlier(results, measured, command).items()))
    table = {name: _row(name, trials) for name in dict.fromkeys(name.split("/")[0] for name in trials)}
    earlier = read_result(results).get("table", {})
    for name, row in table.items():
        of_set = [trial for trial in measured if trial.set == name]
        together = _together(work / name, of_set) if len(of_set) > 1 else earlier.get(name, {}).get("together")
        if together:
            row["together"] = together
    report = {
        "description": "test accuracy, log loss and area under the ROC curve of a network fine-tuned with the default "
        "recipe, of a linear SVM on Fisher vectors of SIFT descriptors, and of the mean of their probabilities; ten "
        "views (the baseline reads the whole image and its horizontal flip); `difference` is the accuracy of the "
        "average minus that of the network; `together` has the means of the probabilities over the seeds: of the "
        "networks, of the baselines, and of all",
        "published_percent": {SOLAR: solar_cells.PUBLISHED, SOLAR_LARGE: solar_cells.PUBLISHED},
        "table": table,
        "trials": trials,
        **provenance(command),
    }
    write_result(results, report)
    return table


def _together(folder: Path, trials: Sequence[Trial]) -> dict[str, Any]:
    """The scores of the means over the seeds of a set, from the probabilities that its trials kept."""
    kept = [np.load(folder / _kept(trial), allow_pickle=False) for trial in sorted(trials, key=lambda one: one.seed)]
    networks, baselines = np.stack([one["probabilities"] for one in kept], axis=1)
    means = (networks.mean(axis=0), baselines.mean(axis=0), np.concatenate([networks, baselines]).mean(axis=0))
    scores = {name: _scores(mean, kept[0]["labels"]) for name, mean in zip(TOGETHER, means, strict=True)}
    return {"seeds": sorted(trial.seed for trial in trials), **scores}


def _row(name: str, trials: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of a set."""
    entries = [entry for trial, entry in trials.items() if trial.split("/")[0] == name]
    row: dict[str, Any] = {"seeds": len(entries)}
    for method in METHODS:
        of_method = [entry[method] for entry in entries]
        keys = [key for key in of_method[0] if of_method[0][key] is not None]
        row[method] = {key: summarize([values[key] for values in of_method]) for key in keys}
    row["difference"] = compare([entry["average"]["accuracy"] - entry["network"]["accuracy"] for entry in entries])
    return row
