"""Lists of the images of each split, without classes, as in Food-101: meta/train.txt and meta/test.txt.

A line of text, or a string of a JSON list or of {class: list}, is the path of an image, with or without its ending.
One JSON file may have the lists of all splits: {"train": [...], "test": [...]}. What follows the path, after a space,
tab or comma, is not used: the folders say the classes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any

from alexnet.data.sources.file_index import FileIndex
from alexnet.data.sources.layout import Layout
from alexnet.data.sources.names import first_names, name_tokens, split_of
from alexnet.data.sources.plan import printable
from alexnet.data.sources.reading import Reading
from alexnet.data.sources.table_files import decode_text
from alexnet.data.sources.tables import Table, read_table
from alexnet.data.sources.walking import Entry, read_entry
from alexnet.runtime.errors import AlexNetError, UsageError

LIST_ENDINGS = (".txt", ".lst", ".csv", ".json")
_FOUND = 0.9  # share of the lines of a list that must name an image


def split_of_list(name: str) -> str | None:
    """The split that the name of a list means, as in train.txt, testing_list.txt, val1.txt; None for another file."""
    stem, ending = os.path.splitext(name)
    named = split_of(stem)
    if named is None or ending.lower() not in LIST_ENDINGS or not set(named.rest) <= {"list", "lists", "ids", "names"}:
        return None
    return named.split


def read_lists(data: bytes, name: str, encoding: str | None) -> dict[str, list[str]]:
    """Split → paths, of a list of one split or of a JSON file {"train": paths, "test": paths}; empty for another."""
    try:
        text, _ = decode_text(data, name, encoding)
    except UsageError:
        return {}
    split = split_of_list(name.rpartition("/")[2])
    if name.lower().endswith(".json"):
        return _json_lists(text, split)
    if split is None:
        return {}
    if name.lower().endswith(".csv") and (table := _table_of(data, name, encoding)):
        return {split: [row.path for row in table.rows]}
    lines = [line.strip().strip("\"'") for line in text.splitlines() if line.strip()]
    return {split: lines} if lines else {}


def _json_lists(text: str, split: str | None) -> dict[str, list[str]]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    if isinstance(value, dict) and split is None:
        named = {key: one for key in value if (one := split_of(key)) is not None and one.exact}
        if len(named) < 2 or len(named) < len(value):
            return {}
        found = {one.split: _flat(value[key]) for key, one in named.items()}
        return {split: paths for split, paths in found.items() if paths} if all(found.values()) else {}
    paths = _flat(value)
    return {split: paths} if split is not None and paths else {}


def _flat(value: Any) -> list[str]:
    """The strings of a list or of {class: list}; empty for anything else."""
    if isinstance(value, dict):
        value = [path for paths in value.values() for path in (paths if isinstance(paths, list) else [None])]
    return value if isinstance(value, list) and all(isinstance(path, str) for path in value) else []


def _table_of(data: bytes, name: str, encoding: str | None) -> Table | None:
    try:
        return read_table(data, name, encoding)
    except AlexNetError:
        return None


def splits_by_lists(reading: Reading, layout: Layout) -> dict[tuple[str, int], str]:
    """The split of each image by lists such as meta/train.txt; empty where folders say it or there are none."""
    if reading.request.classes_from or any(place.split for place in layout.places.values()):
        return {}
    lists = []
    for folder in reading.tree.top.below():
        for entry in folder.small_tables:
            if split_of_list(entry.parts[-1]) is None and not entry.parts[-1].lower().endswith(".json"):
                continue
            name = printable(entry.name)
            for split, lines in read_lists(read_entry(entry), name, reading.request.encoding).items():
                lists.append((name, split, reading.tree.clean(entry.parts)[:-1], lines))
    if not lists:
        return {}
    splits, used, assumptions = splits_of_lists(lists, reading.index, f"--classes-from {layout.classes_from}")
    reading.used |= set(used)
    reading.assumptions += assumptions
    return splits


def splits_of_lists(
    lists: Iterable[tuple[str, str, tuple[str, ...], list[str]]], index: FileIndex, ignore: str
) -> tuple[dict[tuple[str, int], str], list[str], list[str]]:
    """The split of each image that lists name.

    Parameters
    ----------
    lists
        Path, split, folder and lines of each list.
    index
        Finds the images.
    ignore
        The option that ignores the lists, for messages.

    Returns
    -------
    splits, used, assumptions
        Split by file and offset of each image, empty where the lists make no splits; the lists that were used; and how
        they were understood.

    Raises
    ------
    AlexNetError
        When an image is in the lists of two splits.
    """
    found: dict[str, tuple[str, set[tuple[str, int]]]] = {}
    files: dict[str, str] = {}
    for path, split, folder, lines in lists:
        images = _images(lines, folder, index)
        same = (split, images) in found.values()  # train.json beside train.txt
        if images and not same:
            key = path if path not in found else f"{path} ({split})"
            found[key], files[key] = (split, images), path
    found, assumptions = _one_fold(found)
    if len({split for split, _ in found.values()}) > 1:  # trainval is the union of train and val
        unions = [path for path in found if {"trainval"} & set(name_tokens(path.rpartition("/")[2]))]
        if {split for path, (split, _) in found.items() if path not in unions} >= {"train", "val"}:
            found = {path: one for path, one in found.items() if path not in unions}
    named = {split for split, _ in found.values()}
    if not named:
        return {}, [], []
    splits: dict[tuple[str, int], str] = {}
    by: dict[tuple[str, int], str] = {}
    for path, (split, images) in found.items():
        for image in images:
            if splits.setdefault(image, split) != split:
                raise AlexNetError(
                    f"an image is in split {splits[image]} by {by[image]} and in {split} by {path}: an image belongs "
                    f"to one split; remove it from one of the lists, or ignore the lists with {ignore}"
                )
            by[image] = path
    used = sorted({files[path] for path in found})
    verb = "name the training images" if named == {"train"} else "say the splits"
    what = f"{first_names(used)} {verb}; {ignore} ignores them"
    if len(used) == 1:
        what = f"{first_names(used)} {verb.replace(' ', 's ', 1)}; {ignore} ignores it"
    if "train" not in named:
        what = f"{what}; images in none of them are for training"
    return splits, used, [*assumptions, what]


def _images(lines: list[str], folder: tuple[str, ...], index: FileIndex) -> set[tuple[str, int]]:
    images = set()
    missing = 0
    for line in lines:
        entry = index.find(line, folder)
        if not isinstance(entry, Entry) and (first := re.split(r"[\s,;]", line, maxsplit=1)[0]) != line and first:
            entry = index.find(first, folder)
        if isinstance(entry, Entry):
            images.add((entry.file, entry.offset))
        else:
            missing += 1
            if missing > (1 - _FOUND) * len(lines) + 1:
                return set()
    return images if len(lines) > 1 or not missing else set()


def _one_fold(
    found: dict[str, tuple[str, set[tuple[str, int]]]],
) -> tuple[dict[str, tuple[str, set[tuple[str, int]]]], list[str]]:
    """The lists of the first fold where there are several, as in train1.txt, test1.txt, train2.txt, test2.txt."""
    folds: dict[str, dict[str, tuple[str, set[tuple[str, int]]]]] = {}
    for path, one in found.items():
        number = re.search(r"\d+", path.rpartition("/")[2])
        folds.setdefault(number[0] if number else "", {})[path] = one
    if len(folds) < 2 or "" in folds:
        return found, []
    first = min(folds, key=int)
    others = ", ".join(sorted((fold for fold in folds if fold != first), key=int)[:5])
    return folds[first], [f"of several folds of lists, fold {first} is used and {others} are not"]
