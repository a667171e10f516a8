"""Sums of the products of R, G and B over many pixels, as machine code.

The sums are integers: the result is exact, and the same on every CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from alexnet.kernels.code import INT, LONG, ByteAddress, Code, Count, IntAddress, KernelArguments, compiled_once

_LANES = 16
_SPAN = 1 << 20  # consecutive pixels whose sums of products fit a uint32 per lane: 2^20 / 16 × 255² < 2^32
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def rgb_products(images: np.ndarray) -> np.ndarray:
    """Sum the products of each pair of R, G and B over all pixels.

    Parameters
    ----------
    images : numpy.ndarray
        (n, H, W, 3) uint8, contiguous.

    Returns
    -------
    numpy.ndarray
        (3, 3) int64, exact.
    """
    pixels = images.reshape(-1, 3)
    whole = len(pixels) // _LANES * _LANES
    rest = pixels[whole:].astype(np.int64)
    total = rest.T @ rest
    sums = np.empty((len(_PAIRS), _LANES), dtype=np.uint32)
    for start in range(0, whole, _SPAN):
        span = pixels[start : min(start + _SPAN, whole)]
        _adder()(_Arguments(pixels=span.ctypes.data, vectors=len(span) // _LANES, out=sums.ctypes.data))
        for (i, j), value in zip(_PAIRS, sums.sum(axis=1, dtype=np.int64), strict=True):
            total[i, j] += value
            if i != j:
                total[j, i] += value
    return total


class _Arguments(KernelArguments):
    _fields_ = (
        ("pixels", ByteAddress),
        ("vectors", Count),  # of 16 pixels
        ("out", IntAddress),  # the sum of each pair in 16 lanes
    )


@compiled_once
def _adder() -> Any:
    code = Code(_Arguments)
    b, a = code.builder, code.arguments
    wide = ir.VectorType(INT, _LANES)
    places = [b.bitcast(code.at(a.out, _LANES * pair), wide.as_pointer()) for pair in range(len(_PAIRS))]
    for place in places:
        b.store(ir.Constant(wide, [0] * _LANES), place, align=4)
    with code.loop(a.vectors) as step:
        packed = code.load(code.at(a.pixels, b.mul(step, LONG(3 * _LANES))), 3 * _LANES)
        rgb = []
        for channel in range(3):
            mask = ir.Constant(ir.VectorType(INT, _LANES), [3 * lane + channel for lane in range(_LANES)])
            rgb.append(b.zext(b.shuffle_vector(packed, packed, mask), wide))
        for place, (i, j) in zip(places, _PAIRS, strict=True):
            b.store(b.add(b.load(place, align=4), b.mul(rgb[i], rgb[j])), place, align=4)
    return code.compiled()
