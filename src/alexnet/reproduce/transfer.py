"""What the starter features are worth: from scratch, a linear probe, fine-tuning; with few pictures and many."""

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

from alexnet import demo, solar
from alexnet.data.dataset import PreparedDataset
from alexnet.errors import AlexNetError, UsageError
from alexnet.evaluation.evaluate import evaluate
from alexnet.provenance import provenance, write_result
from alexnet.recipe import STARTER
from alexnet.reproduce.arms import is_asked, measured, prepared, trained
from alexnet.reproduce.catalogue import name_of
from alexnet.run import Run, checksum_of, is_free
from alexnet.training.probe import probe
from alexnet.training.train import begin
from alexnet.weights.importing import find_weights

SIZES: tuple[int | None, ...] = (12, 100, 1000, None)
"""Training pictures; None for all."""
WAYS = {"scratch": "he", "probe": STARTER, "starter": STARTER}
"""What an arm does, and the `init` it begins with: a network, or, where the name ends so, a linear probe."""
PROBE = "probe"
SOLAR = "solar"
SIZE_OF_OTHERS = 64
"""Side to which other pictures than the solar cells are prepared: those of the published sets are no larger."""


@dataclass(frozen=True)
class Arm:
    """One training, or one probe: on `pictures` of a set (None: all of them), drawn with `seed`."""

    set: str
    pictures: int | None
    way: str
    seed: int

    @property
    def name(self) -> str:
        """solar/100/starter/0"""
        return "/".join(map(str, (self.set, self.pictures or "all", self.way, self.seed)))


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    init: str | None = None,
) -> str:
    """Measure every arm, or those whose name begins with one of `only`, and write all that were ever measured there.

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
    sets = {SOLAR: prepared(partial(solar.write_source, work / "cells.csv"), work / "data"), **others}
    arms = list(_arms(sets, seeds, ways))
    for arm in arms:
        if is_asked(arm.name, only) and not _kept(work, arm).exists():
            print(f"{arm.name}:", file=sys.stderr)
            measured(_kept(work, arm), partial(_measure, arm, sets[arm.set], work, ways[arm.way]))
            shutil.rmtree(_run(work, arm))  # half a gigabyte, and there are a hundred arms
    found = {arm: json.loads(_kept(work, arm).read_text()) for arm in arms if _kept(work, arm).exists()}
    if not found:
        raise AlexNetError(f"no arm's name begins with {' or '.join(only)}; they look like solar/100/starter/0")
    table = _summary(found)
    report = {
        "what": "accuracy on test pictures: a network from scratch, a linear classifier on the starter's conv5, and "
        "the network trained from the starter; the same two from the weights of `init`, under its name; "
        "so many training pictures, drawn evenly from all with the seed",
        "sets": {name: one.counts for name, one in sets.items()},
        "init": weights,
        "published_percent": {SOLAR: solar.PUBLISHED},
        "table": table,
        "arms": {arm.name: entry for arm, entry in found.items()},
        **provenance(command),
    }
    write_result(results, report)
    return "\n".join(
        f"{row['set']} {row['pictures']} {row['way']}: {row['mean']:.2%} over {len(row['seeds'])} seeds"
        for row in table
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


def _arms(sets: dict[str, PreparedDataset], seeds: Sequence[int], ways: Iterable[str] = WAYS) -> Iterator[Arm]:
    """The cheap ones first; none whose pictures would be fewer than two of each class, or all of them."""
    for pictures in SIZES:
        for name, dataset in sets.items():
            if pictures is None or 2 * len(dataset.classes) <= pictures < len(dataset.split("train")):
                for seed in seeds:
                    yield from (Arm(name, pictures, way, seed) for way in ways)


def _kept(work: Path, arm: Arm) -> Path:
    return work / f"{arm.name.replace('/', '-')}.json"


def _run(work: Path, arm: Arm) -> Path:
    return work / "runs" / arm.name


def _measure(arm: Arm, dataset: PreparedDataset, work: Path, init: str) -> dict[str, Any]:
    changes = demo.CHANGES if arm.set == SOLAR else {}
    data = dataset.path if arm.pictures is None else _drawn(dataset, arm, work)
    run = _run(work, arm)
    start = time.monotonic()
    seen = dataset.measured_on or "val"
    if arm.way.endswith(PROBE):
        shutil.rmtree(run, ignore_errors=True)  # of one that was stopped: nothing is ever trained in it
        training = begin(data, run, seed=arm.seed, init=init, **changes)
        network, preprocess = training.network.eval(), training.preprocess
        found = probe(
            network, preprocess, training.training, dataset.split(seen), "conv5", training.dtype, pictures=None
        )
        if found is None:
            raise AlexNetError(f"{arm.name}: a class has one picture of those drawn, and a linear classifier needs two")
        return {"accuracy": found.accuracy, "seconds": time.monotonic() - start}
    before = 0.0 if is_free(run) else sum(epoch["seconds"] for epoch in Run.open(run).metrics("epoch"))
    trained(data, run, seed=arm.seed, init=init, **changes)
    seconds = before + time.monotonic() - start
    result = evaluate(run, dataset, split=seen, views=10 if arm.set == SOLAR else 1, precision="auto")
    return {"accuracy": result.top1, "seconds": seconds}


def _drawn(dataset: PreparedDataset, arm: Arm, work: Path) -> Path:
    """A dataset of so many training pictures, every class in its share, and at least one of each."""
    assert arm.pictures is not None
    split = dataset.split("train")
    order = np.random.default_rng(arm.seed).permutation(len(split))
    first_of_each = [order[np.flatnonzero(split.labels[order] == label)[0]] for label in range(len(dataset.classes))]
    rest = order[~np.isin(order, first_of_each)]
    rest = rest[np.argsort(split.labels[rest], kind="stable")]
    spread = np.linspace(0, len(rest) - 1, arm.pictures - len(first_of_each)).round().astype(np.int64)
    chosen = [split[int(index)] for index in (*first_of_each, *rest[spread])]
    pictures = [(picture, dataset.classes[label], "train") for picture, label in chosen]
    data = work / "drawn" / f"{arm.set}-{arm.pictures}-{arm.seed}"
    return prepared(pictures, data, size=dataset.size, progress=False).path


def _summary(measured: dict[Arm, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds, a row for each set, number of pictures and way."""
    rows: dict[tuple[str, int | None, str], list[Arm]] = {}
    for arm in measured:
        rows.setdefault((arm.set, arm.pictures, arm.way), []).append(arm)
    table = []
    for (name, pictures, way), arms in rows.items():
        accuracies = [measured[arm]["accuracy"] for arm in arms]
        table.append(
            {
                "set": name,
                "pictures": pictures or "all",
                "way": way,
                "mean": statistics.mean(accuracies),
                "standard_deviation": statistics.stdev(accuracies) if len(arms) > 1 else None,
                "seeds": [arm.seed for arm in arms],
                "seconds": statistics.mean(measured[arm]["seconds"] for arm in arms),
            }
        )
    return table
