"""Scaling as in the paper (section 2): shorter side to a size, central square, antialiased.

A triangle filter as wide as the reduction, in fixed point: Pillow's `BILINEAR`, first along the columns, then along the
rows. The result is bitwise identical to Pillow's and computed several times as fast; scaling, not JPEG decoding, would
otherwise bound the speed of `prepare`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from alexnet.kernels.resample import WEIGHT_BITS, resample


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Scale the shorter side of an image to `size` and cut the center.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W, 3) uint8 RGB.
    size : int
        Side of the result in pixels.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8 RGB, the central square of the image, resampled once.
    """
    height, width, _ = image.shape
    side = min(height, width)
    across = _weights(width, (width - side) / 2, side, size)
    down = _weights(height, (height - side) / 2, side, size)
    return resample(image, *across, *down)


def filter_matrix(length: int, size: int) -> np.ndarray:
    """The matrix (size, length) float64 by which `square` scales `length` pixels along an axis to `size`."""
    first, weights = _weights(length, 0.0, length, size)
    matrix = np.zeros((size, length))
    np.put_along_axis(matrix, first[:, None] + np.arange(weights.shape[1]), weights / (1 << WEIGHT_BITS), axis=1)
    return matrix


@lru_cache(maxsize=1024)
def _weights(length: int, start: float, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `size` pixels over [start, start + side): its first source pixel and the weights of its taps.

    (size,) int64 and (size, taps) int32; the weights of a row sum to 2^22 up to rounding.
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
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed sequentially, as Pillow does
    return first, (0.5 + weights * (1 << WEIGHT_BITS)).astype(np.int32)
