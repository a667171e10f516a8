"""Tables of images: CSV, TSV, JSON, lists and workbooks, by people and by other programs.

A table names images and their classes, and their splits where it has a column for that. What is understood of it:

- Comma, semicolon, tab or | between columns; UTF-8 with or without byte order mark, UTF-16, and others by --encoding.
- The usual column names (`PATH_COLUMNS`, `LABEL_COLUMNS`, `SPLIT_COLUMNS`), or one column of 0 and 1 for each class.
- Columns weight, confidence and group, or one of probabilities for each class (`alexnet.data.sources.sample_columns`).
- Paths relative to the table or to the source, with slashes or backslashes, from another computer (their last parts
  decide), or ids without an ending.
- Labels 0.0, 1.0, as pandas writes whole numbers beside missing ones, are 0 and 1.

A row that cannot be used is named by its line, with the reason.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.data.sources.file_index import DiskIndex, FileIndex, path_parts
from alexnet.data.sources.items import Item, Origin, Sample, Source
from alexnet.data.sources.names import called_split, composed, first_names, guess_encoding, readings, split_of
from alexnet.data.sources.plan import count
from alexnet.data.sources.registry import Request
from alexnet.data.sources.sample_columns import (
    SAMPLE_COLUMNS,
    SampleColumns,
    are_probabilities,
    find_sample_columns,
    most_probable,
    probability_columns,
    read_probabilities,
    refuse_both,
    refuse_unequal,
)
from alexnet.data.sources.walking import IMAGE_ENDINGS, Entry, is_image_name
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS, read_workbook
from alexnet.runtime.errors import AlexNetError, UsageError

TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".lst", *WORKBOOK_ENDINGS)

PATH_COLUMNS = (
    *("path", "filepath", "file_path", "image_path", "img_path", "imagepath", "relative_path", "file_name", "filename"),
    *("file", "fname", "image_file", "image_name", "img_name", "imagename", "image", "images", "img", "image_id"),
    *("imageid", "img_id", "id_code", "image_index", "photo", "picture", "name", "id", "uri", "url", "image_url"),
    *("경로", "파일", "파일명", "파일경로", "이미지"),
)
"""Column names of images, in the order in which they are looked for."""

LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "classname", "label_name", "category", "category_name"),
    *("target", "diagnosis", "dx", "breed", "species", "variety", "disease", "defect", "defect_type", "cls"),
    *("fine_label", "coarse_label", "type", "tag", "tags", "class_id", "label_id", "category_id", "classid", "y"),
    *("level", "grade"),
    *("finding_labels", "emotion", "라벨", "레이블", "클래스", "분류", "정답", "범주"),
)
"""Column names of classes, in the order in which they are looked for."""

SPLIT_COLUMNS = (
    "split",
    "set",
    "subset",
    "partition",
    "fold_name",
    "data_set",
    "dataset",
    "usage",
    "phase",
    "is_valid",
    "is_test",
    "분할",
)
"""Column names of splits; is_valid and is_test hold true and false."""

_NAME_COLUMNS = ("class_name", "classname", "label_name", "category_name")
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "t", "y"), ("false", "0", "0.0", "no", "f", "n", "")
_SEPARATORS = ",;\t|"
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
        _refuse_broken_json(data, str(path), request.encoding)
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


def _refuse_broken_json(data: bytes, name: str, encoding: str | None) -> None:
    """Raise AlexNetError for a file called .json that is none."""
    if name.lower().endswith(".json"):
        try:
            json.loads(decode_text(data, name, encoding)[0])
        except ValueError as error:
            raise AlexNetError(f"{name} is not JSON: {error}") from None


def first_line(data: bytes, name: str, encoding: str | None) -> str:
    """The first line of a table, for messages."""
    if name.lower().endswith(WORKBOOK_ENDINGS):
        headers = (rows[0][1] for _, rows in read_workbook(data, name) if rows)
        return ", ".join(next(headers, []))[:80]
    return decode_text(data, name, encoding)[0].partition("\n")[0].strip()[:80]


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
    without = {_plain(one) for one in ignored}
    if ending in WORKBOOK_ENDINGS:
        return _sheet_table(data, name, column, named_columns, without)
    text, assumptions = decode_text(data, name, encoding)
    if ending in (".json", ".jsonl", ".ndjson"):
        read = _json_rows(text, name)
        if read is None:
            return None
        header, rows = read
    else:
        header, rows = _csv_rows(text, name)
    columns = _columns(header, column, named_columns, without)
    if columns is None:
        return None
    return _table(name, header, rows, columns, assumptions)


def _sheet_table(data: bytes, name: str, column: str | None, named_columns: bool, ignored: set[str]) -> Table | None:
    """The first sheet of a workbook with columns of paths and classes."""
    sheets = read_workbook(data, name)
    for sheet, rows in sheets:
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        columns = _columns(header, column, named_columns, ignored)
        if columns is not None:
            notes = [f"{name}: sheet {sheet!r} is read, of {len(sheets)}"] if len(sheets) > 1 else []
            return _table(name, header, iter(rows[1:]), columns, notes)
    return None


def read_spreadsheet(path: str | os.PathLike[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """Read a CSV as spreadsheet programs save it: the separator, and line and cells of each row that is not empty.

    The separator is the one of comma, semicolon and tab that is the most frequent in the first row.

    Raises
    ------
    AlexNetError
        When it cannot be read, or is neither UTF-8 nor UTF-16 and not certainly Korean.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AlexNetError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error
    text = re.sub(r"\r\n?", "\n", decode_text(data, os.fspath(path), None, option=None)[0])
    first = text.lstrip("\r\n").partition("\n")[0]
    separator = max(",;\t", key=first.count)
    return separator, list(_records(text, separator, os.fspath(path), 0))


