"""The networks of cuda-convnet on CIFAR-10: 18% test error without augmentation, 13% and 11% with crops."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments.cifar import cifar10, source_description
from alexnet.experiments.trials import measure_once, summarize, train_once, write_with_figure
from alexnet.report.style import BLUE, INK, MUTED, ORANGE, Figure, drawn, new
from alexnet.runs.recipe import Event, recipes
from alexnet.runtime.provenance import provenance

SHORTER = {"cifar-13pct": 40, "cifar-11pct": 40}
"""Epochs instead of the 520 of the recipe, without `--full`."""
VIEWS = {"cifar-18pct": 1, "cifar-13pct": 9, "cifar-11pct": 9}


@dataclass(frozen=True)
class Trials:
    """The trials of a network on CIFAR-10: one per seed, with `changes` to its recipe; `name` is their folder."""

    dataset: PreparedDataset
    network: str
    seeds: Sequence[int]
    changes: dict[str, Any]
    name: str

    def measure(self, work: Path) -> dict[str, Any]:
        """Train and evaluate each trial in `work`, or load its measurement; return the trials and their errors."""
        trials = []
        for seed in self.seeds:
            run = work / self.name / f"seed-{seed}"
            trials.append(measure_once(run.with_suffix(".json"), partial(self._measure, run, seed)))
        errors = {name: summarize([trial[name] for trial in trials]) for name in ("test_error", "test_error_one_view")}
        return {**errors, "trials": trials}

    def _measure(self, run: Path, seed: int) -> dict[str, Any]:
        epochs = train_once(self.dataset.path, run, recipe=self.network, seed=seed, **self.changes).metrics("epoch")
        one = evaluate(run, self.dataset, split="test", views=1, precision="auto")
        views = VIEWS[self.network]
        best = one if views == 1 else evaluate(run, self.dataset, split="test", views=views, precision="auto")
        return {
            "seed": seed,
            "seconds": sum(epoch["seconds"] for epoch in epochs),
            "train_error": [epoch["train_error"] for epoch in epochs],
            "train_loss": [epoch["train_loss"] for epoch in epochs],
            "test_error_one_view": 1 - one.accuracy,
            "test_error": 1 - best.accuracy,
            "test_log_loss": best.log_loss,
        }

    def about(self, data: Sequence[str]) -> dict[str, Any]:
        """Return the network, images, recipe and seeds, for a result."""
        recipe = recipes()[self.network]
        return {
            "network": self.network,
            "views": VIEWS[self.network],
            "images": source_description(data),
            "test_images": self.dataset.counts["test"],
            "recipe": recipe.override(self.changes).to_dict(),
            "epochs_published": recipe.epochs,
            "seeds": list(self.seeds),
        }


def changes(network: str, full: bool, quick: bool, shorter: int | None = None) -> dict[str, Any]:
    """Return the changes to the recipe of a network: a shorter training with proportional learning-rate drops.

    `shorter`: number of epochs; by default that of `SHORTER`, or the recipe's. `full` keeps the recipe's, `quick` is 2.
    """
    recipe = recipes()[network]
    epochs = 2 if quick else recipe.epochs if full else shorter or SHORTER.get(network, recipe.epochs)
    if epochs == recipe.epochs:
        return {}
    # The published 10 epochs after each drop would be most of a short training; an eighth of the epochs is used.
    last = max(1, epochs // 8)
    starts = (epochs - 2 * last + 1, epochs - last + 1)
    events = tuple(Event(epoch, lr=event.lr) for epoch, event in zip(starts, recipe.events, strict=True))
    return {"epochs": epochs, "events": events}


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    quick: bool = False,
    full: bool = False,
    *,
    network: str,
) -> str:
    """Train `network`, the name of a recipe, on CIFAR-10 with every seed and evaluate it on the test split.

    Returns a summary of one line.
    """
    dataset = cifar10(work, data, quick)
    trials = Trials(dataset, network, seeds, changes(network, full, quick), f"{network}{'-quick' * quick}")
    found = trials.measure(work)
    report = {
        "description": "error on the test images of CIFAR-10, weights of the last epoch",
        **trials.about(data),
        **found,
        **provenance(command),
    }
    write_with_figure(results, report, curves({network: found["trials"]}))
    return f"{network}: test error {found['test_error']['mean']:.2%} over {len(seeds)} seed{'s' * (len(seeds) > 1)}"


@drawn
def curves(groups: dict[str, list[dict[str, Any]]]) -> Figure:
    """Training error against epochs, one color for each group of trials; final test errors as dots."""
    from matplotlib.ticker import MaxNLocator

    drawing = new(3.2)
    axes = drawing.subplots()
    for (name, trials), color in zip(groups.items(), (BLUE, ORANGE, INK, MUTED), strict=False):
        mean = statistics.mean(trial["test_error"] for trial in trials)
        for number, trial in enumerate(trials):
            errors = trial["train_error"]
            axes.plot([epoch + 0.5 for epoch in range(len(errors))], errors, color=color, linewidth=1.3)
            label = f"{name}: test {mean:.1%}" if number == 0 else None
            axes.plot([len(errors)], [trial["test_error"]], "o", color=color, markersize=5, label=label)
    highest = max(max(trial["train_error"]) for trials in groups.values() for trial in trials)
    axes.set_ylim(0, math.ceil(highest * 10) / 10)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Epochs")
    axes.set_title("Training error, and final test error (dots)")
    axes.legend()
    return drawing
