"""Transfer learning: from scratch, a linear probe and fine-tuning, with 12 to all training images."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments import demo, solar_cells
from alexnet.experiments.catalog import SOLAR, named_sources, slug
from alexnet.experiments.image_sets import prepared_size
from alexnet.experiments.trials import prepare_once, run_trials, train_once, with_earlier, write_with_figure
from alexnet.report.style import INK, LAYERS, MUTED, Figure, drawn, new
from alexnet.runs.recipe import STARTER
from alexnet.runs.run import Run, checksum_of, is_free
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.provenance import provenance
from alexnet.training.linear_probe import probe
from alexnet.training.train import set_up_training
from alexnet.weights.importing import find_weights

SIZES: tuple[int | None, ...] = (12, 100, 1000, None)
"""Numbers of training images; None for all."""
METHODS = {"scratch": "he", "probe": STARTER, "starter": STARTER}
"""Each method and its `init`. A method whose name ends in `PROBE` fits a linear probe; the others train a network."""
PROBE = "probe"
_METHOD_LABELS = {
    "scratch": "from scratch",
    "probe": "linear probe on the starter",
    "starter": "fine-tuned from the starter",
}
PUBLISHED: dict[str, dict[str, float]] = {
    SOLAR: solar_cells.PUBLISHED,
    "uc-merced": {
        "CaffeNet, pretrained on ImageNet and fine-tuned, five folds (Castelluccio et al., arXiv 1508.00092)": 95.48,
        "CaffeNet, pretrained on ImageNet, frozen, with an SVM, five folds (the same)": 93.42,
    },
}
"""Published accuracies in percent, with their protocol, of a set by the name of its file."""


@dataclass(frozen=True)
class Trial:
    """One training or probe on `images` training images of a set (None: all), sampled with `seed`."""

    set: str
    images: int | None
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Name such as ``"solar/100/starter/0"``."""
        return "/".join(map(str, (self.set, self.images or "all", self.method, self.seed)))

    @classmethod
    def parse(cls, name: str) -> Trial:
        """Return the trial of a name."""
        dataset, images, method, seed = name.split("/")
        return cls(dataset, None if images == "all" else int(images), method, int(seed))


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    init: str | None = None,
) -> str:
    """Run every trial, or those whose name starts with a prefix in `only`, and write all measurements so far.

    The solar cells are always one set; `data` are further sets, sources with train and test or val that `prepare`
    takes. `init`: pretrained weights to compare with the starter, as in `train`. The trials of an existing `results`
    are kept. Returns a summary of one line per row.
    Raises `UsageError` if the name of `init` is already a method.
    """
    weights = None
    methods = dict(METHODS)
    if init is not None:
        weights = _weights(init)
        methods |= {f"{weights['name']}-{PROBE}": init, weights["name"]: init}
    names = named_sources(data)
    others = {
        name: prepare_once(source, work / name / "data", size=prepared_size(source)) for name, source in names.items()
    }
    sets = {SOLAR: prepare_once(partial(solar_cells.write_source, work / "cells.csv"), work / "data"), **others}
    trials = list(_trials(sets, seeds, methods))
    of_starter = work / _starter_checksum()[:8]  # another starter has trials of its own

    def measure(trial: Trial) -> dict[str, Any]:
        run = of_starter / "runs" / trial.name
        measured = _measure(trial, sets[trial.set], work, run, methods[trial.method])
        shutil.rmtree(run)  # half a gigabyte each, for a hundred trials
        return measured

    table = run_trials(trials, of_starter, only, measure, partial(_write, sets, weights, results, command))
    return "\n".join(
        f"{row['set']} {row['images']} {row['method']}: {row['mean']:.2%} over {len(row['seeds'])} seeds"
        for row in table
    )