def decode_text(
    data: bytes, name: str, encoding: str | None, option: str | None = "--encoding"
) -> tuple[str, list[str]]:
    """Decode a text file: by its byte order mark, as UTF-8, as UTF-16, by `encoding`, or as certain Korean.

    Messages name `option` as the one that says the encoding.

    Returns
    -------
    text, assumptions
        The text without byte order mark, and what was assumed.

    Raises
    ------
    UsageError
        When it is none of them, with what it may be.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data.startswith(b"\xef\xbb\xbf"):
        encoding = "utf-8-sig"
    try:
        if encoding is not None:
            return data.decode(encoding), []
        zeros = data[:2000].count(0)
        if zeros * 3 > len(data[:2000]) > 3:  # every other byte of ASCII in UTF-16
            return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be"), [f"{name} is read as UTF-16"]
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise UsageError(
                f"{name} is not {encoding.upper()} text (byte {error.start}): "
                + (f"name its encoding with {option}" if option else "save it as UTF-8")
            ) from None
        line = data.count(b"\n", 0, error.start) + 1
        sample = data.splitlines()[line - 1][:60]
    guessed = guess_encoding(data)
    if guessed is None:
        raise UsageError(
            f"{name} is not UTF-8 text (line {line}); {readings(sample)}: save it as UTF-8"
            + (f", or name its encoding with {option}" if option else "")
        )
    text = data.decode(guessed)
    example = text.splitlines()[line - 1][:40]
    return text, [f"{name} is read as {guessed.upper()}, such as {example!r}; if that is wrong, name it with {option}"]


def _csv_rows(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and line and cells of each row that is not empty."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise AlexNetError(f"{name}, line {line}: a NUL character; the file is damaged, or is not text: save it again")
    text = re.sub(r"\r\n?", "\n", text)
    separator = None
    skipped = 0
    declared = re.match(r"sep=(.)\r?\n", text)
    if declared:  # Excel
        separator, skipped = declared[1], 1
        text = text[declared.end() :]
    while re.match(r"\n|#[^,;\t|\n]*\n", text):  # empty lines and comments
        text, skipped = text.partition("\n")[2], skipped + 1
    header = text.partition("\n")[0]
    if separator is None:
        separator = max(
            _SEPARATORS, key=lambda one: _known(next(csv.reader([header], delimiter=one), []), header.count(one))
        )
    rows = _records(text, separator, name, skipped)
    _, cells = next(rows, (1, []))
    return [cell.strip() for cell in cells], rows


def _known(cells: Sequence[str], separators: int) -> tuple[int, int]:
    names = {_plain(cell) for cell in cells}
    return len(names & {*PATH_COLUMNS}) + len(names & {*LABEL_COLUMNS}), separators


def _records(text: str, separator: str, name: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each record. Raises AlexNetError naming the line in which a quotation mark is wrong."""
    csv.field_size_limit((1 << 31) - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    width = 0
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            stray = f"{name}, line {line}: a quotation mark that is not closed or is within a cell"
            raise AlexNetError(f"{stray} ({error}): remove it, or double it") from None
        if not any(cell.strip() for cell in cells):
            continue
        width = width or len(cells)
        last = reader.line_num + skipped
        if last > line and (len(cells) != width or any("\n" in cell and separator in cell for cell in cells)):
            raise AlexNetError(
                f"{name}, line {line}: a quotation mark opens a cell that goes on to line {last}: remove it or close it"
            )
        yield line, cells


def _json_rows(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]] | None:
    """Rows of JSON lines, of a list of objects, of {path: class}, or of COCO annotations; None for other JSON."""
    lines = name.lower().endswith((".jsonl", ".ndjson"))
    records: list[tuple[int, Any]] = []
    try:
        if lines:
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    records.append((number, json.loads(line)))
        else:
            value = json.loads(text)
            if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
                value = _coco(value)
            value = _class_lists(value)
            if isinstance(value, dict) and value and all(isinstance(label, str | int) for label in value.values()):
                value = [{"path": path, "label": label} for path, label in value.items()]
            records = list(enumerate(value, 1)) if isinstance(value, list) else []
    except (ValueError, KeyError, TypeError) as error:
        if lines:
            reason = str(error).partition(":")[0]
            raise AlexNetError(f"{name}, line {number}: not a JSON object ({reason}): each line is one") from None
        return None
    if not records or not all(isinstance(record, dict) for _, record in records):
        return None
    header = list(dict.fromkeys(key for _, record in records for key in record))
    return header, ((line, [_cell(record.get(key)) for key in header]) for line, record in records)


