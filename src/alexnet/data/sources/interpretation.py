"""Which kind of source something is; every kind becomes one list of items, each a range of bytes in a file.

Nothing is unpacked: workers read an image where it is, by file, offset and length. What has no such place (compressed
tar files, arrays, images from Python) is first copied to a spool, once.

`interpret` decides and lists, before any image is read; `alexnet.data.sources.planning` makes a plan of it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data.rgb import to_rgb
from alexnet.data.sources.arrow_tables import open_hub, open_tables, table_files
from alexnet.data.sources.folders import read_tree
from alexnet.data.sources.groups import with_groups
from alexnet.data.sources.ilsvrc import is_ilsvrc, open_ilsvrc
from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.names import called_split, check_encoding, composed
from alexnet.data.sources.plan import printable
from alexnet.data.sources.published import is_archive_of_cifar, is_published, read_published
from alexnet.data.sources.registry import Request, SourceOptions, source_formats
from alexnet.data.sources.table_files import TABLE_ENDINGS
from alexnet.data.sources.tables import open_csv
from alexnet.data.sources.walking import archive_kind, is_image_name, is_prepared_dataset, is_run_folder
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS
from alexnet.runtime.errors import AlexNetError, UsageError

KINDS = (
    "a folder with one folder per class, a zip or tar file of one, a folder of the ILSVRC tar files, a CSV of "
    "path,label, parquet or Arrow files of Hugging Face datasets, or hf:NAME"
)
"""The kinds of sources, for messages."""


_MARKS = {
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "7z x {} -o{}"),
    b"Rar!": ("a RAR archive", "unrar x {} {}/"),
    b"\x89HDF": ("an HDF5 file", ""),
    b"PAR1": ("a parquet file without the ending .parquet", "mv {} {}.parquet"),
    b"SQLite": ("an SQLite database", ""),
    b"PK\x07\x08": ("a part of a divided zip archive", ""),
    b"\x04\x22\x4d\x18": ("an LZ4 file", "lz4 -d {}"),
    b"MZ": ("a Windows program", ""),
}
_FOREIGN = {
    ".7z": ("a 7-Zip archive", "7z x {} -o{}"),
    ".rar": ("a RAR archive", "unrar x {} {}/"),
    ".mat": ("a MATLAB file", ""),
    ".h5": ("an HDF5 file", ""),
    ".hdf5": ("an HDF5 file", ""),
    ".tfrecord": ("a TensorFlow record file", ""),
    ".npz": ("a NumPy archive", ""),
    ".pkl": ("a Python pickle", ""),
    ".pickle": ("a Python pickle", ""),
    ".pt": ("a PyTorch file", ""),
    ".pth": ("a PyTorch file", ""),
    ".lmdb": ("an LMDB database", ""),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".wmv"), ("a video", "ffmpeg -i {} {}/%05d.jpg")),
    ".iso": ("a disk image", ""),
    ".pdf": ("a PDF document", ""),
}


def interpret(
    source: Any,
    spool: Path,
    options: SourceOptions = SourceOptions(),  # noqa: B008 (frozen)
    *,
    output: Path | None = None,
) -> Source:
    """Decide what a source is and list its images, without reading any.

    Parameters
    ----------
    source
        A path or "hf:NAME" as `KINDS` says; an iterable of (image, label) or (image, label, split), image being a path,
        the bytes of a file, an array or a PIL image; or a `Source`.
    spool
        An existing folder for what must be copied to be read at random. It must last as long as the items.
    options
        How the source is to be understood.
    output
        The folder that is written to; it is not part of the source.

    Raises
    ------
    AlexNetError
        When it is no source of images.
    UsageError
        When it can be understood in several ways; the message shows them with the commands that choose.
    """
    if isinstance(source, Source):
        found = source
    elif isinstance(source, str | os.PathLike):
        request = Request(Path(source), spool, output, **vars(options))
        found = _open(os.fspath(source), request)
    else:
        found = _from_python(source, spool)
    return with_groups(found, options.group_regex)


def _open(name: str, request: Request) -> Source:
    """The source of a path or an address, with the groups that it names itself."""
    if name.startswith("hf:"):
        return open_hub(name[3:], request.ignore_columns)
    if match := re.match(r"([a-z][a-z0-9+.-]+):/{1,2}", name, re.IGNORECASE):
        _refuse_address(name, match[1].lower())
    if request.encoding:
        check_encoding(request.encoding)
    if not request.path.exists():
        raise AlexNetError(f"{name} does not exist")
    for source_format in source_formats():
        if source_format.recognizes(request.path):
            return source_format.read(request)
    return _open_folder(request) if request.path.is_dir() else _open_file(request)


def source_name(source: Any) -> str:
    """The name of a source, for people."""
    return printable(os.fspath(source)) if isinstance(source, str | os.PathLike) else "images from Python"


def _refuse_address(name: str, scheme: str) -> None:
    if scheme in ("http", "https", "ftp"):
        address = name if "://" in name else name.replace(":/", "://", 1)
        file = address.rstrip("/").rpartition("/")[2].partition("?")[0] or "images.zip"
        raise UsageError(
            f"{address} is a web address: download it with `curl -L -o {file} {address}`, then give the file {file}"
        )
    raise UsageError(f"{name} is an address: copy the images to this machine and give the folder or archive")


def _open_folder(request: Request) -> Source:
    root = request.path
    names = {path.name for path in root.iterdir()}
    if is_prepared_dataset(names):
        quoted = shlex.quote(str(root))
        raise AlexNetError(f"{root} is a prepared dataset already: train on it with `alexnet train {quoted} --out run`")
    if is_run_folder(names):
        raise AlexNetError(f"{root} is a run folder, not a source of images: name the folder of the images")
    if is_ilsvrc(root):
        return open_ilsvrc(root, request.spool)
    explicit = request.root or request.splits or request.classes_from
    if not explicit:
        saved = any(name in names for name in ("dataset_info.json", "dataset_dict.json"))
        tables = table_files(root, saved)
        if tables:
            return open_tables(tables, root, request.ignore_columns)
        if is_published(root):
            return read_published(request)
    return read_tree(request, "folder")


def _open_file(request: Request) -> Source:
    path = request.path
    ending = path.suffix.lower()
    if not path.is_file():
        raise AlexNetError(f"{path} is neither a file nor a folder: give {KINDS}")
    _refuse_failed_download(path)
    if is_published(path) or is_archive_of_cifar(path):
        return read_published(request)
    if ending in (".parquet", ".arrow"):
        return open_tables([path], None, request.ignore_columns)
    kind = archive_kind(path)
    if kind is not None and ending not in WORKBOOK_ENDINGS:  # which are zip files too
        return read_tree(request, f"{kind} file")
    if ending in TABLE_ENDINGS:
        return open_csv(request)
    if what := _foreign(path, ending):
        raise AlexNetError(what)
    if is_image_name(path.name):
        raise AlexNetError(f"{path} is one image, not a source of images: give {KINDS}")
    raise AlexNetError(f"{path} is not a source of images: give {KINDS}")


def _refuse_failed_download(path: Path) -> None:
    """Raise AlexNetError for an empty file, a web page or a pointer of Git LFS, whatever its name."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        raise AlexNetError(f"{path} is empty: download or write it again")
    if start.startswith(b"version https://git-lfs"):
        raise AlexNetError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if start.lower().startswith((b"<!doctype html", b"<html")):
        raise AlexNetError(f"{path} is a web page, not the file itself: the download has failed; download it again")


