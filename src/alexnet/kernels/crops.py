"""Crops of images: flipped, minus the mean, scaled, as floating point. Machine code for a CPU, Triton for a GPU."""

from __future__ import annotations

from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from alexnet.kernels.code import (
    BYTE,
    FLOAT,
    INT,
    LONG,
    ByteAddress,
    Count,
    LongAddress,
    ParallelArguments,
    ParallelCode,
    compiled_once,
)
from alexnet.kernels.safe import is_safe_mode
from alexnet.kernels.selection import gpu_kernels

_PIXELS = 16  # per vector: 48 bytes become three full registers of float32
_LANES = 3 * _PIXELS


def can_cut(images: Tensor, crop_size: int, flips: Tensor, turn_mean: bool) -> bool:
    """Return whether `cut` supports these arguments.

    Images must be contiguous. On a CPU the crop must have at least 16 pixels per side, and must not be transposed
    unless the mean is transposed with it. On a GPU Triton must work.
    """
    if is_safe_mode() or not images.is_contiguous():
        return False
    if images.device.type == "cpu":
        return crop_size >= _PIXELS and (turn_mean or not flips[:, 2].any())
    return gpu_kernels("gpu_crops", images) is not None


def cut(
    images: Tensor,
    mean: Tensor,
    places: Tensor,
    mean_places: Tensor,
    flips: Tensor,
    gain: Tensor,
    shift: Tensor,
    *,
    crop_size: int,
    turn_mean: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Cut a crop of each image: ``gain * (crop - mean) + shift``.

    Parameters
    ----------
    images : Tensor
        (N, S, S, 3) uint8.
    mean : Tensor
        Mean image, (S, S, 3) float32.
    places, mean_places : Tensor
        (N, 2) int64, top and left of the crops of the images and of the mean.
    flips : Tensor
        (N, 3) bool: flipped horizontally, flipped vertically, then transposed.
    gain, shift : Tensor
        (N,) and (N, 3) float32.
    crop_size : int
        Side of the crop in pixels.
    turn_mean : bool
        Whether the crop of the mean is flipped like that of the image.
    dtype : torch.dtype
        float32 or bfloat16.

    Returns
    -------
    Tensor
        (N, crop_size, crop_size, 3). All tensors are on one device; see `can_cut`.
    """
    count, size = images.shape[:2]
    where = torch.cat([places, mean_places, flips.long()], 1).contiguous()
    mean = mean.float().contiguous()
    out = torch.empty(count, crop_size, crop_size, 3, dtype=dtype, device=images.device)
    if on_gpu := gpu_kernels("gpu_crops", images):
        on_gpu.cut(images, mean, where, torch.cat([gain[:, None], shift], 1).float().contiguous(), out, turn_mean)
        return out
    numbers = torch.cat([gain[:, None].expand(-1, _LANES), shift.repeat(1, _PIXELS)], 1).float().contiguous()
    arguments = _Arguments(
        images=images.data_ptr(),
        mean=mean.data_ptr(),
        crops=out.data_ptr(),
        places=where.data_ptr(),
        colors=numbers.data_ptr(),
        size=size,
        crop_size=crop_size,
        pieces=count * crop_size,
    )
    _cutter(turn_mean, dtype == torch.bfloat16)(arguments, torch.get_num_threads())
    for image in flips[:, 2].nonzero().flatten().tolist():  # twice as fast as an index of all of them
        out[image] = out[image].transpose(0, 1).clone()
    return out


class _Arguments(ParallelArguments):
    _fields_ = (
        ("images", ByteAddress),
        ("mean", ByteAddress),
        ("crops", ByteAddress),
        ("places", LongAddress),  # for each image: top, left, top and left in the mean, and the three flips
        ("colors", ByteAddress),  # for each image: gain and shift, each for a vector
        ("size", Count),
        ("crop_size", Count),
    )


@compiled_once
def _cutter(turn_mean: bool, half: bool) -> Any:
    """The function with the mean turned like the image or not, to float32 or bfloat16. A piece is a row of a crop."""
    code = ParallelCode(_Arguments)
    b, a = code.builder, code.arguments
    size, crop_size = a.size, a.crop_size
    reverse = ir.Constant(
        ir.VectorType(INT, _LANES), [3 * (_PIXELS - 1 - lane // 3) + lane % 3 for lane in range(_LANES)]
    )
    floats = ir.VectorType(FLOAT, _LANES)

    def flip(vector: Any) -> Any:
        return b.shuffle_vector(vector, vector, reverse)

    with code.pieces() as piece:
        image, row = b.sdiv(piece, crop_size), b.srem(piece, crop_size)
        top, left, mean_top, mean_left, across, down = (
            b.load(code.at(a.places, b.add(b.mul(image, LONG(7)), LONG(field)))) for field in range(6)
        )
        last_row = b.sub(b.sub(crop_size, LONG(1)), row)
        turned_row = b.select(b.icmp_signed("!=", down, LONG(0)), last_row, row)
        number = b.mul(image, LONG(4 * 2 * _LANES))
        gain = code.load(code.at(a.colors, number), _LANES, FLOAT)
        shift = code.load(code.at(a.colors, b.add(number, LONG(4 * _LANES))), _LANES, FLOAT)
        line = b.mul(b.add(b.mul(image, size), b.add(top, turned_row)), size)
        mean_line = b.mul(b.add(mean_top, turned_row if turn_mean else row), size)
        last = b.sub(crop_size, LONG(_PIXELS))

        def pixels(line: Any, left: Any, column: Any) -> Any:
            return b.mul(b.add(b.add(line, left), column), LONG(3))

        def write(is_flipped: bool) -> None:
            with code.loop(b.udiv(b.add(crop_size, LONG(_PIXELS - 1)), LONG(_PIXELS))) as step:
                # The last vector overlaps the previous one instead of exceeding the crop.
                column = code.smaller(b.mul(step, LONG(_PIXELS)), last)
                source = b.sub(last, column) if is_flipped else column
                image = code.load(code.at(a.images, pixels(line, left, source)), _LANES, BYTE)
                mean_column = source if turn_mean else column
                at = b.mul(pixels(mean_line, mean_left, mean_column), LONG(4))
                expected = code.load(code.at(a.mean, at), _LANES, FLOAT)
                if is_flipped:
                    image, expected = flip(image), flip(expected) if turn_mean else expected
                value = b.fsub(b.uitofp(image, floats), expected)
                value = b.fadd(b.fmul(value, gain, flags=["contract"]), shift, flags=["contract"])
                target = b.add(b.mul(piece, b.mul(crop_size, LONG(3))), b.mul(column, LONG(3)))
                code.store_floats(value, code.at(a.crops, b.mul(target, LONG(2 if half else 4))), half)

        with b.if_else(b.icmp_signed("!=", across, LONG(0))) as (then, otherwise):
            with then:
                write(True)
            with otherwise:
                write(False)
    return code.compiled()
