"""Find the decision rule of a run on labeled images that the training has not seen.

The guarantee for a recall is exact for any network and any distribution, and accounts for the choice of the threshold:
of n images of a class, the threshold is the (k + 1)-th smallest score, where k is the largest number for which
P(Binomial(n, 1 − recall) ≤ k) ≤ 1 − confidence. Then the recall is at least the wished one with that confidence
(Wilks 1941, "Determination of sample sizes for setting tolerance limits"; for conformal prediction Vovk 2012,
https://arxiv.org/abs/1209.2673). The score is the log odds of the class against the strongest other one, whose order
does not depend on the temperature: what is fitted on the same images does not weaken the guarantee.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import check_compatible
from alexnet.evaluation.metrics import Predictions
from alexnet.prediction.classifier import Classifier
from alexnet.runs.decision import (
    DISTANCE_METHODS,
    KINDS,
    SMALLEST,
    DecisionRule,
    FeatureDistance,
    calibrate,
    describe_decision,
    log_odds,
)
from alexnet.runs.run import Run, checksum_of, dataset_checksum
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.progress import progress

BATCH_SIZE = 64
REFERENCE_IMAGES = 2000
"""Most training images, evenly spread, from which the distance is made."""
DIMENSIONS = 128
"""Most principal components of the features in which distances are measured."""
NEIGHBORS = 5
ROUNDING = 1e-6
"""Relative difference by which an image of the split may miss a threshold or limit that was taken from it."""
UNSURE_COLUMN = "unsure"
RECORDED = 1000
"""Confidences that the rule records, with which `alexnet sort` compares those of each day."""


@dataclass(frozen=True)
class DecisionReport:
    """The result of `decide`.

    Parameters
    ----------
    rule : DecisionRule
        The rule, as stored in the run folder.
    sentences : list of str
        The rule, its measurements and its guarantees, for people.
    """

    rule: DecisionRule
    sentences: list[str]


def decide(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str = "val",
    recall: Mapping[str, float] | None = None,
    costs: str | os.PathLike[str] | None = None,
    unsure: float = 0.0,
    unknown_rate: float | None = None,
    unknown_method: str = "neighbors",
    confidence: float = 0.9,
    views: int = 1,
    device: str | None = None,
) -> DecisionReport:
    """Find the decision rule of a run and store it in the run folder, in place of an earlier one.

    Parameters
    ----------
    run : str or path
        The run folder.
    data : str, path or PreparedDataset
        The prepared dataset.
    split : str
        The split whose images decide; "train" is refused.
    recall : mapping of str to float, optional
        For classes the share of their images, above 0 and below 1, that must not be decided as another class.
    costs : str or path, optional
        A CSV file, see `read_costs`; excludes `recall`.
    unsure : float
        Share of the images, 0 to below 1, with the smallest margin that become *unsure*.
    unknown_rate : float, optional
        Share of known images, above 0 and below 1, that may be rejected as *unknown*. Default: none is.
    unknown_method : {"neighbors", "mahalanobis"}
        How the distance from the training images is measured.
    confidence : float
        Confidence of the guarantees, above 0 and below 1; all guarantees hold together with this confidence.
    views : int
        Number of crops per image whose probabilities are averaged.
    device : str, optional
        As in `Classifier.load`.

    Returns
    -------
    DecisionReport

    Raises
    ------
    UsageError
        If an argument is out of range.
    AlexNetError
        If there are too few images for a guarantee, with the number that is needed; nothing is stored.
    """
    recall = dict(recall or {})
    _check_shares(recall, unsure, unknown_rate, confidence)
    check_choice(unknown_method, DISTANCE_METHODS, "unknown method")
    if recall and costs is not None:
        raise UsageError("--recall and --costs exclude each other: the threshold follows from one of them")
    opened = Run.open(run)
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    check_compatible(opened, dataset, "nothing can be decided on it")
    chosen = dataset.split(split)
    _check_split(dataset, chosen)
    for name in recall:
        check_choice(name, dataset.classes, "class")
    if len(dataset.classes) < 2:
        raise AlexNetError(f"{opened.path} has one class: there is nothing to decide")
    matrix = None if costs is None else read_costs(costs, dataset.classes)
    classifier = Classifier.load(run, device=device, raw=True)
    probabilities, features = _outputs(classifier, chosen, classifier.choose_views(views))

    temperature = fit_temperature(probabilities, chosen.labels)
    before, after = (
        metrics.calibration_error(metrics.calibration_bins(Predictions.from_probabilities(shares, chosen.labels)))
        for shares in (probabilities, calibrate(probabilities, temperature))
    )
    thresholds, guarantees = _recall_thresholds(
        probabilities, chosen.labels, dataset.classes, recall, confidence, temperature
    )
    rule = DecisionRule(tuple(dataset.classes), temperature, thresholds, matrix)
    unsure_below = 0.0
    if unsure:
        margins = np.sort(rule.apply(probabilities).margin)
        unsure_below = float(margins[int(unsure * len(margins))])
    distance = None
    if unknown_rate is not None:
        distance = _distance(classifier, dataset, features, unknown_method, unknown_rate)
    rule = DecisionRule(tuple(dataset.classes), temperature, thresholds, matrix, unsure_below, distance, views=views)
    decided = rule.apply(probabilities, features)
    shares = {kind: float((decided.kind == number).mean()) for number, kind in enumerate(KINDS)}
    answered = decided.answered
    record: dict[str, Any] = {
        "data": dataset.address,
        "checksum": dataset_checksum(dataset),
        "split": split,
        "images": len(chosen),
        "confidence": confidence,
        "calibration_error_before": before,
        "calibration_error_after": after,
        "guarantees": guarantees,
        "shares": shares,
        "confidences": spread(decided.confidence),
        "answered_accuracy": float((decided.label == chosen.labels)[answered].mean()) if answered.any() else None,
    }
    if matrix is not None:
        record["expected_cost"] = mean_cost(matrix, chosen.labels, decided.label, decided.kind)
    rule = dataclasses.replace(rule, weights=checksum_of(classifier.network.state_dict()), record=record)
    rule.save(opened.path)
    return DecisionReport(rule, _sentences(rule, opened, chosen))


def spread(values: np.ndarray, count: int = RECORDED) -> list[float]:
    """The values (n,) in ascending order, rounded to four digits; of more than `count` that many, evenly in rank."""
    chosen = np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(np.int64))
    return [round(float(value), 4) for value in np.sort(values)[chosen]]


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 0.05 to 20, with the smallest log loss of probabilities (n, classes) on labels (n,)."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        shares = calibrate(probabilities, math.exp(log_temperature))[rows, labels]
        return float(-np.log(np.maximum(shares, SMALLEST)).mean())

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return float(math.exp(found.x))


def allowed_misses(images: int, recall: float, confidence: float) -> int:
    """The most missed images of `images` with which the recall is guaranteed; -1 if no number suffices."""
    from scipy.stats import binom

    tail = binom.cdf(np.arange(images + 1), images, 1 - recall)
    return int((tail <= 1 - confidence).sum()) - 1


def images_needed(recall: float, confidence: float) -> int:
    """The fewest images of a class with which a recall can be guaranteed, none of them missed."""
    return math.ceil(math.log1p(-confidence) / math.log(recall) - 1e-9)


def read_costs(file: str | os.PathLike[str], classes: list[str]) -> np.ndarray:
    """Read a cost matrix.

    The first row of the CSV has an empty cell and the predicted classes; each other row a true class and the cost of
    each prediction for it, 0 or more. A last column `unsure` is the cost of handing an image to a person.

    Parameters
    ----------
    file : str or path
        The file.
    classes : list of str
        The classes of the run.

    Returns
    -------
    ndarray
        (classes, classes), or (classes, classes + 1) with `unsure`; float64, in the order of `classes`.

    Raises
    ------
    AlexNetError
        If it cannot be read, or a class or a cost is missing, doubled, unknown or no number.
    """
    try:
        rows = [row for row in csv.reader(Path(file).read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    except (OSError, ValueError) as error:
        raise AlexNetError(f"{file} can't be read: {error}") from error
    if not rows:
        raise AlexNetError(f"{file} is empty: the first row names the predicted classes")
    columns, names = [cell.strip() for cell in rows[0][1:]], [row[0].strip() for row in rows[1:]]
    with_unsure = UNSURE_COLUMN not in classes and UNSURE_COLUMN in columns
    wanted = [*classes, UNSURE_COLUMN] if with_unsure else list(classes)
    for found, expected, place in ((columns, wanted, "columns"), (names, list(classes), "rows")):
        if sorted(found) != sorted(expected):
            raise AlexNetError(f"the {place} of {file} are {', '.join(found)}; they must be {', '.join(expected)}")
    matrix = np.empty((len(classes), len(wanted)))
    for name, row in zip(names, rows[1:], strict=True):
        if len(row) != len(rows[0]):
            raise AlexNetError(f"{file}, row {name!r}: {len(row) - 1} costs for {len(columns)} columns")
        for column, cell in zip(columns, row[1:], strict=True):
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if not 0 <= value < math.inf:
                raise AlexNetError(f"{file}, row {name!r}, column {column!r}: {cell!r} is no cost (a number from 0)")
            matrix[classes.index(name), wanted.index(column)] = value
    return matrix


def mean_cost(costs: np.ndarray, labels: np.ndarray, decided: np.ndarray, kind: np.ndarray) -> float | None:
    """The mean cost of decisions; images that are unsure or unknown cost what the column `unsure` says.

    None if no image has a cost: without that column, only images that were answered count.
    """
    classes = len(costs)
    has_unsure = costs.shape[1] > classes
    column = np.where(kind == 0, decided, classes)
    counted = np.ones(len(labels), dtype=bool) if has_unsure else kind == 0
    return float(costs[labels[counted], column[counted]].mean()) if counted.any() else None


def _check_shares(recall: Mapping[str, float], unsure: float, unknown_rate: float | None, confidence: float) -> None:
    values = [(f"recall of {name}", value) for name, value in recall.items()]
    values += [("unknown rate", unknown_rate)] if unknown_rate is not None else []
    for name, value in [*values, ("confidence", confidence)]:
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value:g}; it must be above 0 and below 1")
    if not 0 <= unsure < 1:
        raise UsageError(f"unsure is {unsure:g}; it is a share of the images, 0 to below 1")


def _check_split(dataset: PreparedDataset, split: Split) -> None:
    if not len(split):
        raise AlexNetError(f"split {split.name!r} of {dataset.path} has no images")
    if split.name == "train":  # also of another dataset: the run may be that of a fold, or of a part of this one
        raise AlexNetError(
            f"split 'train' of {dataset.path} may have the images that the run was trained on: a guarantee from them "
            "would be wrong; use --split val or --split test"
        )


def _outputs(classifier: Classifier, split: Split, views: int) -> tuple[np.ndarray, np.ndarray]:
    shares, features = [], []
    with progress(len(split), f"predict {split.name}") as bar:
        for _, images in split.batches(np.arange(len(split)), BATCH_SIZE):
            batch = classifier.probabilities_and_features(images, views)
            shares.append(batch[0])
            features.append(batch[1])
            bar.advance(len(images))
    return np.concatenate(shares), np.concatenate(features)


def _recall_thresholds(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    recall: Mapping[str, float],
    confidence: float,
    temperature: float,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The threshold and the guarantee of each class. Several guarantees share the risk (Bonferroni)."""
    odds = log_odds(np.log(np.maximum(probabilities, SMALLEST)) / temperature)
    thresholds, guarantees = {}, []
    each = 1 - (1 - confidence) / max(1, len(recall))
    for name, wished in recall.items():
        column = classes.index(name)
        scores = np.sort(odds[labels == column, column])
        allowed = allowed_misses(len(scores), wished, each)
        if allowed < 0:
            raise AlexNetError(
                f"a recall of {wished:.4g} of {name!r} can't be guaranteed with {confidence:.4g} confidence from "
                f"{len(scores):,} images of that class: {images_needed(wished, each):,} are needed; add images to the "
                "split, or lower --recall or --confidence"
            )
        # A little below the score of the image, which must reach its own threshold after the conversion and back, and
        # where another batch size or engine rounds it otherwise.
        score = float(scores[allowed]) - ROUNDING * max(1.0, abs(float(scores[allowed])))
        thresholds[name] = 1 / (1 + math.exp(-max(-700.0, min(700.0, score))))
        guarantees.append(
            {"class": name, "recall": wished, "confidence": confidence, "images": len(scores), "allowed": allowed}
        )
    return thresholds, guarantees


