"""The history in one table: an SVM on hand-made features, LeNet-5, AlexNet, VGG and ResNet on the same images.

Every network is trained twice: for the same time, and for the same number of epochs, each to the end of its learning
rate schedule. All read the same images with the same recipe; none is tuned. On a CPU, time is the CPU time of each of
the threads, which is the wall time where nothing else runs: a shared machine would measure its other work.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alexnet.bench.steps import peak_memory
from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments import solar_cells
from alexnet.experiments.baseline import fit_alone
from alexnet.experiments.catalog import SOLAR, dataset_name
from alexnet.experiments.image_sets import (
    QUICK_SIZE,
    QUICK_TEST_IMAGES,
    QUICK_TRAINING_IMAGES,
    TEST_IMAGES,
    TRAINING_IMAGES,
    first_per_class,
)
from alexnet.experiments.trials import (
    measure_once,
    place_of,
    prepare_once,
    run_trials,
    summarize,
    train_once,
    with_earlier,
    write_with_figure,
)
from alexnet.report.style import INK, LAYERS, MUTED, Figure, drawn, new
from alexnet.runs.checkpoint import FILE as CHECKPOINT
from alexnet.runs.recipe import recipes
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import UsageError
from alexnet.runtime.provenance import provenance, read_result

BUDGET = 180.0
"""Seconds of training with the same time."""
EPOCHS = 20
"""Epochs of a training to its end."""
BASE: dict[str, Any] = {
    "init": "he",
    "pixel_scaling": "std",
    "color_jitter_unit": "std",
    "batch_size": 32,
    "schedule": "cosine",
    "warmup": 0.05,
    "keep": "last",
}
"""Changes to the recipe `paper` that all networks share."""
SIDES = {"cpu": 64, "cuda": 224}
"""Input of the networks after LeNet-5, in pixels, by kind of device: a day of a CPU is an hour at this size."""
EQUAL_TIME, TO_THE_END = "time", "end"


@dataclass(frozen=True)
class Method:
    """A method: its year, and a variant of the network, or the features of a baseline.

    Attributes
    ----------
    label : str
        Its name.
    year : int
        Year of its publication.
    variant : str, optional
        The network.
    features : str, optional
        The features of the baseline.
    side : int, optional
        Input of the network in pixels; by default that of `SIDES`.
    """

    label: str
    year: int
    variant: str | None = None
    features: str | None = None
    side: int | None = None


METHODS = {
    "lenet5": Method("LeNet-5", 1998, variant="lenet5", side=32),
    "hog": Method("HOG, SVM", 2005, features="hog"),
    "sift-fisher": Method("SIFT, Fisher vectors, SVM", 2010, features="sift-fisher"),
    "alexnet": Method("AlexNet", 2012, variant="paper"),
    "vgg11": Method("VGG-11", 2014, variant="vgg11"),
    "resnet18": Method("ResNet-18", 2015, variant="resnet18"),
}
QUICK_METHODS = ("lenet5", "hog")


@dataclass(frozen=True)
class Trial:
    """A method with one seed, and for a network how long it trains."""

    method: str
    mode: str
    seed: int

    @property
    def name(self) -> str:
        """Name such as ``"alexnet/time/0"``."""
        return f"{self.method}/{self.mode}/{self.seed}"

    @classmethod
    def parse(cls, name: str) -> Trial:
        """Return the trial of a name."""
        method, mode, seed = name.split("/")
        return cls(method, mode, int(seed))

    @property
    def place(self) -> tuple[int, int, int]:
        """Place among the trials of a file: by seed, then as they are measured."""
        return self.seed, (EQUAL_TIME, TO_THE_END).index(self.mode), list(METHODS).index(self.method)


@dataclass(frozen=True)
class _Setting:
    """The values that all trials share."""

    work: Path
    dataset: PreparedDataset
    budget: float
    epochs: int
    quick: bool

    def changes(self, method: Method) -> dict[str, Any]:
        """Values of the recipe of a network."""
        side = method.side or SIDES[choose_device().type]
        crop = self.dataset.size * 7 // 8  # 224 of 256, as in the paper
        return {**BASE, "variant": method.variant, "crop_size": crop, "input_size": crop if self.quick else side}

    def shared(self) -> dict[str, Any]:
        """The values of the report by which its trials can be compared."""
        values = {
            "images": self.dataset.counts,
            "budget_seconds": self.budget,
            "epochs": self.epochs,
            "recipe": recipes()["paper"].override(BASE).to_dict(),
        }
        return dict(json.loads(json.dumps(values)))  # as they are read again


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    quick: bool = False,
    full: bool = False,
    budget: float | None = None,
) -> str:
    """Run every trial, or those whose name starts with a prefix in `only`, and write all measurements so far.

    The images are the solar cells, or the first 2,000 training and 1,000 test images of `data`; all with `full`.
    `budget`: seconds of training with the same time. The trials of an existing `results` are kept. Returns a summary of
    one line per method.

    Raises
    ------
    UsageError
        If `results` has trials on other images, with another recipe, budget or number of epochs.
    """
    if budget is not None and not budget > 0:
        raise UsageError(f"budget is {budget:g} seconds; it must be above 0")
    folder = work / (dataset_name(data) or SOLAR)
    dataset = _images(folder, data, quick, full)
    setting = _Setting(folder, dataset, budget or (1.0 if quick else BUDGET), 2 if quick else EPOCHS, quick)
    trials = list(_trials(QUICK_METHODS if quick else METHODS, seeds))
    _check_same_settings(setting, results)
    write = partial(_write, setting, results, command, dataset_name(data) or SOLAR)
    rows = run_trials(trials, folder, only, partial(_measure, setting), write)
    return "\n".join(
        f"{row['year']} {row['label']}: "
        + ", ".join(
            f"{row[mode]['accuracy']['mean']:.2%} ({_meaning(mode)}, {row[mode]['seconds']:,.0f} s)"
            for mode in (EQUAL_TIME, TO_THE_END)
            if mode in row
        )
        for row in rows
    )


def _meaning(mode: str) -> str:
    return "same time" if mode == EQUAL_TIME else "to its end"


def _images(folder: Path, data: Sequence[str], quick: bool, full: bool) -> PreparedDataset:
    """The images. Those for testing are the split val, which is measured after every epoch and chooses nothing."""
    if len(data) > 1:
        raise UsageError("this experiment takes one image set: give --data once")
    limits = (QUICK_TRAINING_IMAGES, QUICK_TEST_IMAGES) if quick else (TRAINING_IMAGES, TEST_IMAGES)
    if full or not data:
        limits = (10**9, 10**9)

    def source() -> Iterator[tuple[bytes, str, str | None]]:
        path = Path(data[0]) if data else solar_cells.write_source(folder / "cells.csv")
        for image, label, split in first_per_class(path, *limits):
            yield image, label, "val" if split == "test" else split

    return prepare_once(source, folder / "data", size=QUICK_SIZE if quick else 256, progress=not quick)


def _trials(methods: Sequence[str] | dict[str, Method], seeds: Sequence[int]) -> Iterator[Trial]:
    """Yield the trials: of each seed first those of the same time, so that an interruption leaves a table."""
    for seed in seeds:
        for mode in (EQUAL_TIME, TO_THE_END):
            for name in methods:
                if METHODS[name].variant or mode == TO_THE_END:  # a baseline has one end
                    yield Trial(name, mode, seed)


def _measure(setting: _Setting, trial: Trial) -> dict[str, Any]:
    method = METHODS[trial.method]
    return _measure_baseline(setting, trial) if method.features else _measure_network(setting, trial)


def _measure_baseline(setting: _Setting, trial: Trial) -> dict[str, Any]:
    folder = place_of(setting.work, trial.name, "")
    before = _seconds_of_children()
    config = fit_alone(setting.dataset, folder, METHODS[trial.method].features or "", trial.seed).config
    busy = _seconds_of_children() - before
    return {
        "accuracy": evaluate(folder, setting.dataset, split="val", views=1).accuracy,
        # Zero where the fit was already there: an interrupted trial.
        "seconds": busy / torch.get_num_threads() if busy else sum(config.seconds.values()),
        "parameters": len(config.classes) * (config.length + 1),
        "threads": torch.get_num_threads(),
        "peak_bytes": config.peak_bytes,
        "cost": config.cost,
    }


def _measure_network(setting: _Setting, trial: Trial) -> dict[str, Any]:
    method, run = METHODS[trial.method], place_of(setting.work, trial.name, "")
    changes = setting.changes(method)
    described = measure_once(setting.work / f"{trial.method}.json", partial(_describe, setting, trial.method, changes))
    epochs = setting.epochs
    if trial.mode == EQUAL_TIME:
        epochs = max(1, int(setting.budget / described["seconds_per_epoch"]))
    trained = train_once(setting.dataset.path, run, recipe="paper", seed=trial.seed, epochs=epochs, **changes)
    records = trained.metrics("epoch")
    (run / CHECKPOINT).unlink(missing_ok=True)
    accuracy = evaluate(run, setting.dataset, split="val", views=1, precision="auto").accuracy
    for file in run.glob("*.safetensors"):
        file.unlink()  # half a gigabyte; the trial is finished
    seconds = [record["seconds"] for record in records]
    return {
        "accuracy": accuracy,
        "epochs": epochs,
        "wall_seconds": epochs * statistics.median(seconds),  # other work on the machine may halt single epochs
        "validation_error": [record["validation_error"] for record in records],
        "train_error": [record["train_error"] for record in records],
    }


def _describe(setting: _Setting, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Parameters, multiply-adds, memory and pace of a network: an epoch that is not counted."""
    run = setting.work / f"{name}-pace"
    shutil.rmtree(run, ignore_errors=True)
    start = time.process_time()
    network_run = train_once(setting.dataset.path, run, recipe="paper", seed=0, epochs=1, **changes)
    busy = (time.process_time() - start) / torch.get_num_threads()
    (epoch,) = network_run.metrics("epoch")
    costs = network_run.config.network().costs(changes["input_size"])
    shutil.rmtree(run)
    on_cpu = choose_device().type == "cpu" and not setting.quick
    return {
        "parameters": sum(cost.parameters for cost in costs),
        "multiply_adds": sum(cost.multiply_adds for cost in costs),
        "input_size": changes["input_size"],
        "seconds_per_epoch": min(epoch["seconds"], busy) if choose_device().type == "cpu" else epoch["seconds"],
        "threads": torch.get_num_threads(),
        "peak_bytes": peak_memory(BASE["batch_size"], changes["input_size"], changes["variant"]) if on_cpu else None,
    }


