"""Unknown images: how well those that are like no training image are told apart, by three scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.sources.planning import plan_source
from alexnet.experiments.catalog import SOLAR, named_sources, slug
from alexnet.experiments.image_sets import all_images, first_per_class, test_split
from alexnet.experiments.inspection import FOLDS, cross_validated_cells
from alexnet.experiments.trials import measure_once, prepare_once, summarize, train_once, write_with_figure
from alexnet.inspection.decide import fit_distance, outputs, reference_images
from alexnet.prediction.classifier import Classifier
from alexnet.report.style import BLUE, GREEN, ORANGE, Figure, drawn, new
from alexnet.runs.run import Run
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import provenance

METHODS = ("neighbors", "mahalanobis", "softmax")
"""The distances of `alexnet decide`, and one minus the largest probability (Hendrycks and Gimpel 2017)."""
LARGE = 5_000
"""Of a set with more images, `UNKNOWN_IMAGES` are used as unknown ones."""
UNKNOWN_IMAGES = 1_000
EPOCHS = 4
"""Epochs of a training without a class, from the starter."""
REJECTED = 0.05
"""Share of known images that are rejected, for the share of unknown images that are recognized."""


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = ()) -> str:
    """Measure the area under the ROC curve of *unknown*, on the solar cells and the sets in `data`.

    Between sets: for each seed the network of another fold of the cross-validation of the solar cells, with the cells
    of that fold as known images and the images of another set as unknown ones. Within the first set in `data`: a
    training for each seed without one class, whose images are the unknown ones. Returns a summary of a line per row.
    """
    trials: dict[str, dict[str, Any]] = {}
    sets = named_sources(data)
    others = {name: partial(_whole_or_few, source, work / "unknown" / name) for name, source in sets.items()}
    for fold in (1 + seed % FOLDS for seed in seeds):
        for name, other in others.items():
            file = work / "unknown" / f"solar-{fold}-{name}.json"
            trials[f"{SOLAR}/{name}/{fold}"] = measure_once(file, partial(_between, work, fold, other))
    for name, source in list(sets.items())[:1]:
        for seed in seeds:
            folder = work / "unknown" / f"{name}-without-{seed}"
            trials[f"{name}/a class of its own/{seed}"] = measure_once(
                folder.with_suffix(".json"), partial(_within, source, folder, seed)
            )
    table = summary(trials)
    report = {
        "description": "area under the ROC curve of unknown against known images, neither of which the network was "
        f"trained on, and the share of the unknown images that are recognized where {REJECTED:.0%} of the known ones "
        "are rejected; by the distance to the fifth nearest training image, the Mahalanobis distance to the nearest "
        "class mean (both as in `alexnet decide`), and one minus the largest probability",
        "table": table,
        "trials": trials,
        **provenance(command),
    }
    write_with_figure(results, report, figure(table))
    return "\n".join(
        f"{row['known']} against {row['unknown']}: "
        + ", ".join(f"{method} {row['auroc'][method]['mean']:.3f}" for method in METHODS)
        for row in table
    )


def scores(
    known: tuple[np.ndarray, ...], unknown: tuple[np.ndarray, ...], references: tuple[np.ndarray, ...]
) -> dict[str, dict[str, float]]:
    """The measures of each method.

    Parameters
    ----------
    known, unknown : tuple of ndarray
        Probabilities (n, classes) and features (n, units) of the images.
    references : tuple of ndarray
        Features (n, units) and labels (n,) of training images.

    Returns
    -------
    dict of str to dict
        "auroc" and "recognized" of each method.
    """
    found: dict[str, dict[str, float]] = {"auroc": {}, "recognized": {}}
    for method in METHODS:
        if method == "softmax":
            inside, outside = 1 - known[0].max(axis=1), 1 - unknown[0].max(axis=1)
        else:
            distance = fit_distance(references[0], references[1], method)
            inside, outside = distance(known[1]), distance(unknown[1])
        is_unknown = np.repeat([False, True], [len(inside), len(outside)])
        found["auroc"][method] = float(roc_auc_score(is_unknown, np.concatenate([inside, outside])))
        found["recognized"][method] = float((outside > np.quantile(inside, 1 - REJECTED)).mean())
    return found


def _between(work: Path, fold: int, other: Any) -> dict[str, Any]:
    """The network of a fold of the solar cells; its held-out cells, and images of another set."""
    run = work / "cv" / f"fold-{fold}"
    if not (run.is_dir() and Run.open(run).finished):
        cross_validated_cells(work)
    dataset = other()
    split = test_split(dataset)
    return _measure(run, work / "cv" / "data" / run.name, [(split, np.arange(len(split)))])


def _within(source: str, folder: Path, seed: int) -> dict[str, Any]:
    """A training without a class; the test images of the other classes, and all images of that class."""
    whole = prepare_once(source, folder.parent / slug(source))
    # Spread over the classes: neighbors in the alphabet are often alike.
    name = whole.classes[(seed * 7 + 3) % len(whole.classes)]
    reduced = prepare_once(partial(_without, source, name), folder / "data")
    notify(f"{slug(source)} without the class {name}")
    run = train_once(folder / "data", folder / "run", seed=seed, epochs=EPOCHS)
    label = whole.classes.index(name)
    splits = [split for split in map(whole.split, whole.splits) if split.class_counts[label]]
    unknown = [(split, np.flatnonzero(split.labels == label)) for split in splits]
    return {"class": name, **_measure(run.path, reduced.path, unknown)}


@lru_cache(maxsize=1)
def _known(run: Path, data: Path) -> tuple[Classifier, np.ndarray, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """A network, and of its dataset the labels and outputs of the test images, and features and labels of references.

    The last one is kept: its other unknown sets come next.
    """
    dataset = PreparedDataset.open(data)
    train, known = dataset.split("train"), test_split(dataset)
    classifier = Classifier.load(run, raw=True)
    chosen = reference_images(train)
    references = outputs(classifier, train, chosen, "features of training images")[1], train.labels[chosen]
    inside = outputs(classifier, known, np.arange(len(known)), "predict known images")
    return classifier, known.labels, inside, references


def _measure(run: Path, data: Path, unknown: Sequence[tuple[Split, np.ndarray]]) -> dict[str, Any]:
    """The measures of a network on its test images and on unknown ones, given as splits and positions in them."""
    classifier, labels, inside, references = _known(run, data)
    outside = [outputs(classifier, split, indices, "predict unknown images") for split, indices in unknown]
    merged = tuple(np.concatenate(parts) for parts in zip(*outside, strict=True))
    return {
        "known_images": len(labels),
        "unknown_images": len(merged[0]),
        "accuracy": float((inside[0].argmax(axis=1) == labels).mean()),
        **scores(inside, merged, references),
    }


def _whole_or_few(source: str, folder: Path) -> PreparedDataset:
    if plan_source(source).images > LARGE:
        return prepare_once(lambda: first_per_class(Path(source), 1, UNKNOWN_IMAGES), folder)
    return prepare_once(source, folder)


def _without(source: str, name: str) -> Iterator[tuple[bytes, str, str | None]]:
    """The images of all classes but one."""
    return (image for image in all_images(source) if image[1] != name)


def summary(trials: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean and standard deviation over the networks, for each known and unknown set."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for name, trial in trials.items():
        known, unknown, _ = name.split("/")
        rows.setdefault((known, unknown), []).append(trial)
    return [
        {
            "known": known,
            "unknown": unknown,
            "networks": len(found),
            "known_images": found[0]["known_images"],
            "unknown_images": found[0]["unknown_images"],
            "classes": [one["class"] for one in found if "class" in one],
            "accuracy": summarize([one["accuracy"] for one in found]),
            **{
                measure: {method: summarize([one[measure][method] for one in found]) for method in METHODS}
                for measure in ("auroc", "recognized")
            },
        }
        for (known, unknown), found in rows.items()
    ]


@drawn
def figure(table: Sequence[Mapping[str, Any]]) -> Figure:
    """The area under the ROC curve of each method, a row for each pair of sets; a dot for each network."""
    drawing = new(1.1 + 0.55 * max(1, len(table)), width=6.4)
    axes = drawing.subplots()
    marks = dict(zip(METHODS, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^")), strict=True))
    for y, row in enumerate(table):
        for offset, (method, (color, marker)) in zip((-0.2, 0.0, 0.2), marks.items(), strict=True):
            values = row["auroc"][method]["values"]
            label = method if y == 0 else None
            axes.plot(values, [y + offset] * len(values), marker, color=color, alpha=0.7, markersize=5, label=label)
    axes.set_yticks(range(len(table)), [f"{row['known']}\nagainst {row['unknown']}" for row in table])
    axes.invert_yaxis()
    axes.set_xlabel("Area under the ROC curve of unknown")
    axes.axvline(0.5, color="0.6", linewidth=0.8)
    axes.set_title("Unknown images told apart")
    drawing.legend(loc="outside lower center", ncols=3)
    return drawing
