"""Scaling of batches of crops as `torch.nn.functional.interpolate` does it, bilinear and antialiased, on a CPU.

Torch needs about five times as long, since it does not vectorize over the three values of a pixel.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional

from alexnet.kernels.code import BYTE, FLOAT, LONG, ByteAddress, Count, ParallelArguments, ParallelCode, compiled_once
from alexnet.kernels.safe import is_safe_mode

_LANES = 16
_RGB = 3


def can_scale(batch: Tensor) -> bool:
    """Return whether `scaled` supports these images."""
    return (
        not is_safe_mode()
        and batch.device.type == "cpu"
        and batch.dtype == torch.float32
        and not batch.requires_grad
        and batch.shape[1] == _RGB
        and batch.shape[2] == batch.shape[3] >= _LANES
        and batch.is_contiguous(memory_format=torch.channels_last)
    )


def scaled(batch: Tensor, side: int) -> Tensor:
    """Scale images (N, 3, H, H) float32, channels last, to (N, 3, side, side), up to rounding as `interpolate` does."""
    images, height = len(batch), batch.shape[2]
    starts, weights = _taps(height, side)
    out = torch.empty((images, _RGB, side, side), memory_format=torch.channels_last)
    arguments = _Arguments(height=height, side=side, pieces=images * side)
    arguments.images, arguments.out = batch.data_ptr(), out.data_ptr()
    arguments.starts, arguments.weights = starts.data_ptr(), weights.data_ptr()
    _kernel(height, weights.shape[1])(arguments, torch.get_num_threads())
    return out


@functools.lru_cache(maxsize=16)
def _taps(height: int, side: int) -> tuple[Tensor, Tensor]:
    """The first input that each output reads, (side,) int64, and the weights of those from there, (side, taps)."""
    identity = torch.eye(height)[None, None]
    matrix = functional.interpolate(identity, size=(side, height), mode="bilinear", antialias=True)[0, 0]
    used = matrix != 0
    first = used.int().argmax(1)
    count = int(used.sum(1).max())
    starts = first.clamp(max=height - count)
    return starts, matrix.gather(1, starts[:, None] + torch.arange(count)).contiguous()


class _Arguments(ParallelArguments):
    """The images and what each output reads."""

    _fields_ = (
        ("images", ByteAddress),  # (N, height, height, 3)
        ("out", ByteAddress),  # (N, side, side, 3)
        ("starts", ByteAddress),
        ("weights", ByteAddress),
        *((name, Count) for name in ("height", "side")),
    )


@compiled_once
def _kernel(height: int, taps: int) -> Any:
    """The function that scales; a piece is a row of an output."""
    code = ParallelCode(_Arguments)
    b, a, width = code.builder, code.arguments, _RGB * height
    scratch = b.bitcast(b.alloca(ir.ArrayType(BYTE, 4 * width)), BYTE.as_pointer())

    def of(place: Any) -> tuple[Any, list[Any]]:
        """First input of an output, and the weights."""
        start = b.load(b.bitcast(code.at(a.starts, b.mul(place, LONG(8))), LONG.as_pointer()))
        row = code.at(a.weights, b.mul(place, LONG(4 * taps)))
        return start, [b.load(b.bitcast(code.at(row, 4 * tap), FLOAT.as_pointer())) for tap in range(taps)]

    def combined(values: list[Any], factors: list[Any], lanes: int) -> Any:
        total = b.fmul(values[0], code.spread(factors[0], lanes))
        for value, factor in zip(values[1:], factors[1:], strict=True):
            product = b.fmul(value, code.spread(factor, lanes), flags=["contract"])
            total = b.fadd(total, product, flags=["contract"])
        return total

    with code.pieces() as piece:
        image, row = b.sdiv(piece, a.side), b.srem(piece, a.side)
        start, factors = of(row)
        line = code.at(a.images, b.mul(b.add(b.mul(image, a.height), start), LONG(4 * width)))
        with code.loop(-(-width // _LANES)) as block:
            # The last block begins earlier, so that it is whole.
            at = b.mul(code.smaller(b.mul(block, LONG(_LANES)), LONG(width - _LANES)), LONG(4))
            lines = [code.load(code.at(line, b.add(at, LONG(4 * width * tap))), _LANES, FLOAT) for tap in range(taps)]
            code.store(combined(lines, factors, _LANES), code.at(scratch, at))
        target = code.at(a.out, b.mul(b.mul(piece, a.side), LONG(4 * _RGB)))
        with code.loop(a.side) as column:
            start, factors = of(column)
            pixel = code.at(scratch, b.mul(start, LONG(4 * _RGB)))
            pixels = [code.load(code.at(pixel, 4 * _RGB * tap), _RGB, FLOAT) for tap in range(taps)]
            code.store(combined(pixels, factors, _RGB), code.at(target, b.mul(column, LONG(4 * _RGB))))
    return code.compiled()
