"""Winograd's convolutions against direct ones in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from alexnet.kernels.winograd import WinogradConv, can_transform, transforms


@pytest.mark.parametrize("size", [3, 5])
def test_the_transforms_compute_a_correlation(size) -> None:
    data, kernel = torch.randn(6, dtype=torch.float64), torch.randn(size, dtype=torch.float64)
    inputs, weights, outputs = (torch.tensor(matrix, dtype=torch.float64) for matrix in transforms(size))
    expected = torch.stack([(data[start : start + size] * kernel).sum() for start in range(7 - size)])
    torch.testing.assert_close(outputs @ ((weights @ kernel) * (inputs @ data)), expected)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("size", "padding", "groups", "height", "width"),
    [(3, 1, 1, 11, 11), (3, 0, 2, 13, 9), (3, 1, 2, 8, 14), (5, 2, 1, 9, 12), (5, 0, 1, 10, 10)],
)
@torch.inference_mode()
def test_outputs_are_those_of_a_direct_convolution(size, padding, groups, height, width, relu) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 128, size, padding=padding, groups=groups)
    x = torch.randn(3, 128, height, width).to(memory_format=torch.channels_last)
    assert can_transform(conv, x)
    weight, bias = conv.weight.double(), conv.bias.double()
    expected = functional.conv2d(x.double(), weight, bias, padding=padding, groups=groups)
    got = WinogradConv(conv, relu=relu)(x)
    error = got.double() - (functional.relu(expected) if relu else expected)
    assert error.abs().max() < 1e-5 * expected.abs().max()


@torch.inference_mode()
def test_a_large_batch_is_computed_in_parts(monkeypatch) -> None:
    conv, x = nn.Conv2d(64, 64, 3), torch.randn(5, 64, 10, 10)
    whole = WinogradConv(conv, relu=False)(x)
    monkeypatch.setattr("alexnet.kernels.winograd._BYTES", 1)
    torch.testing.assert_close(WinogradConv(conv, relu=False)(x), whole, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_not_a_number_stays_in_sight() -> None:
    conv, x = nn.Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 10, 10)
    x[1, 3, 4, 4] = float("nan")
    got = WinogradConv(conv, relu=True)(x)
    assert got[1, :, 3:6, 3:6].isnan().all()
    assert got[0].isfinite().all()


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv2d(64, 64, 3), (1, 64, 10, 10)),  # one image
        (nn.Conv2d(64, 64, 3), (2, 64, 4, 4)),  # most of a tile would be empty
        (nn.Conv2d(64, 64, 3, stride=2), (2, 64, 10, 10)),
        (nn.Conv2d(64, 64, 3, dilation=2), (2, 64, 10, 10)),
        (nn.Conv2d(64, 64, (3, 5)), (2, 64, 10, 10)),
        (nn.Conv2d(64, 64, 7), (2, 64, 20, 20)),
        (nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"), (2, 64, 10, 10)),
        (nn.Conv2d(96, 256, 5, groups=2), (2, 96, 20, 20)),  # few channels in a group
        (nn.Conv2d(64, 60, 3), (2, 64, 10, 10)),
    ],
)
def test_what_it_can_not_compute_faster_it_leaves(conv, shape) -> None:
    assert not can_transform(conv, torch.zeros(shape))
