"""The search command: the images of a dataset that are nearest to given images, as a table or as JSON."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.cells import cell_len

from alexnet.data.dataset import PreparedDataset
from alexnet.data.decoding import MAX_PIXELS
from alexnet.network.features import BATCH_SIZE
from alexnet.prediction.classifier import decode_ahead
from alexnet.prediction.inputs import NamedImage, find_images, print_unread
from alexnet.prediction.predict import pad, show_file_names
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.progress import notify, progress
from alexnet.search.binary_codes import BITS
from alexnet.search.index import Index, choose_method, open_index


@dataclass(frozen=True)
class Neighbor:
    """An image of the dataset that is near a query.

    Parameters
    ----------
    path : str
        Its name in its source.
    label : str
        Its class.
    distance : float
        Euclidean distance in fc7; of binary codes the Hamming distance.
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
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Print the images of a split that are nearest to each given image on stdout, in order, as soon as they are known.

    An image that can't be read is named on stderr, and the others are searched for.

    Parameters
    ----------
    run : str or path
        The run folder.
    images : sequence of str or path
        Files, folders (searched recursively) and archives.
    data : str, path or PreparedDataset
        The prepared dataset.
    split : str
        Its split.
    top : int
        Number of neighbors of each image.
    method : str
        As for `Index.nearest`.
    form : str
        ``"table"``, or ``"json"``, a list with one object per line.
    device : str, optional
        Where the features are computed; by default the best device.
    max_pixels : int
        Limit of the pixels of an image.

    Returns
    -------
    int
        Number of images that could not be read.

    Raises
    ------
    AlexNetError
        If there are no images, and as `open_index`.
    """
    if top < 1:
        raise UsageError(f"top is {top}; it must be at least 1")
    inputs = find_images(images)
    for line in inputs.summary():
        notify(line)
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    method = choose_method(method, len(dataset.split(split)))
    keep_freed_memory()
    index = open_index(run, dataset, split=split, device=device)
    notify(_description(index, method))
    show_file_names()
    unreadable, separator = 0, "  "
    partly: list[str] = []
    with progress(len(inputs), "search") as bar:
        if form == "json":
            bar.result("[")
        try:
            for source, neighbors in _search_each(index, iter(inputs), top, method, max_pixels, partly.append):
                if isinstance(neighbors, str):
                    unreadable += 1
                    bar.note(f"alexnet: {source}: {neighbors}")
                elif form == "json":
                    bar.result(separator + _json(source, neighbors))
                    separator = ", "
                else:
                    for line in _table(source, neighbors, method):
                        bar.result(line)
                bar.advance()
        finally:
            if form == "json":
                bar.result("]")
    print_unread(unreadable, partly, len(inputs))
    return unreadable


def _search_each(
    index: Index,
    images: Iterator[NamedImage],
    top: int,
    method: str,
    max_pixels: int,
    notice: Callable[[str], None],
) -> Iterator[tuple[str, list[Neighbor] | str]]:
    """Each image's source with its neighbors, or with the reason why it can't be read."""
    decoded = decode_ahead(images, index.split.size, BATCH_SIZE, index.dataset.pixel_range, max_pixels, notice)
    while batch := list(itertools.islice(decoded, BATCH_SIZE)):
        readable = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        neighbors = iter(_neighbors(index, np.stack(readable), top, method) if readable else ())
        for source, pixels in batch:
            yield source, pixels if isinstance(pixels, str) else next(neighbors)


def _neighbors(index: Index, images: np.ndarray, top: int, method: str) -> Iterator[list[Neighbor]]:
    features = index.features(images)
    if not np.isfinite(features).all():
        raise AlexNetError(
            f"{index.member.run.path}: the activations of {index.layer} have NaN or Inf values: the training diverged"
        )
    labels = index.member.run.config.labels
    for distances, positions in zip(*index.nearest(features, top, method), strict=True):
        yield [
            Neighbor(index.split.paths(position), labels[index.split.labels[position]], round(distance, 4))
            for position, distance in zip(positions.tolist(), distances.tolist(), strict=True)
            if position >= 0
        ]


def _description(index: Index, method: str) -> str:
    """Describe the search: its images, its measure and its recall."""
    among = f"nearest of {len(index):,} {index.split.name} images"
    measure = f"by Euclidean distance in {index.layer}"
    if method == "exact":
        return f"{among} {measure}, exactly"
    if method == "codes":
        measure = f"by Hamming distance of {BITS}-bit codes"
    recall = index.recall(method)
    if not recall:
        return f"{among}, {measure}"
    return f"{among}, {measure}: recall of the ten nearest {recall['10']:.0%} at 10, {recall['100']:.0%} at 100"


def _table(source: str, neighbors: list[Neighbor], method: str) -> Iterator[str]:
    yield source
    width = max((cell_len(neighbor.label) for neighbor in neighbors), default=0)
    for neighbor in neighbors:
        distance = f"{neighbor.distance:.0f} bits" if method == "codes" else f"{neighbor.distance:.2f}"
        yield f"  {distance:>10}  {pad(neighbor.label, width)}  {neighbor.path}"


def _json(source: str, neighbors: list[Neighbor]) -> str:
    return json.dumps({"source": source, "nearest": [asdict(one) for one in neighbors]}, ensure_ascii=False)
