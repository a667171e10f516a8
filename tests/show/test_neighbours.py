"""The figure of neighbours."""

import numpy as np

from alexnet.show import neighbours


def test_labels_that_differ_are_red() -> None:
    pictures = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    figure = neighbours.neighbours(pictures, ["cat"], pictures[None].repeat(2, 1), [["cat", "dog"]])
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts[2:]}
    assert colours["dog"] == neighbours.RED
    assert len(figure.axes[0].images) == 3
