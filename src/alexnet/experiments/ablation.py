"""Ablation: the network of the paper with one change at a time, trained to its end (paper, sections 3.1 to 5 and 7).

A training of the whole network takes days. Here the same table of layers has a quarter of the kernels and hidden units
in each layer and reads crops of 67 pixels from images of 76, the ratio of the paper's 224 and 256. So a training to the
end of its learning rate schedule takes a minute or two of a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import Evaluation, evaluate
from alexnet.experiments.catalog import SOLAR, dataset_name
from alexnet.experiments.image_sets import image_set
from alexnet.experiments.trials import (
    compare,
    place_of,
    run_trials,
    summarize,
    train_once,
    write_with_figure,
)
from alexnet.network.rows import Conv, FullyConnected, Layer
from alexnet.network.variants import Variant, get_variant, list_variants, register_variant
from alexnet.report.style import BLUE, INK, ORANGE, Figure, drawn, new
from alexnet.runs.checkpoint import FILE as CHECKPOINT
from alexnet.runs.recipe import Recipe, recipes
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import provenance, read_result, write_result

WIDTH_DIVISOR = 4
SIZE, CROP = 76, 67
"""Sides of the prepared images and of a crop, in pixels: after pool5 one position is left."""
TRAINING_IMAGES, TEST_IMAGES = 3000, 2000
"""Images used of a set other than the solar cells, the same number of each class."""
BASE: dict[str, Any] = {
    "variant": "paper-quarter",
    "init": "he",
    "pixel_scaling": "std",
    "crop_size": CROP,
    "batch_size": 32,
    "epochs": 12,
    "lr": 0.015,
    "schedule": "cosine",
    "warmup": 0.05,
    "keep": "last",
}
"""Changes to the recipe `paper` for thousands of images instead of millions. N(0, 0.01²) needs thousands of steps to
leave the plateau."""
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 24, "crop_size": 64}
FULL = "full"  # the unchanged network
MISTAKES = "mistakes"


@dataclass(frozen=True)
class Change:
    """One change to the network, and the published increase of the error, as a fraction of 1.

    `claimed`: the paper says that the change increases the error, with or without a number.
    """

    label: str
    values: dict[str, Any]
    published: float | None = None
    claimed: bool = True


CHANGES = {
    FULL: Change("the unchanged network", {}),
    "tanh": Change("tanh instead of ReLU", {"activation": "tanh"}),
    "no-lrn": Change("no response normalization", {"normalization": "none"}, 0.014),
    "non-overlapping": Change("non-overlapping pooling", {"pooling": "non-overlapping"}, 0.004),
    "half": Change("one tower, half the kernels", {"variant": "paper-half-quarter"}, 0.017),
    "no-dropout": Change("no dropout", {"dropout": 0.0}),
    "no-crops": Change("no random crops, no horizontal flips", {"crop_position": "center", "flip": "none"}),
    "no-color": Change("no PCA color augmentation", {"color_jitter": 0.0}, 0.01),
    "without-conv3": Change("without conv3", {"drop_layer": "conv3"}, 0.02),
    "without-conv4": Change("without conv4", {"drop_layer": "conv4"}, 0.02),
    "without-conv5": Change("without conv5", {"drop_layer": "conv5"}, 0.02),
    "batch": Change("batch normalization instead of LRN", {"normalization": "batch"}, claimed=False),
    "paper-init": Change("N(0, 0.01²) instead of He initialization", {"init": "paper"}, claimed=False),
}
QUICK_CHANGES = (FULL, "tanh", "without-conv4")
VIEWS = {"one_view": 1, "ten_views": 10}


@dataclass(frozen=True)
class Trial:
    """One training: a change, a seed and a dataset."""

    change: str
    seed: int
    dataset: PreparedDataset
    quick: bool = False

    @property
    def name(self) -> str:
        """Name such as ``"tanh/0"``, or ``"tanh/0/quick"``."""
        return f"{self.change}/{self.seed}{'/quick' * self.quick}"

    @property
    def run(self) -> Path:
        """Run folder, next to the prepared dataset."""
        return place_of(self.dataset.path.parent, self.name, "")

    def measure(self) -> dict[str, Any]:
        """Train and evaluate on the test split."""
        values = base(self.quick) | CHANGES[self.change].values
        epochs = train_once(self.dataset.path, self.run, recipe="paper", seed=self.seed, **values).metrics("epoch")
        found = {name: evaluate(self.run, self.dataset, views=views, precision="auto") for name, views in VIEWS.items()}
        (self.run / CHECKPOINT).unlink(missing_ok=True)  # half a gigabyte; the trial is finished
        return {
            **{name: 1 - evaluation.accuracy for name, evaluation in found.items()},
            MISTAKES: mistakes(found["ten_views"]),
            "train_loss": [epoch["train_loss"] for epoch in epochs],
            "train_error": [epoch["train_error"] for epoch in epochs],
            "seconds": sum(epoch["seconds"] for epoch in epochs),
        }


def mistakes(evaluation: Evaluation) -> str:
    """One digit for each test image: 1 where the prediction is wrong."""
    return "".join(map(str, (~evaluation.predictions.correct).astype(int)))


def base(quick: bool) -> dict[str, Any]:
    """Return the changes to the recipe `paper` that all trials share, and register the networks that they name."""
    for name in ("paper", "paper-half"):
        if f"{name}-quarter" not in list_variants():
            register_variant(narrowed(name))
    return BASE | QUICK if quick else BASE


def images(work: Path, data: Sequence[str], quick: bool) -> PreparedDataset:
    """Return the images of all trials: the solar cells, or the first of `data`."""
    return image_set(work, data, quick, size=SIZE, training=TRAINING_IMAGES, tested=TEST_IMAGES)


def narrowed(name: str) -> Variant:
    """Return a variant with a quarter of the kernels and of the hidden units in each layer, for crops of `CROP`."""

    def narrow(row: Layer) -> Layer:
        if isinstance(row, Conv):
            return replace(row, kernels=row.kernels // WIDTH_DIVISOR)
        if isinstance(row, FullyConnected) and row.units:
            return replace(row, units=row.units // WIDTH_DIVISOR)
        return row

    whole = get_variant(name)
    return replace(
        whole,
        name=f"{name}-quarter",
        description=f"The variant {name} with a quarter of the kernels and hidden units in each layer.",
        input_size=CROP,
        layers=tuple(narrow(row) for row in whole.layers),
    )


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

    The images are the solar cells, or those of `data`. Results are written after each trial, so an interruption loses
    nothing. The trials of an existing `results` are kept, if its images and its recipe are the same. Returns a summary
    of one line per change.
    """
    dataset = images(work, data, quick)
    name = dataset_name(data) or SOLAR
    earlier = _earlier(results, name, dataset, quick)
    entries = run_trials(
        list(dict.fromkeys([*_trials(dataset, seeds, quick), *earlier])),
        dataset.path.parent,
        only,
        Trial.measure,
        partial(_write, results=results, command=command, name=name),
        earlier={trial.name: measured for trial, measured in earlier.items()},
    )
    return "\n".join(
        f"{entry['label']}: {entry['ten_views']['mean']:.2%} error"
        + (f"; {entry['difference']['verdict']}" if "difference" in entry else "")
        for entry in entries.values()
    )


