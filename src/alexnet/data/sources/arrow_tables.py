"""Parquet and Arrow files as Hugging Face `datasets` writes them, on disk or from the hub."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alexnet.data.sources.items import Item, Origin, Sample, Source
from alexnet.data.sources.names import called_split, composed, split_of
from alexnet.data.sources.plan import count
from alexnet.data.sources.sample_columns import (
    SAMPLE_COLUMNS,
    find_sample_columns,
    most_probable,
    probability_columns,
    read_probabilities,
    refuse_both,
)
from alexnet.data.sources.table_columns import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_COLUMNS
from alexnet.data.sources.walking import is_junk
from alexnet.runtime.errors import AlexNetError

_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "png")


def open_tables(files: list[Path], root: Path | None = None, ignore_columns: Sequence[str] = ()) -> Source:
    """List the images of parquet and Arrow files with a column of images and one of classes.

    Parameters
    ----------
    files
        The files, in the order of the dataset.
    root
        The folder that they were found in. A split is read off the names, from data/test-00000-of-00003.parquet or
        test/data-00000-of-00003.arrow.
    ignore_columns
        Columns that are not read.

    Raises
    ------
    AlexNetError
        When a column is missing, a row has several classes, or no image has one.
    """
    items: list[Item] = []
    origins: dict[Origin, None] = {}
    assumptions: dict[str, None] = {}
    label_of: dict[str | None, Path] = {}
    unlabeled = 0
    for file in files:
        split = _split_of(file, root)
        place = str(file.relative_to(root).parent if root else file)
        origins[Origin(split, f"{place}/" if root else place)] = None
        found = _read_arrow(file, ignore_columns) if file.suffix == ".arrow" else _read_parquet(file, ignore_columns)
        label_of.setdefault(found.label, file)
        assumptions |= dict.fromkeys(found.assumptions)
        if found.splits is not None and split is None:
            origins.pop(Origin(split, f"{place}/" if root else place))
            where = f"{file.name} (column {found.split_column})"
            origins |= {Origin(one, where): None for one in sorted(set(found.splits))}
        splits_of = found.splits if found.splits is not None and split is None else [split] * len(found.items)
        rows = zip(*_labels_and_samples(found, file), found.items, splits_of, strict=True)
        for label, sample, item, own in rows:
            unlabeled += label is None
            if label is not None:
                items.append(item._replace(label=label, split=own, sample=sample))
    if len(label_of) > 1:
        columns = ", ".join(f"{name!r} in {file.name}" for name, file in label_of.items())
        raise AlexNetError(f"the classes are in columns of different names ({columns}): rename them alike")
    if not items:
        raise AlexNetError(f"no images with a label in {root or files[0]}")
    splits = {item.split for item in items}
    if None in splits and len(splits) > 1:
        raise AlexNetError(
            f"some of the {len(files)} files of {root} are named after a split and others are not: rename them, such "
            "as train-0.parquet"
        )
    warnings = [f"{count(unlabeled, 'image')} without a label not used"] if unlabeled else []
    return Source(
        _whole_labels(items),
        kind="table of images",
        origins=list(origins),
        assumptions=list(assumptions),
        warnings=warnings,
    )


def open_hub(name: str, ignore_columns: Sequence[str] = ()) -> Source:
    """List the images of the dataset `name` (or `name:configuration`) of the Hugging Face hub.

    Columns of `ignore_columns` are not read.

    Raises
    ------
    AlexNetError
        When the package `datasets` is not installed or cannot load it.
    """
    try:
        import datasets
    except ImportError:
        raise AlexNetError("hf:NAME needs the package datasets: pip install 'alexnet[hf]'") from None
    try:
        loaded = datasets.load_dataset(*name.split(":", 1))
    except Exception as error:  # network, name, configuration, a script, …: the package has no error of its own
        raise AlexNetError(f"hf:{name} cannot be loaded: {str(error).partition(chr(10))[0]}") from error
    items: list[Item] = []
    origins: list[Origin] = []
    warnings: list[str] = []
    for split, dataset in loaded.items():
        found = open_tables([Path(file["filename"]) for file in dataset.cache_files], None, ignore_columns)
        wanted = called_split(str(split), f"hf:{name}") if len(loaded) > 1 else None
        items += [item._replace(name=f"{split}/{item.name}", split=wanted) for item in found.items]
        origins.append(Origin(wanted, f"split {split}"))
        warnings += found.warnings
    return Source(items, kind="Hugging Face dataset", origins=origins, warnings=warnings)


def has_images(file: Path) -> bool:
    """Whether a parquet file has a column of images; others are tables of something else."""
    import pyarrow.parquet as pq

    try:
        return bool(_image_columns(pq.read_schema(file), {}))
    except (pa.ArrowException, OSError):
        return True  # reading it will say what is wrong


def _split_of(file: Path, root: Path | None) -> str | None:
    folders = file.relative_to(root).parts[:-1] if root else ()
    for name in (re.split(r"[-_.]", file.name)[0], file.stem, *reversed(folders)):
        named = split_of(name)
        if named is not None and named.exact:
            return named.split
    return None


class _Rows(NamedTuple):
    """A file: an item for each row, and its other columns by name; `names` are those of the classes, if it has any."""

    items: list[Item]
    label: str | None
    names: list[str] | None
    columns: dict[str, list[Any]]
    split_column: str = ""
    splits: list[str] | None = None
    assumptions: list[str] = []  # noqa: RUF012 (of a tuple, never changed)


def _read_parquet(path: Path, ignored: Sequence[str]) -> _Rows:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            image, label, names = _columns(file.schema_arrow, path, ignored)
            others = _other_columns(file.schema_arrow, image, label, ignored)
            splits = _split_column(file.schema_arrow, (image, label, *ignored))
            table = file.read([*others, *splits])
    except (pa.ArrowException, OSError) as error:
        raise AlexNetError(f"{path} cannot be read as parquet: {error}") from error
    items = [
        Item(f"{path.name}#{row}", "", None, str(path), row, 0, f"parquet:{image}") for row in range(table.num_rows)
    ]
    values = {name: table.column(name).to_pylist() for name in (*others, *splits)}
    return _rows(items, label, names, values, splits, path, _more_labels(file.schema_arrow, label, ignored))


def _read_arrow(path: Path, ignored: Sequence[str]) -> _Rows:
    """The rows of an Arrow file, each where its bytes lie in the file."""
    items: list[Item] = []
    columns: dict[str, list[Any]] = {}
    label = names = None
    splits: list[str] = []
    more: list[str] = []
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        for batch in _batches(whole):
            image, label, names = _columns(batch.schema, path, ignored)
            places = _places(batch.column(image), whole, path)
            items += [Item(f"{path.name}#{row}", "", None, *place) for row, place in enumerate(places, len(items))]
            splits = _split_column(batch.schema, (image, label, *ignored))
            more = _more_labels(batch.schema, label, ignored)
            for name in (*_other_columns(batch.schema, image, label, ignored), *splits):
                columns.setdefault(name, []).extend(batch.column(name).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise AlexNetError(f"{path} cannot be read as Arrow: {error}") from error
    return _rows(items, label, names, columns, splits, path, more)


def _rows(
    items: list[Item],
    label: str | None,
    names: list[str] | None,
    values: dict[str, list[Any]],
    splits: list[str],
    path: Path,
    more: list[str],
) -> _Rows:
    """The rows with the splits of a column, where all its values are splits, and what was assumed of the columns."""
    assumptions = [
        f"the classes are the column {label!r}; --ignore-columns {label} takes {name!r}, which {path.name} has too"
        for name in more
    ]
    for column in splits:
        cells = values.pop(column)
        named = [split_of(str(cell)) for cell in cells]
        if all(one is not None and one.exact for one in named):
            return _Rows(items, label, names, values, column, [one.split for one in named if one], assumptions)
        assumptions.append(f"the column {column!r} of {path.name} is not used: not all of its values are splits")
    return _Rows(items, label, names, values, assumptions=assumptions)


def _split_column(schema: pa.Schema, taken: Sequence[str | None]) -> list[str]:
    """The column of text that is called as one of splits; none or one."""
    found = [name for name in SPLIT_COLUMNS if name in schema.names and name not in taken]
    return [name for name in found if pa.types.is_string(schema.field(name).type)][:1]


def _more_labels(schema: pa.Schema, label: str | None, ignored: Sequence[str]) -> list[str]:
    """Other columns of fine, coarse or other classes."""
    usual = ("label", "labels", "class", "category", "fine_label", "coarse_label", "target")
    return [name for name in usual if label in usual and name in schema.names and name not in (label, *ignored)]


def _other_columns(schema: pa.Schema, image: str, label: str | None, ignored: Sequence[str]) -> list[str]:
    """The column of labels, those of weight, confidence and group, and those that can hold probabilities."""
    return [
        field.name
        for field in schema
        if field.name == label
        or (field.name not in (image, *ignored) and (field.name in SAMPLE_COLUMNS or pa.types.is_floating(field.type)))
    ]


def _labels_and_samples(rows: _Rows, path: Path) -> tuple[list[str | None], list[Sample]]:
    """The class of each row, None where it has none, and what else the row says."""
    header = list(rows.columns)
    cells_of = list(zip(*rows.columns.values(), strict=True))
    where_of = [f"{path}, row {row}" for row in range(len(rows.items))]
    at = header.index(rows.label) if rows.label is not None else -1
    found = find_sample_columns(header, {at})
    taken = {at, *found.positions()}
    if rows.label is None:
        classes = [name for position, name in enumerate(header) if position not in taken]
        by_class = {composed(name): header.index(name) for name in classes}
        refuse_both(found, by_class, str(path))
    else:
        labels = [_class_name(cells[at], rows.names, where) for cells, where in zip(cells_of, where_of, strict=True)]
        plain = _whole({label for label in labels if label is not None})
        labels = [label if label is None else plain[label] for label in labels]
        by_class = probability_columns(header, sorted(set(filter(None, labels))), taken)
        refuse_both(found, by_class, str(path))
    samples = []
    for cells, where in zip(cells_of, where_of, strict=True):
        sample = found.read(cells, where)
        if by_class:
            sample = sample._replace(probabilities=read_probabilities(cells, by_class, where))
        samples.append(sample)
    if rows.label is None:
        labels = [
            most_probable(sample.probabilities or {}, where) for sample, where in zip(samples, where_of, strict=True)
        ]
    return labels, samples


def _batches(whole: pa.Buffer) -> Iterator[pa.RecordBatch]:
    if whole.slice(0, 6).to_pybytes() == b"ARROW1":
        reader = pa.ipc.open_file(whole)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(pa.ipc.open_stream(whole))


def _places(column: Any, whole: pa.Buffer, path: Path) -> Iterator[tuple[str, int, int, str]]:
    """File, offset, length and packing of each image of a column: in this file, or the file that the row names."""
    paths = None
    if pa.types.is_struct(column.type):
        if column.type.get_field_index("path") >= 0:
            paths = column.field("path")
        column = column.field("bytes")
    if pa.types.is_string(column.type):
        column, paths = pa.nulls(len(column), pa.binary()), column
    large = pa.types.is_large_binary(column.type)
    _, ends, data = column.buffers()
    offsets = np.frombuffer(ends, np.int64 if large else np.int32)[column.offset :].tolist() if ends else []
    base = data.address - whole.address if data else 0
    if not 0 <= base <= whole.size:
        raise AlexNetError(f"{path} is a compressed Arrow file: save it uncompressed or as parquet")
    for i, valid in enumerate(column.is_valid().to_pylist()):
        if valid:
            yield str(path), base + offsets[i], offsets[i + 1] - offsets[i], "plain"
            continue
        named = paths[i].as_py() if paths is not None else None
        if named:
            yield str(path.parent / named), 0, -1, "plain"
        else:
            yield str(path), 0, -1, "unreadable:no image in this row"


def _image_columns(schema: pa.Schema, kinds: dict[str, Any]) -> list[str]:
    def holds_images(name: str) -> bool:
        kind = schema.field(name).type
        return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    by_kind = [name for name, kind in kinds.items() if kind.get("_type") == "Image"]
    named = [name for name in _IMAGE_COLUMNS if name in schema.names]
    binary = [field.name for field in schema if holds_images(field.name)]
    paths = [name for name in PATH_COLUMNS if name in schema.names and pa.types.is_string(schema.field(name).type)]
    return [*by_kind, *named, *binary, *paths]


def _columns(schema: pa.Schema, path: Path, ignored: Sequence[str]) -> tuple[str, str | None, list[str] | None]:
    """The columns of the images and of the labels, and the names of the classes where the file knows them.

    There is no column of labels where the others are numbers, probabilities of the classes.
    """
    known = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: kind for name, kind in known.items() if isinstance(kind, dict) and name in schema.names}
    images = _image_columns(schema, kinds)
    labels = [
        *(name for name in LABEL_COLUMNS if name in schema.names and name not in ignored),
        *(name for name, kind in kinds.items() if kind.get("_type") == "ClassLabel" and name not in ignored),
    ]
    if images and not labels:
        others = [name for name in _other_columns(schema, images[0], None, ignored) if name not in SAMPLE_COLUMNS]
        if len(others) > 1:
            return images[0], None, None
    if not images or not labels:
        missing = "of labels (label)" if images else "of images (image)"
        raise AlexNetError(f"{path} has no column {missing}; it has {', '.join(schema.names)}")
    return images[0], labels[0], kinds.get(labels[0], {}).get("names")


def _class_name(value: Any, names: list[str] | None, where: str) -> str | None:
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise AlexNetError(
                f"{where}: the label is {value!r}, several classes; a classifier needs one class for each image"
            )
        value = value[0] if value else None
    if value is None or (isinstance(value, int | float) and (value < 0 or math.isnan(value))):
        return None
    if names is None or not isinstance(value, int):
        return composed(str(value))
    if value >= len(names):
        raise AlexNetError(f"{where}: the label is {value}, but there are only {len(names)} classes")
    return composed(names[value])


def _whole_labels(items: list[Item]) -> list[Item]:
    """Labels 0.0 and 1.0 as 0 and 1, where all are whole numbers."""
    plain = _whole({item.label for item in items})
    return [item._replace(label=plain[item.label]) for item in items]


def _whole(labels: set[str]) -> dict[str, str]:
    """Labels, and as what they are written: 0.0 and 1.0 as 0 and 1, where all are whole numbers."""
    whole = all(re.fullmatch(r"\d+\.0", label) for label in labels)
    return {label: label[:-2] if whole else label for label in labels}


def table_files(root: Path, saved: bool) -> list[Path]:
    """The Arrow files of a dataset saved on disk, or the parquet files with images, below a folder."""
    ending = ".arrow" if saved else ".parquet"
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_junk(name)]
        files += [Path(folder, name) for name in names if name.endswith(ending) and not is_junk(name)]
    return [file for file in sorted(files) if saved or has_images(file)]
