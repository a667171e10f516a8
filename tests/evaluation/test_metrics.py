"""Metrics against scikit-learn and against counts done by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics
from scipy.stats import binomtest

from alexnet.evaluation import metrics
from alexnet.evaluation.metrics import Predictions
from alexnet.runtime.errors import AlexNetError, UsageError


def some(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Predictions]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.3), n)
    labels = np.where(rng.random(n) < 0.5, probabilities.argmax(1), rng.integers(0, classes, n))
    return probabilities, labels, Predictions.of(probabilities, labels)


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_accuracies_and_log_loss_are_scikit_learns(classes: int) -> None:
    probabilities, labels, predictions = some(500, classes)
    every = range(classes)
    assert metrics.accuracy(predictions, 1) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, probabilities.argmax(1))
    )
    if classes > 5:
        top5 = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
        assert metrics.accuracy(predictions, 5) == pytest.approx(top5)
    assert metrics.log_loss(predictions) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities, labels=every), rel=1e-9
    )


def test_top5_of_five_classes_or_fewer_is_1() -> None:
    for classes in (2, 3, 5):
        assert metrics.accuracy(some(50, classes)[2], 5) == 1.0


def test_confusion_and_per_class_figures_are_scikit_learns() -> None:
    probabilities, labels, predictions = some(300, 6)
    every = range(6)
    predicted = probabilities.argmax(1)
    np.testing.assert_array_equal(
        metrics.confusion(predictions, 6), sklearn.metrics.confusion_matrix(labels, predicted, labels=every)
    )
    precision, recall, _, count = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=every)
    rows = metrics.per_class(predictions, 6)
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    np.testing.assert_allclose([row["accuracy"] for row in rows], recall)
    np.testing.assert_array_equal([row["n"] for row in rows], count)
    top5 = [np.mean([label in np.argsort(-p)[:5] for p in probabilities[labels == label]]) for label in every]
    np.testing.assert_allclose([row["top5"] for row in rows], top5)


def test_what_can_not_be_divided_is_none() -> None:
    predictions = Predictions.of(np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 1]))
    never_said, absent = metrics.per_class(predictions, 3)[1:]
    assert (never_said["precision"], never_said["recall"]) == (None, 0.0)
    assert absent == {"n": 0, "accuracy": None, "top5": None, "precision": None, "recall": None}


def test_equal_probabilities_rank_in_the_order_of_the_classes() -> None:
    predictions = Predictions.of(np.full((3, 8), 1 / 8), np.array([0, 4, 5]))
    np.testing.assert_array_equal(predictions.ranked, [[0, 1, 2, 3, 4]] * 3)
    assert metrics.accuracy(predictions, 1) == pytest.approx(1 / 3)
    assert metrics.accuracy(predictions, 5) == pytest.approx(2 / 3)


def test_an_impossible_image_has_a_finite_log_loss() -> None:
    predictions = Predictions.of(np.array([[1.0, 0.0]]), np.array([1]))
    assert 700 < metrics.log_loss(predictions) < 710


def test_joined_parts_are_the_whole() -> None:
    probabilities, labels, whole = some(100, 4)
    parts = [Predictions.of(probabilities[a:b], labels[a:b]) for a, b in ((0, 64), (64, 100))]
    joined = Predictions.joined(parts)
    assert len(joined) == 100
    np.testing.assert_array_equal(joined.ranked, whole.ranked)
    np.testing.assert_array_equal(joined.label_probability, whole.label_probability)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (5, 10), (580, 656), (12, 12)])
def test_interval_is_wilsons(right: int, n: int) -> None:
    low, high = metrics.interval(right / n, n)
    reference = binomtest(right, n).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-6)


@pytest.mark.parametrize("positive", [0, 1])
def test_roc_auc_is_the_chance_that_a_positive_scores_above_a_negative(positive: int) -> None:
    _, labels, predictions = some(200, 2, seed=3)
    score, is_positive = metrics.scores(predictions, positive)
    np.testing.assert_array_equal(is_positive, labels == positive)
    pairs = score[is_positive][:, None] - score[~is_positive][None, :]
    assert metrics.roc_auc(score, is_positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_roc_auc_of_one_class_is_none() -> None:
    assert metrics.roc_auc(np.array([0.2, 0.4]), np.array([True, True])) is None


def test_scores_keep_the_digits_of_a_small_probability() -> None:
    predictions = Predictions.of(np.array([[1.0, 1e-30], [1e-30, 1.0]]), np.array([0, 0]))
    np.testing.assert_array_equal(metrics.scores(predictions, 1)[0], [1e-30, 1.0])
    np.testing.assert_array_equal(metrics.scores(predictions, 0)[0], [1.0, 1e-30])


def coarse(n: int = 400, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties."""
    rng = np.random.default_rng(seed)
    is_positive = rng.random(n) < 0.3
    return np.round(np.clip(0.35 * is_positive + rng.random(n) * 0.65, 0, 1), 2), is_positive


def test_the_whole_curve_is_scikit_learns() -> None:
    score, is_positive = coarse()
    rows = metrics.threshold_curve(score, is_positive, points=10_000)
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(is_positive, score)
    np.testing.assert_allclose([row["threshold"] for row in rows], thresholds)
    np.testing.assert_allclose([row["precision"] for row in rows], precision[:-1])
    np.testing.assert_allclose([row["recall"] for row in rows], recall[:-1])
    for row in rows:
        alarms = np.mean(score[~is_positive] >= row["threshold"])
        assert row["false_positive_rate"] == pytest.approx(alarms)


def test_a_reduced_curve_keeps_its_ends_and_its_order() -> None:
    score, is_positive = np.random.default_rng(0).random(5000), np.arange(5000) % 3 == 0
    rows = metrics.threshold_curve(score, is_positive)
    assert len(rows) == metrics.CURVE_POINTS
    assert rows[0]["recall"] == 1.0
    assert (rows[0]["threshold"], rows[-1]["threshold"]) == (score.min(), score.max())
    assert all(a["threshold"] < b["threshold"] for a, b in pairwise(rows))


@pytest.mark.parametrize("recall", [0.01, 0.5, 0.8, 0.95, 1.0])
def test_the_threshold_for_a_wished_recall_is_the_highest_that_keeps_it(recall: float) -> None:
    score, is_positive = coarse()
    chosen = metrics.threshold_for_recall(score, is_positive, recall)
    found = {t: np.mean(score[is_positive] >= t) for t in np.unique(score)}
    assert chosen["threshold"] == max(t for t, share in found.items() if share >= recall)
    assert chosen["recall"] == pytest.approx(found[chosen["threshold"]])
    assert chosen["precision"] == pytest.approx(np.mean(is_positive[score >= chosen["threshold"]]))


def test_nineteen_of_twenty_are_a_recall_of_95_percent() -> None:
    score, is_positive = np.arange(40) / 40, np.arange(40) >= 20
    assert metrics.threshold_for_recall(score, is_positive, 0.95)["threshold"] == pytest.approx(21 / 40)


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.5, math.nan])
def test_a_recall_that_is_no_share_is_a_usage_error(recall: float) -> None:
    with pytest.raises(UsageError, match="recall"):
        metrics.threshold_for_recall(*coarse(), recall)


def test_a_recall_without_positives_is_an_error() -> None:
    with pytest.raises(AlexNetError, match="no image of the positive class"):
        metrics.threshold_for_recall(np.array([0.1]), np.array([False]), 0.5)
    assert metrics.threshold_curve(np.array([0.1]), np.array([False])) == []