def _trials(dataset: PreparedDataset, seeds: Sequence[int], quick: bool) -> list[Trial]:
    """All trials of one seed before those of the next, so that an interrupted experiment can be compared."""
    return [Trial(change, seed, dataset, quick) for seed in seeds for change in (QUICK_CHANGES if quick else CHANGES)]


def _earlier(results: Path, name: str, dataset: PreparedDataset, quick: bool) -> dict[Trial, dict[str, Any]]:
    """The trials of an existing `results`; none if its set, its images or a value of the recipe is another."""
    report, setting = read_result(results), _setting(name, dataset, quick)
    recipe = setting.pop("recipe")
    if any(report.get(key) != value for key, value in setting.items()):
        return {}
    earlier = report["recipe"]
    if not earlier.keys() <= recipe.keys() or Recipe.from_dict(earlier).to_dict() != recipe:
        return {}
    trials = {
        Trial(change, int(seed), dataset, quick): trial
        for change, entry in report["changes"].items()
        if change in CHANGES and CHANGES[change].values == entry["values"]
        for seed, trial in entry["trials"].items()
    }
    notify(f"{results} has {len(trials)} trials")
    return trials


def _setting(name: str, dataset: PreparedDataset, quick: bool) -> dict[str, Any]:
    """The values that all trials of a result share."""
    return {
        "set": name,
        "images": dataset.counts,
        "classes": len(dataset.classes),
        "recipe": recipes()["paper"].override(base(quick)).to_dict(),
    }