def _check_same_settings(setting: _Setting, results: Path) -> None:
    """Raise `UsageError` where the trials of an existing file cannot be compared with those of this setting."""
    earlier = read_result(results)
    if other := [name for name, value in setting.shared().items() if earlier.get(name, value) != value]:
        raise UsageError(f"{results} has trials with other {' and '.join(other)}; name another file with --results")


def _write(
    setting: _Setting, results: Path, command: str, name: str, found: dict[Trial, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Write the measurements so far with those of an existing file; return the rows of the table."""
    earlier = read_result(results)
    found = {trial: entry | _seconds(setting, trial, entry) for trial, entry in found.items()}
    entries = {Trial.parse(name): entry for name, entry in with_earlier(results, found, command).items()}
    entries = dict(sorted(entries.items(), key=lambda item: item[0].place))
    networks = [row for row in earlier.get("table", []) if METHODS[row["method"]].variant]
    described = {row["method"]: {"machine": earlier["machine"], **row} for row in networks}
    described |= {name: _described(setting, name) for name in METHODS if (setting.work / f"{name}.json").exists()}
    rows = [row for method in METHODS if (row := _row(method, described.get(method, {}), entries))]
    report = {
        "description": "accuracy on held-out images, one view, of a linear SVM on hand-made features and of networks, "
        "all with one recipe: for the same time (as many epochs as fit, by an epoch that was timed before), and for "
        "the same number of epochs; on a CPU, seconds are the CPU time of each thread; the weights of the last epoch; "
        "the SVMs read 256×256 pixels, each network its input_size",
        "set": name,
        "classes": len(setting.dataset.classes),
        **setting.shared(),
        "table": rows,
        "trials": {trial.name: entry for trial, entry in entries.items()},
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    return rows


def _seconds(setting: _Setting, trial: Trial, entry: dict[str, Any]) -> dict[str, float]:
    """The seconds of a training: its epochs at the pace of the network, which was measured once for all its trials."""
    if METHODS[trial.method].features:
        return {}
    return {"seconds": entry["epochs"] * _described(setting, trial.method)["seconds_per_epoch"]}


def _described(setting: _Setting, method: str) -> dict[str, Any]:
    """The measurements of a network by `_describe`."""
    return dict(json.loads((setting.work / f"{method}.json").read_text(encoding="utf-8")))


def _row(name: str, described: dict[str, Any], found: dict[Trial, dict[str, Any]]) -> dict[str, Any] | None:
    """The row of a method: its description, and its accuracy over the seeds; None without a trial."""
    method = METHODS[name]
    of_mode = {
        mode: [entry for trial, entry in found.items() if (trial.method, trial.mode) == (name, mode)]
        for mode in (EQUAL_TIME, TO_THE_END)
    }
    first = next((entries[0] for entries in of_mode.values() if entries), None)
    if first is None:
        return None
    keys = ("parameters", "multiply_adds", "input_size", "peak_bytes", "seconds_per_epoch", "machine", "threads")
    row: dict[str, Any] = {"method": name, "label": method.label, "year": method.year}
    row |= {key: (described or first).get(key) for key in keys}
    for mode, entries in of_mode.items():
        if entries:
            row[mode] = {
                "accuracy": summarize([entry["accuracy"] for entry in entries]),
                "seconds": sum(entry["seconds"] for entry in entries) / len(entries),
                "epochs": entries[0].get("epochs"),
                "seeds": len(entries),
            }
    return row


COLORS = dict(zip(METHODS, (LAYERS[0], MUTED, INK, LAYERS[3], LAYERS[6], LAYERS[8]), strict=True))


def _seconds_of_children() -> float:
    """CPU time of the processes that this one has started and that have ended."""
    used = os.times()
    return used.children_user + used.children_system


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Accuracy against training time (left, the longer training of the first seed), and of each method (right)."""
    drawing = new(4.4, width=9.6)
    left, right = drawing.subplots(1, 2, width_ratios=(3, 2))
    places = [(row["machine"], row["threads"]) for row in report["table"] if row["threads"] is not None]
    machine, threads = Counter(places).most_common(1)[0][0] if places else (report["machine"], None)
    elsewhere = {
        row["method"]: row["machine"] != machine or row["threads"] not in (None, threads) for row in report["table"]
    }
    for row in report["table"]:
        name, color = row["method"], COLORS[row["method"]]
        trials = {key: entry for key, entry in report["trials"].items() if key.startswith(f"{name}/")}
        longest = max(trials.values(), key=lambda entry: entry["seconds"])
        if "validation_error" in longest:
            times = [longest["seconds"] * (n + 1) / longest["epochs"] for n in range(longest["epochs"])]
            left.plot(times, [100 * (1 - error) for error in longest["validation_error"]], ".-", color=color)
        else:
            left.plot([longest["seconds"]], [100 * longest["accuracy"]], "D", color=color)
        left.plot([], [], "-", color=color, label=f"{row['year']} {row['label']}" + " *" * elsewhere[name])
    left.set_xscale("log")
    star = "; * another machine or number of threads" if any(elsewhere.values()) else ""
    left.set_xlabel(f"Seconds of training{star}")
    left.set_title(f"Accuracy in percent: {report['set']}")
    drawing.legend(loc="outside lower center", ncols=3)
    for place, row in enumerate(report["table"]):
        for mode, offset, alpha in ((EQUAL_TIME, -0.19, 0.45), (TO_THE_END, 0.19, 0.9)):
            if mode in row:
                found = row[mode]["accuracy"]
                right.barh(place + offset, 100 * found["mean"], 0.36, color=COLORS[row["method"]], alpha=alpha)
                right.plot([100 * v for v in found["values"]], [place + offset] * len(found["values"]), ".", color=INK)
    right.set_yticks(range(len(report["table"])), [f"{row['year']} {row['label']}" for row in report["table"]])
    right.invert_yaxis()
    right.grid(False, axis="y")
    right.grid(True, axis="x")
    budget = f"{report['budget_seconds']:.0f} s"
    right.set_title(f"Pale: {budget}; dark: {report['epochs']} epochs")
    return drawing
