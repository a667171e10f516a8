"""The networks of cuda-convnet on CIFAR-10: 18% test error without augmentation, 13% and 11% with patches and views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.files import write_whole
from alexnet.provenance import provenance, write_result
from alexnet.recipe import Event, recipes
from alexnet.reproduce.arms import measured, spread, trained
from alexnet.reproduce.cifar import cifar10, source_words
from alexnet.show.style import BLUE, INK, MUTED, ORANGE, Figure, drawn, new, png

SHORTER = {"cifar-13pct": 40, "cifar-11pct": 40}
"""Epochs instead of the recipe's 520, unless the experiment is run in full."""
VIEWS = {"cifar-18pct": 1, "cifar-13pct": 9, "cifar-11pct": 9}


@dataclass(frozen=True)
class Arm:
    """A network to train with a seed, and what is set beside its recipe."""

    network: str
    seed: int
    changes: dict[str, Any]

    def measure(self, dataset: PreparedDataset, folder: Path) -> dict[str, Any]:
        """Train it in `folder` and measure it on the test pictures; once."""
        run = folder / f"seed-{self.seed}"
        return measured(run.with_suffix(".json"), lambda: self._measure(dataset, run))

    def _measure(self, dataset: PreparedDataset, run: Path) -> dict[str, Any]:
        epochs = trained(dataset.path, run, recipe=self.network, seed=self.seed, **self.changes).metrics("epoch")
        one = evaluate(run, dataset, split="test", views=1, precision="auto")
        views = VIEWS[self.network]
        best = one if views == 1 else evaluate(run, dataset, split="test", views=views, precision="auto")
        return {
            "seed": self.seed,
            "seconds": sum(epoch["seconds"] for epoch in epochs),
            "train_error": [epoch["train_error"] for epoch in epochs],
            "train_loss": [epoch["train_loss"] for epoch in epochs],
            "test_error_one_view": 1 - one.top1,
            "test_error": 1 - best.top1,
            "test_log_loss": best.log_loss,
        }


def changes(network: str, full: bool, quick: bool) -> dict[str, Any]:
    """What is set beside the recipe of a network: a shorter training, whose drops of the rate come in proportion."""
    recipe = recipes()[network]
    epochs = 2 if quick else recipe.epochs if full else SHORTER.get(network, recipe.epochs)
    if epochs == recipe.epochs:
        return {}
    # The published 10 epochs after each drop would be most of a short training: an eighth of it each.
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
    """Train `network`, a recipe's name, on CIFAR-10 with every seed, and measure it on the test pictures.

    Returns the error in a line.
    """
    dataset = cifar10(work, data, quick)
    values = changes(network, full, quick)
    arms = [Arm(network, seed, values).measure(dataset, work / _folder(network, quick)) for seed in seeds]
    errors = spread([arm["test_error"] for arm in arms])
    report = {
        "what": f"error on the {len(dataset.split('test')):,} test pictures of CIFAR-10, weights of the last epoch",
        "network": network,
        "views": VIEWS[network],
        "test_error": errors,
        "test_error_one_view": spread([arm["test_error_one_view"] for arm in arms]),
        "pictures": source_words(data),
        "recipe": recipes()[network].override(values).to_dict(),
        "epochs_published": recipes()[network].epochs,
        "seeds": list(seeds),
        "arms": arms,
        **provenance(command),
    }
    write_result(results, report)
    write_whole(results.with_suffix(".png"), png(curves({network: arms})))
    return f"{network}: test error {errors['mean']:.2%} over {len(arms)} seed{'s' * (len(arms) > 1)}"


def _folder(network: str, quick: bool) -> str:
    return f"{network}-quick" if quick else network


@drawn
def curves(groups: dict[str, list[dict[str, Any]]]) -> Figure:
    """Training error over the epochs, a colour a group of arms, and the test error at the end as a dot."""
    drawing = new(3.2)
    axes = drawing.subplots()
    for (name, arms), colour in zip(groups.items(), (BLUE, ORANGE, INK, MUTED), strict=False):
        for number, arm in enumerate(arms):
            errors = arm["train_error"]
            axes.plot([epoch + 0.5 for epoch in range(len(errors))], errors, color=colour, linewidth=1.3)
            label = f"{name}: test {arm['test_error']:.1%}" if number == 0 else None
            axes.plot([len(errors)], [arm["test_error"]], "o", color=colour, markersize=5, label=label)
    highest = max(max(arm["train_error"]) for arms in groups.values() for arm in arms)
    axes.set_ylim(0, math.ceil(highest * 10) / 10)
    axes.set_xlim(left=0)
    axes.set_xlabel("Epochs")
    axes.set_title("Training error, and test error at the end")
    axes.legend()
    return drawing
