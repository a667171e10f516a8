"""The results of a sort in a CSV file or a SQLite database, to which each is appended.

A row has the columns of `COLUMNS`; `journal` and `id` identify it. The log has every placement of the journal once:
what a kill cut off is removed and what it prevented is added when the log is opened again.
"""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

from filelock import FileLock, Timeout

from alexnet.inspection.journal import Journal, Placement
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import csv_text

COLUMNS = ("time", "source", "target", "decision", "class", "probability", "distance", "journal", "id")
CSV_ENDINGS = (".csv",)
SQLITE_ENDINGS = (".sqlite", ".sqlite3", ".db")
TABLE = "results"
_WAIT = 30.0  # seconds for which another program may keep a database locked


class ResultLog(Protocol):
    """An open log."""

    def append(self, placement: Placement) -> None:
        """Append a result."""


def check_log(file: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a log.

    Raises
    ------
    UsageError
        If its ending is that of neither CSV nor SQLite.
    """
    path = Path(file).absolute()
    if path.suffix.lower() not in (*CSV_ENDINGS, *SQLITE_ENDINGS):
        raise UsageError(f"the log {file} must end in .csv, or for SQLite in {', '.join(SQLITE_ENDINGS)}")
    return path


def local_time(seconds: float) -> str:
    """ISO 8601 with milliseconds and the offset of this machine's time zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


def row_of(placement: Placement, journal: str) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    return (
        local_time(placement.time),
        placement.source,
        placement.target,
        placement.decision,
        placement.label,
        float(f"{placement.probability:.6g}"),
        None if placement.distance is None else float(f"{placement.distance:.6g}"),
        journal,
        placement.id,
    )


@contextmanager
def open_log(file: Path, journal: Journal) -> Iterator[ResultLog]:
    """Open a log, create it if necessary, and append what it lacks of a journal.

    Parameters
    ----------
    file : Path
        As returned by `check_log`.
    journal : Journal
        The journal whose placements are logged.

    Yields
    ------
    ResultLog

    Raises
    ------
    AlexNetError
        If it cannot be written, is not a log, or is a CSV file to which another process writes.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlexNetError(f"{file} cannot be written: {error.strerror}") from error
    opened = _open_sqlite if file.suffix.lower() in SQLITE_ENDINGS else _open_csv
    with opened(file, journal) as log:
        yield log


class _CsvLog:
    def __init__(self, path: Path, file: IO[bytes], journal: Journal) -> None:
        self._path, self._file, self._journal = path, file, journal

    def append(self, placement: Placement) -> None:
        self.write(row_of(placement, self._journal.name))

    def write(self, row: tuple[Any, ...]) -> None:
        try:
            self._file.write(csv_text([row]).encode("utf-8", "surrogateescape"))  # one call: whole or cut at its end
        except OSError as error:
            raise AlexNetError(f"{self._path} cannot be written: {error.strerror}") from error


@contextmanager
def _open_csv(path: Path, journal: Journal) -> Iterator[_CsvLog]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlexNetError(
            f"another `alexnet sort` writes to {path}; give each its own CSV file, or use one .sqlite file"
        ) from None
    except OSError as error:
        raise AlexNetError(f"{path} cannot be written: {error.strerror}") from error
    try:
        ids = _read_csv(path, journal.name)
        with path.open("ab", buffering=0) as file:
            log = _CsvLog(path, file, journal)
            if not path.stat().st_size:
                log.write(COLUMNS)
            for placement in _missing(journal, ids):
                log.append(placement)
            yield log
    except OSError as error:
        raise AlexNetError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        lock.release()


def _read_csv(path: Path, name: str) -> set[int]:
    """The ids that a journal has in the log. An incomplete row at the end is cut off."""
    if not path.exists():
        return set()
    record, ids, end = b"", set(), 0
    with path.open("rb") as file:
        for line in file:
            record += line
            if record.count(b'"') % 2 or not record.endswith(b"\n"):
                continue  # a file name with a line break, or what a kill left of a row
            cells = next(csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")), [])
            if not end and tuple(cells) != COLUMNS:
                break
            if cells[-2:-1] == [name]:
                ids.add(int(cells[-1]))
            end, record = end + len(record), b""
    if not end and not ",".join(COLUMNS).encode().startswith(record):
        raise AlexNetError(f"{path} is another file, not a log of `alexnet sort`: choose a new name with --log")
    if record:
        os.truncate(path, end)
    return ids


class _SqliteLog:
    def __init__(self, path: Path, database: sqlite3.Connection, journal: Journal) -> None:
        self._path, self._database, self._journal = path, database, journal

    def append(self, placement: Placement) -> None:
        self.extend([placement])

    def extend(self, placements: list[Placement]) -> None:
        rows = [_text_for_sqlite(row_of(placement, self._journal.name)) for placement in placements]
        try:
            with self._database:  # a transaction
                self._database.executemany(f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        except sqlite3.Error as error:
            raise AlexNetError(f"{self._path} cannot be written: {error}") from error


@contextmanager
def _open_sqlite(path: Path, journal: Journal) -> Iterator[_SqliteLog]:
    kinds = {"probability": "REAL", "distance": "REAL", "id": "INTEGER"}
    columns = ", ".join(f'"{name}" {kinds.get(name, "TEXT")}' for name in COLUMNS)
    try:
        database = sqlite3.connect(path, timeout=_WAIT)
    except sqlite3.Error as error:
        raise AlexNetError(f"{path} cannot be written: {error}") from error
    try:
        try:
            with database:
                database.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns}, PRIMARY KEY (journal, id))")
            found = tuple(row[1] for row in database.execute(f"PRAGMA table_info({TABLE})"))
            ids = {row[0] for row in database.execute(f"SELECT id FROM {TABLE} WHERE journal = ?", [journal.name])}
        except sqlite3.Error as error:
            raise AlexNetError(f"{path} cannot be used as a log: {error}") from error
        if found != COLUMNS:
            raise AlexNetError(f"{path} has a table {TABLE} with other columns: choose a new name with --log")
        log = _SqliteLog(path, database, journal)
        log.extend(_missing(journal, ids))
        yield log
    finally:
        database.close()


def _missing(journal: Journal, ids: set[int]) -> list[Placement]:
    """The placements that are not in the log."""
    return [placement for number, placement in journal.placements.items() if number not in ids]


def _text_for_sqlite(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """SQLite stores UTF-8 only: the bytes of a file name that are not become \\x escapes."""
    return tuple(
        value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
        for value in row
    )
