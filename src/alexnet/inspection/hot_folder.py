"""Images that arrive in a folder: which of them are whole.

The folder is listed again and again. Notices of the operating system (inotify, FSEvents, ReadDirectoryChangesW) do not
come for what another machine writes to a network drive, and none of them says on every system that a file is complete:
whether it has stopped changing must be asked anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from alexnet.data.sources.walking import Walk
from alexnet.runtime.errors import AlexNetError


class Signature(NamedTuple):
    """Values that change when a file is written to or replaced: size, time of modification (nanoseconds), inode."""

    size: int
    modified: int
    inode: int


def signature_of(path: str) -> Signature | None:
    """The signature of a file; None if there is none, or it cannot be asked."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Signature(status.st_size, status.st_mtime_ns, status.st_ino)


class Arrivals:
    """The images of a folder that are whole and not finished.

    Parameters
    ----------
    folder : Path
        The folder, searched at any depth.
    leave : collection of str
        Folders in it that are not searched.
    settle : float
        Seconds without a change of its signature after which a file is whole.
    note : callable
        Called once with each reason for which the folder, or a file, cannot be read for now.
    """

    def __init__(self, folder: Path, leave: Collection[str], settle: float, note: Callable[[str], object]) -> None:
        self._walk = Walk(folder, leave=leave)
        self._settle, self._note = settle, note
        self._since: dict[str, tuple[Signature, float]] = {}
        self._finished: dict[str, tuple[int, int]] = {}
        self._failed: dict[str, Signature] = {}
        self._noted: set[str] = set()

    def look(self) -> list[tuple[str, Signature]]:
        """List the folder; returns the files that are whole, those that arrived first first."""
        now = time.monotonic()
        since: dict[str, tuple[Signature, float]] = {}
        try:
            for entry in self._walk:
                if entry.image and (signature := signature_of(entry.file)) is not None:
                    before, first = self._since.get(entry.file, (None, now))
                    since[entry.file] = (signature, first if before == signature else now)
        except (OSError, AlexNetError) as error:
            self._say(f"alexnet: {self._walk.path} cannot be listed for now: {error}")
            self._since |= since
            return []
        self._since = since
        self._failed = {path: signature for path, signature in self._failed.items() if path in since}
        ready = [path for path, found in since.items() if self._is_ready(path, *found, now)]
        return [(path, since[path][0]) for path in sorted(ready, key=lambda path: since[path][1])]

    def finish(self, path: str, size: int, modified: int) -> None:
        """Leave a file alone until its size or its time of modification changes."""
        self._finished[path] = (size, modified)

    def fail(self, path: str, signature: Signature) -> None:
        """Leave a file alone until its signature changes."""
        self._failed[path] = signature

    def _is_ready(self, path: str, signature: Signature, since: float, now: float) -> bool:
        if not signature.size or now - since < self._settle:
            return False
        if self._finished.get(path) == (signature.size, signature.modified) or self._failed.get(path) == signature:
            return False
        try:
            with open(path, "rb"):  # on Windows a program that is still writing may not share its file
                return True
        except OSError as error:
            self._say(f"alexnet: {path} cannot be opened for now: {error.strerror}")
            return False

    def _say(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self._note(line)
