"""From the bytes of a table to its header and the cells of its rows: CSV, TSV, JSON and plain text.

Comma, semicolon, tab or | separate columns; a text is UTF-8 with or without byte order mark, UTF-16, certainly Korean,
or what --encoding says.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alexnet.data.sources.names import guess_encoding, readings
from alexnet.data.sources.table_columns import LABEL_COLUMNS, PATH_COLUMNS, is_split, plain_name
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS, read_workbook
from alexnet.runtime.errors import AlexNetError, UsageError

TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".lst", *WORKBOOK_ENDINGS)
_SEPARATORS = ",;\t|"


def refuse_broken_json(data: bytes, name: str, encoding: str | None) -> None:
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


def csv_rows(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
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
    names = {plain_name(cell) for cell in cells}
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


def json_rows(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]] | None:
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
    if not isinstance(value, dict) or len(value) < 2 or any(is_split(key) for key in value):
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
