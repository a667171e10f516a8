"""Tables of images: CSV, and what Hugging Face `datasets` writes, parquet and Arrow, on disk or from the hub."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alexnet.data.sources.folders import SPLIT_NAMES
from alexnet.data.sources.items import Item, Source
from alexnet.runtime.errors import AlexNetError

_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "png")
_LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "cls", "fine_label")


def open_csv(path: Path) -> Source:
    """A CSV with the columns path and label, and split where wanted; paths are relative to the CSV.

    Commas, semicolons or tabs between the columns; a split is called train, val or test. Raises AlexNetError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AlexNetError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    header = text.partition("\n")[0].strip()
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = {name.strip().lower(): name for name in rows.fieldnames or () if name}
    if not {"path", "label"} <= columns.keys():
        raise AlexNetError(f"{path} needs the columns path and label; its first line is {header[:80]!r}")
    items = []
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        cells = {key: (row[name] or "").strip() for key, name in columns.items()}
        if not cells["path"] or not cells["label"]:
            raise AlexNetError(f"{where}: the {'label' if cells['path'] else 'path'} is missing")
        split = split_called(cells.get("split"), where)
        items.append(Item(cells["path"], cells["label"], split, str(path.parent / cells["path"])))
    if not items:
        raise AlexNetError(f"no images in {path}: it has a first line only")
    return Source(items)


def split_called(name: str | None, where: str) -> str | None:
    """The split that `name` means, None for an empty one. Raises AlexNetError naming `where` for any other word."""
    if not name:
        return None
    if name.lower() not in SPLIT_NAMES:
        raise AlexNetError(f"{where}: there is no split {name!r}, only train, val and test")
    return SPLIT_NAMES[name.lower()]


def open_tables(files: list[Path], root: Path | None = None) -> Source:
    """Parquet and Arrow files with a column of images and one of labels, as `datasets` writes them.

    A split is read off the names, from data/test-00000-of-00003.parquet or test/data-00000-of-00003.arrow. Images
    without a label (null or negative) are not used. Raises AlexNetError.
    """
    items: list[Item] = []
    unlabeled = 0
    for file in files:
        split = _split_of(file, root)
        found = _arrow_items(file) if file.suffix == ".arrow" else _parquet_items(file)
        for label, item in found:
            unlabeled += label is None
            if label is not None:
                items.append(item._replace(label=label, split=split))
    if not items:
        raise AlexNetError(f"no images with a label in {root or files[0]}")
    return Source(items, notes=[f"{unlabeled:,} images without a label are not used"] if unlabeled else [])


def open_hub(name: str) -> Source:
    """The dataset `name` (or `name:configuration`) of the Hugging Face hub, fetched and kept by `datasets`."""
    try:
        import datasets
    except ImportError:
        raise AlexNetError("hf:NAME needs the package datasets: pip install 'alexnet[hf]'") from None
    try:
        loaded = datasets.load_dataset(*name.split(":", 1))
    except Exception as error:  # network, name, configuration, a script, …: the package has no error of its own
        raise AlexNetError(f"hf:{name} can't be had: {str(error).partition(chr(10))[0]}") from error
    items: list[Item] = []
    notes: list[str] = []
    for split, dataset in loaded.items():
        found = open_tables([Path(file["filename"]) for file in dataset.cache_files])
        wanted = split_called(str(split), f"hf:{name}") if len(loaded) > 1 else None
        items += [item._replace(name=f"{split}/{item.name}", split=wanted) for item in found.items]
        notes += found.notes
    return Source(items, notes=notes)


def _split_of(file: Path, root: Path | None) -> str | None:
    folders = file.relative_to(root).parts[:-1] if root else ()
    for name in (re.split(r"[-_.]", file.name)[0], *reversed(folders)):
        if name.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[name.lower()]
    return None


def _parquet_items(path: Path) -> Iterator[tuple[str | None, Item]]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            image, label, names = _columns(file.schema_arrow, path)
            labels = file.read([label]).column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise AlexNetError(f"{path} can't be read as parquet: {error}") from error
    for row, value in enumerate(labels):
        item = Item(f"{path.name}#{row}", "", None, str(path), row, 0, f"parquet:{image}")
        yield _class_name(value, names, path), item


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
                yield _class_name(value, names, path), Item(f"{path.name}#{row}", "", None, *place)
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise AlexNetError(f"{path} can't be read as Arrow: {error}") from error


def _batches(whole: pa.Buffer) -> Iterator[pa.RecordBatch]:
    if whole.slice(0, 6).to_pybytes() == b"ARROW1":
        reader = pa.ipc.open_file(whole)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(pa.ipc.open_stream(whole))


def _places(column: Any, whole: pa.Buffer, path: Path) -> Iterator[tuple[str, int, int]]:
    """File, offset and length of each image of a column: in this file, or the file that the row names."""
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
            yield str(path), base + offsets[i], offsets[i + 1] - offsets[i]
        else:
            named = paths[i].as_py() if paths is not None else None
            yield str(path.parent / named) if named else str(path.parent / "nothing"), 0, -1


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str, list[str] | None]:
    """The columns of the images and of the labels, and the names of the classes where the file knows them."""
    known = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: kind for name, kind in known.items() if isinstance(kind, dict) and name in schema.names}
    images = [
        *(name for name, kind in kinds.items() if kind.get("_type") == "Image"),
        *(name for name in _IMAGE_COLUMNS if name in schema.names),
        *(field.name for field in schema if pa.types.is_struct(field.type) or pa.types.is_binary(field.type)),
    ]
    labels = [
        *(name for name in _LABEL_COLUMNS if name in schema.names),
        *(name for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"),
    ]
    if not images or not labels:
        missing = "of labels (label)" if images else "of images (image)"
        raise AlexNetError(f"{path} has no column {missing}; it has {', '.join(schema.names)}")
    return images[0], labels[0], kinds.get(labels[0], {}).get("names")


def _class_name(value: Any, names: list[str] | None, path: Path) -> str | None:
    if value is None or (isinstance(value, int) and value < 0):
        return None
    if names is None or not isinstance(value, int):
        return str(value)
    if value >= len(names):
        raise AlexNetError(f"{path} has the label {value}, but only {len(names)} classes")
    return names[value]
