"""The update rule of the paper (section 5), fused, in Triton."""

# mypy: allow-untyped-defs
# (a type checker does not know the language of `triton.jit`)

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels.gpu_norm import element_indices

_BLOCK = 1_024  # values per program


def update(
    weight: Tensor, velocity: Tensor, gradient: Tensor, copy: Tensor | None, momentum: float, decay: float, lr: float
) -> None:
    """Apply the update to tensors on one GPU; see `alexnet.kernels.update.update`."""
    count = weight.numel()
    if count == 0:
        return
    with torch.cuda.device_of(weight):  # Triton launches on the current device
        _update_kernel[(triton.cdiv(count, _BLOCK),)](
            *(weight, velocity, gradient, weight if copy is None else copy),
            *(momentum, decay, lr, count),
            copies=copy is not None,
            block=_BLOCK,
            wide=count > 2**31 - _BLOCK,
        )


def verify(device: torch.device) -> None:
    """Compare the kernel with the plain form on `device`; raise an error if they differ."""
    from alexnet.kernels import plain

    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        weight, velocity, gradient = (torch.randn(1500, generator=generator) for _ in range(3))
        gradient = gradient.to(dtype)
        copy = torch.zeros(1500, dtype=dtype, device=device) if dtype == torch.bfloat16 else None
        fast = [tensor.to(device, copy=True) for tensor in (weight, velocity, gradient)]
        update(fast[0], fast[1], fast[2], copy, 0.9, 0.0005, 0.01)
        plain.update(weight, velocity, gradient, 0.9, 0.0005, 0.01)
        torch.testing.assert_close(fast[0].cpu(), weight, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fast[1].cpu(), velocity, rtol=1e-5, atol=1e-5)
        if copy is not None:
            torch.testing.assert_close(copy.cpu().float(), weight, rtol=2**-7, atol=1e-5)


@triton.jit
def _update_kernel(
    weight_pointer,
    velocity_pointer,
    gradient_pointer,
    copy_pointer,
    momentum,
    decay,
    lr,
    count,
    copies: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index = element_indices(block, wide)
    inside = index < count
    weight = tl.load(weight_pointer + index, mask=inside, other=0.0)
    velocity = tl.load(velocity_pointer + index, mask=inside, other=0.0)
    gradient = tl.load(gradient_pointer + index, mask=inside, other=0.0).to(tl.float32)
    velocity = momentum * velocity - decay * weight - lr * gradient
    weight += velocity
    tl.store(velocity_pointer + index, velocity, mask=inside)
    tl.store(weight_pointer + index, weight, mask=inside)
    if copies:
        tl.store(copy_pointer + index, weight.to(copy_pointer.dtype.element_ty), mask=inside)
