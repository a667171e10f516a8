"""The figures of an evaluation against scikit-learn's numbers for the same predictions."""

import dataclasses
import re

import numpy as np
import pytest
import sklearn.metrics

from alexnet import Evaluation, UsageError
from alexnet.evaluation import metrics
from alexnet.evaluation.metrics import Predictions
from alexnet.report import metric_figures


@pytest.fixture(scope="module")
def many(evaluation: Evaluation) -> Evaluation:
    """The predictions of a mediocre network on 2,000 images of six classes, one of them rare."""
    rng = np.random.default_rng(5)
    labels = rng.choice(6, 2000, p=[0.3, 0.3, 0.2, 0.1, 0.09, 0.01])
    logits = rng.normal(0, 1, (2000, 6))
    logits[np.arange(2000), labels] += 1.5
    shares = np.exp(2 * logits)
    shares /= shares.sum(1, keepdims=True)
    return dataclasses.replace(
        evaluation,
        classes=list("abcdef"),
        positive=None,
        recall=None,
        predictions=Predictions.from_probabilities(shares, labels),
    )


@pytest.fixture(scope="module")
def two(evaluation: Evaluation) -> Evaluation:
    """The predictions of a mediocre network on 400 images of two classes; the recall wanted of the second is 0.9."""
    rng = np.random.default_rng(6)
    labels = (rng.random(400) < 0.3).astype(int)
    score = 1 / (1 + np.exp(-rng.normal(2 * labels - 1.3, 1.2)))
    predictions = Predictions.from_probabilities(np.stack([1 - score, score], 1), labels)
    return dataclasses.replace(evaluation, positive=1, recall=0.9, predictions=predictions)


