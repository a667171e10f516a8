"""Trainings that differ in values of the recipe: `small` with one change at a time, and AlexNet from nothing.

"recipe-ablation" undoes one part of the recipe `small` at a time. "from-nothing" starts from the paper's recipe, which
does not learn from two thousand images, and adds what it takes, one step after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments.ablation import FULL, Change
from alexnet.experiments.ablation import figure as ablation_figure
from alexnet.experiments.catalog import dataset_name
from alexnet.experiments.image_sets import (
    QUICK_SIZE,
    QUICK_TEST_IMAGES,
    QUICK_TRAINING_IMAGES,
    first_per_class,
    prepared_size,
)
from alexnet.experiments.trials import (
    compare,
    place_of,
    prepare_once,
    run_trials,
    summarize,
    train_once,
    write_with_figure,
)
from alexnet.report.style import INK, LAYERS, MUTED, Figure, drawn, new
from alexnet.runs.run import Run
from alexnet.runtime.errors import UsageError
from alexnet.runtime.provenance import provenance, write_result

VIEWS = {"one_view": 1, "ten_views": 10}
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 24, "crop_size": 64, "input_size": 64, "early_input_size": None}


@dataclass(frozen=True)
class Table:
    """An experiment: the recipe and the values that its trainings share, and the values of each.

    Attributes
    ----------
    description : str
        What the trainings show.
    recipe : str
        The recipe that they change.
    base : mapping
        Values that all of them share.
    changes : mapping of str to Change
        The trainings.
    images : tuple of int
        Largest number of training and test images.
    cumulative : bool
        Whether each training also has the values of those before it; otherwise each is compared with `FULL`.
    """

    description: str
    recipe: str
    base: Mapping[str, Any]
    changes: Mapping[str, Change]
    images: tuple[int, int]
    cumulative: bool = False

    def values(self, name: str) -> tuple[str, dict[str, Any]]:
        """The recipe of a training, and its values."""
        values = {**self.base, **self.changes[name].values}
        if self.cumulative:
            names = list(self.changes)
            steps = [self.changes[step].values for step in names[: names.index(name) + 1]]
            # A step that names a recipe starts from it.
            first = max((number for number, step in enumerate(steps) if "recipe" in step), default=0)
            values = {**self.base, **{key: value for step in steps[first:] for key, value in step.items()}}
        return values.pop("recipe", self.recipe), values


TABLES = {
    "recipe-ablation": Table(
        "test error of the recipe `small` from scratch, and with one change at a time, with the same seeds; the "
        "difference is the error with ten views, change minus recipe, per seed, as a fraction of 1; weights of the "
        "last epoch",
        recipe="small",
        base={"init": "he", "epochs": 10, "input_size": 131, "early_input_size": 99},
        changes={
            FULL: Change("the recipe", {}),
            "adamw": Change("AdamW instead of Muon", {"optimizer": "adamw"}),
            "sgd": Change("SGD instead of Muon, rate 0.01", {"optimizer": "paper", "lr": 0.01, "weight_decay": 0.0005}),
            "lrn": Change("LRN instead of batch normalization", {"normalization": "lrn"}),
            "no-whitening": Change("no whitening of conv1", {"whiten": False}),
            "no-early-size": Change("no smaller input at first", {"early_input_size": None}),
            "no-averaging": Change("no weight averaging", {"weight_averaging": 0.0}),
            "no-crops": Change("no random crops, no flips", {"crop_position": "center", "flip": "none"}),
            "smoothing": Change("label smoothing of 0.1", {"label_smoothing": 0.1}),
        },
        images=(1000, 1000),
    ),
    "from-nothing": Table(
        "AlexNet from random weights on few images: the paper's recipe, and what it takes to learn, one step after the "
        "other; each row has the changes of those above it, the last is the recipe `small`; the same epochs and input "
        "size for all",
        recipe="paper",
        base={"epochs": 5, "input_size": 131},
        changes={
            "paper": Change("the paper's recipe", {}),
            "initialization": Change(
                "He initialization, pixels of unit variance", {"init": "he", "pixel_scaling": "std"}
            ),
            "schedule": Change(
                "batches of 32, a rate that rises and falls", {"batch_size": 32, "schedule": "cosine", "warmup": 0.05}
            ),
            "batch-norm": Change("batch normalization", {"normalization": "batch"}),
            "small": Change("the recipe small", {"recipe": "small", "init": "he", "early_input_size": None}),
        },
        images=(2000, 1000),
        cumulative=True,
    ),
}
QUICK_TRIALS = 2


@dataclass(frozen=True)
class Trial:
    """One training of a table with a seed."""

    change: str
    seed: int

    @property
    def name(self) -> str:
        """Name such as ``"lrn/0"``."""
        return f"{self.change}/{self.seed}"


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    table: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    quick: bool = False,
) -> str:
    """Run every trial, or those whose name starts with a prefix in `only`, and write all measurements so far.

    `table` is a name of `TABLES`. The images are the first of each class of `data`. The results are written after each
    trial, so an interruption loses nothing. Returns a summary of one line per training.
    """
    known = TABLES[table]
    if len(data) != 1:
        raise UsageError(f"{table} takes one image set: give --data once")
    name = dataset_name(data) or ""
    folder = work / f"{name}{'-quick' * quick}"
    limits = (QUICK_TRAINING_IMAGES, QUICK_TEST_IMAGES) if quick else known.images
    dataset = prepare_once(
        lambda: first_per_class(Path(data[0]), *limits),
        folder / "data",
        size=QUICK_SIZE if quick else prepared_size(data[0]),
        progress=not quick,
    )
    changes = list(known.changes)[: QUICK_TRIALS if quick else None]
    trials = [Trial(change, seed) for seed in seeds for change in changes]
    write = partial(_write, known, dataset, folder, results, command, name)
    entries = run_trials(trials, folder, only, partial(_measure, known, folder, dataset, quick), write)
    return "\n".join(
        f"{entry['label']}: {entry['ten_views']['mean']:.2%} error"
        + (f"; {entry['difference']['verdict']}" if "difference" in entry else "")
        for entry in entries.values()
    )


def _measure(known: Table, folder: Path, dataset: PreparedDataset, quick: bool, trial: Trial) -> dict[str, Any]:
    """Train and evaluate one trial; its weights are removed."""
    run = place_of(folder, trial.name, "")
    recipe, values = known.values(trial.change)
    values |= QUICK if quick else {}
    trained = train_once(dataset.path, run, recipe=recipe, seed=trial.seed, **values)
    errors = {
        views: 1 - evaluate(run, dataset, views=number, precision="auto").accuracy for views, number in VIEWS.items()
    }
    for file in run.glob("*.safetensors"):
        file.unlink()  # hundreds of megabytes, for dozens of trials
    epochs, steps = trained.metrics("epoch"), trained.metrics("step")
    return {
        **errors,
        "train_loss": [epoch["train_loss"] for epoch in epochs],
        "train_error": [epoch["train_error"] for epoch in epochs],
        "first_loss": steps[0]["loss"],
        "rollbacks": len(trained.metrics("rollback")),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
    }


def _write(
    known: Table,
    dataset: PreparedDataset,
    folder: Path,
    results: Path,
    command: str,
    name: str,
    measured: dict[Trial, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Write the measurements so far; return the entries of the trainings."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for trial, measurement in measured.items():
        found.setdefault(trial.change, {})[trial.seed] = measurement
    entries = {change: _entry(known, change, found) for change in known.changes if change in found}
    some = next(iter(measured))
    report = {
        "description": known.description,
        "set": name,
        "images": dataset.counts,
        "classes": len(dataset.classes),
        "chance_loss": math.log(len(dataset.classes)),
        "recipe": Run.open(place_of(folder, some.name, "")).config.recipe.to_dict(),
        "changes": entries,
        **provenance(command),
    }
    if known.cumulative:
        write_with_figure(results, report, loss_figure(report))
    elif len(entries) > (FULL in entries):
        write_with_figure(results, report, ablation_figure(report))
    else:
        write_result(results, report)
    return entries


def _entry(known: Table, change: str, found: Mapping[str, Mapping[int, dict[str, Any]]]) -> dict[str, Any]:
    """The entry of one training: its errors, and the difference from the full recipe over their common seeds."""
    trials, full = found[change], found.get(FULL, {})
    entry: dict[str, Any] = {
        "label": known.changes[change].label,
        "values": known.changes[change].values,
        "seeds": sorted(trials),
        **{views: summarize([trial[views] for trial in trials.values()]) for views in VIEWS},
        "train_error": summarize([trial["train_error"][-1] for trial in trials.values()]),
        "seconds": summarize([trial["seconds"] for trial in trials.values()]),
    }
    if change != FULL and any(seed in full for seed in trials):
        differences = {
            other: [trial["ten_views"] - full[seed]["ten_views"] for seed, trial in others.items() if seed in full]
            for other, others in found.items()
            if other != FULL
        }
        entry["published"] = None
        entry["difference"] = compare(differences.pop(change), list(differences.values()))
    entry["trials"] = {str(seed): trial for seed, trial in trials.items()}
    return entry


@drawn
def loss_figure(report: dict[str, Any]) -> Figure:
    """The training loss of each step towards learning, and the loss of chance."""
    drawing = new(3.6, width=6.4)
    axes = drawing.subplots()
    for color, entry in zip(LAYERS[::2], report["changes"].values(), strict=False):
        label: str | None = f"{entry['label']}: {entry['ten_views']['mean']:.0%} test error"
        for trial in entry["trials"].values():
            axes.plot(range(1, len(trial["train_loss"]) + 1), trial["train_loss"], color=color, label=label)
            label = None
    axes.axhline(report["chance_loss"], color=MUTED, linestyle="--", linewidth=0.8)
    trials = [trial for entry in report["changes"].values() for trial in entry["trials"].values()]
    above = (max(len(trial["train_loss"]) for trial in trials), 1.03 * report["chance_loss"])
    axes.annotate(f"ln({report['classes']}), chance", above, color=INK, ha="right", va="bottom", fontsize=8)
    axes.set_xlabel("Epoch")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("Training loss")
    axes.set_ylim(0, 1.6 * report["chance_loss"])
    drawing.legend(loc="outside lower center", ncols=1)
    axes.set_title(f"AlexNet from nothing: {report['set']}, {report['images'].get('train', 0):,} training images")
    return drawing
