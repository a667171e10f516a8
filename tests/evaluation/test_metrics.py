"""Metrics against counts done by hand, and against scikit-learn where the package does not use it itself."""

import dataclasses
import doctest
import math
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics

from alexnet.evaluation import metrics
from alexnet.evaluation.intervals import class_intervals, cost_interval
from alexnet.evaluation.metrics import Predictions, register_metric
from alexnet.runtime.errors import AlexNetError, UsageError


def random_predictions(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Predictions]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.3), n)
    labels = np.where(rng.random(n) < 0.5, probabilities.argmax(1), rng.integers(0, classes, n))
    return probabilities, labels, Predictions.from_probabilities(probabilities, labels)


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_accuracies_and_log_loss_are_scikit_learns(classes: int) -> None:
    probabilities, labels, predictions = random_predictions(500, classes)
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
        assert metrics.accuracy(random_predictions(50, classes)[2], 5) == 1.0


def test_the_confusion_matrix_and_the_metrics_of_each_class_are_counts_done_by_hand() -> None:
    probabilities, labels, predictions = random_predictions(300, 6)
    every = range(6)
    predicted = probabilities.argmax(1)
    counts = np.array([[np.sum((labels == true) & (predicted == guess)) for guess in every] for true in every])
    matrix = metrics.confusion_matrix(predictions, 6)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, counts)
    hits, precision, recall = counts.diagonal(), counts.diagonal() / counts.sum(0), counts.diagonal() / counts.sum(1)
    rows = metrics.per_class(predictions, 6)
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    np.testing.assert_allclose([row["f1"] for row in rows], 2 * hits / (counts.sum(0) + counts.sum(1)))
    np.testing.assert_array_equal([row["support"] for row in rows], counts.sum(1))
    top5 = [np.mean([label in np.argsort(-p)[:5] for p in probabilities[labels == label]]) for label in every]
    np.testing.assert_allclose([row["top5_accuracy"] for row in rows], top5)
    assert metrics.balanced_accuracy(predictions, 6) == pytest.approx(recall.mean())


def test_the_confused_cells_are_those_of_the_matrix_most_images_first() -> None:
    predictions = random_predictions(300, 6)[2]
    matrix = metrics.confusion_matrix(predictions, 6)
    np.fill_diagonal(matrix, 0)
    cells = metrics.confused_cells(predictions, 6)
    again = np.zeros((6, 6), dtype=np.int64)
    again[cells[:, 0], cells[:, 1]] = cells[:, 2]
    np.testing.assert_array_equal(again, matrix)
    keys = [(-images, true, predicted) for true, predicted, images in cells.tolist()]
    assert keys == sorted(keys)
    assert len(keys) == np.count_nonzero(matrix)


def test_the_most_probable_of_many_classes_are_ranked_as_sorting_ranks_them() -> None:
    probabilities = np.random.default_rng(1).integers(0, 4, (50, 300)) / 600  # many are equal
    predictions = Predictions.from_probabilities(probabilities, np.zeros(50))
    np.testing.assert_array_equal(predictions.ranked, np.argsort(-probabilities, axis=1, kind="stable")[:, :5])
    np.testing.assert_array_equal(
        predictions.ranked_probabilities, np.take_along_axis(probabilities, predictions.ranked, axis=1)
    )


def test_undefined_metrics_are_none() -> None:
    predictions = Predictions.from_probabilities(np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 1]))
    never_predicted, absent = metrics.per_class(predictions, 3)[1:]
    assert (never_predicted["precision"], never_predicted["recall"]) == (None, 0.0)
    assert absent == {"support": 0, "precision": None, "recall": None, "f1": None, "top5_accuracy": None}


def test_equal_probabilities_rank_in_the_order_of_the_classes() -> None:
    predictions = Predictions.from_probabilities(np.full((3, 8), 1 / 8), np.array([0, 4, 5]))
    np.testing.assert_array_equal(predictions.ranked, [[0, 1, 2, 3, 4]] * 3)
    assert metrics.accuracy(predictions, 1) == pytest.approx(1 / 3)
    assert metrics.accuracy(predictions, 5) == pytest.approx(2 / 3)


