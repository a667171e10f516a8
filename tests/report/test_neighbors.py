"""The figure of nearest images."""

import numpy as np

from alexnet.report import neighbors


def test_labels_that_differ_are_red() -> None:
    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    figure = neighbors.nearest_images(images, ["cat"], images[None].repeat(2, 1), [["cat", "dog"]])
    colors = {text.get_text(): text.get_color() for text in figure.axes[0].texts[2:]}
    assert colors["dog"] == neighbors.RED
    assert len(figure.axes[0].images) == 3
