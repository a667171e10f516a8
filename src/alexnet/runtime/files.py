"""Atomic writes, by which a file appears complete or not at all, and checksums."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def write_atomic(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: to a temporary file in the same folder, synchronized to disk, then renamed.

    Parameters
    ----------
    path : Path
        The file to write. An existing file is replaced.
    content : bytes or callable
        The content, or a function that receives the open binary file and writes to it.

    Raises
    ------
    OSError
        If the file cannot be written. ``path`` is unchanged and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array atomically, as a file of NumPy's format."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, array)
    write_atomic(path, content.getvalue())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as the text of a CSV file; each line ends with a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows atomically as a CSV file in UTF-8. File names that are not Unicode keep their bytes."""
    write_atomic(path, csv_text(rows).encode("utf-8", "surrogateescape"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
