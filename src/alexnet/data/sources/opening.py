"""Where images come from: every kind of source becomes one list of items, each a range of bytes in a file.

A folder, an archive, ImageNet's tar files, a CSV, parquet and Arrow files differ only in how they are listed. Nothing
is unpacked: workers read an image where it is, by file, offset and length. What has no such place (compressed tar
files, images from Python) is first copied to a spool, once.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data.decoding import to_rgb
from alexnet.data.sources.folders import classed_by_folder, folder_entries, is_junk, tar_entries, zip_entries
from alexnet.data.sources.ilsvrc import is_ilsvrc, open_ilsvrc
from alexnet.data.sources.items import Item, Source
from alexnet.data.sources.tables import open_csv, open_hub, open_tables, split_called
from alexnet.runtime.errors import AlexNetError, UsageError

KINDS = (
    "a folder with one folder a class, a zip or tar of one, a folder of ImageNet's tar files, a CSV of path,label, "
    "parquet or Arrow files of Hugging Face datasets, or hf:NAME"
)
"""What a source may be, in words."""

_TAR_ENDINGS = (".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")


def open_source(source: Any, spool: Path) -> Source:
    """List the images of `source`.

    source: a path or "hf:NAME" as `KINDS` says, an iterable of (image, label) or (image, label, split), image
    being a path, the bytes of a file, an array or a PIL image, or a list that was made before. spool: an existing
    folder for what has to be copied to be read at random; it must last as long as the items. Raises AlexNetError when
    there is nothing to make of it.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, str | os.PathLike):
        return _from_python(source, spool)
    if str(source).startswith("hf:"):
        return open_hub(str(source)[3:])
    path = Path(source)
    if not path.exists():
        raise AlexNetError(f"{path} does not exist")
    return _open_folder(path, spool) if path.is_dir() else _open_file(path, spool)


def _open_folder(root: Path, spool: Path) -> Source:
    if is_ilsvrc(root):
        return open_ilsvrc(root, spool)
    saved = any((root / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))
    tables = sorted(root.rglob("*.arrow" if saved else "*.parquet"))
    tables = [path for path in tables if not is_junk(path.relative_to(root).parts)]
    if saved or tables:
        return open_tables(tables, root)
    return classed_by_folder(root, folder_entries(root))


def _open_file(path: Path, spool: Path) -> Source:
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        return open_csv(path)
    if ending in (".parquet", ".arrow"):
        return open_tables([path])
    if ending == ".zip" or zipfile.is_zipfile(path):
        return classed_by_folder(path, zip_entries(path))
    if ending in _TAR_ENDINGS:
        return classed_by_folder(path, tar_entries(path, spool))
    raise AlexNetError(f"{path} is no source of images: give {KINDS}")


def _from_python(images: Any, spool: Path) -> Source:
    """(image, label) or (image, label, split): what is not a file goes to the spool, without loss."""
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise UsageError(f"a {type(images).__name__} is no source of images: give {KINDS}")
    items: list[Item] = []
    place = spool / "images"
    with place.open("wb") as file:
        for number, entry in enumerate(images):
            where = f"image {number} of the source"
            if not isinstance(entry, tuple | list) or len(entry) not in (2, 3):
                raise UsageError(f"{where} must be (image, label) or (image, label, split)")
            image, label, split = (*entry, None)[:3]
            split = split_called(split, where)
            if isinstance(image, str | os.PathLike):
                items.append(Item(os.fspath(image), str(label), split, os.path.abspath(image)))
                continue
            offset = file.tell()
            if isinstance(image, bytes | bytearray | memoryview):
                file.write(image)
            elif isinstance(image, np.ndarray | Image.Image):
                np.save(file, image if isinstance(image, np.ndarray) else to_rgb(image), allow_pickle=False)
            else:
                raise UsageError(f"{where} is a {type(image).__name__}; it must be a path, bytes, array or PIL image")
            items.append(Item(f"image {number}", str(label), split, str(place), offset, file.tell() - offset))
    if not items:
        raise AlexNetError("no images: the source is empty")
    return Source(items)