def _write(found: dict[Trial, dict[str, Any]], results: Path, command: str, name: str) -> dict[str, dict[str, Any]]:
    """Write the measurements so far; return the entries of the changes."""
    changes: dict[str, dict[int, dict[str, Any]]] = {}
    for trial, measured in found.items():
        changes.setdefault(trial.change, {})[trial.seed] = measured
    entries = {change: _entry(change, changes) for change in changes}
    first = next(iter(found))
    report = {
        "description": "test error of the unchanged network and of the network with one change, with the same seeds; "
        "the difference is the error with ten views, change minus unchanged network, per seed, as a fraction of 1; "
        "weights of the last epoch; the network has a quarter of the paper's kernels and hidden units, and crops of "
        f"{CROP} pixels; interval: 95%, of the mean over the seeds, with the variance of all changes (none with one "
        "seed); interval_over_images: 95%, for these networks and other test images, if all are of one folder of runs; "
        "paper: whether the direction that the paper states holds here",
        **_setting(name, first.dataset, first.quick),
        "changes": entries,
        **provenance(command),
    }
    if len(entries) > (FULL in entries):
        write_with_figure(results, report, figure(report))
    else:
        write_result(results, report)
    return entries


def _entry(change: str, changes: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return the entry of one change, compared with the unchanged network over their common seeds."""
    known, found, full = CHANGES[change], changes[change], changes.get(FULL, {})
    entry: dict[str, Any] = {
        "label": known.label,
        "values": known.values,
        "seeds": sorted(found),
        **{views: summarize([trial[views] for trial in found.values()]) for views in VIEWS},
    }
    if change != FULL and any(seed in full for seed in found):
        entry["published"] = known.published
        entry["claimed"] = known.claimed
        for views, name in zip(VIEWS, ("difference_one_view", "difference"), strict=True):
            differences = {
                other: [trial[views] - full[seed][views] for seed, trial in trials.items() if seed in full]
                for other, trials in changes.items()
                if other != FULL
            }
            entry[name] = compare(differences.pop(change), list(differences.values()))
        pairs = [
            (trial[MISTAKES], full[seed][MISTAKES])
            for seed, trial in found.items()
            if seed in full and MISTAKES in trial and MISTAKES in full[seed]
        ]
        if len(pairs) == len(entry["difference"]["values"]):  # a trial of an earlier result has none
            entry["difference"]["interval_over_images"] = _interval_over_images(pairs)
        if known.claimed:
            entry["paper"] = _verdict_of_the_claim(entry["difference"])
    entry["trials"] = {
        str(seed): {key: value for key, value in trial.items() if key != MISTAKES} for seed, trial in found.items()
    }
    return entry


def _interval_over_images(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """95% of the mean difference of the mistakes of two networks, as the test images vary and the networks do not."""
    differences = np.mean([np.subtract(*(np.array(list(digits), dtype=int) for digits in pair)) for pair in pairs], 0)
    half = 1.96 * differences.std() / math.sqrt(len(differences))
    return [float(differences.mean() - half), float(differences.mean() + half)]


def _verdict_of_the_claim(difference: dict[str, Any]) -> str:
    """Whether an increase of the error, as the paper states it, is what was measured."""
    if difference["interval"] is None:
        return "undecided: no variance over the seeds"
    low, high = difference["interval"]
    if low <= 0 <= high:
        return "neither confirmed nor contradicted"
    return "confirmed" if low > 0 else "contradicted"


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Increase of the error of each change: mean and 95% interval, each seed, and the published value."""
    entries = [entry for entry in report["changes"].values() if "difference" in entry]
    drawing = new(0.9 + 0.33 * len(entries), width=6.4)
    axes = drawing.subplots()
    for row, entry in enumerate(entries):
        difference = entry["difference"]
        # With one seed of every change, the interval over the test images, if it is known.
        interval = difference["interval"] or difference.get("interval_over_images")
        axes.barh(row, difference["mean"] * 100, height=0.55, color=BLUE, alpha=0.55)
        axes.plot([value * 100 for value in difference["values"]], [row] * len(difference["values"]), ".", color=INK)
        if interval:
            axes.plot([bound * 100 for bound in interval], [row, row], "|-", color=INK, linewidth=1.2)
        if entry["published"] is not None:
            axes.plot([entry["published"] * 100], [row], "D", color=ORANGE, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(entries)), [entry["label"] for entry in entries])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.set_xlabel("Increase of the test error in percentage points")
    axes.plot([], [], ".", color=INK, label="one seed")
    axes.plot([], [], "|-", color=INK, linewidth=1.2, label="95% interval")
    if any(entry["published"] is not None for entry in entries):
        axes.plot([], [], "D", color=ORANGE, markersize=5, label="paper, ImageNet")
    drawing.legend(loc="outside lower center", ncols=3)
    images = f"{report['images'].get('train', 0):,} training images"
    axes.set_title(f"Ablation: {report['set']}\n{images}")
    return drawing
