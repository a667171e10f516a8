"""The registry of source formats: how another kind of source becomes known to `alexnet prepare`.

A format is a name, a test and a function that lists images. Formats that are registered later are asked first, and all
of them before the built-in rules for folders, archives and tables. In a module that is imported before `prepare`:

    from alexnet.data.sources.items import Item, Source
    from alexnet.data.sources.registry import Request, register_source

    def list_images(request: Request) -> Source:
        lines = (request.path / "index.txt").read_text(encoding="utf-8").splitlines()  # "cat images/1.jpg"
        pairs = [line.split(maxsplit=1) for line in lines]
        items = [Item(name, label, None, str(request.path / name)) for label, name in pairs]
        return Source(items, kind="folder with index.txt")

    register_source("index", lambda path: (path / "index.txt").is_file(), list_images)
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from alexnet.data.sources.items import Source
from alexnet.runtime.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a source is to be understood, where that is not left to what is there.

    Attributes
    ----------
    root
        Folder of the source in which the interpretation begins.
    splits
        Folders of each split, below the root, such as {"train": ["seg_train"]}.
    classes_from
        "folder" (the class is the first folder), "parent" (the folder that an image lies in), "name" (the file name),
        or a table as FILE or FILE:COLUMN.
    encoding
        Encoding of names and tables that are not UTF-8; None guesses where there is no doubt.
    group_regex
        Regular expression whose first capturing group, in the file name, names the group of an image.
    ignore_columns
        Columns of tables that are not read.
    """

    root: str | None = None
    splits: Mapping[str, list[str]] = field(default_factory=dict)
    classes_from: str | None = None
    encoding: str | None = None
    group_regex: str | None = None
    ignore_columns: Sequence[str] = ()

    def given(self) -> dict[str, Any]:
        """The options that are given, as JSON holds them."""
        values = {**vars(self), "splits": dict(self.splits), "ignore_columns": list(self.ignore_columns)}
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class Request(SourceOptions):
    """A source to interpret, with its options.

    Attributes
    ----------
    path
        The folder or file.
    spool
        An existing folder for what must be copied to be read at random. It must last as long as the items.
    output
        The folder that is written to; it is never part of the source.
    """

    path: Path
    spool: Path
    output: Path | None = None

    def command(self, *options: str) -> str:
        """The `alexnet prepare` command for this source with other options, to be typed as it is."""
        data = str(self.output) if self.output is not None else "data"
        if self.root and "--root" not in options:
            options = ("--root", self.root, *options)
        if self.encoding and "--encoding" not in options:
            options = (*options, "--encoding", self.encoding)
        return "`" + shlex.join(["alexnet", "prepare", str(self.path), data, *options]) + "`"


class SourceFormat(NamedTuple):
    """A registered format.

    Attributes
    ----------
    name
        Its name.
    recognizes
        Whether a path is a source of this format. Called for every source, so it must be fast.
    read
        Lists the images.
    """

    name: str
    recognizes: Callable[[Path], bool]
    read: Callable[[Request], Source]


_formats: dict[str, SourceFormat] = {}


def register_source(name: str, recognizes: Callable[[Path], bool], read: Callable[[Request], Source]) -> SourceFormat:
    """Register a source format.

    Parameters
    ----------
    name
        A name that no other format has.
    recognizes
        Whether a path, which exists, is a source of this format.
    read
        Lists the images of a `Request`.

    Returns
    -------
    SourceFormat
        The registered format.

    Raises
    ------
    UsageError
        When the name is registered already.
    """
    if name in _formats:
        raise UsageError(f"a source format {name!r} is registered already")
    _formats[name] = SourceFormat(name, recognizes, read)
    return _formats[name]


def unregister_source(name: str) -> None:
    """Remove a registered format."""
    del _formats[name]


def source_formats() -> list[SourceFormat]:
    """The registered formats, the last one first: the order in which they are asked."""
    return list(reversed(_formats.values()))
