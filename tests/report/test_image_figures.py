"""Which images are shown, and what is drawn beside them."""

import numpy as np

from alexnet import Evaluation
from alexnet.evaluation.metrics import Predictions
from alexnet.report import image_figures


def test_the_most_confident_mistakes_come_first() -> None:
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.01, 0.99], [0.7, 0.3], [0.2, 0.8]])
    predictions = Predictions.from_probabilities(shares, np.array([1, 0, 0, 0, 1]))
    np.testing.assert_array_equal(image_figures.most_confident_mistakes(predictions, 10), [2, 0, 1])
    np.testing.assert_array_equal(image_figures.most_confident_mistakes(predictions, 1), [2])


def test_images_are_selected_from_all_classes_in_turn() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [3] * 10)
    predictions = Predictions.from_probabilities(np.full((22, 4), 0.25), labels)
    chosen = image_figures.spread_over_classes(predictions, 8)
    np.testing.assert_array_equal(labels[chosen], [0, 1, 3, 0, 1, 3, 0, 3])
    assert len(set(chosen.tolist())) == 8
    assert len(image_figures.spread_over_classes(predictions, 2)) == 2
    assert len(image_figures.spread_over_classes(predictions, 100)) == 22


def test_bars_are_the_probabilities_and_the_correct_class_is_blue(evaluation: Evaluation) -> None:
    indices = np.array([0, 13])
    figure = image_figures.top_five(evaluation, indices)
    (axes,) = figure.axes
    assert len(axes.images) == 2
    bars = axes.patches[1::2]  # each bar follows its background
    lengths = [bar.get_width() / image_figures.SIDE for bar in bars]
    np.testing.assert_allclose(lengths, evaluation.predictions.ranked_probabilities[indices].ravel())
    right = (evaluation.predictions.ranked[indices] == evaluation.predictions.labels[indices, None]).ravel()
    from matplotlib.colors import to_hex

    assert [to_hex(bar.get_facecolor()) == image_figures.BLUE for bar in bars] == right.tolist()
    titles = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert titles == [evaluation.classes[evaluation.predictions.labels[i]] for i in indices]


def test_without_mistakes_the_figure_is_empty(evaluation: Evaluation) -> None:
    import dataclasses

    perfect = Predictions.from_probabilities(np.eye(2), np.array([0, 1]))
    figure = image_figures.mistakes(dataclasses.replace(evaluation, predictions=perfect))
    assert not figure.axes[0].images