def _write(
    sets: dict[str, PreparedDataset],
    weights: dict[str, str] | None,
    results: Path,
    command: str,
    measured: dict[Trial, dict[str, Any]],
) -> list[dict[str, Any]]:
    """Write the measurements so far with those of an existing file; return the rows of the table."""
    earlier = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {"sets": {}}
    counts = earlier["sets"] | {name: one.counts for name, one in sets.items()}
    starter = _starter_checksum()
    other = earlier.get("starter", starter)
    renamed = str if other == starter else partial(_with_checksum, other)
    entries = with_earlier(results, measured, command, renamed)
    table = _summary({Trial.parse(name): entry for name, entry in entries.items()})
    report = {
        "description": "test accuracy of a network from scratch, of a linear probe on conv5 of the starter, and of a "
        "network fine-tuned from the starter; the same two for the weights of `init`, under its name; `images` "
        "training images, sampled per class with the seed; methods of an earlier starter have its checksum in their "
        "name",
        "sets": counts,
        "starter": starter,
        "init": weights or earlier.get("init"),
        "published_percent": {name: PUBLISHED[name] for name in counts if name in PUBLISHED},
        "table": table,
        "trials": entries,
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    return table


def _starter_checksum() -> str:
    return checksum_of(find_weights(STARTER).weights)


def _with_checksum(checksum: str, name: str) -> str:
    """The name of a trial, with the checksum of the starter in its method if the method has one."""
    trial = Trial.parse(name)
    if METHODS.get(trial.method) != STARTER:
        return name
    method = f"{STARTER}-{checksum[:8]}" + f"-{PROBE}" * (trial.method == PROBE)
    return dataclasses.replace(trial, method=method).name


def _current(method: str) -> str:
    """The name of a method without the checksum of an earlier starter."""
    earlier = re.fullmatch(rf"{STARTER}-[0-9a-f]{{8}}(-{PROBE})?", method)
    return method if earlier is None else PROBE if earlier[1] else STARTER


def _weights(init: str) -> dict[str, str]:
    """Describe pretrained weights; their method is named after the file or folder."""
    name = slug(init)
    if name in METHODS or name.endswith(PROBE):
        raise UsageError(f"--init {init}: {name} is already the name of a method; rename the file")
    found = find_weights(init)
    layers = dict.fromkeys(array.partition(".")[0] for array in found.weights)
    return {
        "name": name,
        "format": found.format,
        "variant": found.variant,
        "layers": " ".join(layers),
        "checksum": checksum_of(found.weights),
    }


def _trials(
    sets: dict[str, PreparedDataset], seeds: Sequence[int], methods: Iterable[str] = METHODS
) -> Iterator[Trial]:
    """Yield the trials, cheap ones first. A size needs two images per class and must be less than all images."""
    for images in SIZES:
        for name, dataset in sets.items():
            if images is None or 2 * len(dataset.classes) <= images < len(dataset.split("train")):
                for seed in seeds:
                    yield from (Trial(name, images, method, seed) for method in methods)


def _measure(trial: Trial, dataset: PreparedDataset, work: Path, run: Path, init: str) -> dict[str, Any]:
    changes = demo.CHANGES if trial.set == SOLAR else {}
    data = dataset.path if trial.images is None else _sample(dataset, trial, work)
    start = time.monotonic()
    seen = dataset.measured_on or "val"
    if trial.method.endswith(PROBE):
        shutil.rmtree(run, ignore_errors=True)  # of an interrupted probe; nothing is trained in it
        training = set_up_training(data, run, seed=trial.seed, init=init, **changes)
        network, preprocess = training.state.network.eval(), training.preprocess
        found = probe(network, preprocess, training.training, dataset.split(seen), "conv5", training.dtype, images=None)
        if found is None:
            raise AlexNetError(f"{trial.name}: a class has one sampled image, and a linear probe needs two")
        return {"accuracy": found.accuracy, "seconds": time.monotonic() - start}
    before = 0.0 if is_free(run) else sum(epoch["seconds"] for epoch in Run.open(run).metrics("epoch"))
    train_once(data, run, seed=trial.seed, init=init, **changes)
    seconds = before + time.monotonic() - start
    result = evaluate(run, dataset, split=seen, views=10 if trial.set == SOLAR else 1, precision="auto")
    return {"accuracy": result.accuracy, "seconds": seconds}


def _sample(dataset: PreparedDataset, trial: Trial, work: Path) -> Path:
    """Return a dataset of `trial.images` training images, sampled in proportion to the classes, at least one each."""
    assert trial.images is not None
    split = dataset.split("train")
    order = np.random.default_rng(trial.seed).permutation(len(split))
    first_of_each = [order[np.flatnonzero(split.labels[order] == label)[0]] for label in range(len(dataset.classes))]
    rest = order[~np.isin(order, first_of_each)]
    rest = rest[np.argsort(split.labels[rest], kind="stable")]
    positions = np.linspace(0, len(rest) - 1, trial.images - len(first_of_each)).round().astype(np.int64)
    chosen = [split[int(index)] for index in (*first_of_each, *rest[positions])]
    images = [(image, dataset.classes[label], "train") for image, label in chosen]
    data = work / "samples" / f"{trial.set}-{trial.images}-{trial.seed}"
    return prepare_once(images, data, size=dataset.size, split={}, progress=False).path


def _summary(measured: dict[Trial, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean and standard deviation over the seeds for each set, number of images and method."""
    rows: dict[tuple[str, int | None, str], list[Trial]] = {}
    for trial in measured:
        rows.setdefault((trial.set, trial.images, trial.method), []).append(trial)
    table = []
    for (name, images, method), trials in rows.items():
        accuracies = [measured[trial]["accuracy"] for trial in trials]
        table.append(
            {
                "set": name,
                "images": images or "all",
                "method": method,
                "mean": statistics.mean(accuracies),
                "standard_deviation": statistics.stdev(accuracies) if len(trials) > 1 else None,
                "seeds": [trial.seed for trial in trials],
                "seconds": statistics.mean(measured[trial]["seconds"] for trial in trials),
            }
        )
    return table


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Accuracy against training time of each set: a line per method through its numbers of images; published values."""
    counts = Counter(row["set"] for row in report["table"])
    names = [name for name, rows in counts.items() if rows > 1] or list(counts)
    methods = dict(zip(METHODS, LAYERS[2::3], strict=True))
    earlier = (row["method"] for row in report["table"] if row["method"] not in methods)
    counted = [*methods, *dict.fromkeys(method for method in earlier if _current(method) in methods)]
    columns = min(3 if len(names) > 4 else 2, len(names))
    drawing = new(0.9 + 2.3 * -(-len(names) // columns), width=2.6 * columns + 1)
    panels = drawing.subplots(-(-len(names) // columns), columns, squeeze=False).flat
    for axes, name in itertools.zip_longest(panels, names):
        if name is None:
            axes.set_axis_off()
            continue
        of_set = [row for row in report["table"] if row["set"] == name]
        of_set.sort(key=lambda row: math.inf if row["images"] == "all" else row["images"])
        drawn_rows = {method: [row for row in of_set if row["method"] == method] for method in counted}
        for method, rows in drawn_rows.items():
            current = _current(method)
            color = methods[current]
            axes.errorbar(
                [row["seconds"] for row in rows],
                [row["mean"] * 100 for row in rows],
                yerr=[(row["standard_deviation"] or 0) * 100 for row in rows],
                **{"color": color, "marker": "o", "markersize": 3, "linewidth": 1, "capsize": 2},
                alpha=1 if method == current else 0.3,
            )
            if rows and (method == current or not drawn_rows[current]):
                last = rows[-1]
                axes.annotate(f" {last['images']}", (last["seconds"], last["mean"] * 100), color=color, fontsize=7)
        for value in report["published_percent"].get(name, {}).values():
            axes.axhline(value, color=MUTED, linestyle="--", linewidth=0.8)
        axes.set_ylim(top=min(axes.get_ylim()[1], 100))
        axes.set_xscale("log")
        axes.set_xlim(5, 10_000)
        axes.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
        axes.minorticks_off()
        axes.set_title(name)
        axes.set_xlabel("Seconds of training")
        axes.set_ylabel("Test accuracy in percent")
    for method, color in methods.items():
        drawing.axes[0].plot([], [], "o-", color=color, markersize=3, label=_METHOD_LABELS[method])
    if len(counted) > len(methods):
        drawing.axes[0].plot([], [], "o-", color=MUTED, markersize=3, alpha=0.5, label="pale: an earlier starter")
    drawing.axes[0].plot([], [], "--", color=INK, linewidth=0.8, label="published, see the file")
    drawing.legend(loc="outside lower center", ncols=2)
    return drawing
