"""Near duplicates: images that show the same photograph, rescaled, compressed again, slightly cropped, or brighter.

Every image has a thumbnail, made while it is prepared; only thumbnails are compared. Their low frequencies, and the
part that the mean of the dataset explains, say little and are removed. Candidates have equal signs on random directions
(locality-sensitive hashing, Charikar 2002), so that the effort grows linearly with the number of images. A candidate
pair is named if its images are much more alike than each of them is to its other neighbors (the ratio test of Lowe
2004): where every part looks like every other one, as faultless solar cells do, likeness alone says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 32
"""Side of a thumbnail in pixels."""
LOW = 11
"""Side in pixels of the window whose mean is subtracted."""
COMPONENTS = 64
"""Most principal components of the thumbnails that are compared to find candidates."""
SAMPLE = 5_000
"""Most thumbnails from which the components are computed."""
TABLES = 24
"""Divisions of the images into buckets."""
WINDOW = 8
"""Images of a bucket with which each of its images is compared, so that a full bucket is no quadratic effort."""
CANDIDATE = 0.75
"""Least correlation of the components of a candidate pair."""
LEAST_CONTRAST = 0.5
"""Least standard deviation of a filtered thumbnail: blank images are not compared."""
NEIGHBOR = 5
"""A pair is compared with the likeness of each image to its fifth nearest other one: more copies are a series."""
ALIGNED, ALIGNED_RATIO = 0.95, 0.25
"""Copies with the same frame: least correlation, and largest distance relative to that of the neighbor."""
SHIFTED, SHIFTED_RATIO = 0.85, 0.5
"""Cropped copies, after registration."""
REGISTRABLE, CROWDED = 0.4, 0.7
"""Least correlation before registration, and largest one to the neighbor: in a crowd a shift makes others alike too."""
SMALLEST_PART = 29
"""Side of the smallest part of a thumbnail that a cropped copy may show."""
ROWS = 16_384


class NearPair(NamedTuple):
    """Positions of two images, the smaller first, and the correlation of their filtered thumbnails."""

    first: int
    second: int
    similarity: float


def thumbnails(images: np.ndarray) -> np.ndarray:
    """The green channel of images (n, size, size, 3) uint8 as (n, 32, 32) uint8."""
    made = np.empty((len(images), SIDE, SIDE), dtype=np.uint8)
    factor = max(1, images.shape[1] // SIDE)
    for out, image in zip(made, images, strict=True):
        small = Image.fromarray(np.ascontiguousarray(image[:, :, 1])).reduce(factor)
        out[:] = np.asarray(small if small.size == (SIDE, SIDE) else small.resize((SIDE, SIDE), Image.Resampling.BOX))
    return made


def find_near_duplicates(small: np.ndarray, kind: np.ndarray) -> list[NearPair]:
    """Find near duplicates.

    Parameters
    ----------
    small : ndarray
        Thumbnails of all images, (n, 32, 32) uint8.
    kind : ndarray
        (n,) int: only pairs of different kinds are returned.

    Returns
    -------
    list of NearPair
        By falling similarity.
    """
    if len(small) < 2:
        return []
    mean = small.mean(axis=0, dtype=np.float32)
    pairs = candidates(components(small, mean))
    if not len(pairs):
        return []
    used, index = np.unique(pairs, return_inverse=True)
    patterns = filtered(small[used], mean).reshape(len(used), -1)
    patterns /= np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-6)
    one, other = index.reshape(-1, 2).T
    blocks = [slice(start, start + ROWS) for start in range(0, len(pairs), ROWS)]
    aligned = np.concatenate([np.einsum("ij,ij->i", patterns[one[rows]], patterns[other[rows]]) for rows in blocks])
    neighbor = _neighbor_likeness(one, other, aligned, len(used))
    farther = 1 - np.maximum(neighbor[one], neighbor[other])
    asked = kind[pairs[:, 0]] != kind[pairs[:, 1]]
    same = asked & (aligned >= ALIGNED) & (1 - aligned <= ALIGNED_RATIO * farther)
    best = aligned.astype(np.float64)
    tried = np.flatnonzero(asked & ~same & (aligned >= REGISTRABLE) & (farther >= 1 - CROWDED))
    cropped = np.zeros(len(pairs), dtype=bool)
    if len(tried):
        shape = (-1, SIDE, SIDE)
        best[tried] = registered(patterns[one[tried]].reshape(shape), patterns[other[tried]].reshape(shape))
        cropped[tried] = (best[tried] >= SHIFTED) & (1 - best[tried] <= SHIFTED_RATIO * farther[tried])
    found = [NearPair(int(pairs[i, 0]), int(pairs[i, 1]), float(best[i])) for i in np.flatnonzero(same | cropped)]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def filtered(small: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Thumbnails without low frequencies and the part that the mean thumbnail explains, (n, 32, 32) float32."""
    values = _high(small.astype(np.float32))
    base = _high(mean[None])[0]
    energy = float((base * base).sum())
    if energy > 0:
        values -= np.einsum("nij,ij->n", values, base)[:, None, None] / energy * base
    return values - values.mean(axis=(1, 2), keepdims=True)


def _high(values: np.ndarray) -> np.ndarray:
    return values - _MEANS @ values @ _MEANS.T


