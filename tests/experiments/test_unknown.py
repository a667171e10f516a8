"""Scores of unknown images, and their table."""

import numpy as np
import pytest

from alexnet.experiments.unknown import METHODS, figure, scores, summary


def images(rng: np.random.Generator, means: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, features and labels of images whose features lie around the means of their classes."""
    labels = np.arange(count) % len(means)
    features = (means[labels] + rng.normal(size=(count, means.shape[1]))).astype(np.float32)
    odds = -((features[:, None] - means) ** 2).sum(2) / 50
    shares = np.exp(odds - odds.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True), features, labels


@pytest.fixture(scope="module")
def trial() -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, 30)) * 3
    train, known = images(rng, means[:3], 300), images(rng, means[:3], 200)
    _, far, _ = images(rng, means[3:], 150)
    odds = -((far[:, None] - means[:3]) ** 2).sum(2) / 50
    shares = np.exp(odds - odds.max(1, keepdims=True))
    return scores(known[:2], (shares / shares.sum(1, keepdims=True), far), train[1:])


def test_a_class_far_from_the_others_has_a_large_area(trial: dict[str, dict[str, float]]) -> None:
    assert trial["auroc"]["neighbors"] > 0.95
    assert trial["auroc"]["mahalanobis"] > 0.95
    assert trial["recognized"]["neighbors"] > 0.7
    assert 0.5 < trial["auroc"]["softmax"] <= 1


def test_images_like_the_known_ones_are_not_told_apart() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(size=(3, 30)) * 3
    train, known, others = (images(rng, means, count) for count in (300, 300, 300))
    found = scores(known[:2], others[:2], train[1:])
    assert all(0.4 < found["auroc"][method] < 0.6 for method in METHODS)
    assert all(found["recognized"][method] < 0.15 for method in METHODS)


def test_the_table_has_the_mean_over_the_networks(trial: dict[str, dict[str, float]]) -> None:
    values = {**trial, "known_images": 200, "unknown_images": 150, "accuracy": 0.9}
    worse = {**values, "auroc": dict.fromkeys(METHODS, 0.5)}
    (row,) = summary({"solar/other/1": values, "solar/other/2": worse})
    assert (row["known"], row["unknown"], row["networks"]) == ("solar", "other", 2)
    assert row["auroc"]["softmax"]["mean"] == pytest.approx((trial["auroc"]["softmax"] + 0.5) / 2)
    assert figure([row]).axes[0].get_xlabel() == "Area under the ROC curve of unknown"
