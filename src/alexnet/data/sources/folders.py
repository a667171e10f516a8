"""Folders, zip and tar files with one folder a class."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.data.sources.items import Item, Source
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
"""What a folder, a file or a cell may be called → the split it is."""

_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Entry(NamedTuple):
    """A file in a folder or an archive, by the parts of its path; the rest as in `Item`."""

    parts: tuple[str, ...]
    file: str
    offset: int = 0
    length: int = -1
    packing: str = "plain"


def folder_entries(root: Path) -> Iterator[Entry]:
    """The files below a folder, but for hidden ones and what file managers leave behind."""

    def failed(error: OSError) -> None:
        raise AlexNetError(f"{error.filename} can't be read: {error.strerror}") from error

    for folder, folders, files in os.walk(root, onerror=failed, followlinks=True):
        parts = Path(folder).relative_to(root).parts
        folders[:] = [name for name in folders if not is_junk((name,))]
        for name in files:
            if not is_junk((name,)):
                yield Entry((*parts, name), os.path.join(folder, name))


def zip_entries(path: Path) -> Iterator[Entry]:
    """The files in a zip. Raises AlexNetError when it is damaged, encrypted or packed by a rare method."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise AlexNetError(f"{path} is a damaged zip file: {error}") from error
    for member in members:
        parts = _parts(member.filename.replace("\\", "/"))
        if member.is_dir() or is_junk(parts):
            continue
        if member.flag_bits & 1:
            raise AlexNetError(f"{path} is encrypted: unpack it and give the folder")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise AlexNetError(f"{path}: {member.filename} is packed by a rare method: unpack it and give the folder")
        yield Entry(parts, str(path), member.header_offset, member.compress_size, "zip")


def tar_entries(path: Path, spool: Path) -> Iterator[Entry]:
    """The files in a tar. A compressed one is unpacked to `spool` first. Raises AlexNetError when it is damaged."""
    with path.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)
    if opener is None:
        yield from plain_tar_entries(path)
        return
    plain = spool / f"{path.name}.unpacked"
    if not plain.exists():
        try:
            with opener(path, "rb") as packed:
                write_atomic(plain, lambda file: shutil.copyfileobj(packed, file, 1 << 20))
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise AlexNetError(f"{path} is damaged: {error}") from error
    yield from plain_tar_entries(plain, called=path)


def plain_tar_entries(path: Path, called: Path | None = None) -> Iterator[Entry]:
    """The files in an uncompressed tar; a tar within it counts as a folder, as in ImageNet's training images."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
    try:
        yield from _members(path, (), 0, size)
    except tarfile.TarError as error:
        raise AlexNetError(f"{called or path} is a damaged tar file: {error}") from error


def _members(path: Path, folder: tuple[str, ...], start: int, end: int) -> Iterator[Entry]:
    with path.open("rb") as file:
        file.seek(start)
        archive: Any = tarfile.TarFile(fileobj=file)
        while (member := archive.next()) is not None and member.offset < end:
            archive.members.clear()  # it would keep every header
            parts = (*folder, *_parts(member.name))
            if not member.isfile() or is_junk(parts):
                continue
            member_end = member.offset_data + member.size
            if member_end > end:
                raise tarfile.ReadError(f"it ends within {member.name}")
            if parts[-1].lower().endswith(".tar"):
                yield from _members(path, (*parts[:-1], parts[-1][:-4]), member.offset_data, member_end)
            else:
                yield Entry(parts, str(path), member.offset_data, member.size)


def classed_by_folder(root: Path, entries: Iterator[Entry]) -> Source:
    """Images classed by their folders: [folders around everything /] [split /] class / … / file.

    Raises AlexNetError when there are no files, or none in a class folder.
    """
    files = sorted(entries)
    if not files:
        raise AlexNetError(f"no images in {root}")
    depth = _depth(files)
    splits = _has_splits(files, depth)
    items: list[Item] = []
    loose: list[str] = []
    for entry in files:
        name, folders = "/".join(entry.parts), entry.parts[depth:-1]
        split = SPLIT_NAMES.get(folders[0].lower()) if splits and folders else None
        label = folders[1:2] if splits else folders[:1]
        if label and (split or not splits):
            items.append(Item(name, label[0], split, *entry[1:]))
        else:
            loose.append(name)
    if not items:
        raise AlexNetError(
            f"no classes in {root}: {loose[0]} lies in no class folder, as all of its {len(loose):,} files; "
            "put each in a folder named after its class, or write a CSV of path,label"
        )
    notes = [f"{len(loose):,} files lie in no class folder and are not used, {loose[0]} first"] if loose else []
    return Source(items, notes=notes)


def _depth(files: list[Entry]) -> int:
    """How many folders enclose everything before the folders of splits or classes begin."""
    depth = 0
    while True:
        tops = {entry.parts[depth] for entry in files}
        if len(tops) > 1 or tops.pop().lower() in SPLIT_NAMES:
            return depth
        if any(len(entry.parts) <= depth + 2 for entry in files):
            return depth
        depth += 1


def _has_splits(files: list[Entry], depth: int) -> bool:
    """Whether all folders at `depth` are called as splits, and have folders in them."""
    inner = [entry.parts[depth:] for entry in files if len(entry.parts) > depth + 1]
    return {parts[0].lower() for parts in inner} <= SPLIT_NAMES.keys() and any(len(parts) > 2 for parts in inner)


def is_junk(parts: tuple[str, ...]) -> bool:
    """Whether a path is hidden or left behind by a file manager."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in parts)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))
