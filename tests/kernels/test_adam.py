"""The update of AdamW in machine code against that of PyTorch."""

import pytest
import torch

from alexnet.kernels.adam import can_update, update
from alexnet.kernels.safe import safe_mode


def tensors(shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight, mean, square, gradient = (torch.randn(shape, generator=generator) for _ in range(4))
    made = [weight, 0.1 * mean, 0.01 * square.square(), 0.1 * gradient]
    if len(shape) == 4:
        made = [tensor.to(memory_format=torch.channels_last) for tensor in made]
    return [*made[:3], made[3].bfloat16(), torch.zeros_like(made[0], dtype=torch.bfloat16)]


@pytest.mark.parametrize("shape", [(4096,), (160, 1024), (256, 64, 3, 3)])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_it_is_the_update_of_pytorch(shape: tuple[int, ...], step: int) -> None:
    weight, mean, square, gradient, copy = tensors(shape)
    parameter = torch.nn.Parameter(weight.double())
    options = {"lr": 0.002, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.05}
    theirs = torch.optim.AdamW([parameter], **options)
    theirs.state[parameter] = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": mean.double(),
        "exp_avg_sq": square.double(),
    }
    parameter.grad = gradient.double()
    theirs.step()
    assert can_update(weight, mean, square, gradient, copy)
    update(weight, mean, square, gradient, copy, **options, step=step)
    for ours, expected in ((weight, parameter), (mean, theirs.state[parameter]["exp_avg"])):
        torch.testing.assert_close(ours.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(square.double(), theirs.state[parameter]["exp_avg_sq"], rtol=1e-5, atol=1e-9)
    assert torch.equal(copy, weight.bfloat16())


def test_what_it_can_not_update_it_does_not_take() -> None:
    weight, mean, square, gradient, copy = tensors((4096,))
    assert not can_update(weight.double(), mean, square, gradient, copy)
    assert not can_update(weight, mean, square, gradient.float(), copy)
    assert not can_update(*tensors((4097,)))
    assert not can_update(*(tensor[:, :32] for tensor in tensors((128, 64))))
    with safe_mode():
        assert not can_update(weight, mean, square, gradient, copy)
