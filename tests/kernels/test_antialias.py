"""Scaling of crops in machine code against torch's."""

import pytest
import torch
from torch.nn import functional

from alexnet.kernels.antialias import can_scale, scaled


@pytest.mark.parametrize(("height", "side"), [(244, 195), (244, 131), (64, 63), (37, 16), (20, 41), (16, 1), (17, 5)])
def test_values_are_torchs(height, side) -> None:
    images = torch.randn(3, 3, height, height, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    assert can_scale(images)
    expected = functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    got = scaled(images, side)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 20, 20),
        torch.zeros(2, 3, 20, 21).to(memory_format=torch.channels_last),
        torch.zeros(2, 4, 20, 20).to(memory_format=torch.channels_last),
        torch.zeros(2, 3, 20, 20, dtype=torch.bfloat16).to(memory_format=torch.channels_last),
        torch.zeros(2, 3, 20, 20).to(memory_format=torch.channels_last).requires_grad_(),
    ],
)
def test_what_it_can_not_scale_it_leaves(images) -> None:
    assert not can_scale(images)
