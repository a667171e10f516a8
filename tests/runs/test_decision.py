"""The decision rule: calibration, thresholds, costs, unsure, unknown, and its files."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special

from alexnet.runs.decision import DecisionRule, FeatureDistance, calibrate
from alexnet.runtime.errors import AlexNetError

CLASSES = ("bad", "good", "odd")


@pytest.fixture
def probabilities() -> np.ndarray:
    return np.random.default_rng(0).dirichlet([0.7, 0.7, 0.7], size=500)


def rule(**values: object) -> DecisionRule:
    return DecisionRule(classes=CLASSES, **values)  # type: ignore[arg-type]


def test_calibration_is_the_softmax_of_the_divided_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 4)) * 5
    expected = scipy.special.softmax(logits / 2.5, axis=1)
    np.testing.assert_allclose(calibrate(scipy.special.softmax(logits, axis=1), 2.5), expected, rtol=1e-10)


def test_without_thresholds_and_costs_the_most_probable_class_is_decided(probabilities: np.ndarray) -> None:
    decided = rule(temperature=3.0).apply(probabilities)
    np.testing.assert_array_equal(decided.label, probabilities.argmax(1))
    assert decided.answered.all()


def test_a_threshold_of_two_classes_is_a_probability() -> None:
    p = np.linspace(0.001, 0.999, 999)
    decided = DecisionRule(("bad", "good"), thresholds={"bad": 0.2}).apply(np.stack([p, 1 - p], axis=1))
    np.testing.assert_array_equal(decided.label == 0, p >= 0.2 - 1e-12)


def test_the_class_that_reaches_its_threshold_is_decided_and_several_are_unsure(probabilities: np.ndarray) -> None:
    thresholds = {"bad": 0.2, "good": 0.4}
    decided = rule(thresholds=thresholds).apply(probabilities)
    for row, label, kind in zip(probabilities, decided.label, decided.kind, strict=True):
        others = [max(row[1], row[2]), max(row[0], row[2])]
        reached = [c for c in (0, 1) if row[c] / (row[c] + others[c]) >= thresholds[CLASSES[c]]]
        assert kind == (len(reached) == 2)
        if len(reached) < 2:
            assert label == (reached[0] if reached else 2)


def test_two_classes_that_both_miss_their_thresholds_are_unsure() -> None:
    shares = np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    decided = DecisionRule(("bad", "good"), thresholds={"bad": 0.8, "good": 0.8}).apply(shares)
    assert decided.kind.tolist() == [1, 0, 0]


def test_costs_decide_the_class_of_the_least_expected_cost(probabilities: np.ndarray) -> None:
    costs = np.array([[0, 10, 3], [1, 0, 2], [4, 5, 0.5]])
    decided = rule(costs=costs).apply(probabilities)
    expected = np.array([[sum(p[i] * costs[i, j] for i in range(3)) for j in range(3)] for p in probabilities])
    np.testing.assert_array_equal(decided.label, expected.argmin(1))
    ordered = np.sort(expected, axis=1)
    np.testing.assert_allclose(decided.margin, ordered[:, 1] - ordered[:, 0], atol=1e-12)


def test_a_cost_of_unsure_is_chows_rule(probabilities: np.ndarray) -> None:
    """With costs of 0 and 1 an answer is worth more than a cost d of rejection iff max p > 1 - d (Chow 1970)."""
    costs = np.concatenate([1 - np.eye(3), np.full((3, 1), 0.3)], axis=1)
    decided = rule(costs=costs).apply(probabilities)
    np.testing.assert_array_equal(decided.answered, probabilities.max(1) > 0.7)


def test_a_small_margin_is_unsure(probabilities: np.ndarray) -> None:
    decided = rule(unsure_below=math.log(2)).apply(probabilities)
    ordered = np.sort(probabilities, axis=1)
    np.testing.assert_array_equal(decided.answered, ordered[:, 2] >= 2 * ordered[:, 1])


def some_distance(neighbors: int, unit_length: bool, limit: float = math.inf) -> FeatureDistance:
    rng = np.random.default_rng(2)
    center, projection = rng.normal(size=8), rng.normal(size=(8, 5))
    center, projection, points = (a.astype(np.float32) for a in (center, projection, rng.normal(size=(20, 5))))
    return FeatureDistance("neighbors", center, projection, points, neighbors, unit_length, limit)


@pytest.mark.parametrize(("neighbors", "unit_length"), [(1, False), (4, True)])
def test_the_distance_is_that_to_the_kth_nearest_reference(neighbors: int, unit_length: bool) -> None:
    distance = some_distance(neighbors, unit_length)
    features = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    scaled = features / np.linalg.norm(features, axis=1, keepdims=True) if unit_length else features
    points = (scaled - distance.center) @ distance.projection
    every = np.sort(scipy.spatial.distance.cdist(points, distance.references), axis=1)
    np.testing.assert_allclose(distance(features), every[:, neighbors - 1], rtol=1e-4, atol=1e-4)


def test_an_image_beyond_the_limit_is_unknown(probabilities: np.ndarray) -> None:
    features = np.random.default_rng(4).normal(size=(500, 8)).astype(np.float32)
    distances = some_distance(2, False)(features)
    decided = rule(distance=some_distance(2, False, limit=float(np.median(distances)))).apply(probabilities, features)
    np.testing.assert_array_equal(decided.kind == 2, distances > np.median(distances))
    with pytest.raises(ValueError, match="features"):
        rule(distance=some_distance(2, False)).apply(probabilities)


@pytest.mark.parametrize(
    "given",
    [
        rule(temperature=1.7, thresholds={"bad": 0.05}, unsure_below=0.3, views=10, weights="ab", record={"n": 3}),
        rule(costs=np.arange(12.0).reshape(3, 4), distance=some_distance(3, True, 7.5)),
    ],
)
def test_a_saved_rule_decides_the_same(given: DecisionRule, probabilities: np.ndarray, tmp_path: Path) -> None:
    given.save(tmp_path)
    loaded = DecisionRule.load(tmp_path)
    assert loaded is not None
    features = np.random.default_rng(5).normal(size=(500, 8)).astype(np.float32)
    for name, value in dataclasses.asdict(given.apply(probabilities, features)).items():
        np.testing.assert_array_equal(getattr(loaded.apply(probabilities, features), name), value)
    assert loaded.to_dict() == given.to_dict()


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    assert DecisionRule.load(tmp_path) is None
    rule(distance=some_distance(3, True, 7.5)).save(tmp_path)
    other = rule(distance=some_distance(3, True, 8.0))
    (tmp_path / "other").mkdir()
    dataclasses.replace(other, distance=dataclasses.replace(some_distance(3, True), center=np.ones(8, "f4"))).save(
        tmp_path / "other"
    )
    content = (tmp_path / "decision.safetensors").read_bytes()
    (tmp_path / "decision.safetensors").write_bytes((tmp_path / "other/decision.safetensors").read_bytes())
    with pytest.raises(AlexNetError, match="decide"):
        DecisionRule.load(tmp_path)
    (tmp_path / "decision.safetensors").write_bytes(content[:50])
    with pytest.raises(AlexNetError, match=r"decision\.safetensors can't be read"):
        DecisionRule.load(tmp_path)
    values = json.loads((tmp_path / "decision.json").read_text(encoding="utf-8"))
    for text in ("{", json.dumps({**values, "format_version": 0}), json.dumps({"format_version": 1})):
        (tmp_path / "decision.json").write_text(text, encoding="utf-8")
        with pytest.raises(AlexNetError, match="alexnet decide"):
            DecisionRule.load(tmp_path)
