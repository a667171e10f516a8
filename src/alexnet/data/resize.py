"""The paper's scaling (section 2): shorter side to a size and the central square, with every source pixel counted.

A triangle as wide as the reduction, so that nothing aliases, in fixed point: what Pillow calls `BILINEAR`, first down
the columns, then along the rows, equal to its result to the last bit and several times as fast. Scaling, not JPEG
decoding, would otherwise bound `prepare`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from alexnet.data.pixels import WEIGHT_BITS, resample


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Scale the shorter side of an image to `size` and cut the center.

    image: (H, W, 3) uint8 RGB. Returns (size, size, 3) uint8 RGB: the central square of the image, scaled once.
    """
    height, width, _ = image.shape
    side = min(height, width)
    across = _weights(width, (width - side) / 2, side, size)
    down = _weights(height, (height - side) / 2, side, size)
    return resample(image, *across, *down)


@lru_cache(maxsize=1024)
def _weights(length: int, start: float, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `size` pixels over [start, start + side): the first of the source pixels it sums, and their weights.

    Returns (size,) int64 and (size, taps) int32; the weights of a row sum to 2^22 but for rounding.
    """
    scale = side / size
    support = max(scale, 1.0)
    centers = start + (np.arange(size) + 0.5) * scale
    begin = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + support + 0.5).astype(np.int64), length)
    taps = int((end - begin).max())
    first = np.minimum(begin, length - taps)
    positions = first[:, None] + np.arange(taps)
    weights = np.maximum(1.0 - np.abs((positions - centers[:, None] + 0.5) * (1.0 / support)), 0.0)
    weights[(positions < begin[:, None]) | (positions >= end[:, None])] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # added one after the other, as Pillow does
    return first, (0.5 + weights * (1 << WEIGHT_BITS)).astype(np.int32)
