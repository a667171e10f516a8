"""Wrong labels: how many of the labels that were flipped are found, and what their correction is worth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alexnet.data.dataset import PreparedDataset
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import SOLAR, named_sources
from alexnet.experiments.image_sets import test_split
from alexnet.experiments.trials import measure_once, prepare_once, write_with_figure
from alexnet.inspection.crossval import assign_folds
from alexnet.inspection.labels import COUNT, nearest_others, neighbor_disagreement, rank_label_errors
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.report.style import LAYERS, Figure, drawn, new
from alexnet.runs.recipe import STARTER
from alexnet.runtime.provenance import provenance
from alexnet.training.linear_probe import INVERSE_REGULARIZATION, pooled
from alexnet.training.train import set_up_training

SHARES = (0.05, 0.10)
"""Shares of the training labels that are flipped."""
FOLDS = 5
LAYER = "conv5"
RANKINGS = ("confidence", "neighbors", "both")
CURVE = 60
"""Steps of the curve of recall."""


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = ()) -> str:
    """Flip labels of the solar cells and of the sets in `data`, find them, and measure accuracy after correction.

    The classifier is a linear probe on the features of the starter, which has seen no label. In 5-fold
    cross-validation it predicts every training image; the ranking is that of `alexnet labels`. A flipped label that is
    among the first N suspects is corrected, N being the number of flipped labels: the work of a person who looks at N
    images. Returns a summary of one line per set and share.
    """
    sources: dict[str, Any] = dict(named_sources(data))
    sources[SOLAR] = partial(solar_cells.write_source, work / "cells.csv")
    trials: dict[str, dict[str, Any]] = {}
    for name, source in sources.items():
        sets = None
        for share in SHARES:
            for seed in seeds:
                trial = f"{name}/{share:.0%}/{seed}"
                file = work / f"{name}-{round(100 * share)}-{seed}.json"
                if sets is None and not file.exists():
                    dataset = prepare_once(source, work / name / "data")
                    sets = _features(dataset, work / name)
                trials[trial] = measure_once(file, partial(_measure, sets or {}, share, seed))
    table = _summary(trials)
    report = {
        "description": "training labels flipped to another class; the first N of the ranked images, N the number of "
        "flipped labels: precision at N (equal to recall at N), and at N/2 and 2N; test accuracy of a linear probe on "
        f"{LAYER} of the starter with the flipped labels, after correcting those found among the first N, and with the "
        "labels as they were",
        "table": table,
        "trials": trials,
        **provenance(command),
    }
    write_with_figure(results, report, figure(trials, sorted(sources)))
    return "\n".join(
        f"{row['set']} {row['flipped']:.0%} flipped: {row['recall_at_n']['both']:.1%} found in the first N; accuracy "
        f"{row['flipped_accuracy']:.2%}, corrected {row['corrected_accuracy']:.2%}, clean {row['clean_accuracy']:.2%}"
        for row in table
    )


def flip(labels: np.ndarray, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give a share of the labels another class, each class equally likely.

    Returns
    -------
    flipped : ndarray
        (n,) int64: the labels.
    positions : ndarray
        Indices of those that were changed.
    """
    rng = np.random.default_rng(seed)
    positions = rng.choice(len(labels), round(share * len(labels)), replace=False)
    flipped = labels.copy()
    flipped[positions] = (labels[positions] + rng.integers(1, classes, size=len(positions))) % classes
    return flipped, positions


def _features(dataset: PreparedDataset, work: Path) -> dict[str, np.ndarray]:
    """Features and labels of the training and the test images."""
    training = set_up_training(dataset.path, work / "run", init=STARTER)
    network, preprocess = training.state.network.eval(), training.preprocess
    found: dict[str, np.ndarray] = {"classes": np.array(len(dataset.classes))}
    for name, split in (("train", dataset.split("train")), ("test", test_split(dataset))):
        batches = (images for _, images in split.batches(np.arange(len(split)), BATCH_SIZE))
        found[name] = np.concatenate([pooled(part) for part in layer_features(network, preprocess, batches, LAYER)])
        found[f"{name}_labels"] = split.labels
    return found


def _classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARIZATION, tol=1e-3, max_iter=1000))