def test_an_impossible_image_has_a_finite_log_loss() -> None:
    predictions = Predictions.from_probabilities(np.array([[1.0, 0.0]]), np.array([1]))
    assert 700 < metrics.log_loss(predictions) < 710


def test_concatenated_parts_are_the_whole() -> None:
    probabilities, labels, whole = random_predictions(100, 4)
    parts = [Predictions.from_probabilities(probabilities[a:b], labels[a:b]) for a, b in ((0, 64), (64, 100))]
    joined = Predictions.concatenate(parts)
    assert len(joined) == 100
    np.testing.assert_array_equal(joined.ranked, whole.ranked)
    np.testing.assert_array_equal(joined.label_probability, whole.label_probability)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (5, 10), (580, 656), (12, 12)])
def test_the_interval_is_wilsons_formula(correct: int, n: int) -> None:
    """Wilson 1927: center ± half width, with the 97.5% quantile z of the normal distribution."""
    p, z = correct / n, 1.959963984540054
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert metrics.wilson_interval(p, n) == pytest.approx((max(0.0, center - half), min(1.0, center + half)), abs=1e-9)


@pytest.mark.parametrize("positive", [0, 1])
def test_roc_auc_is_the_chance_that_a_positive_scores_above_a_negative(positive: int) -> None:
    _, labels, predictions = random_predictions(200, 2, seed=3)
    score, is_positive = metrics.binary_scores(predictions, positive)
    np.testing.assert_array_equal(is_positive, labels == positive)
    pairs = score[is_positive][:, None] - score[~is_positive][None, :]
    assert metrics.roc_auc(score, is_positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_roc_auc_of_one_class_is_none() -> None:
    assert metrics.roc_auc(np.array([0.2, 0.4]), np.array([True, True])) is None


def test_scores_keep_the_digits_of_a_small_probability() -> None:
    predictions = Predictions.from_probabilities(np.array([[1.0, 1e-30], [1e-30, 1.0]]), np.array([0, 0]))
    np.testing.assert_array_equal(metrics.binary_scores(predictions, 1)[0], [1e-30, 1.0])
    np.testing.assert_array_equal(metrics.binary_scores(predictions, 0)[0], [1.0, 1e-30])


def coarse(n: int = 400, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties."""
    rng = np.random.default_rng(seed)
    is_positive = rng.random(n) < 0.3
    return np.round(np.clip(0.35 * is_positive + rng.random(n) * 0.65, 0, 1), 2), is_positive


def test_the_curve_is_counts_done_by_hand_at_every_distinct_score() -> None:
    score, is_positive = coarse()
    rows = metrics.threshold_curve(score, is_positive, points=10_000)
    np.testing.assert_array_equal([row["threshold"] for row in rows], np.unique(score))
    for row in rows:
        flagged = score >= row["threshold"]
        assert row["precision"] == pytest.approx(np.mean(is_positive[flagged]))
        assert row["recall"] == pytest.approx(np.mean(flagged[is_positive]))
        assert row["false_positive_rate"] == pytest.approx(np.mean(flagged[~is_positive]))


def test_without_negatives_the_false_positive_rate_is_undefined() -> None:
    rows = metrics.threshold_curve(np.array([0.2, 0.4]), np.array([True, True]))
    assert rows == [
        {"threshold": 0.2, "precision": 1.0, "recall": 1.0, "false_positive_rate": None},
        {"threshold": 0.4, "precision": 1.0, "recall": 0.5, "false_positive_rate": None},
    ]


def test_a_reduced_curve_keeps_its_ends_and_its_order() -> None:
    score, is_positive = np.random.default_rng(0).random(5000), np.arange(5000) % 3 == 0
    rows = metrics.threshold_curve(score, is_positive)
    assert len(rows) == metrics.CURVE_POINTS
    assert rows[0]["recall"] == 1.0
    assert (rows[0]["threshold"], rows[-1]["threshold"]) == (score.min(), score.max())
    assert all(a["threshold"] < b["threshold"] for a, b in pairwise(rows))


@pytest.mark.parametrize("recall", [0.01, 0.5, 0.8, 0.95, 1.0])
def test_the_threshold_for_a_recall_is_the_highest_that_reaches_it(recall: float) -> None:
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
    with pytest.raises(AlexNetError, match="no images of the positive class"):
        metrics.threshold_for_recall(np.array([0.1]), np.array([False]), 0.5)
    assert metrics.threshold_curve(np.array([0.1]), np.array([False])) == []


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics registered in a test are forgotten after it."""
    monkeypatch.setattr(metrics, "_registry", {})


@pytest.mark.usefixtures("registry")
def test_the_example_of_the_documentation_runs() -> None:
    assert doctest.testmod(metrics).failed == 0
    assert list(metrics.registered_metrics()) == ["macro_f1"]


@pytest.mark.usefixtures("registry")
def test_a_registered_metric_gets_labels_and_probabilities() -> None:
    register_metric("brier", lambda labels, p: np.mean((p - np.eye(p.shape[1])[labels]) ** 2))
    labels, probabilities = np.array([0, 1]), np.array([[1.0, 0.0], [0.5, 0.5]])
    assert metrics.compute_registered(labels, probabilities) == {"brier": pytest.approx(0.125)}


@pytest.mark.usefixtures("registry")
def test_a_metric_that_fails_is_named() -> None:
    register_metric("broken", lambda labels, probabilities: probabilities.no_such_attribute)
    with pytest.raises(AlexNetError, match=r"metric 'broken' failed: AttributeError: .*no_such_attribute"):
        metrics.compute_registered(np.array([0]), np.array([[1.0]]))


@pytest.mark.parametrize(("name", "function"), [("", len), ("name", 3)])
@pytest.mark.usefixtures("registry")
def test_a_metric_needs_a_name_and_a_function(name: str, function: object) -> None:
    with pytest.raises(UsageError, match="metric"):
        register_metric(name, function)  # type: ignore[arg-type]


def test_weighted_metrics_are_those_of_repeated_images() -> None:
    probabilities, labels, _ = random_predictions(60, 3)
    weights = np.random.default_rng(1).integers(0, 4, 60)
    weighted = dataclasses.replace(Predictions.from_probabilities(probabilities, labels), weights=weights.astype(float))
    repeated = Predictions.from_probabilities(probabilities.repeat(weights, 0), labels.repeat(weights))
    assert metrics.accuracy(weighted) == pytest.approx(metrics.accuracy(repeated))
    assert metrics.log_loss(weighted) == pytest.approx(metrics.log_loss(repeated))
    assert metrics.macro(weighted, 3) == pytest.approx(metrics.macro(repeated, 3))
    for one, other in zip(metrics.per_class(weighted, 3), metrics.per_class(repeated, 3), strict=True):
        for name in ("precision", "recall", "f1", "top5_accuracy"):
            assert one[name] == pytest.approx(other[name])


def test_macro_averages_are_those_of_scikit_learn() -> None:
    _, labels, predictions = random_predictions(80, 4)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions.predicted, average="macro")
    assert list(metrics.macro(predictions, 4).values()) == pytest.approx(list(expected[:3]))


def _drawn(rng: np.random.Generator, table: np.ndarray, images: int) -> Predictions:
    """Predictions of images whose cells of the confusion matrix are drawn from a table of probabilities."""
    cells = rng.choice(table.size, size=images, p=table.ravel())
    labels, predicted = np.divmod(cells, len(table))
    return Predictions.from_probabilities(np.eye(len(table))[predicted], labels)


@pytest.mark.parametrize(
    ("table", "images"),
    [
        ([[0.30, 0.05, 0.05], [0.05, 0.25, 0.05], [0.02, 0.03, 0.20]], 150),
        # Nearly all are correct, and most samples have no mistake: resamples of them have none either.
        ([[0.497, 0.003], [0.002, 0.498]], 120),
        ([[0.94, 0.01], [0.002, 0.048]], 150),
    ],
)
def test_the_intervals_hold_at_least_as_often_as_they_say(table: list[list[float]], images: int) -> None:
    """95% intervals of samples of a population, against the values of the population."""
    rng, cells = np.random.default_rng(0), np.array(table)
    classes, costs = len(cells), 10 * np.triu(np.ones_like(cells), 1) + np.tril(np.ones_like(cells), -1)
    of_population = metrics.precision_recall_f1(*np.divmod(np.arange(cells.size), classes), cells.ravel(), classes)
    truth = {**metrics.macro_averages(of_population), "f1": of_population[2][1], "cost": (costs * cells).sum()}
    held: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(150):
        drawn = _drawn(rng, cells, images)
        found = class_intervals(drawn, classes, resamples=200)
        cost = cost_interval(costs, costs[drawn.labels, drawn.predicted], drawn.labels, resamples=200)
        for name, interval in {**found.macro, "f1": found.f1[1], "cost": cost}.items():
            assert interval is not None
            held[name].append(interval[0] <= truth[name] <= interval[1])
    for name, of_samples in held.items():
        assert np.mean(of_samples) >= 0.92, name


def test_an_interval_of_perfect_predictions_has_a_width() -> None:
    labels = np.repeat([0, 1], [50, 10])
    found = class_intervals(Predictions.from_probabilities(np.eye(2)[labels], labels), 2)
    for n, interval in ((50, found.f1[0]), (10, found.f1[1])):
        share = n / (n + 1.959963984540054**2)  # the lower end of Wilson's interval of n of n
        assert interval == pytest.approx((2 * share / (1 + share), 1))
    distances = [1 - interval[0] for interval in found.f1 if interval]
    assert found.macro["macro_f1"] == pytest.approx((1 - math.hypot(*distances) / 2, 1))
    # No defective image was missed: of ten, a share of 28% may still be missed in the long run.
    low, high = cost_interval(np.array([[0.0, 1.0], [100.0, 0.0]]), np.zeros(60), labels)
    missed, mistaken = metrics.wilson_interval(0, 10)[1], metrics.wilson_interval(0, 50)[1]
    assert (low, high) == pytest.approx((0, math.hypot(100 * missed * 10 / 60, mistaken * 50 / 60)))
    assert cost_interval(np.full((2, 2), 3.0), np.full(60, 3.0), labels) == (3, 3)


def test_a_class_that_was_only_predicted_has_an_interval_and_an_absent_class_none() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    f1 = class_intervals(Predictions.from_probabilities(np.eye(4)[predicted], labels), 4).f1
    assert f1[2] == pytest.approx((0, 2 * 0.79345 / 1.79345), abs=1e-4)
    assert f1[3] is None


def test_intervals_of_weighted_images_are_those_of_their_effective_number() -> None:
    rng = np.random.default_rng(1)
    table = np.array([[0.45, 0.05], [0.1, 0.4]])
    plain = _drawn(rng, table, 200)
    costs, each = 1 - np.eye(2), (~plain.correct).astype(float)
    same = np.full(200, 2.5)
    weighted = dataclasses.replace(plain, weights=same)
    assert class_intervals(weighted, 2).f1 == [pytest.approx(interval) for interval in class_intervals(plain, 2).f1]
    assert class_intervals(weighted, 2).macro == {
        name: pytest.approx(interval) for name, interval in class_intervals(plain, 2).macro.items()
    }
    assert cost_interval(costs, each, plain.labels, same) == pytest.approx(cost_interval(costs, each, plain.labels))
    # Ten images that have nearly all the weight say less than two hundred.
    heavy = dataclasses.replace(plain, weights=np.where(np.arange(200) % 20, 1e-3, 1.0))
    for name, (low, high) in class_intervals(heavy, 2).macro.items():
        assert high - low > 3 * np.subtract(*class_intervals(plain, 2).macro[name][::-1])
