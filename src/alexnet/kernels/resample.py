"""Scaling of images in integers, as machine code.

The result is the same on every CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from alexnet.kernels.code import (
    BYTE,
    INT,
    LONG,
    ByteAddress,
    Code,
    Count,
    IntAddress,
    KernelArguments,
    LongAddress,
    compiled_once,
)

WEIGHT_BITS = 22
"""Weights are integers in units of 2^-22: their products with the 8 bits of a pixel fit an int32."""

_LANES = 16
_ROWS = 4  # output rows computed at a time: the four bytes of a pixel in each fill a vector
_UNROLLED = 8  # a reduction by up to 3.5 has no more taps; unrolled, they take two thirds of the time


def resample(
    image: np.ndarray, x_first: np.ndarray, x_weights: np.ndarray, y_first: np.ndarray, y_weights: np.ndarray
) -> np.ndarray:
    """Resample an image along its columns, rounded to 8 bits, then along its rows.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W, 3) uint8.
    x_first, y_first : numpy.ndarray
        (w,) and (h,) int64, ascending: the first source pixel of each output column and row.
    x_weights, y_weights : numpy.ndarray
        (w, taps) and (h, taps) int32, weights in units of 2^-22; all taps lie within the image.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8.
    """
    height, width = len(y_first), len(x_first)
    if height < _ROWS or width < 2:  # computed larger, then cut
        wider = [np.concatenate([ones, ones[-1:]]) for ones in (x_first, x_weights)]
        higher = [np.concatenate([ones, *[ones[-1:]] * (_ROWS - 1)]) for ones in (y_first, y_weights)]
        return np.ascontiguousarray(resample(image, *wider, *higher)[:height, :width])
    narrowest = -(-_LANES // 3)
    if image.shape[1] < narrowest:  # a vector must not reach beyond the image
        image = np.pad(image, ((0, 0), (0, narrowest - image.shape[1]), (0, 0)))
    image = np.ascontiguousarray(image)
    left = min(int(x_first[0]), image.shape[1] - narrowest)
    columns = max(int(x_first[-1]) + x_weights.shape[1] - left, narrowest)
    begins = x_first - left
    rows = np.empty((_ROWS, columns * 3 + 1), dtype=np.uint8)  # four bytes are read for the three of a pixel
    woven = np.empty((columns, _ROWS, 4), dtype=np.uint8)
    out = np.empty((height, width, 3), dtype=np.uint8)
    arguments = _Arguments(
        image=image.ctypes.data + left * 3,
        pitch=image.shape[1] * 3,
        columns=columns,
        y_first=y_first.ctypes.data,
        y_weights=y_weights.ctypes.data,
        y_taps=y_weights.shape[1],
        height=height,
        x_first=begins.ctypes.data,
        x_weights=x_weights.ctypes.data,
        x_taps=x_weights.shape[1],
        width=width,
        rows=rows.ctypes.data,
        woven=woven.ctypes.data,
        out=out.ctypes.data,
    )
    unrolled = (taps if taps <= _UNROLLED else None for taps in (arguments.x_taps, arguments.y_taps))
    _resampler(*unrolled)(arguments)
    return out


class _Arguments(KernelArguments):
    _fields_ = (
        ("image", ByteAddress),  # the first pixel that is read
        ("pitch", Count),  # bytes of a row of the image
        ("columns", Count),  # pixels of a row that are read
        ("y_first", LongAddress),
        ("y_weights", IntAddress),
        ("y_taps", Count),
        ("height", Count),  # of the result
        ("x_first", LongAddress),  # relative to the first pixel that is read
        ("x_weights", IntAddress),
        ("x_taps", Count),
        ("width", Count),  # of the result
        ("rows", ByteAddress),  # room for four rows of the result before they are resampled along themselves
        ("woven", ByteAddress),  # room for the pixels of these rows side by side
        ("out", ByteAddress),
    )


@compiled_once
def _resampler(x_unrolled: int | None, y_unrolled: int | None) -> Any:
    """The function for the given numbers of taps, or any; for four rows or more and two columns or more."""
    code = Code(_Arguments)
    b, a = code.builder, code.arguments
    columns, height, width = a.columns, a.height, a.width

    def weigh(source: Any, distance: Any, weights: Any, taps: Any) -> Any:
        """The sum of what lies `distance` apart from `source` on, each times its weight: 16 bytes."""

        def add(total: Any, tap: Any) -> Any:
            pixels = b.zext(code.load(code.at(source, b.mul(distance, tap)), _LANES), ir.VectorType(INT, _LANES))
            return b.add(total, b.mul(pixels, code.spread(b.load(code.at(weights, tap)), _LANES)))

        total = code.accumulate(code.spread(INT(1 << (WEIGHT_BITS - 1)), _LANES), taps, add)
        return b.trunc(b.lshr(total, code.spread(INT(WEIGHT_BITS), _LANES)), ir.VectorType(BYTE, _LANES))

    def across(x: Any) -> Any:
        """A pixel of four new rows: four bytes of each, the last of no meaning."""
        source = code.at(a.woven, b.mul(b.load(code.at(a.x_first, x)), LONG(_LANES)))
        mixed = weigh(source, LONG(_LANES), code.at(a.x_weights, b.mul(x, a.x_taps)), x_unrolled or a.x_taps)
        return b.bitcast(mixed, ir.VectorType(INT, _ROWS))

    bytes_a_row = b.mul(columns, LONG(3))
    last = b.sub(bytes_a_row, LONG(_LANES))
    row = [code.at(a.rows, b.mul(b.add(bytes_a_row, LONG(1)), LONG(number))) for number in range(_ROWS)]
    with code.loop(b.udiv(b.add(height, LONG(_ROWS - 1)), LONG(_ROWS))) as block:
        # The last rows, and the last vector, overlap those before rather than reach beyond the image.
        first = code.smaller(b.mul(block, LONG(_ROWS)), b.sub(height, LONG(_ROWS)))
        for number in range(_ROWS):
            y = b.add(first, LONG(number))
            source = code.at(a.image, b.mul(b.load(code.at(a.y_first, y)), a.pitch))
            weights = code.at(a.y_weights, b.mul(y, a.y_taps))
            with code.loop(b.udiv(b.add(bytes_a_row, LONG(_LANES - 1)), LONG(_LANES))) as step:
                column = code.smaller(b.mul(step, LONG(_LANES)), last)
                mixed = weigh(code.at(source, column), a.pitch, weights, y_unrolled or a.y_taps)
                code.store(mixed, code.at(row[number], column))
        with code.loop(columns) as column:
            pixels = ir.Constant(ir.VectorType(INT, _ROWS), ir.Undefined)
            for number in range(_ROWS):
                place = b.bitcast(code.at(row[number], b.mul(column, LONG(3))), INT.as_pointer())
                pixels = b.insert_element(pixels, b.load(place, align=1), INT(number))
            code.store(pixels, code.at(a.woven, b.mul(column, LONG(_LANES))))
        end = b.sub(width, LONG(1))
        target = [code.at(a.out, b.mul(b.mul(b.add(first, LONG(n)), width), LONG(3))) for n in range(_ROWS)]
        with code.loop(end) as x:
            mixed = across(x)
            for number in range(_ROWS):
                code.store(b.extract_element(mixed, INT(number)), code.at(target[number], b.mul(x, LONG(3))))
        mixed = b.bitcast(across(end), ir.VectorType(BYTE, _LANES))  # its fourth bytes would be in the next row
        for number in range(_ROWS):
            for color in range(3):
                value = b.extract_element(mixed, INT(4 * number + color))
                b.store(value, code.at(target[number], b.add(b.mul(end, LONG(3)), LONG(color))))
    return code.compiled()
