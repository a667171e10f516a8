"""Pooling in machine code against torch's."""

import pytest
import torch
from torch.nn import functional

from alexnet.kernels.pool import can_pool, max_pool

SHAPES = [(2, 96, 55, 55), (3, 48, 28, 31), (1, 256, 13, 13), (2, 16, 6, 3)]


def maps(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Values of which many are equal, and many negative."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return ((values * 2).round() / 2).to(dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_torchs(shape, relu, ceil, dtype) -> None:
    x = maps(shape, dtype)
    assert can_pool(x)
    ours, theirs = x.clone().requires_grad_(), x.float().requires_grad_()
    pooled = max_pool(ours, relu=relu, ceil=ceil)
    expected = functional.max_pool2d(functional.relu(theirs) if relu else theirs, 3, 2, ceil_mode=ceil)
    assert torch.equal(pooled.float(), expected)
    grad = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    pooled.backward(grad)
    expected.backward(grad.float())
    tolerance = 1e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(ours.grad.float(), theirs.grad, rtol=tolerance, atol=1e-6)


def test_not_a_number_stays_in_sight() -> None:
    x = maps((1, 16, 7, 7), torch.float32)
    x[0, 3, 2, 2] = float("nan")
    theirs = functional.max_pool2d(x, 3, 2)
    assert torch.equal(max_pool(x).isnan(), theirs.isnan())
    assert max_pool(x, relu=True).isnan().sum() == theirs.isnan().sum() > 0


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 16, 8, 8),  # one image's maps, contiguous
        torch.zeros(2, 17, 8, 8).to(memory_format=torch.channels_last),
        torch.zeros(2, 16, 2, 8).to(memory_format=torch.channels_last),
        torch.zeros(2, 16, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last),
    ],
)
def test_what_it_can_not_pool_it_does_not_take(x) -> None:
    assert not can_pool(x)
