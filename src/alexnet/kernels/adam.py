"""The update of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) in one pass over memory, for a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from alexnet.kernels.code import FLOAT, LONG, ByteAddress, Number, ParallelArguments, ParallelCode, compiled_once
from alexnet.kernels.safe import is_safe_mode

_PIECE = 4096  # values of a piece of work
_LANES = 64


def can_update(weight: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, copy: Tensor) -> bool:
    """Return whether `update` supports these tensors.

    They must be dense and on the CPU, in whole pieces of 4,096 values: `gradient` and `copy` in bfloat16, the others in
    float32.
    """
    tensors = (weight, mean, square, gradient, copy)
    return (
        not is_safe_mode()
        and all(tensor.device.type == "cpu" and tensor.stride() == weight.stride() for tensor in tensors)
        and weight.dtype == mean.dtype == square.dtype == torch.float32
        and gradient.dtype == copy.dtype == torch.bfloat16
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
        and weight.numel() % _PIECE == 0
    )


def update(
    weight: Tensor,
    mean: Tensor,
    square: Tensor,
    gradient: Tensor,
    copy: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Apply an update in place; see `can_update`.

    Parameters
    ----------
    weight : Tensor
        The weights.
    mean, square : Tensor
        The running means of the gradient and of its square.
    gradient : Tensor
        The gradient.
    copy : Tensor
        Receives the new weight, rounded.
    lr, betas, eps, weight_decay
        As in `torch.optim.AdamW`.
    step : int
        Number of this update, from 1.
    """
    arguments = _Arguments(
        weights=weight.data_ptr(),
        means=mean.data_ptr(),
        squares=square.data_ptr(),
        gradients=gradient.data_ptr(),
        copies=copy.data_ptr(),
        kept=1 - lr * weight_decay,
        beta=betas[0],
        rest=1 - betas[0],
        square_beta=betas[1],
        square_rest=1 - betas[1],
        # The bias corrections are moved out of the quotient, whose value they do not change.
        minus_rate=-lr * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step),
        eps=eps * math.sqrt(1 - betas[1] ** step),
        pieces=weight.numel() // _PIECE,
    )
    _updater()(arguments, 1 if arguments.pieces < 8 else torch.get_num_threads())


class _Arguments(ParallelArguments):
    _fields_ = (
        ("weights", ByteAddress),
        ("means", ByteAddress),
        ("squares", ByteAddress),
        ("gradients", ByteAddress),
        ("copies", ByteAddress),
        ("kept", Number),
        ("beta", Number),
        ("rest", Number),
        ("square_beta", Number),
        ("square_rest", Number),
        ("minus_rate", Number),
        ("eps", Number),
    )


@compiled_once
def _updater() -> Any:
    code = ParallelCode(_Arguments)
    b, a = code.builder, code.arguments
    vector = ir.VectorType(FLOAT, _LANES)
    root = ir.Function(code.module, ir.FunctionType(vector, [vector]), f"llvm.sqrt.v{_LANES}f32")
    names = ("kept", "beta", "rest", "square_beta", "square_rest", "minus_rate", "eps")
    kept, beta, rest, square_beta, square_rest, minus_rate, eps = (code.spread(getattr(a, n), _LANES) for n in names)

    def product_and_sum(one: Any, other: Any, added: Any) -> Any:
        return b.fadd(b.fmul(one, other, flags=["contract"]), added, flags=["contract"])

    with code.pieces() as piece, code.loop(_PIECE // _LANES) as index:
        first = b.add(b.mul(piece, LONG(_PIECE)), b.mul(index, LONG(_LANES)))
        word, half = (b.mul(first, LONG(size)) for size in (4, 2))
        w, m, v = (code.load_floats(code.at(place, word), _LANES, False) for place in (a.weights, a.means, a.squares))
        g = code.load_floats(code.at(a.gradients, half), _LANES, True)
        m = product_and_sum(g, rest, b.fmul(m, beta))
        v = product_and_sum(b.fmul(g, g), square_rest, b.fmul(v, square_beta))
        quotient = b.fdiv(m, b.fadd(b.call(root, [v]), eps))
        w = product_and_sum(quotient, minus_rate, b.fmul(w, kept))
        for value, place in ((m, a.means), (v, a.squares), (w, a.weights)):
            code.store(value, code.at(place, word))
        code.store_floats(w, code.at(a.copies, half), True)
    return code.compiled()
