"""The tree of a source: its folders with the images in and below each, counted without reading any."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from alexnet.data.sources.items import Ignored
from alexnet.data.sources.names import composed, decode_names, first_names, is_utf8, split_of
from alexnet.data.sources.plan import count, printable
from alexnet.data.sources.registry import Request
from alexnet.data.sources.table_files import TABLE_ENDINGS
from alexnet.data.sources.walking import Entry, Tally, Walk, archive_kind, other_reason
from alexnet.runtime.errors import UsageError

Parts = tuple[str, ...]

_TABLE_NAME = re.compile(r"label|meta|annot|class|train|val|test|image|data|list|ground", re.IGNORECASE)
_LARGEST_TABLE = 1 << 30  # bytes; a larger text file is no table of images
_MOST_TABLES = 64  # of a folder; where every image has a text file beside it, those are not tables


class Folder:
    """A folder of a source: how many images lie in it and below it, and its folders."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.folders: dict[str, Folder] = {}
        self.images = 0
        self.total = 0
        self.first = ""
        self.tables: list[Entry] = []

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else ""

    @property
    def split(self) -> str:
        """The split that its name means, where it means one."""
        named = split_of(self.name)
        assert named is not None
        return named.split

    @property
    def exact_split(self) -> bool:
        """Whether its name means a split, and nothing else."""
        named = split_of(self.name)
        return named is not None and named.exact

    @property
    def first_image(self) -> str:
        """The path of its first image."""
        return "/".join((*self.parts, self.first))

    @property
    def place(self) -> str:
        """The path below the source, for messages."""
        return "/".join(self.parts) + "/" if self.parts else "the source"

    @property
    def filled(self) -> list[Folder]:
        """The folders with images in or below them."""
        return [folder for folder in self.folders.values() if folder.total]

    @property
    def small_tables(self) -> Iterator[Entry]:
        """The tables that are not too large to be one of images."""
        for entry in self.tables:
            if (entry.length if entry.length >= 0 else os.path.getsize(entry.file)) <= _LARGEST_TABLE:
                yield entry

    def below(self) -> Iterator[Folder]:
        """This folder and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()


class Tree:
    """All files of a folder or an archive, counted by folder."""

    def __init__(self, request: Request, kind: str) -> None:
        self.request, self.kind = request, kind
        leave = [request.output] if request.output is not None else []
        self.walk = Walk(request.path, leave=leave, spool=request.spool, encoding=request.encoding)
        self.others = Tally()
        self.assumptions: list[str] = []
        self.top = Folder(())
        self._clean: dict[str, str] = {}
        self._count()
        archives = self._archives()
        if archives:
            self.walk.open_archives = True
            self.others, self.assumptions, self.top, self._clean = Tally(), [], Folder(()), {}
            self._count()
            self.assumptions.append(
                f"{count(len(archives), 'archive')} in the folder read as folders: "
                f"{first_names(printable(entry.name) for entry in archives)}"
            )

    def _archives(self) -> list[Entry]:
        """The archives in a folder."""
        if not self.request.path.is_dir() or self.top.total:
            return []
        return [one for one in self.walk if not one.image and archive_kind(Path(one.file))]

    def entries(self) -> Iterator[Entry]:
        """All image files, with their paths composed."""
        raw: Parts = ()
        clean: Parts = ()
        for parts, file, offset, length, packing, image in self.walk:
            if image:
                if parts[:-1] != raw:
                    raw, clean = parts[:-1], self.clean(parts)[:-1]
                yield Entry((*clean, parts[-1]), file, offset, length, packing)

    def clean(self, parts: Parts) -> Parts:
        """A path with its folder names in composed form and decoded."""
        return (*(self._clean.get(part) or self._cleaned(part) for part in parts[:-1]), parts[-1])

    def _cleaned(self, part: str) -> str:
        raw = os.fsencode(part)
        if is_utf8(raw):
            clean = composed(part)
        else:
            (clean,), notes = decode_names([raw + b"/"], self.request.encoding, str(self.request.path))
            clean = composed(clean.rstrip("/"))
            self.assumptions += notes
        self._clean[part] = clean
        return clean

    def _count(self) -> None:
        last: tuple[Parts, Folder] = ((), self.top)
        for entry in self.walk:
            raw = entry.parts[:-1]
            if raw != last[0]:
                last = (raw, self._folder(self.clean(entry.parts)[:-1]))
            folder = last[1]
            if entry.image:
                folder.first = folder.first or entry.parts[-1]
                folder.images += 1
            elif _may_be_table(entry.parts[-1], len(folder.tables)):
                folder.tables.append(entry)
            else:
                self.others.add(other_reason(entry.parts[-1]), entry.name)
        for parts in self.walk.empty:
            self._folder(self.clean((*parts, ""))[:-1])
        _total(self.top)
        self.assumptions += self.walk.encoding_notes

    def _folder(self, parts: Parts) -> Folder:
        folder = self.top
        for depth, name in enumerate(parts, start=1):
            if name not in folder.folders:
                folder.folders[name] = Folder(parts[:depth])
            folder = folder.folders[name]
        return folder

    def unused(self, used: Collection[str] = ()) -> list[Ignored]:
        """The files that are no images, but for the tables of these names."""
        tally = Tally()
        for one in self.others.list():
            tally.add(one.reason, one.first, one.files)
        for folder in self.top.below():
            for entry in folder.tables:
                if entry.name not in used:
                    tally.add(other_reason(entry.parts[-1]), entry.name)
        return tally.list()

    def find(self, path: str) -> Folder:
        """The folder of an option such as --root. Raises `UsageError` when there is none, or no image in it."""
        parts = tuple(composed(part) for part in path.replace("\\", "/").split("/") if part not in ("", "."))
        outside = os.path.relpath(path, self.request.path) if os.path.isdir(path) else ""
        candidates = [parts, tuple(composed(part) for part in outside.split(os.sep) if part not in ("", "."))]
        for candidate in candidates:
            folder: Folder | None = self.top
            for name in candidate:
                folder = folder.folders.get(name) if folder else None
            if folder is not None and (candidate or not parts):
                if not folder.total:
                    raise UsageError(f"no images in {path!r} of {self.request.path}")
                return folder
        raise UsageError(
            f"no folder {path!r} in {self.request.path}; it has {first_names(sorted(self.top.folders)) or 'none'}"
        )


def _may_be_table(name: str, before: int) -> bool:
    ending = os.path.splitext(name)[1].lower()
    if ending not in TABLE_ENDINGS or before >= _MOST_TABLES:
        return False
    return before < _MOST_TABLES // 4 or ending in (".csv", ".tsv", ".jsonl") or bool(_TABLE_NAME.search(name))


def _total(folder: Folder) -> int:
    folder.total = folder.images + sum(map(_total, folder.folders.values()))
    return folder.total
