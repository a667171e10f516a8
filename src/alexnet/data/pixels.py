"""Machine code for the two loops over every pixel that `prepare` has: scaling, and the sums of products of RGB.

It counts in whole numbers, so that every processor gets the same result, and runs several times as fast as what numba
or Pillow make of the same loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from alexnet.kernels.code import BYTE, BYTES, INT, INTS, LONG, LONGS, Code, compiled_once

WEIGHT_BITS = 22
"""Weights are whole numbers, 1 << 22 for one: with the 8 bits of a pixel they stay below the sign of an int32."""

_LANES = 16
_UNROLLED = 8  # a reduction by up to 3.5 has no more taps; of those a loop would cost half as much again
_SPAN = 1 << 20  # pixels in a row whose products fit an uint32 a lane


def resample(
    picture: np.ndarray, x_first: np.ndarray, x_weights: np.ndarray, y_first: np.ndarray, y_weights: np.ndarray
) -> np.ndarray:
    """Weigh the rows of a picture into new rows, rounded to 8 bits, then the pixels of each into new pixels.

    picture: (H, W, 3) uint8. y_first (h,) and x_first (w,) int64, ascending: the first of the rows or pixels that a new
    one sums; y_weights (h, taps) and x_weights (w, taps) int32: their weights, in units of 2^-22. All lie within the
    picture. Returns (h, w, 3) uint8.
    """
    narrowest = -(-_LANES // 3)
    if picture.shape[1] < narrowest:  # a vector must not reach beyond the picture
        picture = np.pad(picture, ((0, 0), (0, narrowest - picture.shape[1]), (0, 0)))
    picture = np.ascontiguousarray(picture)
    width = picture.shape[1]
    left = min(int(x_first[0]), width - narrowest)
    columns = max(int(x_first[-1]) + x_weights.shape[1] - left, narrowest)
    begins = (x_first - left) * 3
    # Four bytes are read and written for the three of a pixel.
    row = np.empty(columns * 3 + 1, dtype=np.uint8)
    out = np.empty(len(y_first) * len(x_first) * 3 + 1, dtype=np.uint8)
    function = _resampler(*(taps if taps <= _UNROLLED else None for taps in (x_weights.shape[1], y_weights.shape[1])))
    function(
        *(picture.ctypes.data + left * 3, width * 3, columns * 3),
        *(y_first.ctypes.data, y_weights.ctypes.data, y_weights.shape[1], len(y_first), row.ctypes.data),
        *(begins.ctypes.data, x_weights.ctypes.data, x_weights.shape[1], len(x_first), out.ctypes.data),
    )
    return out[:-1].reshape(len(y_first), len(x_first), 3)


def rgb_products(images: np.ndarray) -> np.ndarray:
    """Sum over all pixels of the products of each two of R, G, B: (3, 3) int64, exact.

    images: (n, H, W, 3) uint8, contiguous.
    """
    pixels = images.reshape(-1, 3)
    whole = len(pixels) // _LANES * _LANES
    rest = pixels[whole:].astype(np.int64)
    total = rest.T @ rest
    function = _multiplier()
    sums = np.empty((6, _LANES), dtype=np.uint32)
    for start in range(0, whole, _SPAN):
        span = pixels[start : min(start + _SPAN, whole)]
        function(span.ctypes.data, len(span) // _LANES, sums.ctypes.data)
        rr, gg, bb, rg, rb, gb = sums.sum(axis=1, dtype=np.int64)
        total += np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]])
    return total


@compiled_once
def _resampler(x_unrolled: int | None, y_unrolled: int | None) -> Any:
    """A picture's address, bytes a row, bytes needed of each; first rows, weights, taps and new rows; a row of scratch;
    first bytes in it, weights, taps and new columns; out. For the numbers of taps given, or any.
    """
    code = Code(BYTES, LONG, LONG, LONGS, INTS, LONG, LONG, BYTES, LONGS, INTS, LONG, LONG, BYTES)
    b = code.builder
    rows, pitch, columns, y_first, y_weights, y_taps, height, row, *rest = code.arguments
    begins, x_weights, x_taps, width, out = rest

    def weigh(source: Any, distance: Any, weights: Any, taps: Any, lanes: int) -> Any:
        """The sum of what lies `distance` apart from `source` on, each times its weight: `lanes` bytes."""

        def add(total: Any, tap: Any) -> Any:
            pixels = b.zext(code.load(code.at(source, b.mul(distance, tap)), lanes), ir.VectorType(INT, lanes))
            return b.add(total, b.mul(pixels, code.spread(b.load(code.at(weights, tap)), lanes)))

        total = code.accumulate(code.spread(INT(1 << (WEIGHT_BITS - 1)), lanes), taps, add)
        return b.trunc(b.lshr(total, code.spread(INT(WEIGHT_BITS), lanes)), ir.VectorType(BYTE, lanes))

    last = b.sub(columns, LONG(_LANES))
    with code.loop(height) as y:
        source = code.at(rows, b.mul(b.load(code.at(y_first, y)), pitch))
        weights = code.at(y_weights, b.mul(y, y_taps))
        with code.loop(b.udiv(b.add(columns, LONG(_LANES - 1)), LONG(_LANES))) as step:
            # The last vector overlaps the one before it rather than reach beyond the row.
            column = b.mul(step, LONG(_LANES))
            column = b.select(b.icmp_signed("<", column, last), column, last)
            mixed = weigh(code.at(source, column), pitch, weights, y_unrolled or y_taps, _LANES)
            code.store(mixed, code.at(row, column))
        target = code.at(out, b.mul(b.mul(y, width), LONG(3)))
        with code.loop(width) as x:
            source = code.at(row, b.load(code.at(begins, x)))
            weights = code.at(x_weights, b.mul(x, x_taps))
            mixed = weigh(source, LONG(3), weights, x_unrolled or x_taps, 4)
            code.store(mixed, code.at(target, b.mul(x, LONG(3))))
    return code.compiled()


@compiled_once
def _multiplier() -> Any:
    """pixels, number of vectors of 16 pixels, out: six sums of 16 lanes."""
    code = Code(BYTES, LONG, INTS)
    b = code.builder
    pixels, count, out = code.arguments
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    wide = ir.VectorType(INT, _LANES)
    places = [b.bitcast(code.at(out, _LANES * i), wide.as_pointer()) for i in range(len(pairs))]
    for place in places:
        b.store(ir.Constant(wide, [0] * _LANES), place, align=4)
    with code.loop(count) as step:
        packed = code.load(code.at(pixels, b.mul(step, LONG(3 * _LANES))), 3 * _LANES)
        rgb = []
        for channel in range(3):
            mask = ir.Constant(ir.VectorType(INT, _LANES), [3 * lane + channel for lane in range(_LANES)])
            rgb.append(b.zext(b.shuffle_vector(packed, packed, mask), wide))
        for place, (i, j) in zip(places, pairs, strict=True):
            b.store(b.add(b.load(place, align=4), b.mul(rgb[i], rgb[j])), place, align=4)
    return code.compiled()