def _measure(sets: Mapping[str, np.ndarray], share: float, seed: int) -> dict[str, Any]:
    features, labels, classes = sets["train"], sets["train_labels"], int(sets["classes"])
    flipped, positions = flip(labels, classes, share, seed)
    probabilities = np.zeros((len(labels), classes))
    folds = assign_folds(flipped, FOLDS, seed)
    for fold in range(FOLDS):
        fitted = _classifier().fit(features[folds != fold], flipped[folds != fold])
        # One fancy index for the rows and the columns of the classes that the fold has.
        rows = np.flatnonzero(folds == fold)
        probabilities[np.ix_(rows, fitted.classes_)] = fitted.predict_proba(features[rows])
    scaled = StandardScaler().fit_transform(features).astype(np.float32)
    disagreement = neighbor_disagreement(flipped, nearest_others(scaled, COUNT)[1])
    ranking = rank_label_errors(flipped, probabilities, disagreement)
    orders = {
        "confidence": np.argsort(ranking.confidence_rank, kind="stable"),
        "neighbors": np.argsort(ranking.neighbor_rank, kind="stable"),
        "both": ranking.order,
    }
    count = len(positions)
    is_flipped = np.isin(np.arange(len(labels)), positions)
    found = {name: np.cumsum(is_flipped[order]) for name, order in orders.items()}
    corrected = flipped.copy()
    first = orders["both"][:count]
    corrected[first] = labels[first]
    return {
        "images": len(labels),
        "flipped": count,
        "expected": int(ranking.confident.sum()),
        "precision": {
            name: {"n/2": float(hits[count // 2 - 1] / (count // 2)), "n": float(hits[count - 1] / count)}
            for name, hits in found.items()
        },
        "recall": {
            name: {
                key: float(hits[at - 1] / count)
                for key, at in (("n/2", count // 2), ("n", count), ("2n", min(2 * count, len(labels))))
            }
            for name, hits in found.items()
        },
        # Recall after 0 to 3 N suspects, for the figure.
        "curve": [
            0.0 if step == 0 else float(found["both"][min(round(3 * count * step / CURVE), len(labels)) - 1] / count)
            for step in range(CURVE + 1)
        ],
        "accuracy": {
            name: float((_classifier().fit(features, given).predict(sets["test"]) == sets["test_labels"]).mean())
            for name, given in (("flipped", flipped), ("corrected", corrected), ("clean", labels))
        },
    }


def _summary(trials: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean over the seeds for each set and share."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for name, trial in trials.items():
        of_set, share, _ = name.rsplit("/", 2)
        rows.setdefault((of_set, share), []).append(trial)
    table = []
    for (of_set, share), found in rows.items():
        accuracy = {name: [one["accuracy"][name] for one in found] for name in ("flipped", "corrected", "clean")}
        table.append(
            {
                "set": of_set,
                "flipped": float(share.rstrip("%")) / 100,
                "images": found[0]["images"],
                "n": found[0]["flipped"],
                "seeds": len(found),
                "expected": statistics.mean(one["expected"] for one in found),
                **{
                    f"recall_at_{at.replace('/', '_over_')}": {
                        ranking: statistics.mean(one["recall"][ranking][at] for one in found) for ranking in RANKINGS
                    }
                    for at in ("n/2", "n", "2n")
                },
                "precision_at_n_over_2": {
                    ranking: statistics.mean(one["precision"][ranking]["n/2"] for one in found) for ranking in RANKINGS
                },
                **{f"{name}_accuracy": statistics.mean(values) for name, values in accuracy.items()},
                **{
                    f"{name}_accuracy_standard_deviation": statistics.stdev(values) if len(values) > 1 else None
                    for name, values in accuracy.items()
                },
            }
        )
    return table


@drawn
def figure(trials: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Recall of the flipped labels against the number of suspects looked at, in multiples of N."""
    drawing = new(3.4, width=6.4)
    axes = drawing.subplots()
    steps = np.arange(CURVE + 1) / (CURVE / 3)
    for name, color in zip(names, LAYERS[:: len(LAYERS) // len(names)], strict=False):
        for share, style in zip(SHARES, ("-", "--"), strict=True):
            curves = [one["curve"] for trial, one in trials.items() if trial.startswith(f"{name}/{share:.0%}/")]
            label = f"{name}, {share:.0%} flipped"
            axes.plot(steps, 100 * np.mean(curves, axis=0), style, color=color, label=label)
    axes.set_xlabel("Suspects looked at, in multiples of the number of flipped labels")
    axes.set_ylabel("Flipped labels found (%)")
    axes.set_ylim(0, 102)
    axes.set_title("Label errors found by rank")
    drawing.legend(loc="outside lower center", ncols=2)
    return drawing
