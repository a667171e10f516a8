"""The update rule of the paper (section 5), fused: machine code for a CPU, Triton for a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alexnet.kernels.code import LONG, ByteAddress, Number, ParallelArguments, ParallelCode, compiled_once
from alexnet.kernels.safe import is_safe_mode
from alexnet.kernels.selection import gpu_kernels

_PIECE = 4096  # smallest number of values of a piece of work
_LANES = 64


def can_update(weight: Tensor, velocity: Tensor, gradient: Tensor, copy: Tensor | None) -> bool:
    """Return whether `update` supports these tensors: dense and on one device, with a float32 weight and velocity."""
    tensors = [weight, velocity, gradient, *([] if copy is None else [copy])]
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return (
        not is_safe_mode()
        and all(tensor.stride() == weight.stride() for tensor in tensors)
        and weight.dtype == velocity.dtype == torch.float32
        and gradient.dtype in (torch.float32, torch.bfloat16)
        and (copy is None or copy.dtype == torch.bfloat16)
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
        and (on_cpu or gpu_kernels("gpu_update", *tensors) is not None)
    )


def update(
    weight: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    copy: Tensor | None,
    *,
    momentum: float,
    decay: float,
    lr: float,
) -> None:
    """Apply ``velocity = momentum * velocity - decay * weight - lr * gradient; weight += velocity`` in place.

    `copy` receives the new weight in bfloat16. Each value is read and written once: 20 bytes of memory traffic per
    parameter with a bfloat16 gradient and copy. See `can_update`.
    """
    if on_gpu := gpu_kernels("gpu_update", weight):
        on_gpu.update(weight, velocity, gradient, copy, momentum, decay, lr)
        return
    count = weight.numel()
    pieces = count // _PIECE
    function = _updater(gradient.dtype == torch.bfloat16, copy is not None)
    if pieces:
        arguments = _Arguments(
            weights=weight.data_ptr(),
            velocities=velocity.data_ptr(),
            gradients=gradient.data_ptr(),
            copies=None if copy is None else copy.data_ptr(),
            momentum=momentum,
            minus_decay=-decay,
            minus_lr=-lr,
            pieces=pieces,
        )
        function(arguments, 1 if pieces < 8 else torch.get_num_threads())
    rest = [flat(tensor)[pieces * _PIECE :] for tensor in (weight, velocity, gradient)]
    if len(rest[0]):
        w, v, g = rest
        v.mul_(momentum).add_(w, alpha=-decay).add_(g.float(), alpha=-lr)
        w.add_(v)
        if copy is not None:
            flat(copy)[pieces * _PIECE :].copy_(w)


def flat(tensor: Tensor) -> Tensor:
    """All values of a dense tensor in the order of its memory, without a copy."""
    return tensor.as_strided((tensor.numel(),), (1,))


class _Arguments(ParallelArguments):
    _fields_ = (
        ("weights", ByteAddress),
        ("velocities", ByteAddress),
        ("gradients", ByteAddress),
        ("copies", ByteAddress),
        ("momentum", Number),
        ("minus_decay", Number),
        ("minus_lr", Number),
    )


@compiled_once
def _updater(half_gradient: bool, copies: bool) -> Any:
    """The function for gradients in float32 or bfloat16, with or without rounded copies."""
    code = ParallelCode(_Arguments)
    b, a = code.builder, code.arguments
    momentum, minus_decay, minus_lr = (code.spread(n, _LANES) for n in (a.momentum, a.minus_decay, a.minus_lr))
    with code.pieces() as piece, code.loop(_PIECE // _LANES) as step:
        first = b.add(b.mul(piece, LONG(_PIECE)), b.mul(step, LONG(_LANES)))
        word, half = (b.mul(first, LONG(size)) for size in (4, 2))
        w = code.load_floats(code.at(a.weights, word), _LANES, False)
        v = code.load_floats(code.at(a.velocities, word), _LANES, False)
        g = code.load_floats(code.at(a.gradients, half if half_gradient else word), _LANES, half_gradient)
        v = b.fmul(v, momentum)
        for factor, value in ((minus_decay, w), (minus_lr, g)):
            v = b.fadd(v, b.fmul(value, factor, flags=["contract"]), flags=["contract"])
        w = b.fadd(w, v)
        code.store(v, code.at(a.velocities, word))
        code.store(w, code.at(a.weights, word))
        if copies:
            code.store_floats(w, code.at(a.copies, half), True)
    return code.compiled()
