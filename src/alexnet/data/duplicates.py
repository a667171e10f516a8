"""Duplicates: prepared images that are equal in every pixel, in two splits or under two classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet.data.columns import values
from alexnet.data.dataset import images_of, read_shard
from alexnet.data.sources.plan import count, printable

STORED = 100
"""Pairs in `dataset.json`; their number is always whole."""
SHOWN = 3


class Place(NamedTuple):
    """An image of a dataset: its name in the source, its split and its class."""

    path: str
    split: str
    label: str


def find_duplicates(
    folder: Path, checksums: Mapping[str, Sequence[int]], size: int, classes: Sequence[str]
) -> list[tuple[Place, Place]]:
    """Find pairs of equal images that are in two splits, or under two classes.

    Parameters
    ----------
    folder
        The folder of the shards.
    checksums
        File name of a shard → checksum of each of its images. Equal ones are compared pixel by pixel.
    size
        Side of the images in pixels.
    classes
        Class names.

    Returns
    -------
    list of (Place, Place)
        Each further image of a set of equal ones, with an earlier one of another split or class.
    """
    shards = list(checksums)
    of_all = np.concatenate([np.empty(0, np.int64), *(np.asarray(checksums[name], np.int64) for name in shards)])
    starts = np.cumsum([0, *(len(checksums[name]) for name in shards)])
    order = np.argsort(of_all, kind="stable")
    repeated = np.flatnonzero(of_all[order][1:] == of_all[order][:-1])
    candidates = np.unique(np.concatenate([order[repeated], order[repeated + 1]]))
    first_of: dict[bytes, list[Place]] = {}
    pairs = []
    for index in candidates.tolist():  # in the order of the dataset: a shard is mapped once
        shard = int(np.searchsorted(starts, index, side="right")) - 1
        row = index - int(starts[shard])
        batch = read_shard(folder / shards[shard])
        label = classes[int(values(batch.column("label"), np.int32)[row])]
        place = Place(batch.column("path")[row].as_py(), shards[shard].rpartition("-")[0], label)
        equal = first_of.setdefault(hashlib.sha256(images_of(batch, size)[row]).digest(), [])
        other = next((one for one in equal if (one.split, one.label) != (place.split, place.label)), None)
        if other is not None:
            pairs.append((other, place))
        if all((one.split, one.label) != (place.split, place.label) for one in equal):
            equal.append(place)
    return pairs


def to_index(pairs: Sequence[tuple[Place, Place]]) -> dict[str, Any]:
    """The pairs as `dataset.json` has them: their number and the first of them."""
    return {"count": len(pairs), "pairs": [[one._asdict() for one in pair] for pair in pairs[:STORED]]}


def notes(duplicates: Mapping[str, Any]) -> list[str]:
    """The pairs for people, a line each; none if there are none."""
    if not duplicates["count"]:
        return []
    found = [
        f"warning: {count(duplicates['count'], 'pair')} of equal images in two splits or under two classes: remove one "
        "of each, or leave it out with --labels"
    ]
    for one, other in duplicates["pairs"][:SHOWN]:
        found.append(
            "  " + " = ".join(f"{printable(p['path'])} ({p['split']}, {printable(p['label'])})" for p in (one, other))
        )
    if duplicates["count"] > SHOWN:
        found.append(f"  and {duplicates['count'] - SHOWN:,} more, see `duplicates` in dataset.json")
    return found
