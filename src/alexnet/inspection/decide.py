"""Find the decision rule of a run, a baseline or an average on labeled images that the training has not seen.

The guarantee for a recall is exact for any network and any distribution, and accounts for the choice of the threshold:
of n images of a class, the threshold is the (k + 1)-th smallest score, where k is the largest number for which
P(Binomial(n, 1 − recall) ≤ k) ≤ 1 − confidence. Then the recall is at least the wished one with that confidence
(Wilks 1941, "Determination of sample sizes for setting tolerance limits"; for conformal prediction Vovk 2012,
https://arxiv.org/abs/1209.2673). The score is the log odds of the class against the strongest other one, whose order
does not depend on the temperature: what is fitted on the same images does not weaken the guarantee.

The guarantees for a precision, and for the accuracy among the images that are answered, try limits of the log odds that
are fixed in advance, and take the lowest one whose binomial test rejects a lower share, at a level that is divided by
the number of limits (Angelopoulos et al. 2021, "Learn then test", https://arxiv.org/abs/2110.01052).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation import metrics
from alexnet.evaluation.costs import mean_cost, read_costs
from alexnet.evaluation.ensemble import members_of
from alexnet.evaluation.evaluate import check_compatible
from alexnet.evaluation.metrics import Predictions
from alexnet.prediction.classifier import Classifier
from alexnet.prediction.ensemble import BaselineClassifier, EnsembleClassifier, load_classifier
from alexnet.runs.decision import (
    DISTANCE_METHODS,
    KINDS,
    SMALLEST,
    DecisionRule,
    FeatureDistance,
    calibrate,
    describe_decision,
    describe_guarantees,
    log_odds,
    to_unit_length,
)
from alexnet.runs.recipe import Recipe
from alexnet.runs.run import dataset_checksum
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
LIMITS = np.arange(0, 10, 0.25)
"""Limits of the log odds, without a temperature, that are tried for a precision or an accuracy."""
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
    precision: Mapping[str, float] | None = None,
    accuracy: float | None = None,
    costs: str | os.PathLike[str] | None = None,
    unsure: float = 0.0,
    unknown_rate: float | None = None,
    unknown_method: str = "neighbors",
    confidence: float = 0.9,
    views: int = 1,
    device: str | None = None,
) -> DecisionReport:
    """Find a decision rule and store it in the folder of what decides, in place of an earlier one.

    Parameters
    ----------
    run : str or path
        A run folder, a baseline, or a folder of `alexnet crossval` or `ensemble`, whose mean decides.
    data : str, path or PreparedDataset
        The prepared dataset.
    split : str
        The split whose images decide; "train" is refused.
    recall : mapping of str to float, optional
        For classes the share of their images, above 0 and below 1, that must not be decided as another class.
    precision : mapping of str to float, optional
        For classes the share, above 0 and below 1, of the images decided as the class that must be of it. It holds for
        images with the same shares of the classes.
    accuracy : float, optional
        The accuracy, above 0 and below 1, among the images that are answered with a class; the others are *unsure*.
        Excludes `unsure`.
    costs : str or path, optional
        A CSV file, see `alexnet.evaluation.costs.read_costs`. One of `recall`, `precision`, `accuracy` and `costs` can
        be given.
    unsure : float
        Share of the images, 0 to below 1, with the smallest margin that become *unsure*.
    unknown_rate : float, optional
        Share of known images, above 0 and below 1, that may be rejected as *unknown*, by the features of the network,
        of several the first. Default: none is.
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
    recall, precision = dict(recall or {}), dict(precision or {})
    _check_shares(recall, precision, accuracy, unsure, unknown_rate, confidence)
    check_choice(unknown_method, DISTANCE_METHODS, "unknown method")
    aims = {"--recall": recall, "--precision": precision, "--accuracy": accuracy, "--costs": costs}
    if len(given := [name for name, aim in aims.items() if aim]) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: the threshold follows from one of them")
    if accuracy is not None and unsure:
        raise UsageError("--accuracy and --unsure exclude each other: both say which images are unsure")
    folder = Path(run)
    classifier = load_classifier(folder, device=device, raw=True)
    if unknown_rate is not None and not _recipes(classifier):
        raise UsageError(f"{folder} has no network, whose features tell what is unknown: leave out --unknown-rate")
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    for path, member in zip(members_of(folder), _members(classifier), strict=True):
        check_compatible(_Decider(path, member.config), dataset, "nothing can be decided on it")
    chosen = dataset.split(split)
    _check_split(dataset, chosen)
    for name in (*recall, *precision):
        check_choice(name, dataset.classes, "class")
    if len(dataset.classes) < 2:
        raise AlexNetError(f"{folder} has one class: there is nothing to decide")
    matrix = None if costs is None else read_costs(costs, dataset.classes)
    views = classifier.choose_views(views)
    probabilities, features = _predicted(classifier, chosen, views, with_features=unknown_rate is not None)

    temperature = fit_temperature(probabilities, chosen.labels)
    before, after = (
        metrics.calibration_error(metrics.calibration_bins(Predictions.from_probabilities(shares, chosen.labels)))
        for shares in (probabilities, calibrate(probabilities, temperature))
    )
    thresholds, guarantees = _recall_thresholds(
        probabilities, chosen.labels, dataset.classes, recall, confidence, temperature
    )
    if precision:
        thresholds, guarantees = _precision_thresholds(
            probabilities, chosen.labels, dataset.classes, precision, confidence, temperature
        )
    rule = DecisionRule(tuple(dataset.classes), temperature, thresholds, matrix)
    unsure_below = 0.0
    if accuracy is not None:
        unsure_below, guarantee = _accuracy_margin(probabilities, chosen.labels, accuracy, confidence, temperature)
        guarantees = [guarantee]
    if unsure:
        margins = np.sort(rule.apply(probabilities).margin)
        limit = float(margins[int(unsure * len(margins))])
        unsure_below = max(0.0, limit - ROUNDING * max(1.0, limit))
    distance = None
    if unknown_rate is not None and features is not None:
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
    rule = dataclasses.replace(rule, weights=classifier.checksum(), record=record)
    rule.save(folder)
    return DecisionReport(rule, _sentences(rule, _recipes(classifier), chosen))


