"""Hand-made features with a linear SVM on the solar cells and on other sets, beside what was published of such methods.

The solar cells have the split of all experiments, and the seed draws the sampled descriptors and the Gaussians. Of
another set the seed also draws the split: four fifths of the images of each class for training, one fifth for testing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.baselines.baseline import Baseline
from alexnet.baselines.features import FEATURES
from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.evaluation.predictor import is_baseline
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import SOLAR, named_sources
from alexnet.experiments.image_sets import QUICK_SIZE, all_images, first_per_class, prepared_size, test_split
from alexnet.experiments.trials import prepare_once, run_trials, summarize, with_earlier
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.provenance import provenance, write_result

HELD_OUT = 0.2
QUICK_IMAGES = 48
PUBLISHED: dict[str, dict[str, float]] = {
    SOLAR: solar_cells.PUBLISHED,
    "uc-merced": {
        "quantized SIFT, five folds (Yang and Newsam 2010, as quoted by others, unchecked)": 76.81,
        "the same with a spatial pyramid": 75.29,
        "the same with spatial co-occurrence, SPCK++": 77.38,
    },
    "neu-surface-defects": {
        "local binary patterns AECLBP and SVM, half of the images for training, 100 splits (Song and Yan 2013)": 98.93,
    },
}
"""Published accuracies in percent of methods of the same kind, by the name of the set."""


@dataclass(frozen=True)
class Trial:
    """A baseline on one set with one seed."""

    set: str
    features: str
    seed: int

    @property
    def name(self) -> str:
        """Name such as ``"solar/hog/0"``."""
        return f"{self.set}/{self.features}/{self.seed}"


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

    The sets are the solar cells and `data`; with `quick` a few images of `data` alone. The trials of an existing
    `results` are kept. Returns a summary of one line per set and kind of features.
    """
    sources = named_sources(data)
    names = list(sources) if quick and sources else [SOLAR, *sources]
    trials = [Trial(name, features, seed) for name in names for seed in seeds for features in reversed(FEATURES)]

    def measure(trial: Trial) -> dict[str, Any]:
        return _measure(work / trial.name, trial, _dataset(work, trial, sources.get(trial.set), quick))

    rows = run_trials(trials, work, only, measure, partial(_write, results, command))
    return "\n".join(
        f"{row['set']} {row['features']}: {row['accuracy']['mean']:.2%} over {len(row['accuracy']['values'])} seeds, "
        f"{row['seconds']:,.0f} s"
        for row in rows
    )


def _write(results: Path, command: str, measured: dict[Trial, dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the measurements so far with those of an existing file; return the rows of the table."""
    found = dict(sorted(with_earlier(results, measured, command).items()))
    table = list(_table(found))
    sets = {row["set"] for row in table}
    report = {
        "description": "test accuracy of a linear SVM on hand-made features, one view; peak_bytes: of the process "
        "that fits it, with the pages of the mapped features",
        "held_out": {SOLAR: "656 cells, as in all experiments; the seed draws samples and Gaussians"}
        | dict.fromkeys(sorted(sets - {SOLAR}), "a fifth of each class, drawn with the seed"),
        "published_percent": {name: PUBLISHED[name] for name in PUBLISHED if name in sets},
        "table": table,
        "trials": found,
        **provenance(command),
    }
    write_result(results, report)
    return table


def _dataset(work: Path, trial: Trial, source: str | None, quick: bool) -> PreparedDataset:
    if source is None:
        cells = partial(solar_cells.write_source, work / "cells.csv")
        return prepare_once(cells, work / SOLAR / "data")
    data = work / trial.set / f"data-{trial.seed}"
    return prepare_once(
        lambda: _drawn(Path(source), trial.seed, quick),
        data,
        size=QUICK_SIZE if quick else prepared_size(source),
        progress=not quick,
    )


def _drawn(source: Path, seed: int, quick: bool) -> Iterator[tuple[bytes, str, str]]:
    """All images of a source, whatever splits it has, with a split of each that the seed draws."""
    from sklearn.model_selection import train_test_split

    read = first_per_class(source, QUICK_IMAGES, 0) if quick else all_images(source)
    images = [(image, label) for image, label, _ in read]
    labels = [label for _, label in images]
    _, test = train_test_split(np.arange(len(images)), test_size=HELD_OUT, random_state=seed, stratify=labels)
    tested = set(test.tolist())
    for number, (image, label) in enumerate(images):
        yield image, label, "test" if number in tested else "train"


def _measure(folder: Path, trial: Trial, dataset: PreparedDataset) -> dict[str, Any]:
    config = fit_alone(dataset, folder, trial.features, trial.seed).config
    result = evaluate(folder, dataset, split=test_split(dataset).name, views=1)
    return {
        "accuracy": result.accuracy,
        "roc_auc": result.binary_metrics().get("roc_auc"),
        "majority": max(result.split.class_counts) / len(result.split),
        "images": dataset.counts,
        "cost": config.cost,
        "numbers": config.length,
        "seconds": config.seconds,
        "peak_bytes": config.peak_bytes,
    }


def fit_alone(dataset: PreparedDataset, folder: Path, features: str, seed: int) -> Baseline:
    """Fit a baseline in a process of its own, whose peak memory is that of the fit."""
    if not is_baseline(folder):
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted trial
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "alexnet", "baseline", str(dataset.path), "--out", str(folder)]
        done = subprocess.run([*command, "--features", features, "--seed", str(seed)], check=False)
        if done.returncode:
            raise AlexNetError(f"the baseline in {folder} failed (exit code {done.returncode})")
    return Baseline.open(folder)


def _table(found: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The mean over the seeds of each set and kind of features."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, entry in found.items():
        set_name, features, _ = name.split("/")
        rows.setdefault((set_name, features), []).append(entry)
    for (set_name, features), entries in rows.items():
        yield {
            "set": set_name,
            "features": features,
            "accuracy": summarize([entry["accuracy"] for entry in entries]),
            "seconds": sum(sum(entry["seconds"].values()) for entry in entries) / len(entries),
            "peak_bytes": max(entry["peak_bytes"] for entry in entries),
        }
