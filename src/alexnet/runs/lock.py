"""The lock of a run folder: one training at a time writes to it."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from alexnet.runs.run import LOCK
from alexnet.runtime.errors import AlexNetError


class RunLock:
    """Exclusive write access to a run folder, free again when the process ends, however it ends.

    As a context manager it acquires the lock where it is not held yet, and releases it at the end.

    Parameters
    ----------
    folder : Path
        The run folder. It is created by `acquire` where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK, timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Take the lock. Raises `AlexNetError` when another training holds it, or the folder can't be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise AlexNetError(
                f"{self.folder} is in use: another training writes to it; "
                "wait until it ends, or name another folder with --out"
            ) from None
        except OSError as error:
            raise AlexNetError(f"{self.folder} can't be written: {error.strerror or error}") from error

    def release(self) -> None:
        """Let another training write."""
        self._lock.release(force=True)

    def __enter__(self) -> RunLock:
        if not self._lock.is_locked:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
