"""Decisions about suspects: a file that holds every one of them as soon as it was made."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from alexnet.data.corrections import COLUMNS, Correction, read_corrections
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_csv


class LabelDecisions:
    """Decisions in a file of corrections, in the order in which they were made.

    The file is replaced atomically with every decision, before `decide` or `undo` returns. Its rows about other images
    are kept.

    Parameters
    ----------
    file : Path
        The file; it is read if it exists.

    Raises
    ------
    AlexNetError
        If the file cannot be read, or another process has it open.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self._lock = threading.Lock()
        self._process_lock = FileLock(self.file.with_name(f".{self.file.name}.lock"), timeout=0)
        try:
            self._process_lock.acquire()
        except Timeout:
            raise AlexNetError(f"another process writes {self.file}: end it first, or name another file") from None
        except OSError as error:
            raise AlexNetError(f"{self.file} cannot be written: {error.strerror or error}") from error
        try:
            found = read_corrections(self.file) if self.file.exists() else []
        except AlexNetError:
            self.close()
            raise
        self._made = {one.path: one for one in found}
        self._history: list[tuple[str, Correction | None]] = [(one.path, None) for one in found]

    def close(self) -> None:
        """Let another process open the file."""
        self._process_lock.release()

    @property
    def made(self) -> Mapping[str, Correction]:
        """The decisions by the name of the image."""
        return dict(self._made)

    def decide(self, correction: Correction) -> None:
        """Record a decision; it replaces an earlier one about the same image.

        Raises
        ------
        AlexNetError
            If the file cannot be written; the decision is then not made.
        """
        with self._lock:
            made = {path: one for path, one in self._made.items() if path != correction.path}
            before = self._made.get(correction.path)
            self._write({**made, correction.path: correction})
            self._history.append((correction.path, before))

    def undo(self) -> str | None:
        """Take back the last decision; returns the name of its image, or None if there is none.

        Raises
        ------
        AlexNetError
            If the file cannot be written; the decision then stays.
        """
        with self._lock:
            if not self._history:
                return None
            path, before = self._history[-1]
            made = {name: one for name, one in self._made.items() if name != path}
            self._write(made if before is None else {**made, path: before})
            self._history.pop()
            return path

    def _write(self, made: dict[str, Correction]) -> None:
        try:
            write_csv(self.file, [COLUMNS, *made.values()])
        except OSError as error:
            raise AlexNetError(f"{self.file} cannot be written: {error.strerror or error}") from error
        self._made = made
