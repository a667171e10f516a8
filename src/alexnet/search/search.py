"""The verb: what is nearest to images from anywhere, said for people or as JSON."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset
from alexnet.network.features import BATCH_SIZE
from alexnet.prediction.classifier import decode_ahead
from alexnet.prediction.inputs import NamedImage, find_images
from alexnet.prediction.predict import show_file_names
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.progress import progress
from alexnet.search.index import Index, choose_method, open_index


@dataclass(frozen=True)
class Near:
    """An image of the dataset: its name in its source, its class, and how far it is from the one asked about.

    `distance`: Euclidean in fc7; of binary codes the number of bits that differ.
    """

    path: str
    label: str
    distance: float


def search(
    run: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str = "train",
    top: int = 5,
    method: str = "auto",
    form: str = "table",
    device: str | None = None,
) -> int:
    """Print the `top` images of `split` nearest to each of `images` on stdout, in order, as soon as they are known.

    `images`: files and folders (searched through). `method` as for `Index.nearest`. `form`: "table", or "json", a
    list with one object a line. What can't be read is named on stderr and the rest is done. Returns how many could not
    be read. Raises `AlexNetError` when there are no images, and as `open_index`.
    """
    if top < 1:
        raise UsageError(f"top is {top}; it must be at least 1")
    inputs = find_images(images)
    for line in inputs.summary():
        print(line, file=sys.stderr)
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    method = choose_method(method, len(dataset.split(split)))
    keep_freed_memory()
    index = open_index(run, dataset, split=split, device=device)
    print(_about(index, method), file=sys.stderr)
    show_file_names()
    unread, first = 0, True
    with progress(len(inputs.images), "search") as bar:
        if form == "json":
            bar.result("[")
        try:
            for source, found in _nearest(index, iter(inputs), top, method):
                if isinstance(found, str):
                    unread += 1
                    bar.note(f"alexnet: {source}: {found}")
                elif form == "json":
                    bar.result(("  " if first else ", ") + _as_json(source, found))
                    first = False
                else:
                    for line in _as_table(source, found, method):
                        bar.result(line)
                bar.advance()
        finally:
            if form == "json":
                bar.result("]")
    if unread:
        print(f"alexnet: {unread:,} of {len(inputs.images):,} images could not be read", file=sys.stderr)
    return unread


def _nearest(
    index: Index, images: Iterator[NamedImage], top: int, method: str
) -> Iterator[tuple[str, list[Near] | str]]:
    """Each file with what is nearest to it, or why it can't be read."""
    read = decode_ahead(images, index.split.size, BATCH_SIZE, index.dataset.pixel_range)
    while batch := list(itertools.islice(read, BATCH_SIZE)):
        readable = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        found = iter(_named(index, np.stack(readable), top, method) if readable else ())
        for source, pixels in batch:
            yield source, pixels if isinstance(pixels, str) else next(found)


def _named(index: Index, images: np.ndarray, top: int, method: str) -> Iterator[list[Near]]:
    features = index.features(images)
    if not np.isfinite(features).all():
        raise AlexNetError("the activations of fc7 are not finite: the weights are not those of a sound training")
    labels = index.member.run.config.labels
    for distances, rows in zip(*index.nearest(features, top, method), strict=True):
        yield [
            Near(index.split.paths(row), labels[index.split.labels[row]], distance)
            for row, distance in zip(rows.tolist(), distances.tolist(), strict=True)
            if row >= 0
        ]


def _about(index: Index, method: str) -> str:
    among = f"nearest of {len(index):,} {index.split.name} images"
    if method == "exact":
        return f"{among} by Euclidean distance in fc7, exactly"
    shares = index.recall(method)
    how = "by Euclidean distance in fc7" if method == "index" else "by the bits that differ in codes of 128"
    if not shares:
        return f"{among}, {how}"
    return f"{among}, {how}: finds {shares['10']:.0%} of the ten nearest in its first 10, {shares['100']:.0%} in 100"


def _as_table(source: str, found: list[Near], method: str) -> Iterator[str]:
    yield source
    width = max((len(near.label) for near in found), default=0)
    for near in found:
        distance = f"{near.distance:.0f} bits" if method == "codes" else f"{near.distance:.2f}"
        yield f"  {distance:>10}  {near.label:<{width}}  {near.path}"


def _as_json(source: str, found: list[Near]) -> str:
    near: list[dict[str, Any]] = [{"path": n.path, "label": n.label, "distance": round(n.distance, 4)} for n in found]
    return json.dumps({"source": source, "nearest": near}, ensure_ascii=False)
