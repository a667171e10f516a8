"""Tables of images: CSV, TSV, JSON, lists and workbooks, by people and by other programs.

A table names images and their classes, and their splits where it has a column for that. What is understood of it,
beside the forms of files (`alexnet.data.sources.table_files`) and the names of columns
(`alexnet.data.sources.table_columns`):

- Columns weight, confidence and group, or one of probabilities for each class (`alexnet.data.sources.sample_columns`).
- Paths relative to the table or to the source, with slashes or backslashes, from another computer (their last parts
  decide), or ids without an ending.
- Labels 0.0, 1.0, as pandas writes whole numbers beside missing ones, are 0 and 1.

A row that cannot be used is named by its line, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.data.sources.file_index import DiskIndex, FileIndex, path_parts
from alexnet.data.sources.items import Item, Origin, Sample, Source
from alexnet.data.sources.names import composed, split_of
from alexnet.data.sources.plan import count
from alexnet.data.sources.registry import Request
from alexnet.data.sources.sample_columns import (
    probability_columns,
    read_probabilities,
    refuse_both,
    refuse_unequal,
)
from alexnet.data.sources.table_columns import (
    Columns,
    check_width,
    find_columns,
    is_split,
    label_of,
    plain_name,
    remarks_on_other_columns,
    soft_columns,
    split_of_row,
)
from alexnet.data.sources.table_files import csv_rows, decode_text, first_line, json_rows, refuse_broken_json
from alexnet.data.sources.walking import IMAGE_ENDINGS, Entry, is_image_name
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS, read_workbook
from alexnet.runtime.errors import AlexNetError, UsageError

_PATH_AND_LABEL = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, sorted(IMAGE_ENDINGS)))})\"?)\s+(.+)", re.IGNORECASE)
_NUMBERS = re.compile(r"[-+.\d]+(\s+[-+.\d]+)+")  # a box, or several labels
_MOST_DECIMALS = 7  # distinct labels such as 0.5, which may be grades; more are a measured value


class Row(NamedTuple):
    """A row of a table: the line it begins in, the path, class and split that it names, and what else it says."""

    line: int
    path: str
    label: str
    split: str | None
    sample: Sample = Sample()


@dataclass
class Table:
    """A table of images.

    Attributes
    ----------
    name
        Its file name, for messages.
    rows
        Its rows.
    label_column
        The column that the classes come from.
    assumptions
        How it was understood.
    """

    name: str
    rows: list[Row]
    label_column: str
    assumptions: list[str] = field(default_factory=list)

    def matches(self, index: FileIndex, folder: tuple[str, ...]) -> bool:
        """Whether any of its images is there."""
        return any(isinstance(index.find(row.path, folder), Entry) for row in self.rows)


# Reading


def open_csv(request: Request) -> Source:
    """Interpret a table that is the source itself; its paths are relative to it.

    Raises
    ------
    AlexNetError
        When it is no table of images, or a row cannot be used.
    """
    path = request.path
    column = None
    if request.classes_from and request.classes_from not in ("folder", "parent", "name"):
        column = request.classes_from.rpartition(":")[2]
    data = path.read_bytes()
    table = read_table(data, str(path), request.encoding, column, ignored=request.ignore_columns)
    table = table or read_listing(data, str(path), request.encoding)
    if table is None:
        refuse_broken_json(data, str(path), request.encoding)
        first = first_line(data, str(path), request.encoding)
        raise AlexNetError(
            f"{path} needs the columns path and label; its first line is {first!r}. Rename its columns, or name the "
            f"one of the classes: {request.command('--classes-from', f'{path}:COLUMN')}"
        )
    folder = path.parent if request.root is None else Path(request.root)
    source = table_source([(str(path), (), table)], DiskIndex(folder), lambda _: None, request)
    items = list(source.items)
    if len(items) > 1 and all(item.packing.startswith("unreadable:") for item in items):
        raise AlexNetError(
            f"none of the {len(items):,} images of {path} can be used, first {items[0].name}: "
            f"{items[0].packing.partition(':')[2]}. Paths are relative to the table; if they are relative to another "
            f"folder, name it: {request.command('--root', 'FOLDER')}"
        )
    return source


def read_table(
    data: bytes,
    name: str,
    encoding: str | None,
    column: str | None = None,
    named_columns: bool = False,
    ignored: Sequence[str] = (),
) -> Table | None:
    """Read a table with named columns; None when it has none of paths, or none of classes.

    Parameters
    ----------
    data
        The content of the file.
    name
        Its name: messages name it, and the ending tells JSON.
    encoding
        The encoding, where it is neither UTF-8 nor UTF-16.
    column
        The column of the classes; None looks for one with a usual name.
    named_columns
        Only take a column of classes with a usual name.
    ignored
        Columns that are not read.

    Raises
    ------
    AlexNetError
        When a row cannot be used: the message names the line and the reason.
    """
    ending = os.path.splitext(name)[1].lower()
    without = {plain_name(one) for one in ignored}
    if ending in WORKBOOK_ENDINGS:
        return _sheet_table(data, name, column, named_columns, without)
    text, assumptions = decode_text(data, name, encoding)
    if ending in (".json", ".jsonl", ".ndjson"):
        read = json_rows(text, name)
        if read is None:
            return None
        header, rows = read
    else:
        header, rows = csv_rows(text, name)
    columns = find_columns(header, column, named_columns, without)
    if columns is None:
        return None
    return _table(name, header, rows, columns, assumptions)


def _sheet_table(data: bytes, name: str, column: str | None, named_columns: bool, ignored: set[str]) -> Table | None:
    """The first sheet of a workbook with columns of paths and classes."""
    sheets = read_workbook(data, name)
    for sheet, rows in sheets:
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        columns = find_columns(header, column, named_columns, ignored)
        if columns is not None:
            notes = [f"{name}: sheet {sheet!r} is read, of {len(sheets)}"] if len(sheets) > 1 else []
            return _table(name, header, iter(rows[1:]), columns, notes)
    return None


def _table(
    name: str,
    header: Sequence[str],
    rows: Iterator[tuple[int, list[str]]],
    columns: Columns,
    assumptions: list[str],
) -> Table | None:
    """The rows with their classes. Raises AlexNetError naming the first line that cannot be used."""
    split_name = plain_name(header[columns.split]) if columns.split is not None else ""
    records = [(line, [*given, *[""] * (len(header) - len(given))]) for line, given in rows]
    if split_name not in ("", "split", "is_valid", "is_test"):
        at = columns.split or 0
        values = {cells[at].strip() for _, cells in records}
        if any(not is_split(value) for value in values):
            other = header[at]
            assumptions = [
                *assumptions,
                f"the column {other!r} of {name} is not used: not all of its values are splits",
            ]
            columns, split_name = columns._replace(split=None), ""  # a column about something else
    check_width(header, records, name)
    assumptions = [*assumptions, *remarks_on_other_columns(header, records, columns, name)]
    read: list[Row] = []
    several = len(columns.labels) > 1
    by_class = soft_columns(header, records, columns.labels) if several else {}
    refuse_both(columns.sample, by_class, name)
    for line, cells in records:
        where = f"{name}, line {line}"
        path = cells[columns.path].strip()
        sample = columns.sample.read(cells, where)
        if by_class:
            sample = sample._replace(probabilities=read_probabilities(cells, by_class, where))
        label = label_of(header, cells, columns.labels, sample, where)
        if label is None:
            return None
        if not path or not label:
            raise AlexNetError(f"{where}: the {'label' if path else 'path'} is missing")
        split = None
        if columns.split is not None:
            split = split_of_row(cells[columns.split].strip(), split_name, where)
        read.append(Row(line, path, label, split, sample))
    if not read:
        raise AlexNetError(f"no images in {name}: it has a header only")
    label_column = "one column per class" if several else header[columns.labels[0]]
    if split_name in ("is_valid", "is_test"):
        assumptions = [
            *assumptions,
            f"{header[columns.split or 0]} marks the images of {split_name[3:].replace('valid', 'val')}",
        ]
    read = _one_label_each(read, name)
    if not several:
        cells_of = [cells for _, cells in records]
        read = _with_probabilities(read, cells_of, header, columns, name)
    return Table(name, read, label_column, assumptions)


def _with_probabilities(
    rows: list[Row], cells_of: Sequence[list[str]], header: Sequence[str], columns: Columns, name: str
) -> list[Row]:
    """The rows with the probabilities of the classes, where there is a column for each class besides that of labels."""
    labels = {row.label for row in rows}
    names = [cell if index in columns.others else "" for index, cell in enumerate(header)]
    by_class = probability_columns(names, sorted(labels), ())
    if not by_class:
        return rows
    refuse_both(columns.sample, by_class, name)
    soft = []
    for row, cells in zip(rows, cells_of, strict=True):
        probabilities = read_probabilities(cells, by_class, f"{name}, line {row.line}")
        soft.append(row._replace(sample=row.sample._replace(probabilities=probabilities)))
    return soft


def _one_label_each(rows: list[Row], name: str) -> list[Row]:
    """The rows with whole numbers written as such. Raises AlexNetError for a row with several labels."""
    labels = {row.label for row in rows}
    for row in rows:
        several = _several(row.label, labels)
        if several:
            raise AlexNetError(
                f"{name}, line {row.line}: {row.label!r} is several labels; a classifier needs one class for each "
                "image: keep one, or remove the row"
            )
    if labels and all(re.fullmatch(r"[+-]?\d+(,\d+)?", label) for label in labels):  # a decimal comma
        rows = [row._replace(label=row.label.replace(",", ".")) for row in rows]
        labels = {row.label for row in rows}
    numbers = {label: float(label) for label in labels if re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d\d?)?", label, re.I)}
    if len(numbers) < len(labels):
        return rows
    decimal = [label for label, number in numbers.items() if not number.is_integer()]
    if len(decimal) * 2 > len(labels) and len(labels) > _MOST_DECIMALS:
        raise AlexNetError(
            f"{name}: its labels are {len(labels):,} decimal numbers, such as {min(decimal)}, a measured value, and "
            "a classifier needs classes: write ranges such as low and high as labels, or name the column of the "
            "classes with --classes-from FILE:COLUMN"
        )
    if not decimal and any("." in label for label in labels):
        rows = [row._replace(label=str(int(float(row.label)))) for row in rows]
    return rows


def _several(label: str, labels: set[str]) -> bool:
    if re.fullmatch(r"[\[({].*[\])}]", label) and re.search(r"[,\s]", label):
        return True
    if "|" in label:
        return True
    parts = [part for part in re.split(r"\s*[,;/&+]\s*|\s+", label) if part]
    return len(parts) > 1 and all(part in labels for part in parts)


def read_listing(data: bytes, name: str, encoding: str | None, index: FileIndex | None = None) -> Table | None:
    """Read a list without header, a path and a class in each line, as Caffe and Tiny ImageNet have it; else None.

    With an index of the files, the path may be one without ending: 0034309 Boeing 717.
    """
    if name.lower().endswith(WORKBOOK_ENDINGS):
        return None
    try:
        text, assumptions = decode_text(data, name, encoding)
    except UsageError:
        return None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    separator = next((one for one in "\t,;" if all(one in line for _, line in lines)), None)
    rows = []
    missing = 0
    for number, line in lines:
        path, label = _listed(line, separator)
        if is_image_name(path) is not True:
            missing += index is None or not isinstance(index.find(path, tuple(name.split("/")[:-1])), Entry)
        if missing > (0 if index is None else len(lines) // 10) or not label or _NUMBERS.fullmatch(label):
            return None
        rows.append(Row(number, path, composed(label), None))
    labels = len({row.label for row in rows})
    spaced = separator is None and any(" " in row.label for row in rows)
    if len(rows) < 2 or (labels == len(rows) and len(rows) > 2) or (spaced and labels * 2 > len(rows)):
        return None
    note = f"{name} has no header: its columns are path and class"
    return Table(name, _one_label_each(rows, name), "2", [*assumptions, note])


def _listed(line: str, separator: str | None) -> tuple[str, str]:
    """Path and class in a line of a list; the class is empty where there is none."""
    if separator is not None:
        path, label = line.split(separator)[:2]
    elif match := _PATH_AND_LABEL.fullmatch(line):
        path, label = match.groups()
    else:
        path, label = (*line.split(None, 1), "")[:2]
    return path.strip().strip('"'), label.strip().strip('"')


# Images


def table_source(
    tables: Sequence[tuple[str, tuple[str, ...], Table]],
    index: FileIndex,
    split_of_file: Callable[[Entry], str | None],
    request: Request,
) -> Source:
    """The images that tables name.

    Parameters
    ----------
    tables
        Name, folder and content of each.
    index
        Finds the files.
    split_of_file
        The split that the folder of a file says, where the table has none.
    request
        The source.

    Raises
    ------
    AlexNetError
        When an image has two classes, or some images have a split and others none.
    """
    items: list[Item] = []
    origins: dict[str | None, dict[str, None]] = {}
    seen: dict[tuple[str, int], tuple[str, Row, str | None]] = {}
    spellings: dict[str, str] = {}
    repeated = missing = moved = 0
    named_splits = {name: split_of(Path(name).stem) for name, _, _ in tables}
    by_table = len({named.split for named in named_splits.values() if named}) > 1 or _is_named_split(named_splits)
    for name, folder, table in tables:
        for row in table.rows:
            found = index.find(row.path, folder)
            label = spellings.setdefault(composed(row.label), composed(row.label))
            split = row.split
            if not isinstance(found, Entry):
                missing += 1
                items.append(
                    Item(
                        f"{row.path} ({name}, line {row.line})",
                        *(label, split, "", 0, -1, f"unreadable:{found}"),
                        sample=row.sample,
                    )
                )
                continue
            named = named_splits[name]
            if split is None and by_table and named is not None:
                split = named.split
            split = split or split_of_file(found)
            key = (found.file, found.offset)
            if key in seen:
                _check_repeated((name, row, split), seen[key])
                repeated += 1
                continue
            seen[key] = (name, row, split)
            origins.setdefault(split, {})[f"{name} (column {table.label_column})"] = None
            moved += not isinstance(index, DiskIndex) and not found.name.endswith("/".join(path_parts(row.path)))
            shown = row.path if isinstance(index, DiskIndex) else found.name
            items.append(Item(shown, label, split, *found[1:5], sample=row.sample))
    items = _with_splits(items, request.path)
    assumptions = [text for _, _, table in tables for text in table.assumptions]
    if repeated:
        assumptions.append(
            f"{count(repeated, 'row')} that {'repeats' if repeated == 1 else 'repeat'} an image "
            f"{'is' if repeated == 1 else 'are'} not used"
        )
    if moved:
        assumptions.append("files are found by file name where the table has another folder or no ending")
    warnings = []
    if missing:
        first = next(item for item in items if item.packing.startswith("unreadable:"))
        reason = first.packing.partition(":")[2]
        warnings.append(f"{count(missing, 'row')} without an image, first {first.name}: {reason}")
    places = [Origin(split, ", ".join(where)) for split, where in sorted(origins.items(), key=str)]
    return Source(items, kind="table", origins=places, assumptions=assumptions, warnings=warnings)


def _check_repeated(one: tuple[str, Row, str | None], first: tuple[str, Row, str | None]) -> None:
    """Raise AlexNetError when two rows of an image (name of the table, row, split) say different things of it."""
    (name, row, split), (first_name, first_row, first_split) = one, first
    where = f"{name}, line {row.line}: {row.path}"
    if first_row.label != row.label:
        raise AlexNetError(
            f"{where} is {row.label!r}, and {first_row.label!r} in "
            f"{'line' if first_name == name else first_name + ', line'} {first_row.line}; a classifier needs one class "
            "for each image: keep one of the rows"
        )
    if split != first_split:
        raise AlexNetError(
            f"{where} is in split {split}, and in {first_split} in line {first_row.line}: an image belongs to one split"
        )
    refuse_unequal(row.sample, first_row.sample, where)


def _with_splits(items: list[Item], path: Path) -> list[Item]:
    """The items with their splits; rows without an image take "train" where all images have a split."""
    splits = {item.split for item in items if not item.packing.startswith("unreadable:")}
    if None in splits and len(splits) > 1:
        without = sum(item.split is None for item in items)
        raise AlexNetError(f"{without:,} images of {path} have no split, the others have one: name it for all")
    if splits and None not in splits:
        items = [item._replace(split=item.split or "train") for item in items]
    return items


def _is_named_split(named: Mapping[str, Any]) -> bool:
    """Whether a single table is called train.csv or the like."""
    return len(named) == 1 and all(one is not None and one.exact and one.split == "train" for one in named.values())