def _distance(
    classifier: Classifier, dataset: PreparedDataset, known: np.ndarray, method: str, rate: float
) -> FeatureDistance:
    """The distance whose limit at most a share `rate` of known images exceeds (conformal quantile)."""
    rank = math.ceil((len(known) + 1) * (1 - rate) - 1e-9)
    if rank > len(known):
        raise AlexNetError(
            f"an unknown rate of {rate:g} needs {math.ceil(1 / rate - 1 - 1e-9):,} images, the split has "
            f"{len(known):,}: add images, or raise --unknown-rate"
        )
    train = dataset.split("train")
    if not len(train):
        raise AlexNetError(f"{dataset.path} has no training images: *unknown* is a distance from them")
    chosen = np.unique(np.linspace(0, len(train) - 1, REFERENCE_IMAGES).round().astype(np.int64))
    features = []
    with progress(len(chosen), "features of training images") as bar:
        for _, images in train.batches(chosen, BATCH_SIZE):
            features.append(classifier.probabilities_and_features(images)[1])
            bar.advance(len(images))
    distance = fit_distance(np.concatenate(features), train.labels[chosen], method)
    limit = float(np.sort(distance(known))[rank - 1]) * (1 + ROUNDING)
    return dataclasses.replace(distance, limit=limit)


