"""Data types of stored weights: what 16 bits change in the predictions of a finished run, and what they save."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation import metrics
from alexnet.evaluation.metrics import Predictions
from alexnet.experiments.catalog import SOLAR, named_sources
from alexnet.experiments.image_sets import test_split
from alexnet.experiments.inspection import FOLDS, TRAINING, prepared_cells
from alexnet.experiments.trials import measure_once, prepare_once, train_once
from alexnet.prediction.classifier import BATCH_SIZE, Classifier
from alexnet.runs.run import Run
from alexnet.runtime.provenance import provenance, write_result

TYPES = ("float32", "float16", "bfloat16")


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = ()) -> str:
    """Store the weights of finished trainings in each type, and compare them on images that were held out.

    The trainings are those of `alexnet reproduce inspection`: the network of all training cells on the test cells, and
    the finished folds of the cross-validation on their held-out cells; and one for each seed on each set in `data`.
    Returns a line per training and type.
    """
    cells = prepared_cells(work)
    train_once(cells.path, work / "run", seed=0, **TRAINING)
    networks = {f"{SOLAR}/run": (work / "run", cells.path)}
    for name in (f"fold-{number}" for number in range(1, FOLDS + 1)):
        fold = work / "cv" / name
        if fold.is_dir() and Run.open(fold).finished:
            networks[f"{SOLAR}/{name}"] = fold, work / "cv" / "data" / name
    for set_name, source in named_sources(data).items():
        folder = work / "weight-types" / set_name
        dataset = prepare_once(source, folder / "data")
        for seed in seeds:
            run = train_once(dataset.path, folder / f"run-{seed}", seed=seed, weights_dtype=TYPES[0])
            networks[f"{set_name}/{seed}"] = run.path, dataset.path
    trials = {
        name: measure_once(work / "weight-types" / f"{name.replace('/', '-')}.json", partial(_measure, *places))
        for name, places in networks.items()
    }
    report = {
        "description": "weights of finished trainings stored in three data types; accuracy with one view on images "
        "that were held out (a fold of the solar cells, or the test images), and what changes against float32",
        "trials": trials,
        "total": {name: _total([trial["types"][name] for trial in trials.values()]) for name in TYPES},
        **provenance(command),
    }
    write_result(results, report)
    return "\n".join(
        f"{trial} {name}: {row['bytes'] / 1e6:.0f} MB, accuracy {row['accuracy']:.2%}, "
        f"{row['changed_classes']} of {row['images']} predicted classes change, a probability by at most "
        f"{row['largest_change']:.2g}"
        for trial, rows in trials.items()
        for name, row in rows["types"].items()
    )


def _total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums and the largest change over all trainings."""
    sums = {name: sum(row[name] for row in rows) for name in ("images", "changed_classes")}
    return {**sums, "largest_change": max(row["largest_change"] for row in rows)}


def _measure(path: Path, data: Path) -> dict[str, Any]:
    run, split = Run.open(path), test_split(PreparedDataset.open(data))
    types: dict[str, Any] = {}
    exact = np.empty(0)
    for name in TYPES:
        copy = path.with_name(f"{path.name}-{name}")
        try:
            stored = _stored(run, copy, name)
            shares = _probabilities(stored, split)
            exact = shares if name == TYPES[0] else exact
            predictions = Predictions.from_probabilities(shares, split.labels)
            types[name] = {
                "bytes": stored.weights_file().stat().st_size,
                "images": len(split),
                "accuracy": metrics.accuracy(predictions),
                "log_loss": metrics.log_loss(predictions),
                "changed_classes": int((shares.argmax(axis=1) != exact.argmax(axis=1)).sum()),
                "largest_change": float(np.abs(shares - exact).max()),
            }
        finally:
            shutil.rmtree(copy, ignore_errors=True)
    return {"split": split.name, "types": types}


def _probabilities(run: Run, split: Split) -> np.ndarray:
    classifier = Classifier.load(run.path, raw=True)
    batches = split.batches(np.arange(len(split)), BATCH_SIZE)
    return np.concatenate([classifier.probabilities(images) for _, images in batches])


def _stored(run: Run, folder: Path, name: str) -> Run:
    """A copy of a run with weights of another data type."""
    network, preprocess = run.load()
    copy = Run.create(folder, run.config)
    dtype: torch.dtype = getattr(torch, name)
    copy.save_weights(run.config.recipe.keep, network.state_dict(), preprocess.mean, dtype)
    return copy.with_recipe_value("weights_dtype", name)
