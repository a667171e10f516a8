"""Files of class names as people have them: text in several encodings, JSON, YAML, tables of spreadsheet programs."""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS, read_workbook
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
_KEYS = ("classes", "class_names", "names", "labels", "id2label", "label2id", "class_to_idx", "idx_to_class")
_INDEX_COLUMNS = ("id", "index", "class_id", "classid", "label_id", "no", "number", "번호")
_YAML_NAMES = re.compile(
    r"^names\s*:[ \t]*(?:(\[.*?\]|\{.*?\})|\n((?:[ \t]*(?:-|\d+[ \t]*:)[ \t]+[^\n]+(?:\n|\Z))+))",
    re.MULTILINE | re.DOTALL,
)
_NUMBERED = re.compile(r"(\d+)\s*[\s,;:=\t]\s*(\S.*)")


def read_class_names(file: Path) -> tuple[list[str], list[str]]:
    """Read the names of classes in the order of the network's outputs.

    Parameters
    ----------
    file : Path
        One class per line, possibly with its number before it; a list or dictionary of numbers and names in JSON or
        Python, also within one with the key classes, names, id2label or label2id; `names:` of YAML; or a table with a
        column of names, as CSV or workbook. UTF-8 with or without a byte order mark, UTF-16, UTF-32, CP949 or CP1252.

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
    if file.suffix.lower() in WORKBOOK_ENDINGS:
        rows = next((rows for _, rows in read_workbook(content, str(file)) if rows), [])
        names, notes = _names_of_table([[cell.strip() for cell in cells] for _, cells in rows], file)
    else:
        names, notes = _names_of_text(content, file)
    names = [name.strip("\ufeff\u200b \t") for name in names]  # a mark of another file that was appended
    if not names:
        raise AlexNetError(f"{file} is empty: write one class per line, in the order of the network's outputs")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        lines = ", ".join(str(number) for number, name in enumerate(names, 1) if name == repeated[0])
        raise AlexNetError(f"{file} names {repeated[0]!r} more than once (entries {lines}): each class needs one name")
    return names, notes


def _names_of_text(content: bytes, file: Path) -> tuple[list[str], list[str]]:
    text, encoding = _decoded(content, file)
    strange = next((one for one in text if unicodedata.category(one) == "Cc" and one not in "\t\r\n\v\f\x1a"), None)
    if strange is not None:
        raise AlexNetError(f"{file} is not a text file (it has the character {strange!r}): write one class per line")
    notes = [] if encoding == "UTF-8" else [f"{file} was read as {encoding}"]
    if text.lstrip("\ufeff \t\r\n")[:1] in ("[", "{"):
        return _names_of_value(_literal(text, file), file), notes
    yaml = _YAML_NAMES.search(text.replace("\r\n", "\n"))
    if yaml and yaml[1]:
        return _names_of_value(_literal(yaml[1], file), file), notes
    if yaml:
        text = re.sub(r"^[ \t]*-[ \t]+", "", yaml[2], flags=re.M)
    names, more = _names_of_lines(text, file)
    return names, notes + more


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


def _literal(text: str, file: Path) -> Any:
    """A list or dictionary in JSON, or as Python prints it."""
    try:
        return json.loads(text)
    except ValueError as error:
        reason = error
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise AlexNetError(f"{file} is not a JSON list of classes: {reason}") from None


def _names_of_value(value: Any, file: Path) -> list[str]:
    """The names in a list, or in a dictionary; and in one of those within a dictionary, as in config.json."""
    if isinstance(value, dict):
        inner = next((value[key] for key in _KEYS if isinstance(value.get(key), list | dict)), None)
        value = _in_order(value if inner is None else inner, file)
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = _names_of_objects(value, file)
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise AlexNetError(f"{file} is not a JSON list of class names")
    return [name.strip() for name in value]


def _names_of_objects(value: list[dict[str, Any]], file: Path) -> list[str]:
    """Names of objects with a name, in the order of their numbers where they have some."""
    header = list(dict.fromkeys(key for one in value for key in one))
    rows = [[str(one.get(key, "")) for key in header] for one in value]
    return _names_of_table([header, *rows], file)[0]


def _in_order(value: Any, file: Path) -> Any:
    """The names of a dictionary in the order of their numbers, from 0 or from 1; another value as it is."""
    if not isinstance(value, dict):
        return value
    if value and all(type(number) is int for number in value.values()):  # name → number
        if len(set(value.values())) < len(value):
            raise AlexNetError(f"{file} gives a number to several classes: each needs its own")
        value = {number: name for name, number in value.items()}
    by_number = {str(number): name for number, name in value.items()}
    for first in (0, 1):
        numbers = [str(number) for number in range(first, first + len(by_number))]
        if set(by_number) == set(numbers):
            names = [by_number[number] for number in numbers]
            # As Keras' imagenet_class_index.json has it.
            return [name[-1] if isinstance(name, list) and name else name for name in names]
    raise AlexNetError(f"{file} is a JSON object whose keys are not the numbers 0 to {len(value) - 1}")


def _names_of_lines(text: str, file: Path) -> tuple[list[str], list[str]]:
    """The names in a text of lines, and how the lines were interpreted."""
    lines = [line for line in re.split(r"\r\n|[\r\n\v\f\x1a]", text) if line.strip("\ufeff\u200b \t")]
    table = _table(lines, file)
    if table is not None:
        return _names_of_table(table, file)
    names = [line.strip() for line in lines]
    numbered = [match for line in names if (match := _NUMBERED.fullmatch(line))]
    if len(names) > 1 and len(numbered) == len(names):
        numbers = [int(match[1]) for match in numbered]
        if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
            names = [_unquoted(match[2].strip()) for match in numbered]
            return names, [f"{file}: the numbers before the classes were removed"]
    if len(names) == 1 and names[0].count(",") > 1:
        return [name.strip() for name in next(csv.reader(names, skipinitialspace=True))], [
            f"{file}: its only line is a list"
        ]
    names = [_unquoted(name) for name in names]
    if len(names) > 2 and names[0].casefold() in _NAME_COLUMNS:
        return names[1:], [f"{file}: the first line, {names[0]!r}, is a title"]
    return names, []


def _unquoted(name: str) -> str:
    """A name without the quotation marks around it."""
    return name[1:-1].strip() if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'" else name


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
    if not rows:
        return [], []
    header = [cell.casefold() for cell in rows[0]]
    titled = any(cell in (*_NAME_COLUMNS, *_INDEX_COLUMNS) for cell in header)
    body = rows[1:] if titled else rows
    columns = range(len(rows[0]))
    index = next((column for column in columns if body and _is_numbering([row[column] for row in body])), None)
    others = [column for column in columns if column != index]
    named = [column for column in others if header[column] in _NAME_COLUMNS]
    if len(others) == 1:
        named = others
    unordered = [column for column in others if titled and header[column] in _INDEX_COLUMNS]
    if index is None and any(_numbers([row[column] for row in body]) is not None for column in unordered):
        raise AlexNetError(
            f"{file}: column {rows[0][unordered[0]]!r} is not the numbers from 0 or 1 on: remove it, and write the "
            "classes in the order of the network's outputs"
        )
    if len(named) != 1:
        raise AlexNetError(
            f"{file} is a table of {len(rows[0])} columns ({', '.join(rows[0])}): leave one column of class names in it"
        )
    if index is not None:
        body = sorted(body, key=lambda row: float(row[index]))
    title = f"column {rows[0][named[0]]!r}" if titled else f"column {named[0] + 1}"
    return [row[named[0]] for row in body], [f"{file}: the classes are {title}"] if len(rows[0]) > 1 else []


def _is_numbering(cells: list[str]) -> bool:
    """Whether cells are the numbers from 0 or from 1 on, in any order."""
    numbers = _numbers(cells)
    return numbers in (list(range(len(cells))), list(range(1, len(cells) + 1)))


def _numbers(cells: list[str]) -> list[int] | None:
    """Whole numbers, sorted, also as pandas writes them (1.0); None for others."""
    if not all(re.fullmatch(r"\d+(\.0*)?", cell, re.ASCII) for cell in cells):
        return None
    return sorted(int(float(cell)) for cell in cells)