def fit_distance(features: np.ndarray, labels: np.ndarray, method: str) -> FeatureDistance:
    """The distance from training images, by their features (n, units) and labels (n,), without a limit."""
    from sklearn.decomposition import PCA

    features = features.astype(np.float64)
    unit_length = method == "neighbors"
    if unit_length:
        features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    centered = features
    if method == "mahalanobis":
        means = {c: features[labels == c].mean(axis=0) for c in np.unique(labels)}
        centered = features - np.stack([means[c] for c in labels])
    center = features.mean(axis=0)
    dimensions = min(DIMENSIONS, features.shape[1], max(1, len(features) - 1))
    pca = PCA(dimensions, svd_solver="randomized" if min(features.shape) > DIMENSIONS else "full", random_state=0)
    pca.fit(centered)
    projection = pca.components_.T
    if method == "mahalanobis":
        spread = np.sqrt(pca.explained_variance_)
        projection = projection / np.maximum(spread, 1e-3 * max(float(spread.max()), 1e-12))
        references, neighbors = (np.stack(list(means.values())) - center) @ projection, 1
    else:
        references, neighbors = (features - center) @ projection, NEIGHBORS
    center, projection, references = (array.astype(np.float32) for array in (center, projection, references))
    return FeatureDistance(method, center, projection, references, neighbors, unit_length)


def _sentences(rule: DecisionRule, run: Run, split: Split) -> list[str]:
    record = rule.record
    lines = [f"Decided on {len(split):,} images: {split.name} of {record['data']}.", *describe_decision(rule)]
    lines.append(
        f"Expected calibration error: {record['calibration_error_before']:.2%} before, "
        f"{record['calibration_error_after']:.2%} after (on the same images)."
    )
    for row in record["guarantees"]:
        lines.append(
            f"Recall of “{row['class']}” at least {row['recall']:.4g} with {row['confidence']:.4g} confidence: at most "
            f"{row['allowed']:,} of {row['images']:,} images decided as another class."
        )
    if record.get("expected_cost") is not None:
        lines.append(f"Mean cost: {record['expected_cost']:.4g} per image (on the same images).")
    shares = record["shares"]
    lines.append(f"Unsure: {shares['unsure']:.2%} of these images; unknown: {shares['unknown']:.2%}.")
    recipe = run.config.recipe
    if split.name == "val" and (recipe.keep == "best" or recipe.schedule == "plateau"):
        lines.append(
            "The training chose its weights or its learning rate on this split: the guarantee is approximate. "
            "For an exact one use images that the training has not seen, such as --split test."
        )
    return lines
