"""Max pooling 3×3 with stride 2 (paper, section 3.4) on a CPU, for channels-last tensors, with an optional ReLU.

PyTorch stores the position of each maximum in eight bytes, and its backward pass clears the gradient and then adds to
it. Here a position is one byte, and each gradient is gathered from the windows that contain it and written once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet.kernels.code import BYTE, FLOAT, LONG, ByteAddress, Count, ParallelArguments, ParallelCode, compiled_once
from alexnet.kernels.safe import is_safe_mode

_NOWHERE = 255  # position of a maximum that ReLU set to zero: it has no gradient


def can_pool(x: Tensor) -> bool:
    """Return whether `max_pool` supports this tensor."""
    return (
        not is_safe_mode()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.dim() == 4
        and x.shape[1] % 16 == 0
        and min(x.shape[2:]) >= 3
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def max_pool(x: Tensor, *, relu: bool = False, ceil: bool = False) -> Tensor:
    """Return ``max_pool2d(relu(x), 3, 2, ceil_mode=ceil)``, (N, C, H, W) → (N, C, h, w). See `can_pool`.

    Of equal values in a window the first in row order gets the gradient. NaN stays NaN.
    """
    result: Tensor = _MaxPool.apply(x, relu, ceil)
    return result


class _Arguments(ParallelArguments):
    """The tensors of a pass, or their gradients, and the sides of both."""

    _fields_ = (
        ("maps", ByteAddress),  # height × width
        ("pooled", ByteAddress),  # rows × columns
        ("places", ByteAddress),
        *((name, Count) for name in ("height", "width", "rows", "columns")),
    )


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, relu: bool, ceil: bool) -> Tensor:  # type: ignore[no-untyped-def]
        images, maps, height, width = x.shape
        rows, columns = (_windows(side, ceil) for side in (height, width))
        shape = (images, maps, rows, columns)
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        places = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        arguments = _Arguments(height=height, width=width, rows=rows, columns=columns, pieces=images * rows)
        arguments.maps, arguments.pooled, arguments.places = x.data_ptr(), out.data_ptr(), places.data_ptr()
        _forward(maps, x.dtype == torch.bfloat16, relu)(arguments, torch.get_num_threads())
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (places,) = ctx.saved_tensors
        images, maps, height, width = ctx.shape
        rows, columns = places.shape[2:]
        grad = grad.contiguous(memory_format=torch.channels_last)
        out = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last)
        arguments = _Arguments(height=height, width=width, rows=rows, columns=columns, pieces=images * height)
        arguments.maps, arguments.pooled, arguments.places = out.data_ptr(), grad.data_ptr(), places.data_ptr()
        _backward(maps, grad.dtype == torch.bfloat16)(arguments, torch.get_num_threads())
        return out, None, None


def _windows(side: int, ceil: bool) -> int:
    """Return the number of windows along a side; with `ceil` the last can overhang the edge, but starts inside."""
    return (side - 3 + (1 if ceil else 0)) // 2 + 1


def _lanes(maps: int) -> int:
    return next(lanes for lanes in (64, 32, 16) if maps % lanes == 0)


@compiled_once
def _forward(maps: int, half: bool, relu: bool) -> Any:
    """The function from feature maps to their pooled form and its places. A piece is a row of windows."""
    code = ParallelCode(_Arguments)
    b, lanes, size, a = code.builder, _lanes(maps), 2 if half else 4, code.arguments
    height, width, rows, columns = a.height, a.width, a.rows, a.columns
    last_row, last_column = b.sub(height, LONG(1)), b.sub(width, LONG(1))
    bytes_of = functools.partial(ir.VectorType, count=lanes)
    with code.pieces() as piece:
        image, row = b.sdiv(piece, rows), b.srem(piece, rows)
        # A window that hangs over the edge reads the last row or column again, which changes no maximum.
        lines = [
            b.mul(b.add(b.mul(image, height), code.smaller(b.add(b.mul(row, LONG(2)), LONG(dy)), last_row)), width)
            for dy in range(3)
        ]
        with code.loop(columns) as column:
            across = [code.smaller(b.add(b.mul(column, LONG(2)), LONG(dx)), last_column) for dx in range(3)]
            target = b.mul(b.add(b.mul(piece, columns), column), LONG(maps))
            with code.loop(maps // lanes) as block:
                first = b.mul(block, LONG(lanes))
                best = place = None
                for number in range(9):
                    position = b.mul(b.add(lines[number // 3], across[number % 3]), LONG(maps))
                    at = code.at(a.maps, b.mul(b.add(position, first), LONG(size)))
                    value, here = code.load_floats(at, lanes, half), ir.Constant(bytes_of(BYTE), [number] * lanes)
                    if best is None:
                        best, place = value, here
                        continue
                    greater = b.or_(b.fcmp_ordered(">", value, best), b.fcmp_unordered("uno", value, value))
                    best, place = b.select(greater, value, best), b.select(greater, here, place)
                if relu:
                    zero = ir.Constant(bytes_of(FLOAT), [0.0] * lanes)
                    negative = b.fcmp_ordered("<=", best, zero)
                    best = b.select(negative, zero, best)
                    place = b.select(negative, ir.Constant(bytes_of(BYTE), [_NOWHERE] * lanes), place)
                at = b.add(target, first)
                code.store_floats(best, code.at(a.pooled, b.mul(at, LONG(size))), half)
                code.store(place, code.at(a.places, at))
    return code.compiled()


@compiled_once
def _backward(maps: int, half: bool) -> Any:
    """The function from the gradient of the pooled form to that of the feature maps. A piece is a row of the latter."""
    code = ParallelCode(_Arguments)
    b, lanes, size, a = code.builder, _lanes(maps), 2 if half else 4, code.arguments
    height, width, rows, columns = a.height, a.width, a.rows, a.columns
    zero = ir.Constant(ir.VectorType(FLOAT, lanes), [0.0] * lanes)

    def windows(position: Any, count: Any) -> list[tuple[Any, Any, Any]]:
        """The two windows that may read a position: which, the position in it, and whether there is one."""
        half_way, odd = b.ashr(position, LONG(1)), b.and_(position, LONG(1))
        before = b.sub(half_way, LONG(1))
        even = b.icmp_signed("==", odd, LONG(0))
        first = (before, LONG(2), b.and_(even, b.icmp_signed(">=", before, LONG(0))))
        second = (half_way, odd, b.icmp_signed("<", half_way, count))
        return [first, second]

    with code.pieces() as piece:
        image, row = b.sdiv(piece, height), b.srem(piece, height)
        down = windows(row, rows)
        with code.loop(width) as column:
            across = windows(column, columns)
            sources = []
            for window_row, dy, there_down in down:
                for window_column, dx, there_across in across:
                    inside = b.add(b.mul(dy, LONG(3)), dx)
                    there = b.and_(there_down, there_across)
                    # No place is called 254.
                    wanted = b.trunc(b.select(there, inside, LONG(254)), BYTE)
                    line = b.add(b.mul(image, rows), b.select(there, window_row, LONG(0)))
                    position = b.add(b.mul(line, columns), b.select(there, window_column, LONG(0)))
                    sources.append((b.mul(position, LONG(maps)), code.spread(wanted, lanes)))
            target = b.mul(b.add(b.mul(piece, width), column), LONG(maps))
            with code.loop(maps // lanes) as block:
                first = b.mul(block, LONG(lanes))
                total = zero
                for source, wanted in sources:
                    at = b.add(source, first)
                    value = code.load_floats(code.at(a.pooled, b.mul(at, LONG(size))), lanes, half)
                    chosen = b.icmp_signed("==", code.load(code.at(a.places, at), lanes), wanted)
                    total = b.fadd(total, b.select(chosen, value, zero))
                code.store_floats(total, code.at(a.maps, b.mul(b.add(target, first), LONG(size))), half)
    return code.compiled()
