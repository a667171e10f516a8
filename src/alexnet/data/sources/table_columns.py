"""The columns of a table of images: those of paths, classes and splits, and what a row says there.

The usual names of columns are understood (`PATH_COLUMNS`, `LABEL_COLUMNS`, `SPLIT_COLUMNS`), or one column of 0 and 1
for each class.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from alexnet.data.sources.items import Sample
from alexnet.data.sources.names import called_split, composed, first_names, split_of
from alexnet.data.sources.plan import count
from alexnet.data.sources.sample_columns import (
    SAMPLE_COLUMNS,
    SampleColumns,
    are_probabilities,
    find_sample_columns,
    most_probable,
)
from alexnet.runtime.errors import AlexNetError

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


class Columns(NamedTuple):
    """The places of the columns in a row."""

    path: int
    labels: list[int]  # one column of classes, or one for each class
    split: int | None
    sample: SampleColumns = SampleColumns()
    others: tuple[int, ...] = ()  # not read, except where they are the probabilities of the classes


def find_columns(header: Sequence[str], wanted: str | None, named_columns: bool, ignored: set[str]) -> Columns | None:
    """The columns of a table; those that are ignored have no name."""
    plain = [cell if cell not in ignored else "" for cell in map(plain_name, header)]
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


def _named_columns(plain: Sequence[str], wanted: str | None, named_columns: bool) -> Columns | None:
    path = next((plain.index(known) for known in PATH_COLUMNS if known in plain), None)
    if path is None:
        return None
    split = next((plain.index(known) for known in SPLIT_COLUMNS if known in plain), None)
    if wanted is not None and plain_name(wanted) in plain:
        return Columns(path, [plain.index(plain_name(wanted))], split)
    labels = [plain.index(known) for known in LABEL_COLUMNS if known in plain and plain.index(known) != path]
    if labels:
        return Columns(path, _preferred(plain, labels), split)
    numbering = ("", "index", "unnamed:_0", "no", "number", "#", *SAMPLE_COLUMNS)
    rest = [index for index in range(len(plain)) if index not in (path, split) and plain[index] not in numbering]
    return Columns(path, rest, split) if rest and not named_columns else None


def _preferred(plain: Sequence[str], labels: list[int]) -> list[int]:
    """The column of classes: the one that names them, before one that numbers them."""
    names = [index for index in labels if plain[index] in _NAME_COLUMNS]
    return names[:1] or labels[:1]


def plain_name(cell: str) -> str:
    """The name of a column as it is compared: lower case, with one underscore for spaces and hyphens."""
    return re.sub(r"[\s_\-]+", "_", composed(cell).strip().strip("\"'").lower())


def check_width(header: Sequence[str], records: Sequence[tuple[int, list[str]]], name: str) -> None:
    """Raise AlexNetError for a row with more cells than the header, such as a class with a comma in it."""
    for line, cells in records:
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            raise AlexNetError(
                f"{name}, line {line}: {len(cells)} cells, and the header has {len(header)}: put quotation marks "
                f"around a cell with a separator in it, such as {','.join(cells)[:60]!r}"
            )


def remarks_on_other_columns(
    header: Sequence[str], records: Sequence[tuple[int, list[str]]], columns: Columns, name: str
) -> list[str]:
    """Sentences about columns that could be the classes or the splits too. Raises AlexNetError for two of one name."""
    if len(columns.labels) > 1:
        return []
    chosen = columns.labels[0]
    plain = [plain_name(cell) for cell in header]
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


def label_of(
    header: Sequence[str], cells: Sequence[str], labels: Sequence[int], sample: Sample, where: str
) -> str | None:
    """The class of a row, empty where it is missing; None when its columns are no classes."""
    if sample.probabilities is not None:
        return most_probable(sample.probabilities, where)
    if len(labels) > 1:
        return _one_hot(header, cells, labels, where)
    label = composed(cells[labels[0]]).strip()
    return "" if label.lower() == "nan" else label


def soft_columns(
    header: Sequence[str], records: Sequence[tuple[int, list[str]]], labels: Sequence[int]
) -> dict[str, int]:
    """Class → its column, where the columns of the classes hold probabilities and not only 0 and 1."""
    for _, cells in records:
        values = [cells[index].strip() for index in labels]
        if any(value.lower() not in _TRUE and value.lower() not in _FALSE for value in values):
            return {composed(header[one]): one for one in labels} if are_probabilities(values) else {}
    return {}


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


def split_of_row(value: str, column: str, where: str) -> str | None:
    """The split that a row names in the column of splits. Raises AlexNetError where is_valid or is_test is unclear."""
    if column in ("is_valid", "is_test"):
        marked = "val" if column == "is_valid" else "test"
        if value.lower() in _TRUE:
            return marked
        if value.lower() in _FALSE:
            return "train"
        raise AlexNetError(f"{where}: {column} is {value!r}, neither true nor false")
    return split_of(value).split if is_split(value) else called_split(value, where)  # type: ignore[union-attr]


def is_split(value: str) -> bool:
    """Whether a cell names a split."""
    named = split_of(value)
    return named is not None and set(named.rest) <= {"public", "private"}  # Kaggle's PublicTest and PrivateTest
