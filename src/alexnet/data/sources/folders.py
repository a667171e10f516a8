"""Folders and archives: which folders are splits, which are classes, and when that cannot be told.

The files are counted by folder first (`Tree`), without reading any; the rules look at names and counts only. Options
come first. Then the names of folders say the classes (`class_folders`); where no folder is a class, a table beside the
images does (`label_tables`), or the file names (`file_names`).

When two readings are plausible, `UsageError` shows both with the commands that choose one.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

from alexnet.data.sources.class_folders import (
    descend,
    layout_of_class_folders,
    layout_of_named_splits,
    only_neutral_classes,
    peel,
)
from alexnet.data.sources.file_names import source_by_file_names
from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.label_tables import compare_with_tables, label_tables, source_by_tables
from alexnet.data.sources.layout import Layout, Place
from alexnet.data.sources.missing_images import why_no_classes, why_no_images
from alexnet.data.sources.names import composed, is_unlabeled, split_of
from alexnet.data.sources.plan import printable
from alexnet.data.sources.published import CUB_FILES, read_cub
from alexnet.data.sources.reading import Reading
from alexnet.data.sources.registry import Request
from alexnet.data.sources.split_lists import splits_by_lists
from alexnet.data.sources.tables import read_listing, read_table
from alexnet.data.sources.tree import Folder, Parts, Tree
from alexnet.data.sources.walking import Entry, read_entry
from alexnet.runtime.errors import AlexNetError, UsageError


def read_tree(request: Request, kind: str) -> Source:
    """Interpret a folder or an archive.

    Parameters
    ----------
    request
        The source and the options.
    kind
        "folder", "zip file" or "tar file".

    Raises
    ------
    AlexNetError
        When there are no images, or nothing says their classes.
    UsageError
        When two readings are plausible, with the commands that choose one.
    """
    tree = Tree(request, kind)
    if not tree.top.total:
        raise AlexNetError(why_no_images(tree))
    if not (request.root or request.splits or request.classes_from):
        for folder in tree.top.below():
            if {entry.parts[-1] for entry in folder.tables} >= CUB_FILES:
                texts = {entry.parts[-1]: read_entry(entry).decode("utf-8", "replace") for entry in folder.tables}
                place = (*folder.parts, "images")
                found = {
                    entry.parts[len(place) :]: entry for entry in tree.entries() if entry.parts[: len(place)] == place
                }
                return read_cub(folder.place, texts, found)
    return _interpret(Reading(tree))


def _interpret(reading: Reading) -> Source:
    """Apply the options, then the rules."""
    classes_from = reading.request.classes_from
    top = reading.tree.find(reading.request.root) if reading.request.root else reading.tree.top
    if top is not reading.tree.top:
        outside = reading.tree.top.total - top.total
        if outside:
            reading.left.add(f"outside --root {reading.request.root}", "images", outside)
    if classes_from and classes_from not in ("folder", "parent", "name"):
        return _by_named_table(reading, top, classes_from)
    if reading.request.splits:
        return _by_split_folders(reading, top)
    node = descend(reading, top)
    if classes_from == "name":
        return _forced_names(reading, _split_places(reading, node))
    found = layout_of_class_folders(reading, node, classes_from)
    if found is None or (classes_from is None and only_neutral_classes(reading, found)):
        return _without_class_folders(reading, node)
    if classes_from:
        found.classes_from = classes_from
    else:
        compare_with_tables(reading, found)
    return reading.source_of(found, splits_by_lists(reading, found))


def _by_split_folders(reading: Reading, top: Folder) -> Source:
    places: dict[Parts, Place] = {}
    for split, folders in reading.request.splits.items():
        for name in folders:
            folder = reading.tree.find("/".join((*top.parts, name)) if top.parts else name)
            places[peel(folder).parts] = Place(split)
    rest = top.total - sum(reading.at(parts).total for parts in places)
    if rest > 0:
        reading.left.add("outside the folders of --splits", "images", rest)
    if reading.request.classes_from == "name":
        return _forced_names(reading, places)
    if any(not reading.at(parts).filled for parts in places):
        if reading.request.classes_from is None and (layout := layout_of_named_splits(places)) is not None:
            return reading.source_of(layout)
        return _by_table_or_name(reading, top, places)
    return reading.source_of(Layout(places, reading.request.classes_from or "folder"))


def _by_named_table(reading: Reading, top: Folder, named: str) -> Source:
    file, _, column = named.rpartition(":") if ":" in named and not os.path.isfile(named) else (named, "", "")
    inside = [entry for folder in top.below() for entry in folder.tables if entry.name.endswith(file)][:1]
    if os.path.isfile(file):
        inside = [Entry((os.path.basename(file),), os.path.abspath(file))]
    elif not inside and re.search(r"[*?]", file):
        inside = [one for folder in top.below() for one in folder.tables if fnmatchcase(one.name, f"*{file}")]
    if not inside:
        raise UsageError(
            f"--classes-from {named!r} is neither folder, parent, name nor a table in {reading.request.path} or here"
        )
    tables = []
    for entry in inside:
        data, name, encoding = read_entry(entry), printable(entry.name), reading.request.encoding
        table = read_table(data, name, encoding, column or None, ignored=reading.request.ignore_columns)
        table = table or read_listing(data, name, encoding, reading.index)
        if table is None:
            raise UsageError(f"{name} has no columns of paths and labels")
        tables.append((entry, table))
    return source_by_tables(reading, tables, _split_places(reading, top))


def _split_places(reading: Reading, node: Folder) -> dict[Parts, Place]:
    """The folders of splits below `node`, or the node itfindings."""
    kids = [kid for kid in node.filled if split_of(kid.name) is not None]
    beside = [kid for kid in node.filled if is_unlabeled(kid.name)]
    if not kids and beside and len(beside) < len(node.filled) and not node.images:
        for kid in beside:
            reading.left.add("called as something else than images to classify", kid.place, kid.total)
        return {kid.parts: Place(None) for kid in node.filled if kid not in beside}
    if not kids or node.images:
        return {node.parts: Place(None)}
    return {peel(kid).parts: Place(kid.split) for kid in kids}


def _without_class_folders(reading: Reading, node: Folder) -> Source:
    places = _split_places(reading, node)
    if {place.split for place in places.values()} == {"test"} and len(node.filled) == 1:
        places = {node.parts: Place(None)}
    return _by_table_or_name(reading, node, places)


def _by_table_or_name(reading: Reading, node: Folder, places: dict[Parts, Place]) -> Source:
    tables = label_tables(reading, [*reading.above(node), *node.below()])
    if tables:
        return source_by_tables(reading, tables, places)
    source = _by_class_files(reading, places) or source_by_file_names(reading, places)
    if source is not None:
        return source
    raise why_no_classes(reading, node)


def _by_class_files(reading: Reading, places: dict[Parts, Place]) -> Source | None:
    """Classes in a .cls file beside each image, as WebDataset has them; None where there are none."""
    if not any("(.cls)" in one.reason for one in reading.tree.others.list()):
        return None
    labels = {}
    for entry in reading.tree.walk:
        if entry.parts[-1].endswith(".cls"):
            label = composed(read_entry(entry).decode("utf-8", "replace")).strip()
            labels[reading.tree.clean(entry.parts)[:-1], entry.parts[-1][:-4]] = label
    layout = Layout(places, "name")
    items = []
    for entry in reading.tree.entries():
        found = labels.get((entry.parts[:-1], os.path.splitext(entry.parts[-1])[0]))
        split = next((place.split for at, place in layout.places.items() if entry.parts[: len(at)] == at), None)
        if found:
            items.append(Item(entry.name, found, split, *entry[1:5]))
        else:
            reading.left.add("no .cls file beside it", entry.name)
    return reading.finished(Source(items, origins=[Origin(None, ".cls files beside the images")]))


def _forced_names(reading: Reading, places: dict[Parts, Place]) -> Source:
    source = source_by_file_names(reading, places, forced=True)
    assert source is not None
    return source
