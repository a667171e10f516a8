"""Items: images as ranges of bytes in files, read at random."""

from __future__ import annotations

import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np

from alexnet.data.unreadable import UnreadableImageError

MAX_BYTES = 1 << 30
"""A file larger than this is not read as an image."""


class Sample(NamedTuple):
    """Weight, soft label and group of an image; None where the source has none.

    Attributes
    ----------
    weight
        How much the image counts, finite, 0 or more; None counts 1.
    confidence
        Probability of its class, 0 to 1; the rest is shared equally by the other classes.
    probabilities
        Class → probability, with the sum 1; instead of `confidence`.
    group
        What the image belongs to, such as a part, module, lot or patient: all images of a group are in one split.
    """

    weight: float | None = None
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    group: str | None = None


class Item(NamedTuple):
    """One image of a source.

    Attributes
    ----------
    name
        Its name in the source, such as the path below its folder.
    label
        Its class.
    split
        "train", "val" or "test"; None where the source has no splits.
    file, offset, length
        Where its bytes are: `length` bytes of `file` from `offset`; -1 is the whole file.
    packing
        "plain"; "zip" (`offset` is that of the member's header, `length` as compressed); "parquet:COLUMN" (`offset`
        is the row); or "unreadable:REASON" for an image that a table names and that is not there.
    sample
        Its weight, soft label and group.
    """

    name: str
    label: str
    split: str | None
    file: str
    offset: int = 0
    length: int = -1
    packing: str = "plain"
    sample: Sample = Sample()


class Origin(NamedTuple):
    """Where the images of a split come from, for people; `split` is None where the source has no splits."""

    split: str | None
    place: str


class Ignored(NamedTuple):
    """Files or folders that are not read: the reason, the number of files, and the name of the first."""

    reason: str
    files: int
    first: str


@dataclass(frozen=True)
class Source:
    """A set of images.

    Attributes
    ----------
    items
        The images in the order in which the dataset has them; may be iterated again.
    descriptions
        Class → its description, where the source knows one.
    kind
        What the source is, such as "folder".
    origins
        Where the images of each split come from.
    ignored
        What of the source is not read, and why.
    assumptions
        How the source was understood where it does not say so itself.
    warnings
        What is likely not intended.
    """

    items: Iterable[Item]
    descriptions: dict[str, str] = field(default_factory=dict)
    kind: str = "images"
    origins: list[Origin] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Items:
    """Items that are listed anew by a function each time they are iterated."""

    def __init__(self, make: Callable[[], Iterable[Item]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Item]:
        return iter(self._make())


class Reader:
    """Reads the bytes of items and keeps the file of the last one open; one for each thread."""

    def __init__(self) -> None:
        self._key = ""
        self._file: Any = None

    def read(self, item: Item) -> bytes:
        """The bytes of an image's file.

        Raises
        ------
        UnreadableImageError
            When they cannot be read; the message is the reason.
        """
        try:
            if item.packing.startswith("unreadable:"):
                raise UnreadableImageError(item.packing.partition(":")[2])
            if item.length > MAX_BYTES:
                raise UnreadableImageError(f"{item.length:,} bytes: too large for an image")
            if item.packing.startswith("parquet:"):
                return self._parquet_row(item)
            if item.length < 0:
                return _whole_file(item.file)
            file = self._opened(item, lambda: open(item.file, "rb"))  # noqa: SIM115
            return _zip_member(file, item) if item.packing == "zip" else _range(file, item.offset, item.length)
        except FileNotFoundError:
            broken = os.path.islink(item.file)
            raise UnreadableImageError("a link to a file that does not exist" if broken else "no such file") from None
        except ValueError as error:  # a NUL in a path
            raise UnreadableImageError(f"cannot be read: {error}") from error
        except OSError as error:
            raise UnreadableImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def _parquet_row(self, item: Item) -> bytes:
        import pyarrow as pa  # takes a tenth of a second, which the classification of one file need not wait for

        column = item.packing.partition(":")[2]
        try:
            row: bytes = self._opened(item, lambda: _ParquetColumn(item.file, column)).row(item.offset)
        except pa.ArrowException as error:
            raise UnreadableImageError(f"cannot be read: {error}") from error
        return row

    def _opened(self, item: Item, opener: Callable[[], Any]) -> Any:
        key = f"{item.packing}:{item.file}"
        if key != self._key:
            if self._file is not None:
                self._file.close()
            self._file, self._key = opener(), key
        return self._file


class _ParquetColumn:
    """Images of a parquet file by row: fast in ascending order, 32 rows in memory whatever the row groups' size."""

    def __init__(self, path: str, column: str) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        self._column, self._folder = column, os.path.dirname(path)
        groups = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *groups])
        self._group, self._first, self._next = -1, 0, 0
        self._batches: Iterator[Any] = iter(())
        self._rows: Any = ()

    def row(self, index: int) -> bytes:
        """The bytes of the image in row `index`, counted from 0."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if group != self._group or index < self._first:
            self._batches = self._file.iter_batches(32, row_groups=[group], columns=[self._column])
            self._group, self._next = group, int(self._starts[group])
        while index >= self._next:
            self._rows = next(self._batches).column(0)
            self._first, self._next = self._next, self._next + len(self._rows)
        value = self._rows[index - self._first].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            value = _whole_file(os.path.join(self._folder, value))
        if not isinstance(value, bytes):
            raise UnreadableImageError("no image in this row")
        return value

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_local = threading.local()


def read_item(item: Item) -> bytes:
    """The bytes of an image, by a reader of the calling thread.

    Raises
    ------
    UnreadableImageError
        When they cannot be read.
    """
    if not hasattr(_local, "reader"):
        _local.reader = Reader()
    return _local.reader.read(item)


def open_file(path: str) -> IO[bytes]:
    """Open a regular file, unbuffered. Opening a named pipe would otherwise wait for a writer forever.

    Raises
    ------
    UnreadableImageError
        If it is a folder, a named pipe, a socket or a device.
    OSError
        If it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a folder, not an image" if stat.S_ISDIR(mode) else "a named pipe, socket or device, not a file"
        raise UnreadableImageError(what)
    return open(descriptor, "rb", 0)


def _whole_file(path: str) -> bytes:
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise UnreadableImageError(f"{size:,} bytes: too large for an image")
        return file.read()


def _range(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) < length:
        raise UnreadableImageError("truncated")
    return data


def _zip_member(file: IO[bytes], item: Item) -> bytes:
    """A member of a zip by its own header: for ImageNet the directory of the zip takes a gigabyte in memory."""
    header = _range(file, item.offset, 30)
    magic, method, name_length, extra_length = struct.unpack("<4s4xH16xHH", header)
    if magic != b"PK\x03\x04":
        raise UnreadableImageError("damaged in the zip file")
    packed = _range(file, item.offset + 30 + name_length + extra_length, item.length)
    if method == zipfile.ZIP_STORED:
        return packed
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise UnreadableImageError(f"damaged in the zip file: {error}") from error
    if not inflate.eof:
        raise UnreadableImageError("damaged in the zip file")
    return data
