"""The paper's rule in machine code against the formula in float64."""

import pytest
import torch

from alexnet.kernels.update import can_update, update


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(7,), (5000,), (4096 * 40 + 33,), (96, 3, 11, 11)])
def test_it_is_the_formula_to_the_last_bits(shape, half) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, velocity, gradient = (torch.randn(shape, generator=generator) for _ in range(3))
    if len(shape) == 4:
        weight, velocity, gradient = (t.to(memory_format=torch.channels_last) for t in (weight, velocity, gradient))
    gradient = gradient.bfloat16() if half else gradient
    copy = torch.zeros_like(weight, dtype=torch.bfloat16) if half else None
    expected_velocity = 0.9 * velocity.double() - 0.0005 * 0.01 * weight.double() - 0.01 * gradient.double()
    expected = weight.double() + expected_velocity
    assert can_update(weight, velocity, gradient, copy)
    update(weight, velocity, gradient, copy, momentum=0.9, decay=0.0005 * 0.01, lr=0.01)
    torch.testing.assert_close(velocity.double(), expected_velocity, rtol=0, atol=1e-6)
    torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-6)
    if copy is not None:
        assert torch.equal(copy, weight.bfloat16())


def test_what_it_can_not_update_it_does_not_take() -> None:
    w = torch.zeros(4, 4)
    assert can_update(w, w, w, None)
    assert not can_update(w.double(), w.double(), w.double(), None)
    assert not can_update(w, w, w.T.contiguous().T, None)
    assert not can_update(w[:, :2], w[:, :2], w[:, :2], None)
    assert not can_update(w, w, w.half(), None)
