"""How far images are scaled down before a network sees them, and the smallest spot that survives it.

The rule is measured with the filter that scales the images, not assumed: a spot of k × k pixels on a uniform ground is
scaled, at every position relative to the pixels, and its largest remaining contrast is averaged.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from alexnet.data.resize import filter_matrix
from alexnet.data.sources.item_list import ItemList
from alexnet.data.sources.items import Item, open_file, read_item

SAMPLED = 100
"""Images, evenly spaced, whose height and width are read."""
KEPT = 0.5
"""Share of its contrast that a spot must keep."""
SMALL = 3
"""Side in pixels of a spot that should keep it."""
_OUTPUTS = 48
_LARGEST = 64


def shorter_sides(items: ItemList) -> np.ndarray:
    """The shorter sides in pixels of up to `SAMPLED` images that Pillow opens, ascending."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(SAMPLED, len(items))).round().astype(np.int64))
    found = [side for item in items.take(chosen) if (side := _shorter_side(item)) is not None]
    return np.sort(np.array(found, dtype=np.int64))


def kept_contrast(spot: int, *factors: float) -> float:
    """The share of its contrast that a spot keeps.

    Parameters
    ----------
    spot : int
        Its side in pixels.
    *factors : float
        By which images are scaled down, one after the other; below 1 they are enlarged.

    Returns
    -------
    float
        0 to 1, the mean over all positions.
    """
    matrix = _scaling(factors)
    sums = np.concatenate([np.zeros((len(matrix), 1)), matrix.cumsum(axis=1)], axis=1)
    peaks = (sums[:, spot:] - sums[:, :-spot]).max(axis=0)
    edge = len(peaks) // 6  # without those at the border
    return float(min(1.0, peaks[edge : len(peaks) - edge].mean() ** 2))  # along both axes


def smallest_spot(*factors: float) -> int:
    """The smallest side in pixels of a spot that keeps `KEPT` of its contrast; see `kept_contrast`."""
    return next((k for k in range(1, _LARGEST) if kept_contrast(k, *factors) >= KEPT), _LARGEST)


def describe_scaling(sides: np.ndarray, size: int) -> list[str]:
    """Return what `prepare` says of the scaling: the factor, and a warning where small objects may vanish.

    Parameters
    ----------
    sides : ndarray
        As `shorter_sides` returns them.
    size : int
        Side of the prepared images in pixels.
    """
    if not len(sides) or (sides == size).all():
        return []
    median = int(np.median(sides))
    factor = median / size
    which = f"{median} pixels" if sides[0] == sides[-1] else f"{sides[0]} to {sides[-1]} pixels (median {median})"
    if factor < 1:
        return [f"the shorter side of the images has {which}: enlarged to {size}"]
    lines = [f"the shorter side of the images has {which}: scaled down to {size}, factor {factor:.3g}"]
    smallest = smallest_spot(factor)
    if smallest > SMALL:
        lines.append(
            f"small objects may vanish: of a spot of fewer than {smallest} pixels less than half of the contrast is "
            f"left; if such ones matter, prepare with --size {size_for(median)}"
        )
    return lines


def size_for(side: int) -> int:
    """The smallest --size, a multiple of 32, with which a spot of `SMALL` pixels keeps its contrast."""
    size = 32
    while size < min(side, 4096) and smallest_spot(side / size) > SMALL:
        size += 32
    return size


def describe_crops(source_side: int | None, size: int, crop_size: int, input_size: int) -> str:
    """Return what `train` says of the resolution that the network sees."""
    line = f"crops of {crop_size} of {size} pixels"
    if input_size != crop_size:
        line += f", scaled to {input_size}"
    if source_side is None:
        return line
    factors = source_side / size, crop_size / input_size
    total = factors[0] * factors[1]
    if total <= 1:
        return f"{line}: images of {source_side} pixels are not scaled down"
    return (
        f"{line}: images of {source_side} pixels are scaled down {total:.3g} times; a spot keeps half of its contrast "
        f"from {smallest_spot(*factors)} pixels"
    )


@lru_cache(maxsize=64)
def _scaling(factors: tuple[float, ...]) -> np.ndarray:
    """The matrix of the scalings along an axis: (outputs, pixels)."""
    matrix = np.eye(_OUTPUTS)
    for factor in reversed(factors):
        length = max(1, round(len(matrix.T) * factor))
        matrix = matrix @ filter_matrix(length, len(matrix.T))
    return matrix


def _shorter_side(item: Item) -> int | None:
    try:
        if item.packing == "plain" and not item.offset and item.length < 0:
            with open_file(item.file) as file, Image.open(file) as image:
                return min(image.size)
        with Image.open(io.BytesIO(read_item(item))) as image:
            return min(image.size)
    except Exception:  # whatever a decoder raises; an image that cannot be read is named when its turn comes
        return None