def _window_means(side: int, width: int) -> np.ndarray:
    """The matrix (side, side) that averages windows of `width` pixels; edge pixels are repeated beyond the edge."""
    pixels = np.arange(side)[:, None] + np.arange(width) - width // 2
    matrix = np.zeros((side, side), dtype=np.float32)
    np.add.at(matrix, (np.arange(side)[:, None], pixels.clip(0, side - 1)), np.float32(1 / width))
    return matrix


_MEANS = _window_means(SIDE, LOW)


def components(small: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Principal components of the filtered thumbnails, (n, c) float32, rows of unit length; zeros for a blank image."""
    # Filtering and projection are linear: one matrix does both.
    pixels = np.eye(SIDE * SIDE, dtype=np.float32).reshape(-1, SIDE, SIDE)
    filters = _coarse(filtered(pixels, mean))
    sample = small[:: max(1, len(small) // SAMPLE)].reshape(-1, SIDE * SIDE).astype(np.float32) @ filters
    sample /= np.maximum(np.linalg.norm(sample, axis=1, keepdims=True), 1e-6)
    values, vectors = np.linalg.eigh(sample.T @ sample / len(sample))
    kept = min(COMPONENTS, max(4, len(sample) // 4))  # those that a few images determine
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    basis = filters @ vectors
    least = max(0.01 * float(values[0]), 1e-12)  # all images may be blank
    scale = np.maximum(values, least) ** 0.25  # frequent components count less, rare ones are not noise
    found = np.empty((len(small), basis.shape[1]), dtype=np.float32)
    for start in range(0, len(small), ROWS):
        rows = small[start : start + ROWS].reshape(-1, SIDE * SIDE).astype(np.float32) @ basis
        blank = np.linalg.norm(rows, axis=1) < LEAST_CONTRAST * SIDE / 2
        rows /= scale
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        rows[blank] = 0
        found[start : start + ROWS] = rows
    return found


def _coarse(values: np.ndarray) -> np.ndarray:
    """(n, 32, 32) → (n, 256): means of 2×2 pixels."""
    half = SIDE // 2
    return values.reshape(len(values), half, 2, half, 2).mean(axis=(2, 4)).reshape(len(values), -1)


def candidates(rows: np.ndarray) -> np.ndarray:
    """Pairs (m, 2) of positions of rows whose product is at least `CANDIDATE`, the smaller first, in order."""
    rng = np.random.default_rng(0)
    usable = np.flatnonzero(rows.any(axis=1))
    bits = max(4, int(np.ceil(np.log2(max(2, len(usable))))))
    weights = 1 << np.arange(bits, dtype=np.int64)
    found = [np.empty(0, dtype=np.int64)]
    for _ in range(TABLES):
        projected = rows[usable] @ rng.standard_normal((rows.shape[1], bits + 1), dtype=np.float32)
        codes = (projected[:, :bits] > 0) @ weights
        order = np.lexsort((projected[:, bits], codes))
        ranked, codes = usable[order], codes[order]
        for step in range(1, min(WINDOW, len(ranked) - 1) + 1):
            same = np.flatnonzero(codes[step:] == codes[:-step])
            one, other = ranked[same], ranked[same + step]
            near = np.einsum("ij,ij->i", rows[one], rows[other]) >= CANDIDATE
            found.append(np.minimum(one, other)[near] * len(rows) + np.maximum(one, other)[near])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), len(rows)), axis=1)


def _neighbor_likeness(one: np.ndarray, other: np.ndarray, aligned: np.ndarray, images: int) -> np.ndarray:
    """The correlation (images,) of each image with its `NEIGHBOR`-th candidate; 0 where it has fewer."""
    image, likeness = np.concatenate([one, other]), np.concatenate([aligned, aligned])
    order = np.lexsort((-likeness, image))
    starts = np.searchsorted(image[order], np.arange(images))
    ends = np.append(starts[1:], len(order))
    has = ends - starts >= NEIGHBOR
    found = np.zeros(images)
    found[has] = likeness[order][starts[has] + NEIGHBOR - 1]
    return np.maximum(found, 0)


def registered(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The largest correlation (n,) of filtered thumbnails (n, 32, 32), where either may show a part of the other."""
    best = np.full(len(ones), -1.0)
    for whole, part in ((ones, others), (others, ones)):
        for side in range(SIDE, SMALLEST_PART - 1, -1):
            template = part if side == SIDE else _resized(part, side)
            for top in range(SIDE - side + 1):
                for left in range(SIDE - side + 1):
                    window = whole[:, top : top + side, left : left + side]
                    best = np.maximum(best, _correlation(window, template))
    return best


def _resized(values: np.ndarray, side: int) -> np.ndarray:
    out = np.empty((len(values), side, side), dtype=np.float32)
    for row, value in zip(out, values, strict=True):
        row[:] = np.asarray(Image.fromarray(value).resize((side, side), Image.Resampling.BICUBIC))
    return out


def _correlation(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    a = ones - ones.mean(axis=(1, 2), keepdims=True)
    b = others - others.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.einsum("nij,nij->n", a, a) * np.einsum("nij,nij->n", b, b))
    return np.einsum("nij,nij->n", a, b) / np.maximum(norm, 1e-9)
