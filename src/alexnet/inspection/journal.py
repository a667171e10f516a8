"""A journal of files that are copied, moved or linked, from which the work is continued after a kill and undone.

Every action is a line of JSON before it and a line after it, each synchronized to disk. The action itself is atomic: a
name is reserved by creating an empty file exclusively, and the file is renamed onto it. After a kill at any moment the
file is at its old or at its new place, and `Journal` finds out which when it is opened again.

Lines: ``{"journal": name}``, ``{"session": ...}``, ``{"begin": placement}``, ``{"done": id}``, ``{"dropped": id}`` (an
action that did not happen), ``{"undo": ...}`` (the file is about to move back), ``{"undone": id}``, ``{"kept": id}``
(an undo that did not happen).
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from alexnet.runs.decision import CLASS
from alexnet.runtime.errors import AlexNetError

JOURNAL = "sort.jsonl"
MODES = ("copy", "move", "link")
MTIME_TOLERANCE_NS = 2_000_000_000
"""Some file systems store the time of modification to two seconds."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A file and where it is placed.

    Attributes
    ----------
    id : int
        Its number in the journal.
    mode : str
        One of `MODES`.
    source, target : str
        Absolute paths before and after.
    size, modified : int
        Bytes and time of modification (nanoseconds) of the source.
    label : str
        The predicted class.
    probability : float
        Its probability, 0 to 1.
    decision : {"class", "unsure", "unknown"}
        As in `alexnet.Prediction`.
    distance : float or None
        Distance from the training images, where the decision rule has one.
    time : float
        Seconds since 1970 (UTC); 0 if it was not recorded.
    """

    id: int
    mode: str
    source: str
    target: str
    size: int
    modified: int
    label: str
    probability: float
    decision: str = CLASS
    distance: float | None = None
    time: float = 0.0

    @property
    def answer(self) -> str:
        """The class, "unsure" or "unknown"."""
        return self.label if self.decision == CLASS else self.decision


class Journal:
    """The journal of an output folder, opened for writing. Use `open_journal`.

    Opening settles every action that a kill interrupted: it is recorded as done or as dropped.

    Attributes
    ----------
    name : str
        Random, so that (name, number) identifies a placement also where several folders write into one log.
    placements : dict of int to Placement
        What is in place, by its number, in the order of the actions.
    sessions : list of dict
        The settings of every command that wrote to the journal.
    """

    def __init__(self, folder: Path, write: bool = True) -> None:
        self.path = folder / JOURNAL
        self.name = ""
        self.placements: dict[int, Placement] = {}
        self.sessions: list[dict[str, Any]] = []
        self._begun: dict[int, Placement] = {}
        self._undoing: dict[int, Placement] = {}
        self._next = 0
        self._suffixes: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._read(write)
        if write:
            self._file = self.path.open("ab", buffering=0)
            self._settle()
            if not self.name:
                self.name = uuid.uuid4().hex[:12]
                self._write({"journal": self.name})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def begin_session(self, settings: dict[str, Any]) -> None:
        """Record the settings of a command, unless the last one had the same."""
        if not self.sessions or self.sessions[-1] != settings:
            self.sessions.append(settings)
            self._write({"session": settings})

    def place(
        self,
        mode: str,
        source: str,
        folder: str,
        label: str,
        probability: float,
        decision: str = CLASS,
        distance: float | None = None,
    ) -> Placement:
        """Copy, move or link a file into a folder, under its own name or, if that exists, one with a numbered suffix.

        Parameters
        ----------
        mode : str
            One of `MODES`.
        source : str
            Absolute path of the file.
        folder : str
            Absolute path of the folder, which is created if necessary.
        label, probability, decision, distance
            As in `Placement`.

        Returns
        -------
        Placement

        Raises
        ------
        FileNotFoundError
            If the source does not exist any more.
        OSError
            If the file cannot be placed. The source is unchanged.
        """
        status = os.stat(source)
        os.makedirs(folder, exist_ok=True)
        while True:
            placement = Placement(
                id=self._next,
                mode=mode,
                source=source,
                target=self._free_name(os.path.join(folder, os.path.basename(source))),
                size=status.st_size,
                modified=status.st_mtime_ns,
                label=label,
                probability=probability,
                decision=decision,
                distance=distance,
                time=round(time.time(), 3),
            )
            self._next += 1
            self._write({"begin": asdict(placement)})
            try:
                _transfer(placement)
            except FileExistsError:  # another program took the name since
                self._write({"dropped": placement.id})
                continue
            except OSError:
                with suppress(OSError):  # a full disk; the next opening settles it
                    self._write({"dropped": placement.id})
                raise
            self._write({"done": placement.id})
            self.placements[placement.id] = placement
            return placement

    def undo(self, placement: Placement) -> str | None:
        """Undo a placement: move the file back, or remove the copy or the link.

        Parameters
        ----------
        placement : Placement
            One of `placements`.

        Returns
        -------
        str or None
            A message if something differs from what was before: the file moved back under another name, or it was
            kept.
        """
        if placement.mode == "move":
            return self._move_back(placement)
        kept = _reason_to_keep(placement)
        if kept is None:
            with suppress(FileNotFoundError):
                os.unlink(placement.target)
            self._forget(placement.id)
        return kept

    def _move_back(self, placement: Placement) -> str | None:
        if not os.path.lexists(placement.target):
            self._forget(placement.id)
            return f"{placement.target} no longer exists; it was {placement.source}"
        status = os.stat(placement.target)
        os.makedirs(os.path.dirname(placement.source), exist_ok=True)
        while True:
            back = Placement(
                id=placement.id,
                mode="move",
                source=placement.target,
                target=self._free_name(placement.source),
                size=status.st_size,
                modified=status.st_mtime_ns,
                label=placement.label,
                probability=placement.probability,
            )
            self._write({"undo": asdict(back)})
            try:
                _transfer(back)
            except FileExistsError:
                self._write({"kept": placement.id})
                continue
            self._forget(placement.id)
            renamed = back.target != placement.source
            return f"{placement.source} exists; the file is now {back.target}" if renamed else None

    def _forget(self, number: int) -> None:
        self._write({"undone": number})
        del self.placements[number]

    def _free_name(self, path: str) -> str:
        """The path, or with a numbered suffix the first of its names that does not exist."""
        if not os.path.lexists(path):
            return path
        stem, ending = os.path.splitext(path)
        number = self._suffixes.get(path, 2)
        while os.path.lexists(f"{stem}-{number}{ending}"):
            number += 1
        self._suffixes[path] = number
        return f"{stem}-{number}{ending}"

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        line = json.dumps(record).encode() + b"\n"
        os.write(self._file.fileno(), line)
        os.fsync(self._file.fileno())

    def _read(self, write: bool) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        whole = content.rfind(b"\n") + 1  # a kill can cut the last line
        if write and whole < len(content):
            os.truncate(self.path, whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                ((kind, value),) = json.loads(line).items()
                self._apply(kind, value)
            except (ValueError, KeyError, TypeError) as error:
                raise AlexNetError(
                    f"{self.path}, line {number}: not a line of a journal ({error}); restore the file, "
                    "or move it away to start a new journal"
                ) from error

    def _apply(self, kind: str, value: Any) -> None:
        if kind == "journal":
            self.name = value
        elif kind == "session":
            self.sessions.append(value)
        elif kind == "begin":
            placement = Placement(**value)
            self._begun[placement.id] = placement
            self._next = placement.id + 1
        elif kind == "done":
            self.placements[value] = self._begun.pop(value)
        elif kind == "dropped":
            del self._begun[value]
        elif kind == "undo":
            self._undoing[value["id"]] = Placement(**value)
        elif kind == "undone":
            self._undoing.pop(value, None)
            del self.placements[value]
        elif kind == "kept":
            del self._undoing[value]
        else:
            raise ValueError(f"unknown record {kind!r}")

    def _settle(self) -> None:
        """Find out what became of the actions that a kill interrupted."""
        for placement in list(self._begun.values()):
            done = _settled(placement)
            self._write({"done" if done else "dropped": placement.id})
            if done:
                self.placements[placement.id] = placement
        for back in list(self._undoing.values()):
            if _settled(back):
                self._forget(back.id)
            else:
                self._write({"kept": back.id})
        self._begun, self._undoing = {}, {}


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal of an output folder for writing, and create both if necessary.

    Parameters
    ----------
    folder : Path
        The output folder.

    Yields
    ------
    Journal

    Raises
    ------
    AlexNetError
        If another process writes to it, or the journal cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{JOURNAL}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlexNetError(f"another `alexnet sort` writes to {folder}; wait until it is done") from None
    try:
        journal = Journal(folder)
        try:
            yield journal
        finally:
            journal.close()
    finally:
        lock.release()
        if not (folder / JOURNAL).exists():  # after an undo
            with suppress(OSError):
                os.unlink(lock.lock_file)


def _transfer(placement: Placement) -> None:
    """Copy, move or link. Raises FileExistsError where the name of the target exists."""
    source, target = placement.source, placement.target
    if placement.mode == "link":
        os.symlink(source, target)
        return
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        if placement.mode == "copy":
            _copy(placement)
            return
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(placement)  # to another file system
            os.unlink(source)
    except OSError:
        _remove_reservation(target)
        raise


def _copy(placement: Placement) -> None:
    """Copy onto the reserved name, atomically, with permissions and times."""
    temporary = _temporary(placement)
    try:
        shutil.copyfile(placement.source, temporary)
        shutil.copystat(placement.source, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, placement.target)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _temporary(placement: Placement) -> str:
    return os.path.join(os.path.dirname(placement.target), f".sort-{placement.id}.tmp")


def _remove_reservation(target: str) -> None:
    with suppress(FileNotFoundError):
        if os.lstat(target).st_size == 0:
            os.unlink(target)


def _settled(placement: Placement) -> bool:
    """Whether an interrupted action happened. What it left behind is removed."""
    source, target = placement.source, placement.target
    if placement.mode == "link":
        return os.path.islink(target) and os.readlink(target) == source
    with suppress(FileNotFoundError):
        os.unlink(_temporary(placement))
    if not _is_the_file(placement, target):
        _remove_reservation(target)
        return False
    if placement.mode == "move" and _is_the_file(placement, source) and filecmp.cmp(source, target, shallow=False):
        os.unlink(source)  # copied to another file system, not yet removed here
    return True


def _is_the_file(placement: Placement, path: str) -> bool:
    """Whether the file at a path has the size and the time of modification of the file that was placed."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return status.st_size == placement.size and abs(status.st_mtime_ns - placement.modified) <= MTIME_TOLERANCE_NS


def _reason_to_keep(placement: Placement) -> str | None:
    """Why a copy or a link must not be removed; None if it can be."""
    source, target = placement.source, placement.target
    if not os.path.lexists(target):
        return None
    if placement.mode == "link":
        same = os.path.islink(target) and os.readlink(target) == source
        return None if same else f"{target} is kept: it is no longer the link to {source}"
    if not os.path.exists(source):
        return f"{target} is kept: its original {source} no longer exists"
    if not os.path.isfile(target) or not filecmp.cmp(source, target, shallow=False):
        return f"{target} is kept: it differs from its original {source}"
    return None
