"""The paper's update rule (section 5) in one pass over the parameters, on a GPU, in Triton."""

# mypy: allow-untyped-defs
# (what `triton.jit` compiles is not Python to a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels.gpu import element_indices

_BLOCK = 1_024  # values a program


def update(
    weight: Tensor, velocity: Tensor, gradient: Tensor, copy: Tensor | None, momentum: float, decay: float, lr: float
) -> None:
    """What `alexnet.kernels.update.update` does, of tensors on one GPU."""
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
