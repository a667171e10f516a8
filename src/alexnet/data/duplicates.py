"""Duplicates: prepared images that are equal in every pixel, or nearly so, in two splits or under two classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alexnet.data.columns import values
from alexnet.data.dataset import images_of, read_shard
from alexnet.data.near_duplicates import find_near_duplicates
from alexnet.data.sources.plan import count, printable
from alexnet.runtime.errors import AlexNetError

KEEP, DROP, ERROR = POLICIES = ("keep", "drop", "error")
"""Treatments of duplicates by `prepare`."""
STORED = 100
"""Pairs in `dataset.json`; their number is always whole."""
SHOWN = 3


class Place(NamedTuple):
    """An image of a dataset: its name in the source, its split and its class."""

    path: str
    split: str
    label: str


class Duplicate(NamedTuple):
    """Two images that are equal or nearly so.

    Attributes
    ----------
    first, second
        The images.
    positions
        Their positions in the order of the shards.
    similarity
        Correlation of their thumbnails; None for images that are equal in every pixel.
    """

    first: Place
    second: Place
    positions: tuple[int, int]
    similarity: float | None = None

    @property
    def conflicting(self) -> bool:
        """Whether the images are under two classes."""
        return self.first.label != self.second.label


class Dropped(NamedTuple):
    """A training image that was left out because it is a copy of a validation or test image."""

    position: int
    path: str
    copy_of: str
    split: str


def find_duplicates(
    folder: Path,
    checksums: Mapping[str, Sequence[int]],
    thumbnails: np.ndarray,
    size: int,
    classes: Sequence[str],
) -> list[Duplicate]:
    """Find pairs of equal and of nearly equal images that are in two splits, or under two classes.

    Parameters
    ----------
    folder
        The folder of the shards.
    checksums
        File name of a shard → checksum of each of its images. Equal ones are compared pixel by pixel.
    thumbnails
        Thumbnails of all images, in the order of the shards.
    size
        Side of the images in pixels.
    classes
        Class names.

    Returns
    -------
    list of Duplicate
        Of equal images each further one with an earlier one of another split or class; then near duplicates, the most
        similar first, each image with at most one image of each other split and class.
    """
    shards = _Shards(folder, {name: len(sums) for name, sums in checksums.items()}, classes)
    equal = list(_equal(shards, checksums, size))
    known = {frozenset(pair.positions) for pair in equal}
    splits, labels = shards.kinds()
    found: list[Duplicate] = []
    taken: set[tuple[int, str, str]] = set()
    for near in find_near_duplicates(thumbnails, splits * len(classes) + labels):
        if frozenset((near.first, near.second)) in known:
            continue
        first, second = shards.place(near.first), shards.place(near.second)
        keys = {(near.first, second.split, second.label), (near.second, first.split, first.label)}
        if not keys & taken:
            found.append(Duplicate(first, second, (near.first, near.second), round(near.similarity, 4)))
            taken |= keys
    return equal + found


def copies_to_drop(duplicates: Sequence[Duplicate]) -> list[Dropped]:
    """The training images that are copies of a validation or test image of the same class."""
    found: dict[int, Dropped] = {}
    for pair in duplicates:
        sides = ((pair.first, pair.second, pair.positions[0]), (pair.second, pair.first, pair.positions[1]))
        for one, other, position in sides:
            if one.split == "train" != other.split and not pair.conflicting:
                found.setdefault(position, Dropped(position, one.path, other.path, other.split))
    return [found[position] for position in sorted(found)]


def refuse(duplicates: Sequence[Duplicate]) -> None:
    """Raise AlexNetError if there are duplicates, with the first of them."""
    if duplicates:
        raise AlexNetError(
            f"{count(len(duplicates), 'pair')} of equal or nearly equal images in two splits or under two classes, "
            "refused by --duplicates error. Remove one of each or leave it out with --labels, or run again with "
            "--duplicates keep or drop; what is prepared is used:\n" + "\n".join(_listed(duplicates))
        )


def to_index(duplicates: Sequence[Duplicate], dropped: Sequence[Dropped]) -> dict[str, Any]:
    """The duplicates as `dataset.json` has them: their numbers, the first pairs, and every image that was dropped."""
    equal = [pair for pair in duplicates if pair.similarity is None]
    near = [pair for pair in duplicates if pair.similarity is not None]
    return {
        "duplicates": {
            "count": len(equal),
            "pairs": [[pair.first._asdict(), pair.second._asdict()] for pair in equal[:STORED]],
        },
        "near_duplicates": {
            "count": len(near),
            "pairs": [
                {"images": [pair.first._asdict(), pair.second._asdict()], "similarity": pair.similarity}
                for pair in near[:STORED]
            ],
        },
        "dropped_duplicates": [{"path": one.path, "copy_of": one.copy_of, "split": one.split} for one in dropped],
    }


def notes(duplicates: Sequence[Duplicate], dropped: Sequence[Dropped], policy: str) -> list[str]:
    """Describe what was found and done, for people, a line each; none without duplicates."""
    found = []
    for kind, pairs in (
        ("equal images", [pair for pair in duplicates if pair.similarity is None]),
        ("nearly equal images", [pair for pair in duplicates if pair.similarity is not None]),
    ):
        if pairs:
            found.append(f"warning: {count(len(pairs), 'pair')} of {kind} in two splits or under two classes")
            found += _listed(pairs)
    if not found:
        return []
    if policy == KEEP:
        found.append(
            "  kept: accuracies on val and test are too high where the training has a copy. --duplicates drop leaves "
            "the copy in train out, --labels leaves out or corrects any image"
        )
        return found
    names = ", ".join(printable(one.path) for one in dropped[:SHOWN])
    more = f" and {len(dropped) - SHOWN:,} more (dropped_duplicates in dataset.json)" if len(dropped) > SHOWN else ""
    found.append(f"  dropped from train: {count(len(dropped), 'image')}" + (f": {names}{more}" if dropped else ""))
    conflicting = sum(pair.conflicting for pair in duplicates)
    if conflicting:
        found.append(
            f"  not dropped: {count(conflicting, 'pair')} under two classes, of which one class is wrong; decide which "
            "and correct it with --labels"
        )
    rest = sum("train" not in (pair.first.split, pair.second.split) and not pair.conflicting for pair in duplicates)
    if rest:
        found.append(f"  not dropped: {count(rest, 'pair')} in val and test, which influence no training")
    return found


def _listed(pairs: Sequence[Duplicate]) -> list[str]:
    lines = []
    for pair in pairs[:SHOWN]:
        names = [f"{printable(p.path)} ({p.split}, {printable(p.label)})" for p in (pair.first, pair.second)]
        lines.append("  " + (" = " if pair.similarity is None else " ≈ ").join(names))
    if len(pairs) > SHOWN:
        stored = f"the first {STORED}" if len(pairs) > STORED else "all"
        lines.append(f"  and {len(pairs) - SHOWN:,} more, {stored} in dataset.json")
    return lines


def _equal(shards: _Shards, checksums: Mapping[str, Sequence[int]], size: int) -> Iterator[Duplicate]:
    of_all = np.concatenate([np.empty(0, np.int64), *(np.asarray(sums, np.int64) for sums in checksums.values())])
    order = np.argsort(of_all, kind="stable")
    repeated = np.flatnonzero(of_all[order][1:] == of_all[order][:-1])
    candidates = np.unique(np.concatenate([order[repeated], order[repeated + 1]]))
    first_of: dict[bytes, list[tuple[int, Place]]] = {}
    for index in candidates.tolist():  # in the order of the dataset
        place = shards.place(index)
        equal = first_of.setdefault(hashlib.sha256(shards.image(index, size).tobytes()).digest(), [])
        other = next((one for one in equal if one[1][1:] != place[1:]), None)
        if other is not None:
            yield Duplicate(other[1], place, (other[0], index))
        if all(one[1:] != place[1:] for _, one in equal):
            equal.append((index, place))


class _Shards:
    """The shards of an unfinished dataset, and its images by their position in the order of the shards."""

    def __init__(self, folder: Path, rows: Mapping[str, int], classes: Sequence[str]) -> None:
        self.folder, self.names, self.classes = folder, list(rows), classes
        self._starts = np.cumsum([0, *rows.values()])
        self._mapped: dict[int, pa.RecordBatch] = {}

    def place(self, index: int) -> Place:
        shard, row, batch = self._find(index)
        label = self.classes[int(values(batch.column("label"), np.int32)[row])]
        return Place(batch.column("path")[row].as_py(), self.names[shard].rpartition("-")[0], label)

    def image(self, index: int, size: int) -> np.ndarray:
        _, row, batch = self._find(index)
        return images_of(batch, size)[row]

    def kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """The split, as a number, and the label of each image, (n,) int64."""
        numbers: dict[str, int] = {}
        splits, labels = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for name in self.names:
            found = values(read_shard(self.folder / name).column("label"), np.int32)
            labels.append(found.astype(np.int64))
            splits.append(np.full(len(found), numbers.setdefault(name.rpartition("-")[0], len(numbers))))
        return np.concatenate(splits), np.concatenate(labels)

    def _find(self, index: int) -> tuple[int, int, pa.RecordBatch]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        if shard not in self._mapped:
            self._mapped[shard] = read_shard(self.folder / self.names[shard])
        return shard, index - int(self._starts[shard]), self._mapped[shard]