def _class_lists(value: Any) -> Any:
    """Records of {class: [paths]}; another value as it is."""
    if not isinstance(value, dict) or len(value) < 2 or any(_is_split(key) for key in value):
        return value
    if not all(isinstance(one, list) and one and all(isinstance(path, str) for path in one) for one in value.values()):
        return value
    return [{"path": path, "label": label} for label, paths in value.items() for path in paths]


def _coco(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Image and class of annotations of COCO's form; several classes of one image are several rows."""
    files = {image["id"]: image["file_name"] for image in value["images"]}
    names = {category["id"]: category["name"] for category in value["categories"]}
    pairs = dict.fromkeys((files[one["image_id"]], names[one["category_id"]]) for one in value["annotations"])
    return [{"file_name": file, "label": label} for file, label in pairs]


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return "" if value is None else str(value)


class _Columns(NamedTuple):
    path: int
    labels: list[int]  # one column of classes, or one for each class
    split: int | None
    sample: SampleColumns = SampleColumns()
    others: tuple[int, ...] = ()  # not read, except where they are the probabilities of the classes


def _columns(header: Sequence[str], wanted: str | None, named_columns: bool, ignored: set[str]) -> _Columns | None:
    """The columns of a table; those that are ignored have no name."""
    plain = [cell if cell not in ignored else "" for cell in map(_plain, header)]
    columns = _named_columns(plain, wanted, named_columns)
    if columns is None:
        return None
    taken = {one for one in (columns.path, columns.split) if one is not None}
    if len(columns.labels) == 1:
        taken.update(columns.labels)
    sample = find_sample_columns(plain, taken)
    taken |= sample.positions()
    labels = columns.labels if len(columns.labels) == 1 else [one for one in columns.labels if one not in taken]
    others = tuple(index for index, cell in enumerate(plain) if cell and index not in {*taken, *labels})
    return columns._replace(labels=labels, sample=sample, others=others) if labels else None


def _named_columns(plain: Sequence[str], wanted: str | None, named_columns: bool) -> _Columns | None:
    path = next((plain.index(known) for known in PATH_COLUMNS if known in plain), None)
    if path is None:
        return None
    split = next((plain.index(known) for known in SPLIT_COLUMNS if known in plain), None)
    if wanted is not None and _plain(wanted) in plain:
        return _Columns(path, [plain.index(_plain(wanted))], split)
    labels = [plain.index(known) for known in LABEL_COLUMNS if known in plain and plain.index(known) != path]
    if labels:
        return _Columns(path, _preferred(plain, labels), split)
    numbering = ("", "index", "unnamed:_0", "no", "number", "#", *SAMPLE_COLUMNS)
    rest = [index for index in range(len(plain)) if index not in (path, split) and plain[index] not in numbering]
    return _Columns(path, rest, split) if rest and not named_columns else None


def _preferred(plain: Sequence[str], labels: list[int]) -> list[int]:
    """The column of classes: the one that names them, before one that numbers them."""
    names = [index for index in labels if plain[index] in _NAME_COLUMNS]
    return names[:1] or labels[:1]


def _plain(cell: str) -> str:
    return re.sub(r"[\s_\-]+", "_", composed(cell).strip().strip("\"'").lower())


def _table(
    name: str,
    header: Sequence[str],
    rows: Iterator[tuple[int, list[str]]],
    columns: _Columns,
    assumptions: list[str],
) -> Table | None:
    """The rows with their classes. Raises AlexNetError naming the first line that cannot be used."""
    split_name = _plain(header[columns.split]) if columns.split is not None else ""
    records = [(line, [*given, *[""] * (len(header) - len(given))]) for line, given in rows]
    if split_name not in ("", "split", "is_valid", "is_test"):
        at = columns.split or 0
        values = {cells[at].strip() for _, cells in records}
        if any(not _is_split(value) for value in values):
            other = header[at]
            assumptions = [
                *assumptions,
                f"the column {other!r} of {name} is not used: not all of its values are splits",
            ]
            columns, split_name = columns._replace(split=None), ""  # a column about something else
    _check_width(header, records, name)
    assumptions = [*assumptions, *_other_columns(header, records, columns, name)]
    read: list[Row] = []
    several = len(columns.labels) > 1
    by_class = _soft_columns(header, records, columns.labels) if several else {}
    refuse_both(columns.sample, by_class, name)
    for line, cells in records:
        where = f"{name}, line {line}"
        path = cells[columns.path].strip()
        sample = columns.sample.read(cells, where)
        if by_class:
            sample = sample._replace(probabilities=read_probabilities(cells, by_class, where))
        label = _row_label(header, cells, columns.labels, sample, where)
        if label is None:
            return None
        if not path or not label:
            raise AlexNetError(f"{where}: the {'label' if path else 'path'} is missing")
        split = None
        if columns.split is not None:
            split = _row_split(cells[columns.split].strip(), split_name, where)
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


def _check_width(header: Sequence[str], records: Sequence[tuple[int, list[str]]], name: str) -> None:
    """Raise AlexNetError for a row with more cells than the header, such as a class with a comma in it."""
    for line, cells in records:
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            raise AlexNetError(
                f"{name}, line {line}: {len(cells)} cells, and the header has {len(header)}: put quotation marks "
                f"around a cell with a separator in it, such as {','.join(cells)[:60]!r}"
            )


def _other_columns(
    header: Sequence[str], records: Sequence[tuple[int, list[str]]], columns: _Columns, name: str
) -> list[str]:
    """Sentences about columns that could be the classes or the splits too. Raises AlexNetError for two of one name."""
    if len(columns.labels) > 1:
        return []
    chosen = columns.labels[0]
    plain = [_plain(cell) for cell in header]
    for at in (columns.path, chosen):
        same = [index for index, cell in enumerate(plain) if cell == plain[at]]
        if any(cells[index] != cells[at] for _, cells in records for index in same):
            raise AlexNetError(
                f"{name} has {len(same)} columns {header[at]!r} with different values: remove or rename one of them"
            )
    said = []
    for index in columns.others:
        if plain[index] in LABEL_COLUMNS and plain[index] not in ("id", "level", "type", "y"):
            pairs = {(cells[chosen].strip(), cells[index].strip()) for _, cells in records}
            if len(pairs) > max(len({pair[0] for pair in pairs}), len({pair[1] for pair in pairs})):
                said.append(
                    f"the classes are the column {header[chosen]!r} of {name}; --classes-from "
                    f"{shlex.quote(f'{name}:{header[index]}')} takes {header[index]!r}"
                )
        elif plain[index] in ("fold", "folds", "kfold"):
            said.append(
                f"the column {header[index]!r} of {name} is not used: write train, val and test in a column split"
            )
    return said


def _row_label(
    header: Sequence[str], cells: Sequence[str], labels: Sequence[int], sample: Sample, where: str
) -> str | None:
    """The class of a row, empty where it is missing; None when its columns are no classes."""
    if sample.probabilities is not None:
        return most_probable(sample.probabilities, where)
    if len(labels) > 1:
        return _one_hot(header, cells, labels, where)
    label = composed(cells[labels[0]]).strip()
    return "" if label.lower() == "nan" else label


def _soft_columns(
    header: Sequence[str], records: Sequence[tuple[int, list[str]]], labels: Sequence[int]
) -> dict[str, int]:
    """Class → its column, where the columns of the classes hold probabilities and not only 0 and 1."""
    for _, cells in records:
        values = [cells[index].strip() for index in labels]
        if any(value.lower() not in _TRUE and value.lower() not in _FALSE for value in values):
            return {composed(header[one]): one for one in labels} if are_probabilities(values) else {}
    return {}


def _with_probabilities(
    rows: list[Row], cells_of: Sequence[list[str]], header: Sequence[str], columns: _Columns, name: str
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


def _one_hot(header: Sequence[str], cells: Sequence[str], labels: Sequence[int], where: str) -> str | None:
    """The class of a row with a column of 0 or 1 for each class; None when the columns are something else."""
    values = [cells[index].strip().lower() for index in labels]
    if any(value not in _TRUE and value not in _FALSE for value in values):
        return None
    marked = [header[index] for index, value in zip(labels, values, strict=True) if value in _TRUE]
    if len(marked) != 1:
        raise AlexNetError(
            f"{where}: {count(len(marked), 'class')} marked ({first_names(marked) or 'none'}); a classifier needs one "
            "class for each image"
        )
    return composed(marked[0])


def _row_split(value: str, column: str, where: str) -> str | None:
    if column in ("is_valid", "is_test"):
        marked = "val" if column == "is_valid" else "test"
        if value.lower() in _TRUE:
            return marked
        if value.lower() in _FALSE:
            return "train"
        raise AlexNetError(f"{where}: {column} is {value!r}, neither true nor false")
    return split_of(value).split if _is_split(value) else called_split(value, where)  # type: ignore[union-attr]


def _is_split(value: str) -> bool:
    named = split_of(value)
    return named is not None and set(named.rest) <= {"public", "private"}  # Kaggle's PublicTest and PrivateTest


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