def _foreign(path: Path, ending: str) -> str | None:
    """The description of a file that other programs read, and the remedy."""
    with path.open("rb") as file:
        start = file.read(8)
    what, command = next(
        (found for mark, found in _MARKS.items() if start.startswith(mark)), _FOREIGN.get(ending, ("", ""))
    )
    if ending in (".gz", ".bz2", ".xz", ".zst"):
        what, command = (
            "a compressed file, not a tar file",
            {".gz": "gunzip -k {}", ".bz2": "bunzip2 -k {}"}.get(ending, ""),
        )
    if not what:
        return None
    folder = path.with_suffix("")
    if command:
        done = command.format(*(f"'{part}'" if " " in str(part) else str(part) for part in (path, folder)))
        return f"{path} is {what}: unpack it with `{done}`, then give what comes of it"
    return f"{path} is {what}: write its images to folders named after their classes, and give the folder around them"


def _from_python(images: Any, spool: Path) -> Source:
    """(image, label) or (image, label, split): what is not a file goes to the spool, without loss."""
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise UsageError(f"a {type(images).__name__} is not a source of images: give {KINDS}")
    items: list[Item] = []
    place = spool / "images"
    with place.open("wb") as file:
        for number, entry in enumerate(images):
            where = f"image {number} of the source"
            if not isinstance(entry, tuple | list) or len(entry) not in (2, 3):
                raise UsageError(f"{where} must be (image, label) or (image, label, split)")
            image, label, split = (*entry, None)[:3]
            split = called_split(split, where)
            label = composed(str(label))
            if isinstance(image, str | os.PathLike):
                items.append(Item(os.fspath(image), label, split, os.path.abspath(image)))
                continue
            offset = file.tell()
            if isinstance(image, bytes | bytearray | memoryview):
                file.write(image)
            elif isinstance(image, np.ndarray | Image.Image):
                np.save(file, image if isinstance(image, np.ndarray) else to_rgb(image), allow_pickle=False)
            else:
                raise UsageError(f"{where} is a {type(image).__name__}; it must be a path, bytes, array or PIL image")
            items.append(Item(f"image {number}", label, split, str(place), offset, file.tell() - offset))
    if not items:
        raise AlexNetError("no images: the source is empty")
    return Source(items, kind="Python", origins=[Origin(None, "the iterable")])
