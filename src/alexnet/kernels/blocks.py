"""Images regrouped for the first convolution on a CPU: blocks of 4×4 pixels as 48 channels."""

from __future__ import annotations

from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from alexnet.kernels.code import BYTES, FLOAT, LONG, ParallelCode, compiled_once
from alexnet.kernels.safe import is_safe_mode


def can_block(x: Tensor) -> bool:
    """Return whether `blocks` supports this tensor."""
    return (
        not is_safe_mode()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.shape[1] == 3
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def blocks(x: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Regroup (N, 3, H, W), channels last, to (N, 48, rows, columns); channel ``12 * (y % 4) + 3 * (x % 4) + color``.

    Positions beyond the right and lower edge are zero; pixels beyond the last block are left out. `dtype` is float32 or
    bfloat16.
    """
    images, _, height, width = x.shape
    out = torch.empty(images, 48, rows, columns, dtype=dtype, memory_format=torch.channels_last)
    function = _regrouper(x.dtype == torch.bfloat16, dtype == torch.bfloat16)
    whole = min(width // 4, columns)
    addresses = (x.data_ptr(), out.data_ptr())
    rest = min(width, 4 * columns) - 4 * whole
    function(images * rows * 4, torch.get_num_threads(), *addresses, height, width, rows, columns, whole, rest)
    return out


@compiled_once
def _regrouper(from_half: bool, to_half: bool) -> Any:
    """Compile the function of (x, out, height, width, rows, columns, whole columns, pixels of the next column).

    A piece is a row of pixels.
    """
    code = ParallelCode(BYTES, BYTES, *(LONG,) * 6)
    b = code.builder
    x, out, height, width, rows, columns, whole, rest = code.arguments
    read, write = 2 if from_half else 4, 2 if to_half else 4

    def copy(source: Any, target: Any, lanes: int, offset: int) -> None:
        at = code.at(x, b.mul(b.add(source, LONG(offset)), LONG(read)))
        value = code.load_floats(at, lanes, from_half)
        code.store_floats(value, code.at(out, b.mul(b.add(target, LONG(offset)), LONG(write))), to_half)

    def clear(target: Any, offset: Any, lanes: int) -> None:
        zeros = ir.Constant(ir.VectorType(FLOAT, lanes), [0.0] * lanes)
        code.store_floats(zeros, code.at(out, b.mul(b.add(target, offset), LONG(write))), to_half)

    with code.pieces() as piece:
        pixel_rows = b.mul(rows, LONG(4))
        image, y = b.sdiv(piece, pixel_rows), b.srem(piece, pixel_rows)
        line = b.mul(b.mul(b.add(b.mul(image, height), y), width), LONG(3))
        block_row = b.add(b.mul(image, rows), b.ashr(y, LONG(2)))
        first = b.add(b.mul(b.mul(block_row, columns), LONG(48)), b.mul(b.and_(y, LONG(3)), LONG(12)))

        def target(column: Any) -> Any:
            return b.add(first, b.mul(column, LONG(48)))

        there = b.icmp_signed("<", y, height)
        inside = b.select(there, whole, LONG(0))
        with b.if_then(b.icmp_signed(">", inside, LONG(0))), code.loop(inside) as column:
            source = b.add(line, b.mul(column, LONG(12)))
            copy(source, target(column), 8, 0)
            copy(source, target(column), 4, 8)
        with b.if_then(b.icmp_signed("<", inside, columns)), code.loop(b.sub(columns, inside)) as index:
            column = b.add(inside, index)
            clear(target(column), LONG(0), 8)
            clear(target(column), LONG(8), 4)
        some = b.and_(there, b.icmp_signed(">", rest, LONG(0)))
        with b.if_then(some), code.loop(b.mul(rest, LONG(3))) as value:
            at = b.add(line, b.add(b.mul(whole, LONG(12)), value))
            single = code.load_floats(code.at(x, b.mul(at, LONG(read))), 1, from_half)
            code.store_floats(single, code.at(out, b.mul(b.add(target(whole), value), LONG(write))), to_half)
    return code.compiled()
