"""Mean image and RGB principal components of a training split, exact and in one pass.

Sums are whole numbers, so that neither the order of the shards nor an interruption changes a bit of the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """mean_image (size, size, 3) float32 and mean_rgb (3,), of values 0 to 255; the RGB PCA (paper, section 4.1).

    eigenvalues: (3,) descending, of the population covariance of all pixels; eigenvectors: (3, 3), one a column.
    """

    mean_image: np.ndarray
    mean_rgb: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


def pixel_sum(images: np.ndarray) -> np.ndarray:
    """Sum of at most 257 images (n, size, size, 3) uint8: (size, size, 3) uint16, exact."""
    return images.sum(axis=0, dtype=np.uint16)


def statistics(pixel_sums: np.ndarray, products: np.ndarray, count: int) -> Statistics:
    """From the sums over `count` images: pixel_sums (size, size, 3) int64, products (3, 3) int64."""
    height, width, _ = pixel_sums.shape
    pixels = count * height * width
    # Python's whole numbers have no limit, and their quotient is rounded once.
    sums = [int(value) for value in pixel_sums.sum(axis=(0, 1))]
    covariance = [[(pixels * int(products[i, j]) - sums[i] * sums[j]) / pixels**2 for j in range(3)] for i in range(3)]
    eigenvalues, eigenvectors = np.linalg.eigh(np.array(covariance))
    eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0.0), eigenvectors[:, ::-1]
    # The sign of an eigenvector is nobody's: its largest component is made positive.
    signs = np.sign(eigenvectors[np.abs(eigenvectors).argmax(axis=0), range(3)])
    return Statistics(
        (pixel_sums / count).astype(np.float32), np.array(sums) / pixels, eigenvalues, eigenvectors * signs
    )
