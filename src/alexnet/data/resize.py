"""The paper's scaling (section 2): shorter side to a size and the central square, with every source pixel counted.

A triangle as wide as the reduction, so that nothing aliases, in fixed point: what Pillow calls `BILINEAR`, first down
the columns, then along the rows, equal to its result to the last bit and in a third of its time. Scaling, not JPEG
decoding, would otherwise bound `prepare`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, uint64

# Pillow's fixed point: weights of 22 bits and 8 of a pixel stay below the sign of an int32.
_BITS = 22
_HALF = np.int32(1 << (_BITS - 1))
_UNROLLED = 3  # taps of one turn of the horizontal loop; a reduction by less than 1.5 has three

# Unsigned indices spare numba the test for negative ones, which costs as much as the arithmetic.
_unsigned: Any = uint64


def square(picture: np.ndarray, size: int) -> np.ndarray:
    """Scale the shorter side of a picture to `size` and cut the centre.

    picture: (H, W, 3) uint8 RGB. Returns (size, size, 3) uint8 RGB: the central square of the picture, scaled once.
    """
    height, width, _ = picture.shape
    side = min(height, width)
    x_first, x_weights = _weights(width, (width - side) / 2, side, size)
    y_first, y_weights = _weights(height, (height - side) / 2, side, size)
    out = np.empty((size, size * 3), dtype=np.uint8)
    rows = np.ascontiguousarray(picture).reshape(height, width * 3)
    _resample(rows, x_first, x_weights, y_first, y_weights, out)
    return out.reshape(size, size, 3)


@lru_cache(maxsize=1024)
def _weights(length: int, start: float, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `size` pixels over [start, start + side): the first of the source pixels it sums, and their weights.

    Returns (size,) int64 and (size, taps) int32, taps a multiple of 3; the weights of a row sum to 2^22 but for
    rounding, and those of pixels beyond the edge are zero.
    """
    scale = side / size
    support = max(scale, 1.0)
    centers = start + (np.arange(size) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + support + 0.5).astype(np.int64), length)
    taps = math.ceil(int((end - first).max()) / _UNROLLED) * _UNROLLED
    positions = first[:, None] + np.arange(taps)
    weights = np.maximum(1.0 - np.abs((positions - centers[:, None] + 0.5) * (1.0 / support)), 0.0)
    weights[positions >= end[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # added one after the other, as Pillow does
    return first, (0.5 + weights * (1 << _BITS)).astype(np.int32)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called; the machine code is kept beside the module for other processes."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code: compile anew in each process
        return njit(nogil=True)(function)


@compiled
def _resample(
    rows: np.ndarray,
    x_first: np.ndarray,
    x_weights: np.ndarray,
    y_first: np.ndarray,
    y_weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """(H, W × 3) uint8 → out (size, size × 3) uint8: down the columns, rounded to 8 bits, then along the rows."""
    size, x_taps = x_weights.shape
    left = _unsigned(x_first[0] * 3)
    reach = _unsigned((x_first[-1] + x_taps) * 3) - left
    inside = min(reach, _unsigned(rows.shape[1]) - left)
    # One row of the result at a time; weights of zero read what lies between `inside` and `reach`.
    low = np.zeros(reach, dtype=np.uint8)
    totals = np.empty(inside, dtype=np.int32)
    for y in range(size):
        totals[:] = _HALF
        for tap in range(y_weights.shape[1]):
            weight = y_weights[y, tap]
            if weight:
                source = rows[y_first[y] + tap]
                for i in range(inside):
                    totals[i] += weight * np.int32(source[left + i])
        for i in range(inside):
            low[i] = totals[i] >> _BITS
        target = out[y]
        for x in range(_unsigned(size)):
            weights = x_weights[x]
            begin = _unsigned(x_first[x]) * _unsigned(3) - left
            for channel in range(_unsigned(3)):
                total = _HALF
                at = begin + channel
                for tap in range(_unsigned(0), _unsigned(x_taps), _unsigned(3)):
                    total += weights[tap] * np.int32(low[at])
                    total += weights[tap + _unsigned(1)] * np.int32(low[at + _unsigned(3)])
                    total += weights[tap + _unsigned(2)] * np.int32(low[at + _unsigned(6)])
                    at += _unsigned(9)
                target[x * _unsigned(3) + channel] = total >> _BITS