@dataclass(frozen=True)
class _Decider:
    """A member of what decides: its folder, and its config, which describes the dataset of the training."""

    path: Path
    config: Any


def _members(classifier: Classifier) -> Sequence[Classifier]:
    return classifier.members if isinstance(classifier, EnsembleClassifier) else [classifier]


def _recipes(classifier: Classifier) -> list[Recipe]:
    """The recipes of the networks that decide."""
    return [member.config.recipe for member in _members(classifier) if not isinstance(member, BaselineClassifier)]


def _predicted(
    classifier: Classifier, split: Split, views: int, with_features: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities (n, classes) of the images of a split, and their features where a distance needs them."""
    every, title, parts = np.arange(len(split)), f"predict {split.name}", []
    if with_features:
        return outputs(classifier, split, every, title, views)
    with progress(len(split), title) as bar:
        for _, images in split.batches(every, BATCH_SIZE):
            parts.append(classifier.probabilities(images, views))
            bar.advance(len(images))
    return np.concatenate(parts), None


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


def _check_shares(
    recall: Mapping[str, float],
    precision: Mapping[str, float],
    accuracy: float | None,
    unsure: float,
    unknown_rate: float | None,
    confidence: float,
) -> None:
    values = [(f"recall of {name}", value) for name, value in recall.items()]
    values += [(f"precision of {name}", value) for name, value in precision.items()]
    optional = {"accuracy": accuracy, "unknown rate": unknown_rate}
    values += [(name, value) for name, value in optional.items() if value is not None]
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


def outputs(
    classifier: Classifier, split: Split, indices: np.ndarray, title: str, views: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) and features (n, units) of images of a split, under a progress bar with a title."""
    parts = []
    with progress(len(indices), title) as bar:
        for _, images in split.batches(indices, BATCH_SIZE):
            parts.append(classifier.probabilities_and_features(images, views))
            bar.advance(len(images))
    shares, features = zip(*parts, strict=True)
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
        # Also where another batch size or engine rounds the score of this image otherwise.
        score = float(scores[allowed])
        thresholds[name] = _as_threshold(score - ROUNDING * max(1.0, abs(score)))
        guarantees.append(
            {"class": name, "recall": wished, "confidence": confidence, "images": len(scores), "allowed": allowed}
        )
    return thresholds, guarantees


def _as_threshold(score: float) -> float:
    """The threshold of log odds; a little below, since an image must reach its own after the conversion and back."""
    score -= 1e-9 * max(1.0, abs(score))
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, score))))


