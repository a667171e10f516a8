"""What the starter features are worth: from scratch, a linear probe, fine-tuning; with few images and many."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments import demo, solar_cells
from alexnet.experiments.catalog import name_of
from alexnet.experiments.trials import is_asked, measured, prepared, trained
from alexnet.runs.recipe import STARTER
from alexnet.runs.run import Run, checksum_of, is_free
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.provenance import provenance, write_result
from alexnet.training.linear_probe import probe
from alexnet.training.train import set_up_training
from alexnet.weights.importing import find_weights

SIZES: tuple[int | None, ...] = (12, 100, 1000, None)
"""Training images; None for all."""
WAYS = {"scratch": "he", "probe": STARTER, "starter": STARTER}
"""What a trial does, and the `init` it begins with: a network, or, where the name ends so, a linear probe."""
PROBE = "probe"
SOLAR = "solar"
SIZE_OF_OTHERS = 64
"""Side to which other images than the solar cells are prepared: those of the published sets are no larger."""


@dataclass(frozen=True)
class Trial:
    """One training, or one probe: on `images` of a set (None: all of them), drawn with `seed`."""

    set: str
    images: int | None
    way: str
    seed: int

    @property
    def name(self) -> str:
        """solar/100/starter/0"""
        return "/".join(map(str, (self.set, self.images or "all", self.way, self.seed)))


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    init: str | None = None,
) -> str:
    """Measure every trial, or those whose name begins with one of `only`, and write all that were ever measured there.

    The solar cells are always one set; `data` are others, sources with train and test or val that `prepare` takes.
    `init`: other weights to start from beside the starter, as `train` takes them. Returns a line that says what came
    out. Raises `UsageError` when those have a name that is taken.
    """
    weights = None
    ways = dict(WAYS)
    if init is not None:
        weights = _weights(init)
        ways |= {f"{weights['name']}-{PROBE}": init, weights["name"]: init}
    names = {Path(source).resolve().stem: source for source in data}
    others = {name: prepared(source, work / name / "data", size=SIZE_OF_OTHERS) for name, source in names.items()}
    sets = {SOLAR: prepared(partial(solar_cells.write_source, work / "cells.csv"), work / "data"), **others}
    trials = list(_trials(sets, seeds, ways))
    for trial in trials:
        if is_asked(trial.name, only) and not _kept(work, trial).exists():
            print(f"{trial.name}:", file=sys.stderr)
            measured(_kept(work, trial), partial(_measure, trial, sets[trial.set], work, ways[trial.way]))
            shutil.rmtree(_run(work, trial))  # half a gigabyte, and there are a hundred trials
    found = {trial: json.loads(_kept(work, trial).read_text()) for trial in trials if _kept(work, trial).exists()}
    if not found:
        raise AlexNetError(f"no trial's name begins with {' or '.join(only)}; they look like solar/100/starter/0")
    table = _summary(found)
    report = {
        "what": "accuracy on test images: a network from scratch, a linear classifier on the starter's conv5, and "
        "the network trained from the starter; the same two from the weights of `init`, under its name; "
        "so many training images, drawn evenly from all with the seed",
        "sets": {name: one.counts for name, one in sets.items()},
        "init": weights,
        "published_percent": {SOLAR: solar_cells.PUBLISHED},
        "table": table,
        "trials": {trial.name: entry for trial, entry in found.items()},
        **provenance(command),
    }
    write_result(results, report)
    return "\n".join(
        f"{row['set']} {row['images']} {row['way']}: {row['mean']:.2%} over {len(row['seeds'])} seeds" for row in table
    )


def _weights(init: str) -> dict[str, str]:
    """What the weights that others trained are, and what a way from them is called: after the file or folder."""
    name = name_of(init)
    if name in WAYS or name.endswith(PROBE):
        raise UsageError(f"--init {init}: a way called {name} is there already: give the file another name")
    found = find_weights(init)
    layers = dict.fromkeys(array.partition(".")[0] for array in found.weights)
    return {
        "name": name,
        "format": found.format,
        "variant": found.variant,
        "layers": " ".join(layers),
        "checksum": checksum_of(found.weights),
    }


def _trials(sets: dict[str, PreparedDataset], seeds: Sequence[int], ways: Iterable[str] = WAYS) -> Iterator[Trial]:
    """The cheap ones first; none whose images would be fewer than two of each class, or all of them."""
    for images in SIZES:
        for name, dataset in sets.items():
            if images is None or 2 * len(dataset.classes) <= images < len(dataset.split("train")):
                for seed in seeds:
                    yield from (Trial(name, images, way, seed) for way in ways)


def _kept(work: Path, trial: Trial) -> Path:
    return work / f"{trial.name.replace('/', '-')}.json"


def _run(work: Path, trial: Trial) -> Path:
    return work / "runs" / trial.name


def _measure(trial: Trial, dataset: PreparedDataset, work: Path, init: str) -> dict[str, Any]:
    changes = demo.CHANGES if trial.set == SOLAR else {}
    data = dataset.path if trial.images is None else _drawn(dataset, trial, work)
    run = _run(work, trial)
    start = time.monotonic()
    seen = dataset.measured_on or "val"
    if trial.way.endswith(PROBE):
        shutil.rmtree(run, ignore_errors=True)  # of one that was stopped: nothing is ever trained in it
        training = set_up_training(data, run, seed=trial.seed, init=init, **changes)
        network, preprocess = training.state.network.eval(), training.preprocess
        found = probe(network, preprocess, training.training, dataset.split(seen), "conv5", training.dtype, images=None)
        if found is None:
            raise AlexNetError(f"{trial.name}: a class has one image of those drawn, and a linear classifier needs two")
        return {"accuracy": found.accuracy, "seconds": time.monotonic() - start}
    before = 0.0 if is_free(run) else sum(epoch["seconds"] for epoch in Run.open(run).metrics("epoch"))
    trained(data, run, seed=trial.seed, init=init, **changes)
    seconds = before + time.monotonic() - start
    result = evaluate(run, dataset, split=seen, views=10 if trial.set == SOLAR else 1, precision="auto")
    return {"accuracy": result.top1, "seconds": seconds}


def _drawn(dataset: PreparedDataset, trial: Trial, work: Path) -> Path:
    """A dataset of so many training images, every class in its share, and at least one of each."""
    assert trial.images is not None
    split = dataset.split("train")
    order = np.random.default_rng(trial.seed).permutation(len(split))
    first_of_each = [order[np.flatnonzero(split.labels[order] == label)[0]] for label in range(len(dataset.classes))]
    rest = order[~np.isin(order, first_of_each)]
    rest = rest[np.argsort(split.labels[rest], kind="stable")]
    spread = np.linspace(0, len(rest) - 1, trial.images - len(first_of_each)).round().astype(np.int64)
    chosen = [split[int(index)] for index in (*first_of_each, *rest[spread])]
    images = [(image, dataset.classes[label], "train") for image, label in chosen]
    data = work / "drawn" / f"{trial.set}-{trial.images}-{trial.seed}"
    return prepared(images, data, size=dataset.size, progress=False).path


def _summary(measured: dict[Trial, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds, a row for each set, number of images and way."""
    rows: dict[tuple[str, int | None, str], list[Trial]] = {}
    for trial in measured:
        rows.setdefault((trial.set, trial.images, trial.way), []).append(trial)
    table = []
    for (name, images, way), trials in rows.items():
        accuracies = [measured[trial]["accuracy"] for trial in trials]
        table.append(
            {
                "set": name,
                "images": images or "all",
                "way": way,
                "mean": statistics.mean(accuracies),
                "standard_deviation": statistics.stdev(accuracies) if len(trials) > 1 else None,
                "seeds": [trial.seed for trial in trials],
                "seconds": statistics.mean(measured[trial]["seconds"] for trial in trials),
            }
        )
    return table