def test_the_numbers_of_the_confusion_matrix_are_sklearns(many: Evaluation) -> None:
    (axes,) = metric_figures.confusion_matrix(many).axes
    drawn = np.zeros((6, 6), dtype=int)
    for text in axes.texts:
        column, row = (int(x) for x in text.get_position())
        drawn[row, column] = int(text.get_text().replace(",", ""))
    expected = sklearn.metrics.confusion_matrix(many.predictions.labels, many.predictions.ranked[:, 0])
    np.testing.assert_array_equal(drawn, expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcdef")


def test_a_confusion_matrix_of_many_classes_is_an_image_without_numbers(many: Evaluation) -> None:
    predictions = many.predictions
    wide = dataclasses.replace(many, classes=[f"class {c}" for c in range(60)], predictions=predictions)
    (axes,) = metric_figures.confusion_matrix(wide).axes
    assert not axes.texts
    shares = np.asarray(axes.images[0].get_array())[..., 3] ** 2
    assert shares[:6, :6].sum() == pytest.approx(6)
    assert not shares[6:].any()


def test_ten_thousand_classes_are_drawn_in_groups_and_stored_without_their_matrix(many: Evaluation) -> None:
    rng = np.random.default_rng(2)
    labels, predicted = rng.integers(0, 10_000, (2, 500))
    ranked = np.stack([predicted, *[(predicted + step) % 10_000 for step in range(1, 5)]], axis=1)
    predictions = Predictions(labels, ranked, np.full((500, 5), 0.2), np.full(500, 0.1))
    classes = [f"class {number}" for number in range(10_000)]
    large = dataclasses.replace(many, classes=classes, predictions=predictions)
    (axes,) = metric_figures.confusion_matrix(large).axes
    drawn = np.asarray(axes.images[0].get_array())[..., 3]
    assert drawn.shape == (1000, 1000)
    expected = np.zeros((1000, 1000), dtype=bool)
    expected[labels // 10, predicted // 10] = True
    np.testing.assert_array_equal(drawn > 0, expected)
    stored = large.to_dict()
    assert stored["confusion_matrix"] is None
    assert sum(images for _, _, images in stored["confused"]) == int((labels != predicted).sum())


def test_each_class_has_sklearns_recall_and_precision(many: Evaluation) -> None:
    (axes,) = metric_figures.per_class(many).axes
    precision, recall, _, counts = sklearn.metrics.precision_recall_fscore_support(
        many.predictions.labels, many.predictions.ranked[:, 0]
    )
    order = np.argsort(recall, kind="stable")
    names = [f"{'abcdef'[c]} ({counts[c]:,})" for c in order]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    dots = {marker: [line.get_xdata()[0] for line in axes.lines if line.get_marker() == marker] for marker in "oD"}
    np.testing.assert_allclose(dots["o"], recall[order])
    np.testing.assert_allclose(dots["D"], precision[order])


def test_the_roc_curve_is_sklearns(two: Evaluation) -> None:
    (axes,) = metric_figures.roc_curve(two).axes
    score, is_positive = metrics.binary_scores(two.predictions, 1)
    false_positive_rates, recalls, _ = sklearn.metrics.roc_curve(is_positive, score, drop_intermediate=False)
    curve = axes.lines[1]
    np.testing.assert_allclose(curve.get_xdata()[::-1], false_positive_rates)
    np.testing.assert_allclose(curve.get_ydata()[::-1], recalls)
    assert f"{sklearn.metrics.roc_auc_score(is_positive, score):.3f}" in axes.get_title(loc="left")


def test_precision_and_recall_are_sklearns(two: Evaluation) -> None:
    (axes,) = metric_figures.precision_recall_curve(two).axes
    score, is_positive = metrics.binary_scores(two.predictions, 1)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(is_positive, score)
    curve = axes.lines[1]
    np.testing.assert_allclose(curve.get_xdata(), recall[:-1])
    np.testing.assert_allclose(curve.get_ydata(), precision[:-1])


def test_the_default_and_the_chosen_threshold_are_marked(two: Evaluation) -> None:
    default, chosen = metric_figures.chosen_thresholds(two)
    score, is_positive = metrics.binary_scores(two.predictions, 1)
    assert default["recall"] == sklearn.metrics.recall_score(is_positive, score >= 0.5)
    assert default["precision"] == sklearn.metrics.precision_score(is_positive, score >= 0.5)
    assert chosen["recall"] >= 0.9
    assert sklearn.metrics.recall_score(is_positive, score > chosen["threshold"]) < 0.9
    (axes,) = metric_figures.roc_curve(two).axes
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert marks == [(row["false_positive_rate"], row["recall"]) for row in (default, chosen)]
    assert [bool(re.search("chosen", text.get_text())) for text in axes.texts] == [False, True]


def test_thresholds_need_two_classes(many: Evaluation) -> None:
    with pytest.raises(UsageError, match="two classes; these are 6"):
        metric_figures.roc_curve(many)


def test_without_positive_images_the_roc_plot_has_no_curve(two: Evaluation) -> None:
    predictions = Predictions.from_probabilities(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    (axes,) = metric_figures.roc_curve(dataclasses.replace(two, predictions=predictions)).axes
    assert "undefined" in axes.get_title(loc="left")


def test_calibration_follows_its_definition(many: Evaluation) -> None:
    predictions = many.predictions
    confidence = predictions.ranked_probabilities[:, 0]
    correct = predictions.ranked[:, 0] == predictions.labels
    error = 0.0
    bins = metrics.calibration_bins(predictions)
    for number, found in enumerate(bins):
        inside = (confidence > number / 10) & (confidence <= (number + 1) / 10)
        assert found.count == inside.sum()
        if inside.any():
            assert found.confidence == pytest.approx(confidence[inside].mean())
            assert found.accuracy == pytest.approx(correct[inside].mean())
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
        else:
            assert (found.confidence, found.accuracy) == (None, None)
    assert metrics.calibration_error(bins) == pytest.approx(error)
    upper, lower = metric_figures.reliability_diagram(many).axes
    dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in upper.lines if line.get_marker() == "o"]
    assert dots == [(b.confidence, b.accuracy) for b in bins if b.count]
    assert [bar.get_height() for bar in lower.patches] == [b.count for b in bins]
