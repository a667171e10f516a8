"""A look at the sizes of the images of a source: by how much `prepare` scales them."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
from PIL import Image

from alexnet.data.decoding import UnreadableImageError
from alexnet.data.sources.items import ItemList, Reader

PROBES = 48
"""Images, evenly spaced, whose size is looked at."""


def scale_note(items: ItemList, size: int) -> str | None:
    """A line about the scale, None where no image is scaled or no size can be read."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(PROBES, len(items))).round().astype(np.int64))
    reader, sides = Reader(), list[int]()
    for item in items.take(chosen):
        with suppress(UnreadableImageError, OSError, ValueError, Image.DecompressionBombError):
            sides.append(min(Image.open(io.BytesIO(reader.read(item))).size))  # the header alone is decoded
    if not sides or set(sides) == {size}:
        return None
    middle = int(np.median(sides))
    found = f"{middle:,} pixels" if min(sides) == max(sides) else f"{min(sides):,} to {max(sides):,} pixels"
    note = f"scale: shorter sides of {found} become {size}, a factor of {size / middle:.2g}"
    if len(set(sides)) > 1:
        note += f" for the median of {middle:,}"
    if middle > size:
        note += f"; where details of a few pixels matter, --size {middle} keeps them"
    return note
