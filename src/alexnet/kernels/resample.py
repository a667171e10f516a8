"""Scaling of images in integers, as machine code.

The result is the same on every CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from alexnet.kernels.code import BYTE, BYTES, INT, INTS, LONG, LONGS, Code, compiled_once

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
    function = _resampler(*(taps if taps <= _UNROLLED else None for taps in (x_weights.shape[1], y_weights.shape[1])))
    function(
        *(image.ctypes.data + left * 3, image.shape[1] * 3, columns),
        *(y_first.ctypes.data, y_weights.ctypes.data, y_weights.shape[1], height, rows.ctypes.data, woven.ctypes.data),
        *(begins.ctypes.data, x_weights.ctypes.data, x_weights.shape[1], width, out.ctypes.data),
    )
    return out


@compiled_once
def _resampler(x_unrolled: int | None, y_unrolled: int | None) -> Any:
    """An image's address, bytes a row, pixels needed of each; first rows, weights, taps and new rows; room for four
    rows, and for their pixels side by side; first pixels, weights, taps and new columns; out. For the numbers of taps
    given, or any; four new rows or more, two new columns or more.
    """
    code = Code(BYTES, LONG, LONG, LONGS, INTS, LONG, LONG, BYTES, BYTES, LONGS, INTS, LONG, LONG, BYTES)
    b = code.builder
    image, pitch, columns, y_first, y_weights, y_taps, height, rows, woven, *rest = code.arguments
    begins, x_weights, x_taps, width, out = rest

    def weigh(source: Any, distance: Any, weights: Any, taps: Any) -> Any:
        """The sum of what lies `distance` apart from `source` on, each times its weight: 16 bytes."""

        def add(total: Any, tap: Any) -> Any:
            pixels = b.zext(code.load(code.at(source, b.mul(distance, tap)), _LANES), ir.VectorType(INT, _LANES))
            return b.add(total, b.mul(pixels, code.spread(b.load(code.at(weights, tap)), _LANES)))

        total = code.accumulate(code.spread(INT(1 << (WEIGHT_BITS - 1)), _LANES), taps, add)
        return b.trunc(b.lshr(total, code.spread(INT(WEIGHT_BITS), _LANES)), ir.VectorType(BYTE, _LANES))

    def across(x: Any) -> Any:
        """A pixel of four new rows: four bytes of each, the last of no meaning."""
        source = code.at(woven, b.mul(b.load(code.at(begins, x)), LONG(_LANES)))
        mixed = weigh(source, LONG(_LANES), code.at(x_weights, b.mul(x, x_taps)), x_unrolled or x_taps)
        return b.bitcast(mixed, ir.VectorType(INT, _ROWS))

    bytes_a_row = b.mul(columns, LONG(3))
    last = b.sub(bytes_a_row, LONG(_LANES))
    row = [code.at(rows, b.mul(b.add(bytes_a_row, LONG(1)), LONG(number))) for number in range(_ROWS)]
    with code.loop(b.udiv(b.add(height, LONG(_ROWS - 1)), LONG(_ROWS))) as block:
        # The last rows, and the last vector, overlap those before rather than reach beyond the image.
        first = code.smaller(b.mul(block, LONG(_ROWS)), b.sub(height, LONG(_ROWS)))
        for number in range(_ROWS):
            y = b.add(first, LONG(number))
            source = code.at(image, b.mul(b.load(code.at(y_first, y)), pitch))
            weights = code.at(y_weights, b.mul(y, y_taps))
            with code.loop(b.udiv(b.add(bytes_a_row, LONG(_LANES - 1)), LONG(_LANES))) as step:
                column = code.smaller(b.mul(step, LONG(_LANES)), last)
                mixed = weigh(code.at(source, column), pitch, weights, y_unrolled or y_taps)
                code.store(mixed, code.at(row[number], column))
        with code.loop(columns) as column:
            pixels = ir.Constant(ir.VectorType(INT, _ROWS), ir.Undefined)
            for number in range(_ROWS):
                place = b.bitcast(code.at(row[number], b.mul(column, LONG(3))), INT.as_pointer())
                pixels = b.insert_element(pixels, b.load(place, align=1), INT(number))
            code.store(pixels, code.at(woven, b.mul(column, LONG(_LANES))))
        end = b.sub(width, LONG(1))
        target = [code.at(out, b.mul(b.mul(b.add(first, LONG(n)), width), LONG(3))) for n in range(_ROWS)]
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
