"""Cross-validation: every training image is predicted by a network that was not trained on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import INDEX_NAME, PreparedDataset, Split
from alexnet.data.subset import write_subset
from alexnet.evaluation.evaluate import evaluate
from alexnet.prediction.classifier import Classifier
from alexnet.runs.recipe import as_class_weights, choose_recipe
from alexnet.runs.run import CROSS_VALIDATION, is_free
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_array, write_atomic, write_csv
from alexnet.runtime.progress import notify
from alexnet.training.train import train

PREDICTIONS = "out-of-fold.csv"
PROBABILITIES = "out-of-fold.npy"
FORMAT_VERSION = 1
BATCH_SIZE = 64
HELD_OUT = "test"
"""The split of a fold's dataset with the images of that fold."""


@dataclass(frozen=True)
class CrossValidation:
    """The result of `cross_validate`.

    Attributes
    ----------
    path : Path
        The folder.
    class_names : list of str
        Class names.
    runs : list of Path
        The run folder of each fold.
    metrics : dict of str to list of float
        Each metric on the held-out images of each fold. A metric that is undefined in a fold is left out.
    """

    path: Path
    class_names: list[str]
    runs: list[Path]
    metrics: dict[str, list[float]]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the folds."""
        return {name: float(np.mean(values)) for name, values in self.metrics.items()}

    @property
    def std(self) -> dict[str, float | None]:
        """The standard deviation of each metric over the folds, with n - 1 in the denominator; None for one value."""
        return {name: _std(values) for name, values in self.metrics.items()}


def cross_validate(
    data: str | os.PathLike[str] | PreparedDataset,
    out: str | os.PathLike[str],
    *,
    folds: int = 5,
    repeats: int = 1,
    fold_seed: int = 0,
    groups: np.ndarray | None = None,
    recipe: str = "auto",
    views: int = 10,
    device: str | None = None,
    checkpoint_interval: float = 120.0,
    **changes: Any,
) -> CrossValidation:
    """Train a network for each fold of the training split, and evaluate it on the images of that fold.

    A fold's network is trained on the other folds, and validated during training on the split "val" of the dataset
    where there is one: the held-out images influence neither the weights nor the choice among them. The split "test" of
    the dataset is not read.

    After an interruption the same call continues: finished folds are kept, and the training of the interrupted one is
    resumed. More `repeats` add to those that are done.

    Parameters
    ----------
    data : str, path or PreparedDataset
        The prepared dataset.
    out : str or path
        The folder to create, with the runs ``fold-1``, ``fold-2``, ..., ``out-of-fold.csv`` and ``crossval.json``.
    folds : int
        Number of folds, at least 2. Each has the same share of every class.
    repeats : int
        Number of times that the images are divided into folds anew; the folds are numbered consecutively.
    fold_seed : int
        Seed of the first division; the others have the seeds that follow it.
    groups : ndarray, optional
        (n,) group of each training image, such as the part that it shows; images of a group are in one fold. Default:
        the groups of the dataset, where it has any.
    recipe : str
        As in `alexnet.train`.
    views : int
        Number of crops per held-out image whose probabilities are averaged.
    device, checkpoint_interval
        As in `alexnet.train`.
    **changes
        Values of the recipe to override.

    Returns
    -------
    CrossValidation

    Raises
    ------
    UsageError
        If an argument is out of range.
    AlexNetError
        If `out` holds a cross-validation with other settings, or a training fails.
    KeyboardInterrupt
        After Ctrl-C, with everything saved.
    """
    if repeats < 1:
        raise UsageError(f"repeats is {repeats}; it must be at least 1")
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    split = dataset.split("train")
    _check_classes(split, dataset.classes, folds)
    if groups is None:
        groups = split.groups
    assignments = [assign_folds(split.labels, folds, fold_seed + repeat, groups) for repeat in range(repeats)]
    if "class_weights" in changes:
        changes["class_weights"] = as_class_weights(changes["class_weights"])  # the file may be another one tomorrow
    folder = Path(out)
    settings = {
        "data": dataset.checksums(),
        "folds": folds,
        "fold_seed": fold_seed,
        "groups": None if groups is None else np.unique(groups, return_inverse=True)[1].tolist(),
        "recipe": recipe,
        "changes": changes,
        "views": views,
    }
    results = _begin(folder, settings)
    # One recipe for all folds: their numbers of images differ by one, and "auto" depends on the number.
    chosen, reason = choose_recipe(recipe, len(split) * (folds - 1) // folds)
    notify(f"cross-validation: {folds * repeats} folds, recipe {chosen.name}: {reason}")
    positive = _positive(split, dataset.classes)
    total = folds * repeats
    for number in range(1, total + 1):
        if str(number) in results:
            continue
        held_out = np.flatnonzero(assignments[(number - 1) // folds] == (number - 1) % folds)
        notify(f"fold {number} of {total}: {len(held_out):,} images held out")
        run = folder / f"fold-{number}"
        fold = _fold_dataset(folder / "data" / f"fold-{number}", dataset, held_out)
        try:
            train(
                fold.path,
                run,
                recipe=chosen,
                resume=not is_free(run),
                device=device,
                checkpoint_interval=checkpoint_interval,
                **changes,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted in fold {number} of {total}; the same command continues") from None
        results[str(number)] = _evaluate_fold(run, fold, views, positive, device)
        _write_summary(folder, settings, results)
    write_csv(folder / PREDICTIONS, _prediction_rows(folder, split, dataset.classes, assignments, folds))
    _write_summary(folder, settings, results)
    runs = [folder / f"fold-{number}" for number in range(1, total + 1)]
    return CrossValidation(folder, dataset.classes, runs, _by_metric(results))


def assign_folds(labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Divide images into folds with the same share of every class.

    Parameters
    ----------
    labels : ndarray
        (n,) int.
    folds : int
        Number of folds, at least 2.
    seed : int
        Seed of the random division.
    groups : ndarray, optional
        (n,): images of the same group are in the same fold; the shares of the classes are then as equal as possible.

    Returns
    -------
    ndarray
        (n,) int64: the fold of each image, 0 to ``folds - 1``.

    Raises
    ------
    UsageError
        If there are fewer than two folds, or fewer groups, or fewer images of every class, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if folds < 2:
        raise UsageError(f"folds is {folds}; it must be at least 2")
    if groups is not None and len(groups) != len(labels):
        raise UsageError(f"there are {len(groups):,} groups for {len(labels):,} images; give one for each image")
    kinds, unit = (labels, "images") if groups is None else (np.unique(groups), "groups")
    if len(kinds) < folds:
        raise UsageError(f"there are {len(kinds)} {unit} for {folds} folds; choose fewer folds")
    if np.bincount(labels).max() < folds:
        raise UsageError(f"no class has {folds} images for {folds} folds; choose fewer folds")
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    assigned = np.empty(len(labels), dtype=np.int64)
    for fold, (_, members) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        assigned[members] = fold
    return assigned


def _check_classes(split: Split, classes: list[str], folds: int) -> None:
    for name, count in zip(classes, split.class_counts, strict=True):
        if 0 < count < folds:
            raise UsageError(
                f"class {name!r} has {count} training images for {folds} folds: choose fewer folds or add images"
            )


def _positive(split: Split, classes: list[str]) -> str | None:
    """The rarer class of two, the same for all folds."""
    return classes[int(split.class_counts[1] <= split.class_counts[0])] if len(classes) == 2 else None


def _begin(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The results of the folds that are done; a new folder has none."""
    try:
        found = json.loads((folder / CROSS_VALIDATION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise AlexNetError(f"{folder} exists and is not a cross-validation; choose another folder") from None
        folder.mkdir(parents=True, exist_ok=True)
        _write_summary(folder, settings, {})
        return {}
    except (OSError, ValueError) as error:
        raise AlexNetError(f"{folder / CROSS_VALIDATION} cannot be read: {error}") from error
    earlier = found.get("settings", {})
    different = [name for name, value in settings.items() if json.loads(json.dumps(value)) != earlier.get(name)]
    if different:
        raise AlexNetError(
            f"{folder} was begun with another {', '.join(different)}: use the same settings, or choose another folder"
        )
    return found["folds"]


def _fold_dataset(path: Path, dataset: PreparedDataset, held_out: np.ndarray) -> PreparedDataset:
    if (path / INDEX_NAME).is_file():
        return PreparedDataset.open(path)
    rest = np.setdiff1d(np.arange(len(dataset.split("train"))), held_out)
    splits = {"train": ("train", rest), HELD_OUT: ("train", held_out)}
    if dataset.counts.get("val"):
        splits["val"] = ("val", np.arange(dataset.counts["val"]))
    return write_subset(path, dataset, splits)


def _evaluate_fold(
    run: Path, fold: PreparedDataset, views: int, positive: str | None, device: str | None
) -> dict[str, Any]:
    """The metrics on the held-out images. Their probabilities are written to the run folder."""
    evaluation = evaluate(run, fold, split=HELD_OUT, views=views, positive=positive, raw=True, device=device)
    classifier = Classifier.load(run, device=device)
    held_out = fold.split(HELD_OUT)
    batches = held_out.batches(np.arange(len(held_out)), BATCH_SIZE)
    write_array(run / PROBABILITIES, np.concatenate([classifier.probabilities(images, views) for _, images in batches]))
    return evaluation.to_dict()


def _by_metric(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """The values of each metric over the folds, from the JSON form of their evaluations."""
    found: dict[str, list[float]] = {}
    for _, result in sorted(results.items(), key=lambda item: int(item[0])):
        values = {**result, **result.get("metrics", {})}
        for name, row in result["classes"].items():
            values |= {f"{metric} of {name}": row[metric] for metric in ("precision", "recall", "f1")}
        for name, row in result.get("certainty", {}).items():
            values[f"accuracy on {name} labels"] = row["accuracy"]
        for name, value in values.items():
            if isinstance(value, float):
                found.setdefault(name, []).append(value)
    return found


def _std(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _write_summary(folder: Path, settings: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    by_metric = _by_metric(results)
    summary = {
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "metrics": {
            name: {
                "mean": float(np.mean(values)),
                "std": _std(values),
                "folds": values,
            }
            for name, values in by_metric.items()
        },
        "folds": results,
    }
    write_atomic(folder / CROSS_VALIDATION, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())


def _prediction_rows(
    folder: Path, split: Split, classes: list[str], assignments: list[np.ndarray], folds: int
) -> Iterator[list[object]]:
    """The probabilities of each image by the network that was not trained on it, once per repeat."""
    yield ["path", "label", "repeat", "fold", *(f"probability_{name}" for name in classes)]
    for repeat, assigned in enumerate(assignments):
        probabilities = np.empty((len(split), len(classes)))
        for fold in range(folds):
            file = folder / f"fold-{repeat * folds + fold + 1}" / PROBABILITIES
            probabilities[assigned == fold] = np.load(file, allow_pickle=False)
        for i, row in enumerate(probabilities):
            number = repeat * folds + int(assigned[i]) + 1
            label = classes[split.labels[i]]
            yield [split.paths(i), label, repeat + 1, number, *(f"{p:.6g}" for p in row)]
