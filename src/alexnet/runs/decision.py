"""The decision rule of a run: from class probabilities to a class, *unsure* or *unknown*.

`alexnet decide` finds the rule and stores it in the run folder: `decision.json`, and `decision.safetensors` where it
has a distance in feature space. What answers with the run applies it in this order:

1. The probabilities are calibrated with a temperature T: p^(1/T), normalized (Guo et al. 2017).
2. The class is that of the least expected cost, or the one that reaches its threshold, or the most probable one.
3. *Unsure*: the margin to another decision is too small, or several thresholded classes reach their thresholds.
4. *Unknown*: the features of the image are farther from the training images than a limit.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

FILE = "decision.json"
ARRAYS = "decision.safetensors"
FORMAT_VERSION = 1
CLASS, UNSURE, UNKNOWN = KINDS = ("class", "unsure", "unknown")
"""Kinds of a decision: a class, or one of the two answers that hand the image to a person."""
DISTANCE_METHODS = ("neighbors", "mahalanobis")
"""How an image's distance from the training images is measured, see `FeatureDistance`."""
SMALLEST = np.finfo(np.float64).tiny
_BLOCK = 256  # images whose distances to the references are computed at once


def to_unit_length(features: np.ndarray) -> np.ndarray:
    """Features (n, units), each divided by its length."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class FeatureDistance:
    """The distance of an image from the training images, in the features that the output layer reads.

    The features are normalized to length 1 (`unit_length`), projected, and compared with reference points: the distance
    is the Euclidean one to the `neighbors`-th nearest of them. With the training images as references it is the
    distance of Sun et al. (2022, https://arxiv.org/abs/2204.06507); with the means of the classes, and a projection
    that whitens the features within the classes, the Mahalanobis distance of Lee et al. (2018,
    https://arxiv.org/abs/1807.03888).

    Parameters
    ----------
    method : {"neighbors", "mahalanobis"}
        How the references were made.
    center : ndarray
        (units,) float32, subtracted from the features.
    projection : ndarray
        (units, dimensions) float32.
    references : ndarray
        (references, dimensions) float32.
    neighbors : int
        Which nearest reference counts, 1 for the nearest.
    unit_length : bool
        Whether the features are divided by their length first.
    limit : float
        Images at a larger distance are unknown.
    """

    method: str
    center: np.ndarray
    projection: np.ndarray
    references: np.ndarray
    neighbors: int
    unit_length: bool
    limit: float = math.inf

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The distances (n,) float64 of features (n, units) float32."""
        blocks = range(0, len(features), _BLOCK)
        return np.concatenate([np.empty(0), *(self._distances(features[i : i + _BLOCK]) for i in blocks)])

    def _distances(self, features: np.ndarray) -> np.ndarray:
        if self.unit_length:
            features = to_unit_length(features)
        points = ((features - self.center) @ self.projection).astype(np.float64)
        references = self.references.astype(np.float64)
        products = points @ references.T
        squares = (points**2).sum(1)[:, None] - 2 * products + (references**2).sum(1)
        k = min(self.neighbors, len(references)) - 1
        return np.sqrt(np.maximum(np.partition(squares, k, axis=1)[:, k], 0))


@dataclass(frozen=True)
class Decisions:
    """The decisions on n images.

    Parameters
    ----------
    kind : ndarray
        (n,) int64, index of `KINDS`: 0 class, 1 unsure, 2 unknown.
    label : ndarray
        (n,) int64, index of the class; where the kind is not "class", the one that would be decided, which with costs
        or thresholds is not always the most probable one.
    probabilities : ndarray
        (n, classes) float64, calibrated.
    margin : ndarray
        (n,) float64, the distance from the nearest other decision: in log odds, or with costs in units of cost.
    distance : ndarray or None
        (n,) float64, the distance in feature space; None without one.
    """

    kind: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray
    margin: np.ndarray
    distance: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def answered(self) -> np.ndarray:
        """(n,) bool, whether the decision is a class."""
        return self.kind == 0

    @property
    def confidence(self) -> np.ndarray:
        """(n,) float64, the calibrated probability of `label`."""
        return self.probabilities[np.arange(len(self)), self.label]


@dataclass(frozen=True)
class DecisionRule:
    """How a run decides.

    Parameters
    ----------
    classes : tuple of str
        Class names, in the order of the network's outputs.
    temperature : float
        Above 0; 1 leaves the probabilities as they are.
    thresholds : mapping of str to float
        For some classes a threshold t, 0 to 1. A class is decided if p / (p + q) ≥ t, where p is its probability and q
        the largest probability of another class; of two classes that is p ≥ t. If no class reaches its threshold, the
        decision is the most probable class without one; if there is none, or several classes reach theirs, *unsure*.
    costs : ndarray or None
        (classes, classes) float64, the cost of each predicted class (column) for each true class (row), or
        (classes, classes + 1) with the cost of *unsure* in the last column. The decision has the least expected cost.
        Excludes thresholds.
    unsure_below : float
        The decision is *unsure* where the margin to another one is smaller. The margin is a difference of log odds;
        with costs, of expected costs.
    distance : FeatureDistance or None
        Images beyond its limit are *unknown*.
    views : int
        Number of test views with which the rule was found.
    weights : str
        SHA-256 of the network's weights (`alexnet.runs.run.checksum_of`).
    record : mapping
        How the rule was found: data, split, measurements and guarantees (JSON-able).
    """

    classes: tuple[str, ...]
    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    costs: np.ndarray | None = None
    unsure_below: float = 0.0
    distance: FeatureDistance | None = None
    views: int = 1
    weights: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, probabilities: np.ndarray, features: np.ndarray | None = None) -> Decisions:
        """Decide on images.

        Parameters
        ----------
        probabilities : ndarray
            (n, classes), the softmax averaged over `views` views.
        features : ndarray or None
            (n, units) float32, the input of the output layer for the center crop; needed where the rule has a distance.

        Returns
        -------
        Decisions
        """
        calibrated = calibrate(probabilities, self.temperature)
        if self.costs is not None:
            label, margin, unsure = _least_cost(calibrated, self.costs)
        else:
            log = np.log(np.maximum(probabilities, SMALLEST)) / self.temperature
            label, margin, unsure = _thresholded(log, {self.classes.index(c): t for c, t in self.thresholds.items()})
        kind = np.where(unsure | (margin < self.unsure_below), 1, 0)
        distance = None
        if self.distance is not None:
            if features is None:
                raise ValueError("the rule has a distance: it needs the features of the images")
            distance = self.distance(features)
            kind = np.where(distance > self.distance.limit, 2, kind)
        return Decisions(kind, label, calibrated, margin, distance)

    def to_dict(self) -> dict[str, Any]:
        """The values of `decision.json`; the arrays of the distance are beside it."""
        distance = self.distance and {
            "method": self.distance.method,
            "limit": self.distance.limit,
            "neighbors": self.distance.neighbors,
            "unit_length": self.distance.unit_length,
        }
        return {
            "format_version": FORMAT_VERSION,
            "weights": self.weights,
            "views": self.views,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "thresholds": dict(self.thresholds),
            "costs": None if self.costs is None else self.costs.tolist(),
            "unsure_below": self.unsure_below,
            "distance": distance,
            "record": dict(self.record),
        }

    def to_json(self) -> str:
        """The content of `decision.json`, without values that are null: OpenCV's reader of JSON does not take them."""
        return json.dumps(_without_none(self._values()), indent=1, ensure_ascii=False) + "\n"

    def save(self, folder: Path) -> None:
        """Write the rule into a folder, in place of the one that is there.

        Raises
        ------
        AlexNetError
            If a file can't be written.
        """
        try:
            # decision.json is written last: it names the checksum of the arrays beside it.
            if self.distance is not None:
                write_atomic(folder / ARRAYS, self._arrays())
            write_atomic(folder / FILE, self.to_json().encode())
            if self.distance is None:
                (folder / ARRAYS).unlink(missing_ok=True)
        except OSError as error:
            raise AlexNetError(f"{folder / FILE} can't be written: {error.strerror or error}") from error

    def _arrays(self) -> bytes:
        """The content of `decision.safetensors`."""
        assert self.distance is not None
        arrays = {name: getattr(self.distance, name) for name in ("center", "projection", "references")}
        return to_safetensors({name: np.ascontiguousarray(value) for name, value in arrays.items()})

    def _values(self) -> dict[str, Any]:
        values = self.to_dict()
        if self.distance is not None:
            values["distance"]["checksum"] = _sha256(self._arrays())
        return values

    @classmethod
    def load(cls, folder: Path) -> DecisionRule | None:
        """Read the rule of a run folder or of an export; None if it has none.

        The weights are not compared: `alexnet.runs.run.Run.decision_rule` does.

        Raises
        ------
        AlexNetError
            If the files are damaged, or of another format.
        """
        file = folder / FILE
        command = f"`alexnet decide {shlex.quote(str(folder))} --data DATA`"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise AlexNetError(f"{file} can't be read ({error}): run {command} again, or remove it") from error
        if values.get("format_version") != FORMAT_VERSION:
            raise AlexNetError(
                f"{file} has format {values.get('format_version')}, this version reads {FORMAT_VERSION}: "
                f"run {command} again"
            )
        try:
            costs, distance = values.get("costs"), values.get("distance")
            return cls(
                classes=tuple(values["classes"]),
                temperature=float(values["temperature"]),
                thresholds=values["thresholds"],
                costs=None if costs is None else np.array(costs, dtype=np.float64),
                unsure_below=float(values["unsure_below"]),
                distance=distance and _read_distance(folder / ARRAYS, distance),
                views=int(values["views"]),
                weights=values["weights"],
                record=values["record"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AlexNetError(f"{file} is damaged ({error!r}): run {command} again, or remove it") from error


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) with a temperature: p^(1/T), normalized; of softmax outputs, softmax(logits / T)."""
    log = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    powers = np.exp(log - log.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def log_odds(log_probabilities: np.ndarray) -> np.ndarray:
    """For each class its log probability minus the largest of another class: (n, classes) → (n, classes)."""
    n, classes = log_probabilities.shape
    if classes < 2:
        return np.full((n, classes), np.inf)
    order = np.argsort(-log_probabilities, axis=1, kind="stable")
    best, second = order[:, :1], order[:, 1:2]
    strongest = np.take_along_axis(log_probabilities, best, axis=1).repeat(classes, axis=1)
    np.put_along_axis(strongest, best, np.take_along_axis(log_probabilities, second, axis=1), axis=1)
    return log_probabilities - strongest


def logit(share: float) -> float:
    """ln(t / (1 − t)); −inf for 0 and inf for 1."""
    return -math.inf if share <= 0 else math.inf if share >= 1 else math.log(share / (1 - share))


def describe_decision(rule: DecisionRule) -> list[str]:
    """The rule as sentences for people."""
    lines = [f"Probabilities are calibrated with temperature {rule.temperature:.3g}."]
    if rule.costs is not None:
        lines.append("The decision has the least expected cost.")
    for name, threshold in rule.thresholds.items():
        against = "" if len(rule.classes) == 2 else ", against the strongest other class"
        lines.append(f"“{name}” is decided from a probability of {threshold:.4g}{against}.")
    if rule.unsure_below > 0:
        unit = "of expected cost" if rule.costs is not None else "in log odds"
        lines.append(f"Unsure below a margin of {rule.unsure_below:.4g} {unit}.")
    if rule.distance is not None:
        lines.append(f"Unknown beyond a distance of {rule.distance.limit:.4g} ({rule.distance.method}).")
    return lines


def describe_guarantees(rule: DecisionRule) -> list[str]:
    """The guarantees that were given when the rule was found, a sentence each; none without one."""
    lines = []
    for row in rule.record.get("guarantees", []):
        if "recall" in row:
            what = f"Recall of “{row['class']}” at least {row['recall']:.4g} with {row['confidence']:.4g} confidence"
            found = f"at most {row['allowed']:,} of {row['images']:,} images decided as another class"
        else:
            if "precision" in row:
                what = f"Precision of “{row['class']}” at least {row['precision']:.4g}"
                which = (
                    f"images decided as it are of another class; it holds where “{row['class']}” is as frequent as here"
                )
            else:
                what = f"Accuracy among the answered at least {row['accuracy']:.4g}"
                which = "answered images are wrong"
            what += f" with {row['confidence']:.4g} confidence"
            what += ", before *unknown* is applied" if rule.distance is not None else ""
            found = f"{row['errors']:,} of {row['images']:,} {which}"
        lines.append(f"{what}: {found}.")
    return lines


def _least_cost(probabilities: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class of the least expected cost, its distance from the next decision, and whether that is *unsure*."""
    expected = probabilities @ costs
    classes = probabilities.shape[1]
    label = expected[:, :classes].argmin(axis=1)
    ordered = np.sort(expected, axis=1)
    margin = ordered[:, 1] - ordered[:, 0]
    return label, margin, expected.argmin(axis=1) == classes


def _thresholded(log: np.ndarray, thresholds: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class that reaches its threshold, the margin, and whether that is undecided; see `DecisionRule`."""
    odds = log_odds(log)
    likely = log.argmax(axis=1)
    if not thresholds:
        return likely, odds.max(axis=1), np.zeros(len(log), dtype=bool)
    named = list(thresholds)
    above = odds[:, named] - np.array([logit(thresholds[c]) for c in named])
    reached = above >= 0
    count = reached.sum(axis=1)
    others = [c for c in range(log.shape[1]) if c not in thresholds]
    label, margin = likely.copy(), np.abs(above).min(axis=1)
    if others:
        rest = log[:, others]
        none = count == 0
        label[none] = np.array(others)[rest.argmax(axis=1)][none]
        if len(others) > 1:
            gap = log_odds(rest).max(axis=1)
            margin = np.where(none, np.minimum(margin, gap), margin)
    one = count == 1
    label[one] = np.array(named)[reached.argmax(axis=1)][one]
    return label, margin, (count > 1) | ((count == 0) & (not others))


def _read_distance(file: Path, values: Mapping[str, Any]) -> FeatureDistance:
    try:
        content = file.read_bytes()
        arrays = from_safetensors(content)
    except (OSError, SafetensorError) as error:
        raise AlexNetError(f"{file} can't be read ({error}): run `alexnet decide` again") from error
    if values["checksum"] != _sha256(content):
        raise AlexNetError(f"{file} is not the file of {FILE} beside it: run `alexnet decide` again")
    return FeatureDistance(
        method=values["method"],
        center=arrays["center"],
        projection=arrays["projection"],
        references=arrays["references"],
        neighbors=values["neighbors"],
        unit_length=values["unit_length"],
        limit=values["limit"],
    )


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return values


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
