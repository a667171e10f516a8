"""A look at the images of a source before they are prepared: have some more than 8 bits, and of which range."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import local

import numpy as np

from alexnet.data.decoding import MAX_PIXELS, deep_values, may_be_deep
from alexnet.data.pixel_range import FoundRange, RangeFinder
from alexnet.data.sources.item_list import ItemList
from alexnet.data.sources.items import Item, Reader, open_file
from alexnet.data.unreadable import UnreadableImageError

STARTS = 20_000
"""Images, evenly spaced, whose first bytes are looked at."""
PROBES = 64
"""Images, evenly spaced, that are read to find out whether any has more than 8 bits; if one has, all are read."""
_START_BYTES = 32
_EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp")
_CHUNK = 1024


def survey(items: ItemList, threads: int, max_pixels: int = MAX_PIXELS) -> FoundRange:
    """Find the pixel range of the images of a source.

    Parameters
    ----------
    items : ItemList
        All images of the source.
    threads : int
        Number of threads that read and decode.
    max_pixels : int
        Limit of the pixels of an image.

    Returns
    -------
    FoundRange
        The range, None where no image has more than 8 bits, with notes and remarks about it.
    """
    candidates = list(_candidates(items))
    if not candidates:
        return FoundRange(None, [], [])
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as pool:
        readers = local()

        def look(item: Item) -> tuple[np.ndarray, float | None] | None:
            if not hasattr(readers, "reader"):
                readers.reader = Reader()
            try:
                return deep_values(readers.reader.read(item), max_pixels)
            except UnreadableImageError:  # it is named when its turn comes
                return None

        probes = candidates[:: max(1, len(candidates) // PROBES)]
        if all(values is None for values in pool.map(look, probes)):
            return FoundRange(None, [], [])
        finder = RangeFinder(len(items))
        for chunk in _chunks(items, max(1, threads) * 4):  # bounds what is in memory
            for item, values in zip(chunk, pool.map(look, chunk), strict=True):
                if values is not None:
                    finder.add(*values, name=item.name)
    return finder.result()


def _may_be_deep(name: str) -> bool:
    return not name.lower().endswith(_EIGHT_BITS)


def _chunks(items: ItemList, size: int) -> Iterator[list[Item]]:
    """All items that may have more than 8 bits."""
    for start in range(0, len(items), _CHUNK):
        chunk = items.take(np.arange(start, min(start + _CHUNK, len(items))))
        rows = iter([item for item in chunk if _may_be_deep(item.name)])
        while part := list(itertools.islice(rows, size)):
            yield part


def _candidates(items: ItemList) -> Iterator[Item]:
    """Items, evenly spaced, that may have more than 8 bits by their name, and where it costs little their content."""
    step = max(1, len(items) // STARTS)
    for start in range(0, len(items), step * _CHUNK):
        for item in items.take(np.arange(start, min(start + step * _CHUNK, len(items)), step)):
            if not _may_be_deep(item.name):
                continue
            if item.packing == "plain":
                with suppress(OSError, ValueError, UnreadableImageError), open_file(item.file) as file:
                    file.seek(item.offset)
                    if not may_be_deep(file.read(_START_BYTES)):
                        continue
            yield item
