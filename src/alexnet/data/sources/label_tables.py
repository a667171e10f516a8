"""Tables beside the images that say their classes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from alexnet.data.sources.file_index import FileIndex
from alexnet.data.sources.file_names import source_by_file_names
from alexnet.data.sources.items import Source
from alexnet.data.sources.layout import Layout, Place
from alexnet.data.sources.names import SPLIT_NAMES, first_names, split_of
from alexnet.data.sources.plan import printable
from alexnet.data.sources.reading import Reading
from alexnet.data.sources.table_files import first_line
from alexnet.data.sources.tables import Table, read_listing, read_table, table_source
from alexnet.data.sources.tree import Folder, Parts
from alexnet.data.sources.walking import Entry, read_entry
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS, WorkbookError
from alexnet.runtime.errors import AlexNetError

_SUBMISSION = re.compile(r"sample|submi", re.IGNORECASE)


def label_tables(reading: Reading, folders: Iterable[Folder], named_columns: bool = False) -> list[tuple[Entry, Table]]:
    """The tables in `folders` that have paths and labels, other than samples of submissions."""
    found = []
    for folder in folders:
        for entry in folder.small_tables:
            if _SUBMISSION.search(entry.parts[-1]):
                continue
            data, name, encoding = read_entry(entry), printable(entry.name), reading.request.encoding
            try:
                table = read_table(data, name, encoding, None, named_columns, reading.request.ignore_columns)
            except WorkbookError as error:
                reading.unread.append(str(error))
                continue
            if table is None and not named_columns:
                table = read_listing(data, name, encoding, reading.index)
            if table is not None:
                found.append((entry, table))
            elif name.lower().endswith((".csv", ".tsv", *WORKBOOK_ENDINGS)):
                first = first_line(data, name, encoding)
                reading.unread.append(f"{name} has no columns path and label, its first line is {first!r}: rename them")
    return found


def source_by_tables(reading: Reading, tables: list[tuple[Entry, Table]], places: dict[Parts, Place]) -> Source:
    """The images that tables name, with their classes; by file names where no table names any of the images.

    Raises
    ------
    AlexNetError
        When neither tables nor file names say the classes.
    UsageError
        When tables say different classes of the same images.
    """
    depths = {len(at) for at in places}
    index = FileIndex(
        entry for entry in reading.tree.entries() if any(entry.parts[:depth] in places for depth in depths)
    )
    matching = [(entry, table) for entry, table in tables if table.matches(index, _images_of(reading, entry, places))]
    if not matching:
        by_name = source_by_file_names(reading, places)
        if by_name is not None:
            return by_name
        names = first_names(printable(entry.name) for entry, _ in tables)
        first = tables[0][1].rows[0].path
        why = index.find(first, _images_of(reading, tables[0][0], places))
        raise AlexNetError(
            f"no classes in {reading.request.path}: none of the images that {names} names is there, "
            f"such as {first!r}: {why}"
        )

    matching = _without_unions(reading, matching)
    _check_agreement(reading, matching, index, places)
    reading.used |= {entry.name for entry, _ in matching}

    def split(entry: Entry) -> str | None:
        parts = reading.tree.clean(entry.parts)
        return next((place.split for at, place in places.items() if parts[: len(at)] == at), None)

    source = table_source(
        [(printable(entry.name), _images_of(reading, entry, places), table) for entry, table in matching],
        index,
        split,
        reading.request,
    )
    used = sum(1 for item in source.items if not item.packing.startswith("unreadable:"))
    if reading.tree.top.total > used:
        names = first_names(printable(entry.name) for entry, _ in matching)
        reading.left.add(f"not in {names}", "images", reading.tree.top.total - used)
    return reading.finished(source)


def _without_unions(reading: Reading, tables: list[tuple[Entry, Table]]) -> list[tuple[Entry, Table]]:
    """The tables but for those of training and validation together, such as trainval.txt beside both."""
    names = {entry.name for entry, _ in tables}
    for entry, _ in tables:
        folder, stem, ending = _name_parts(entry)
        parts = [f"{folder}{stem.replace('trainval', split)}{ending}" for split in ("train", "val")]
        if "trainval" in stem and set(parts) <= names:
            reading.left.add(f"repeats {' and '.join(map(printable, parts))}", printable(entry.name))
            names.discard(entry.name)
    return [one for one in tables if one[0].name in names]


def _images_of(reading: Reading, table: Entry, places: Mapping[Parts, Place]) -> Parts:
    """The folder that the paths of a table are relative to: its own, or that of its split: train/ of train.csv."""
    named = split_of(_name_parts(table)[1])
    own = reading.tree.clean(table.parts)[:-1]
    if named is None or not named.exact:
        return own
    of_split = [parts for parts, place in places.items() if place.split == named.split]
    return of_split[0] if len(of_split) == 1 and of_split[0][: len(own)] == own else own


def _check_agreement(
    reading: Reading,
    tables: Sequence[tuple[Entry, Table]],
    index: FileIndex,
    places: Mapping[Parts, Place],
) -> None:
    """Stop when tables are about other properties: images_variant_train.txt beside images_family_train.txt."""
    groups: dict[str, list[tuple[Entry, Table]]] = {}
    for entry, table in tables:
        groups.setdefault(_pattern_of_splits(entry), []).append((entry, table))
    if len(groups) < 2:
        return
    classes: dict[str, dict[tuple[str, int], str]] = {}
    for pattern, group in groups.items():
        classes[pattern] = {}
        for entry, table in group:
            folder = _images_of(reading, entry, places)
            found = ((index.find(row.path, folder), row.label) for row in table.rows)
            classes[pattern] |= {(at.file, at.offset): label for at, label in found if isinstance(at, Entry)}
    first, *others = classes.values()
    for other in others:
        shared = first.keys() & other.keys()
        if shared and sum(first[image] != other[image] for image in shared) * 10 > len(shared):
            readings = []
            for pattern, group in groups.items():
                named = printable(group[0][0].name) if len(group) == 1 else pattern
                labels = first_names(sorted(set(classes[pattern].values())), 3)
                readings.append((f"{named}: {labels}", ["--classes-from", named]))
            raise reading.ambiguous("its tables say different classes of the same images", readings)


def compare_with_tables(reading: Reading, layout: Layout) -> None:
    """Stop when a table beside the class folders says other classes than they do."""
    try:
        places = {parts[:depth] for parts in layout.places for depth in range(len(parts) + 1)}
        tables = label_tables(reading, map(reading.at, sorted(places)), named_columns=True)
    except AlexNetError as error:
        reading.warnings.append(f"a table beside the class folders is not used: {error}")
        return
    if not tables:
        return
    total = sum(reading.at(parts).total for parts in layout.places)
    for entry, table in tables:
        pairs: Counter[tuple[str, str]] = Counter()
        unclear: list[str] = []
        for row in table.rows:
            found = reading.index.find(row.path, reading.tree.clean(entry.parts)[:-1])
            assigned = layout.assign(reading.tree.clean(found.parts)) if isinstance(found, Entry) else None
            if assigned is not None:
                pairs[assigned[0], row.label] += 1
            elif isinstance(found, str) and "files have this name" in found:
                unclear.append(f"line {row.line}: {row.path}: {found}")
        if len(unclear) * 2 > len(table.rows):
            reading.warnings.append(
                f"{printable(entry.name)} beside the class folders says classes and is not used: {unclear[0]}"
            )
        by_folder, by_table = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
        if sum(pairs.values()) * 2 < total or len(by_table) < 2 or len(by_table) * 2 > sum(pairs.values()):
            continue
        if len(pairs) == len(by_folder) == len(by_table):
            continue
        raise reading.ambiguous(
            f"the folders and the column {table.label_column!r} of {printable(entry.name)} say different classes",
            [
                (f"the folders: {first_names(sorted(by_folder))}", ["--classes-from", "folder"]),
                (f"the table: {first_names(sorted(by_table))}", ["--classes-from", printable(entry.name)]),
            ],
        )


def classed_by_table(reading: Reading, split: Folder, node: Folder) -> bool:
    """Take the images of a split without class folders from a table that names their classes."""
    index = FileIndex(entry for entry in reading.tree.entries() if entry.parts[: len(split.parts)] == split.parts)
    for entry, table in label_tables(reading, [*reading.above(node), node, *split.below()]):
        folder = reading.tree.clean(entry.parts)[:-1]
        matched = sum(isinstance(index.find(row.path, folder), Entry) for row in table.rows)
        if matched * 2 > len(table.rows):
            name = printable(entry.name)
            source = table_source([(name, folder, table)], index, lambda _: split.split, reading.request)
            reading.extra.append(source)
            reading.used.add(entry.name)
            unlisted = split.total - matched
            if unlisted:
                reading.left.add(f"not in {name}", split.place, unlisted)
            return True
    return False


def _name_parts(entry: Entry) -> tuple[str, str, str]:
    """Folder with its slash, stem and ending of a file."""
    folder, slash, name = entry.name.rpartition("/")
    return (folder + slash, *os.path.splitext(name))


def _pattern_of_splits(entry: Entry) -> str:
    """A pattern of the names of a table and of those of other splits: images_variant_*.txt."""
    folder, stem, ending = _name_parts(entry)
    named = split_of(stem)
    if named is None:
        return printable(entry.name)
    parts = (rf"(?<![^\W\d_]){re.escape(term)}(?![^\W\d_])" for term in (*SPLIT_NAMES,))
    return printable(folder + re.sub("|".join(parts), "*", stem, flags=re.IGNORECASE) + ending)
