"""Parquet and Arrow files as Hugging Face `datasets` writes them, on disk or from the hub."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.names import called_split, composed, split_of
from alexnet.data.sources.plan import count
from alexnet.data.sources.tables import LABEL_COLUMNS, PATH_COLUMNS
from alexnet.data.sources.walking import is_junk
from alexnet.runtime.errors import AlexNetError

_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "png")


def open_tables(files: list[Path], root: Path | None = None) -> Source:
    """List the images of parquet and Arrow files with a column of images and one of classes.

    Parameters
    ----------
    files
        The files, in the order of the dataset.
    root
        The folder that they were found in. A split is read off the names, from data/test-00000-of-00003.parquet or
        test/data-00000-of-00003.arrow.

    Raises
    ------
    AlexNetError
        When a column is missing, a row has several classes, or no image has one.
    """
    items: list[Item] = []
    origins: dict[Origin, None] = {}
    unlabeled = 0
    for file in files:
        split = _split_of(file, root)
        place = str(file.relative_to(root).parent if root else file)
        origins[Origin(split, f"{place}/" if root else place)] = None
        found = _arrow_items(file) if file.suffix == ".arrow" else _parquet_items(file)
        for label, item in found:
            unlabeled += label is None
            if label is not None:
                items.append(item._replace(label=label, split=split))
    if not items:
        raise AlexNetError(f"no images with a label in {root or files[0]}")
    splits = {item.split for item in items}
    if None in splits and len(splits) > 1:
        raise AlexNetError(
            f"some of the {len(files)} files of {root} are named after a split and others are not: rename them, such "
            "as train-0.parquet"
        )
    warnings = [f"{count(unlabeled, 'image')} without a label not used"] if unlabeled else []
    return Source(_whole_labels(items), kind="table of images", origins=list(origins), warnings=warnings)


def open_hub(name: str) -> Source:
    """List the images of the dataset `name` (or `name:configuration`) of the Hugging Face hub.

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
        found = open_tables([Path(file["filename"]) for file in dataset.cache_files])
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


def _parquet_items(path: Path) -> Iterator[tuple[str | None, Item]]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            image, label, names = _columns(file.schema_arrow, path)
            labels = file.read([label]).column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise AlexNetError(f"{path} cannot be read as parquet: {error}") from error
    for row, value in enumerate(labels):
        item = Item(f"{path.name}#{row}", "", None, str(path), row, 0, f"parquet:{image}")
        yield _class_name(value, names, f"{path}, row {row}"), item


def _arrow_items(path: Path) -> Iterator[tuple[str | None, Item]]:
    """The rows of an Arrow file, each where its bytes lie in the file."""
    row = 0
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        for batch in _batches(whole):
            image, label, names = _columns(batch.schema, path)
            places = _places(batch.column(image), whole, path)
            for value, place in zip(batch.column(label).to_pylist(), places, strict=True):
                yield _class_name(value, names, f"{path}, row {row}"), Item(f"{path.name}#{row}", "", None, *place)
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise AlexNetError(f"{path} cannot be read as Arrow: {error}") from error


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


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str, list[str] | None]:
    """The columns of the images and of the labels, and the names of the classes where the file knows them."""
    known = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: kind for name, kind in known.items() if isinstance(kind, dict) and name in schema.names}
    images = _image_columns(schema, kinds)
    labels = [
        *(name for name in LABEL_COLUMNS if name in schema.names),
        *(name for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"),
    ]
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
    labels = {item.label for item in items}
    if not all(re.fullmatch(r"\d+\.0", label) for label in labels):
        return items
    return [item._replace(label=item.label[:-2]) for item in items]


def table_files(root: Path, saved: bool) -> list[Path]:
    """The Arrow files of a dataset saved on disk, or the parquet files with images, below a folder."""
    ending = ".arrow" if saved else ".parquet"
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_junk(name)]
        files += [Path(folder, name) for name in names if name.endswith(ending) and not is_junk(name)]
    return [file for file in sorted(files) if saved or has_images(file)]
