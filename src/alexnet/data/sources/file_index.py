"""Which file a table or a list means: files found by their path, name, or name without ending."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet.data.sources.names import composed, first_names
from alexnet.data.sources.walking import Entry, Walk, is_image_name

_MOST_INDEXED = 2_000_000


class FileIndex:
    """Files by their path, file name and file name without ending."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_name: dict[str, list[Entry]] = {}
        self._by_stem: dict[str, list[Entry]] = {}
        for entry in entries:
            self._by_name.setdefault(composed(entry.parts[-1]).casefold(), []).append(entry)
        for name, same in self._by_name.items():
            self._by_stem.setdefault(os.path.splitext(name)[0], []).extend(same)

    def find(self, path: str, folder: tuple[str, ...]) -> Entry | str:
        """The file that a table in `folder` names `path`, or why there is none."""
        parts = path_parts(path)
        if isinstance(parts, str):
            return parts
        name = parts[-1].casefold()  # Windows does not tell case apart
        found = self._by_name.get(name, [])
        if not found and is_image_name(name) is not True:
            found = self._by_stem.get(name, [])
        if len(found) > 1:
            same = [entry for entry in found if composed(entry.parts[-1]) == parts[-1]]
            found = same or found
        if len(found) > 1:
            found = _best(found, parts, folder)
        if len(found) == 1:
            return found[0]
        if found:
            names = first_names((entry.name for entry in found), 3)
            return f"{len(found)} files have this name ({names}); write the path with its folder"
        return "no such file"


class DiskIndex(FileIndex):
    """Files on disk by path; those below the folder of the table by name, once one is not where the table says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed = False

    def find(self, path: str, folder: tuple[str, ...]) -> Entry | str:
        for candidate in dict.fromkeys((path, path.replace("\\", "/"))):
            place = os.path.join(self._folder, os.path.expanduser(candidate))
            if "\0" in place:
                return "a NUL character in the path"
            if os.path.isdir(place):
                return "a folder, not an image"
            if os.path.exists(place):
                return Entry((candidate,), os.path.abspath(place))
        if isinstance(parts := path_parts(path), str):
            return parts
        if not self._listed:
            self._listed = True
            entries = (entry for entry in Walk(self._folder) if entry.image)
            super().__init__(entry for _, entry in zip(range(_MOST_INDEXED), entries, strict=False))
        return super().find(path, folder)


def path_parts(path: str) -> tuple[str, ...] | str:
    """The parts of a path in a table, from whatever system, or why it is none."""
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        return "a web address, not a file: download the image and name the file"
    plain = re.sub(r"^[A-Za-z]:", "", path.replace("\\", "/"))
    parts = tuple(composed(part) for part in plain.split("/") if part not in ("", ".", "~"))
    while parts and parts[0] == "..":
        parts = parts[1:]
    return parts or "no path"


def _best(found: Sequence[Entry], parts: tuple[str, ...], folder: tuple[str, ...]) -> list[Entry]:
    """Of files with one name those that a path means: exactly, else by most of its last parts."""
    exact = [entry for entry in found if _stemmed(entry.parts, parts) in ((*folder, *parts), parts)]
    if exact:
        below = [entry for entry in exact if entry.parts[: len(folder)] == folder]
        return (below or exact)[:1] if len(below or exact) == 1 else below or exact

    def common(entry: Entry) -> int:
        length = 0
        for ours, theirs in zip(reversed(_stemmed(entry.parts, parts)), reversed(parts), strict=False):
            if ours != theirs:
                break
            length += 1
        return length

    longest = max(map(common, found))
    best = [entry for entry in found if common(entry) == longest]
    below = [entry for entry in best if entry.parts[: len(folder)] == folder]
    return below or best


def _stemmed(parts: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    name = composed(parts[-1])
    return (*parts[:-1], name if name == wanted[-1] else os.path.splitext(name)[0])
