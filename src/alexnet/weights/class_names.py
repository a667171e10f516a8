"""Files of class names as people have them: text in several encodings, JSON, and tables of spreadsheet programs."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from alexnet.runtime.errors import AlexNetError

_MAX_SIZE = 16 << 20
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_CANDIDATES = ("cp949", "shift_jis", "gbk", "cp1252")
_NAME_COLUMNS = (
    "class",
    "class_name",
    "classname",
    "classes",
    "label",
    "labels",
    "name",
    "names",
    "category",
    "클래스",
)
_INDEX_COLUMNS = ("id", "index", "class_id", "classid", "label_id", "no", "number", "번호")
_NUMBERED = re.compile(r"(\d+)\s*[\s,;:=\t]\s*(\S.*)")


def read_class_names(file: Path) -> tuple[list[str], list[str]]:
    """Read the names of classes in the order of the network's outputs.

    Parameters
    ----------
    file : Path
        One class per line, possibly with its number before it; a JSON list, or a JSON object of numbers and names; or
        a CSV table with a column of names. UTF-8 with or without a byte order mark, UTF-16, UTF-32, CP949 or CP1252.

    Returns
    -------
    names, notes : list of str
        The names, and how the file was interpreted where that is not obvious.

    Raises
    ------
    AlexNetError
        If the file can't be read, its encoding or its columns are ambiguous, or a class is named twice.
    """
    try:
        if file.stat().st_size > _MAX_SIZE:
            raise AlexNetError(f"{file} has {file.stat().st_size:,} bytes, too many for a file of class names")
        content = file.read_bytes()
    except OSError as error:
        raise AlexNetError(f"{file} can't be read: {error.strerror or error}") from None
    text, encoding = _decoded(content, file)
    notes = [] if encoding == "UTF-8" else [f"{file} was read as {encoding}"]
    if text.lstrip()[:1] in ("[", "{"):
        names = _names_of_json(text, file)
    else:
        names, more = _names_of_lines(text, file)
        notes += more
    if not names:
        raise AlexNetError(f"{file} is empty: write one class per line, in the order of the network's outputs")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        lines = ", ".join(str(number) for number, name in enumerate(names, 1) if name == repeated[0])
        raise AlexNetError(f"{file} names {repeated[0]!r} more than once (entries {lines}): each class needs one name")
    return names, notes


def _decoded(content: bytes, file: Path) -> tuple[str, str]:
    """The text, and the name of its encoding for people."""
    for mark, codec, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return _decode(content, codec, name, file), name
    if content.count(0) > len(content) // 4:  # UTF-16 without a mark: every other byte of ASCII is zero
        order = "le" if content[1::2].count(0) >= content[::2].count(0) else "be"
        return _decode(content, f"utf-16-{order}", "UTF-16", file), "UTF-16"
    try:
        return content.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    readings = {codec: text for codec in _CANDIDATES if (text := _try(content, codec)) is not None}
    for codec, plausible in (("cp949", _is_korean), ("cp1252", _is_western)):
        if codec in readings and plausible(readings[codec]):
            return readings[codec], codec.upper()
    examples = "; ".join(f"{codec}: {text.splitlines()[line - 1].strip()!r}" for codec, text in readings.items())
    raise AlexNetError(
        f"{file} is not UTF-8, and its encoding is ambiguous (line {line} may be {examples or 'damaged'}): convert it, "
        f"iconv -f ENCODING -t UTF-8 {file.name} > utf-8.txt"
    )


def _decode(content: bytes, codec: str, name: str, file: Path) -> str:
    try:
        return content.decode(codec)
    except UnicodeDecodeError as error:
        raise AlexNetError(f"{file} is damaged: it begins as {name} and is not, at byte {error.start:,}") from None


def _try(content: bytes, codec: str) -> str | None:
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        return None


def _is_korean(text: str) -> bool:
    """Whether everything but ASCII is among the 2,350 syllables of KS X 1001, which other encodings hardly produce."""
    foreign = [letter for letter in text if ord(letter) > 127]
    return all("가" <= letter <= "힣" and min(letter.encode("cp949")) >= 0xA1 for letter in foreign)


def _is_western(text: str) -> bool:
    """Whether everything but ASCII is single letters, as in Latin text."""
    runs = re.findall(r"[^\x00-\x7f]+", text)
    return all(run.isalpha() and len(run) == 1 for run in runs)


def _names_of_json(text: str, file: Path) -> list[str]:
    """A list of names; or an object of number → name, number → [id, name], or name → number."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AlexNetError(f"{file} is not a JSON list of classes: {error}") from None
    if isinstance(value, dict):
        value = _in_order(value, file)
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise AlexNetError(f"{file} is not a JSON list of class names")
    return value


