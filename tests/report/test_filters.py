"""Kernels and feature maps: each in its place."""

import numpy as np
import pytest
import torch

from alexnet import AlexNet, UsageError
from alexnet.network.model import towers_of
from alexnet.report import filters
from alexnet.report.mosaic import colored, mosaic, overlay


@pytest.fixture(scope="module")
def network() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet("paper", 2).eval()


def test_the_first_tower_is_above_the_second(network: AlexNet) -> None:
    figure = filters.first_layer_kernels(network)
    assert len(figure.axes) == 2
    weight = network.conv1.weight.detach().permute(0, 2, 3, 1).numpy()
    for axes, first in zip(figure.axes, (0, 48), strict=True):
        image = np.asarray(axes.images[0].get_array())
        # Kernel 17 of a tower is the second of the second row; each pixel of it is 4 × 4, with a gap of 4.
        tile = image[48 : 48 + 44 : 4, 48 : 48 + 44 : 4, :3]
        kernel = weight[first + 17]
        expected = 127.5 * (1 + kernel / np.abs(kernel).max())
        np.testing.assert_allclose(tile, expected, atol=0.51)
        assert not image[:, 44:48, 3].any()


def test_a_network_without_towers_has_one_block() -> None:
    with torch.device("meta"):
        shape = AlexNet("one-weird-trick", 2)
    assert towers_of(shape) == 1
    shape.to_empty(device="cpu").initialize("he")
    (axes,) = filters.first_layer_kernels(shape).axes
    assert "64 kernels of 11×11×3" in axes.get_title(loc="left")


def test_feature_maps_are_those_of_the_layer(network: AlexNet) -> None:
    inputs = torch.randn(1, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    figure = filters.feature_maps(network, inputs, "conv1")
    maps = network.features(inputs, "conv1")[0].detach().numpy()
    side = maps.shape[1]
    first, second = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    enlarge = round(640 / 16 / side)
    for image, number in ((first, 0), (second, 48)):
        expected = colored(maps[number] / maps[number].max())
        np.testing.assert_array_equal(image[: side * enlarge : enlarge, : side * enlarge : enlarge, :3], expected)


def test_a_fully_connected_layer_is_a_square_of_units(network: AlexNet) -> None:
    inputs = torch.randn(1, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    (axes,) = filters.feature_maps(network, inputs, "fc7").axes
    assert axes.images[0].get_array().shape[:2] == (64, 64)
    with pytest.raises(UsageError, match="unknown layer 'fc9'"):
        filters.feature_maps(network, inputs, "fc9")


def test_a_mosaic_has_its_tiles_in_reading_order() -> None:
    tiles = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2).repeat(3, 3)
    whole = mosaic(tiles, columns=3, gap=1)
    assert whole.shape == (5, 11, 4)
    assert [whole[3 * (n // 3), 4 * (n % 3), 0] for n in range(5)] == [0, 1, 2, 3, 4]
    assert whole[0, 0, 3] == 255
    assert whole[3, 8, 3] == 0  # there is no sixth tile


def test_zero_heat_leaves_the_image_in_gray() -> None:
    image = np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8)
    gray = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    np.testing.assert_array_equal(overlay(image, np.zeros((4, 4))), gray)
    assert (overlay(image, np.ones((4, 4)))[..., 0] > 200).all()
