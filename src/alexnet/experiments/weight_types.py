"""Data types of stored weights: what 16 bits change in the predictions of a finished run, and what they save."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import slug
from alexnet.experiments.image_sets import SOLAR
from alexnet.experiments.trials import measure_once, prepare_once, train_once
from alexnet.inspection.comparison import compare
from alexnet.runs.recipe import STARTER
from alexnet.runs.run import Run
from alexnet.runtime.provenance import provenance, write_result

TYPES = ("float32", "float16", "bfloat16")
EPOCHS = 2


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = ()) -> str:
    """Train on the solar cells and the sets in `data`, store the weights in each type, and compare on the test images.

    The recipe is `small`, from the starter, for `EPOCHS` epochs. Returns a line per set and type.
    """
    sources: dict[str, Any] = {SOLAR: partial(solar_cells.write_source, work / "cells.csv")}
    sources |= {slug(source): source for source in data}
    trials = {}
    for name, source in sources.items():
        for seed in seeds:
            file = work / f"{name}-{seed}.json"
            trials[f"{name}/{seed}"] = measure_once(file, partial(_measure, source, work / name, seed))
    report = {
        "description": f"recipe small from the starter, {EPOCHS} epochs, weights stored in three data types; accuracy "
        "with one view on the test images (val where there are none), and what changes against float32",
        "trials": trials,
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


def _measure(source: Any, folder: Path, seed: int) -> dict[str, Any]:
    dataset = prepare_once(source, folder / "data")
    options: Mapping[str, Any] = {"init": STARTER, "epochs": EPOCHS, "seed": seed, "weights_dtype": "float32"}
    run = train_once(dataset.path, folder / f"run-{seed}", recipe="small", **options)
    stored = {name: _stored(run, folder / f"run-{seed}-{name}", name) for name in TYPES}
    found = compare([one.path for one in stored.values()], dataset, split=_split(dataset), views=1)
    predictions = [evaluation.predictions for evaluation in found.evaluations]
    by_class = [_by_class(p.ranked, p.ranked_probabilities) for p in predictions]
    types = {}
    for number, (name, one) in enumerate(stored.items()):
        evaluation = found.evaluations[number]
        types[name] = {
            "bytes": one.weights_file().stat().st_size,
            "images": len(predictions[number]),
            "accuracy": evaluation.accuracy,
            "log_loss": evaluation.log_loss,
            "changed_classes": int((predictions[number].ranked[:, 0] != predictions[0].ranked[:, 0]).sum()),
            "largest_change": float(np.abs(by_class[number] - by_class[0]).max()),
        }
    for one in stored.values():
        shutil.rmtree(one.path)
    return {"split": _split(dataset), "types": types}


def _split(dataset: PreparedDataset) -> str:
    return dataset.measured_on or "val"


def _stored(run: Run, folder: Path, name: str) -> Run:
    """A copy of a run with weights of another data type."""
    network, preprocess = run.load()
    copy = Run.create(folder, run.config)
    dtype: torch.dtype = getattr(torch, name)
    copy.save_weights(run.config.recipe.keep, network.state_dict(), preprocess.mean, dtype)
    return copy.with_recipe_value("weights_dtype", name)


def _by_class(ranked: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) from those in descending order."""
    result = np.zeros_like(probabilities)
    np.put_along_axis(result, ranked, probabilities, axis=1)
    return result