def _precision_thresholds(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    precision: Mapping[str, float],
    confidence: float,
    temperature: float,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The threshold and the guarantee of each class. Several guarantees share the risk (Bonferroni)."""
    odds = log_odds(np.log(np.maximum(probabilities, SMALLEST)))
    thresholds, guarantees = {}, []
    each = 1 - (1 - confidence) / len(precision)
    for name, wished in precision.items():
        column = classes.index(name)
        found = _lowest_limit(odds[:, column], labels == column, wished, each)
        if isinstance(found, str):
            raise AlexNetError(
                f"a precision of {wished:.4g} of {name!r} can't be guaranteed with {confidence:.4g} confidence: "
                f"{found}; add images to the split, or lower --precision or --confidence"
            )
        limit, images, errors = found
        thresholds[name] = _as_threshold(limit / temperature)
        guarantees.append(
            {"class": name, "precision": wished, "confidence": confidence, "images": images, "errors": errors}
        )
    return thresholds, guarantees


def _accuracy_margin(
    probabilities: np.ndarray, labels: np.ndarray, accuracy: float, confidence: float, temperature: float
) -> tuple[float, dict[str, Any]]:
    """The margin from which images are answered, and the guarantee of their accuracy."""
    odds = log_odds(np.log(np.maximum(probabilities, SMALLEST)))
    found = _lowest_limit(odds.max(axis=1), probabilities.argmax(axis=1) == labels, accuracy, confidence)
    if isinstance(found, str):
        raise AlexNetError(
            f"an accuracy of {accuracy:.4g} among the answered can't be guaranteed with {confidence:.4g} confidence: "
            f"{found}; add images to the split, or lower --accuracy or --confidence"
        )
    limit, images, errors = found
    guarantee = {"accuracy": accuracy, "confidence": confidence, "images": images, "errors": errors}
    return max(0.0, limit / temperature - 1e-9), guarantee


def _lowest_limit(
    scores: np.ndarray, correct: np.ndarray, share: float, confidence: float
) -> tuple[float, int, int] | str:
    """The lowest of `LIMITS` above which a share of correct images is guaranteed, their number and that of the errors.

    A text that says how near it comes, if there is none.
    """
    from scipy.stats import binom

    each = (1 - confidence) / len(LIMITS)
    best, smallest = "no image is decided so", 2.0
    for limit in LIMITS:
        above = scores >= limit
        images, hits = int(above.sum()), int(correct[above].sum())
        if not images:
            break
        p_value = float(binom.sf(hits - 1, images, share))
        if p_value <= each:
            return float(limit), images, images - hits
        if p_value < smallest:
            best = f"of the {images:,} images with log odds of {limit:g} or more, {images - hits:,} are wrong"
            smallest = p_value
    needed = images_needed(share, 1 - each)
    return f"{best}; without an error, {needed:,} images are needed"


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
    chosen = reference_images(train)
    _, features = outputs(classifier, train, chosen, "features of training images")
    distance = fit_distance(features, train.labels[chosen], method)
    limit = float(np.sort(distance(known))[rank - 1]) * (1 + ROUNDING)
    return dataclasses.replace(distance, limit=limit)


def reference_images(train: Split) -> np.ndarray:
    """Positions of the training images that distances are measured from: all, or `REFERENCE_IMAGES` at equal steps."""
    return np.unique(np.linspace(0, len(train) - 1, REFERENCE_IMAGES).round().astype(np.int64))


def fit_distance(features: np.ndarray, labels: np.ndarray, method: str) -> FeatureDistance:
    """The distance from training images, by their features (n, units) and labels (n,), without a limit."""
    from sklearn.decomposition import PCA

    features = features.astype(np.float64)
    unit_length = method == "neighbors"
    if unit_length:
        features = to_unit_length(features)
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


def _sentences(rule: DecisionRule, recipes: Sequence[Recipe], split: Split) -> list[str]:
    record = rule.record
    lines = [f"Decided on {len(split):,} images: {split.name} of {record['data']}.", *describe_decision(rule)]
    lines.append(
        f"Expected calibration error: {record['calibration_error_before']:.2%} before, "
        f"{record['calibration_error_after']:.2%} after (on the same images)."
    )
    lines += describe_guarantees(rule)
    if record.get("expected_cost") is not None:
        lines.append(f"Mean cost: {record['expected_cost']:.4g} per image (on the same images).")
    shares = record["shares"]
    lines.append(f"Unsure: {shares['unsure']:.2%} of these images; unknown: {shares['unknown']:.2%}.")
    if split.name == "val" and any(recipe.keep == "best" or recipe.schedule == "plateau" for recipe in recipes):
        lines.append(
            "The training chose its weights or its learning rate on this split: the guarantee is approximate. "
            "For an exact one use images that the training has not seen, such as --split test."
        )
    return lines