def _in_order(value: dict[str, Any], file: Path) -> list[Any]:
    """The names of a JSON object in the order of their numbers."""
    if all(type(number) is int for number in value.values()):
        value = {str(number): name for name, number in value.items()}
    numbers = [str(number) for number in range(len(value))]
    if set(value) != set(numbers):
        raise AlexNetError(f"{file} is a JSON object whose keys are not the numbers 0 to {len(value) - 1}")
    names = [value[number] for number in numbers]
    # As Keras' imagenet_class_index.json has it.
    return [name[-1] if isinstance(name, list) and name else name for name in names]


def _names_of_lines(text: str, file: Path) -> tuple[list[str], list[str]]:
    """The names in a text of lines, and how the lines were interpreted."""
    lines = [line for line in text.splitlines() if line.strip()]
    table = _table(lines, file)
    if table is not None:
        return _names_of_table(table, file)
    names = [line.strip() for line in lines]
    numbered = [match for line in names if (match := _NUMBERED.fullmatch(line))]
    if len(names) > 1 and len(numbered) == len(names):
        numbers = [int(match[1]) for match in numbered]
        if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
            return [match[2].strip() for match in numbered], [f"{file}: the numbers before the classes were removed"]
    return names, []


def _table(lines: list[str], file: Path) -> list[list[str]] | None:
    """The rows of a table with separators; None for a list of names, which may have commas in them."""
    is_table = file.suffix.lower() in (".csv", ".tsv")
    if not lines or (not is_table and not any("\t" in line for line in lines)):
        return None
    for separator in ("\t", ";", ","):
        rows = [row for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=separator) if any(row)]
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return [[cell.strip() for cell in row] for row in rows]
    quoted = '"' in "".join(lines)
    column = [row[0] for row in csv.reader(lines)] if quoted else lines
    return [[name.strip()] for name in column] if is_table else None


def _names_of_table(rows: list[list[str]], file: Path) -> tuple[list[str], list[str]]:
    """The column of names, in the order of a column of numbers where there is one."""
    header = [cell.casefold() for cell in rows[0]]
    titled = any(cell in (*_NAME_COLUMNS, *_INDEX_COLUMNS) for cell in header)
    body = rows[1:] if titled else rows
    columns = range(len(rows[0]))
    index = next((column for column in columns if body and _is_numbering([row[column] for row in body])), None)
    others = [column for column in columns if column != index]
    named = [column for column in others if header[column] in _NAME_COLUMNS]
    if len(others) == 1:
        named = others
    if len(named) != 1:
        raise AlexNetError(
            f"{file} is a table of {len(rows[0])} columns ({', '.join(rows[0])}): leave one column of class names in it"
        )
    if index is not None:
        body = sorted(body, key=lambda row: int(row[index]))
    title = f"column {rows[0][named[0]]!r}" if titled else f"column {named[0] + 1}"
    return [row[named[0]] for row in body], [f"{file}: the classes are {title}"] if len(rows[0]) > 1 else []


def _is_numbering(cells: list[str]) -> bool:
    """Whether cells are the numbers from 0 or from 1 on, in any order."""
    if not all(cell.isascii() and cell.isdigit() for cell in cells):
        return False
    numbers = sorted(int(cell) for cell in cells)
    return numbers in (list(range(len(cells))), list(range(1, len(cells) + 1)))
