"""Mean image and RGB principal components of a training split, exact and in one pass.

Sums are integers, so that neither the order of the shards nor an interruption changes a bit of the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """Statistics of a training split, of pixel values 0 to 255 (paper, sections 2 and 4.1).

    Attributes
    ----------
    mean_image
        (size, size, 3) float32.
    mean_rgb
        (3,) float64.
    eigenvalues
        (3,) float64, descending, of the population covariance of the RGB values of all pixels.
    eigenvectors
        (3, 3) float64, one per column.
    """

    mean_image: np.ndarray
    mean_rgb: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


def pixel_sum(images: np.ndarray) -> np.ndarray:
    """The exact sum of at most 257 images (n, size, size, 3) uint8, as (size, size, 3) uint16."""
    return images.sum(axis=0, dtype=np.uint16)


def statistics(pixel_sums: np.ndarray, products: np.ndarray, count: int) -> Statistics:
    """Compute the statistics from sums.

    Parameters
    ----------
    pixel_sums
        Sum of the images, (size, size, 3) int64.
    products
        Sums of the products of two channels over all pixels, (3, 3) int64.
    count
        Number of images.
    """
    height, width, _ = pixel_sums.shape
    pixels = count * height * width
    # Python's integers have no limit, and their quotient is rounded once.
    sums = [int(value) for value in pixel_sums.sum(axis=(0, 1))]
    covariance = [[(pixels * int(products[i, j]) - sums[i] * sums[j]) / pixels**2 for j in range(3)] for i in range(3)]
    eigenvalues, eigenvectors = np.linalg.eigh(np.array(covariance))
    eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0.0), eigenvectors[:, ::-1]
    # The sign of an eigenvector is arbitrary: its largest component is made positive.
    signs = np.sign(eigenvectors[np.abs(eigenvectors).argmax(axis=0), range(3)])
    return Statistics(
        (pixel_sums / count).astype(np.float32), np.array(sums) / pixels, eigenvalues, eigenvectors * signs
    )
