"""Columns of Arrow tables from Python's values and back, by their buffers.

`pyarrow.array` and the like import pandas wherever it is installed, to check for a Series: half a second or more in
every process, for a few columns of a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def numbers(given: Sequence[int] | np.ndarray, kind: type[np.integer]) -> pa.Array:
    """A column of integers (n,) of type `kind`, such as `np.int32`."""
    column = np.ascontiguousarray(given, dtype=kind)
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)])


def values(column: pa.Array | pa.ChunkedArray, kind: type[np.number]) -> np.ndarray:
    """The numbers (n,) of a column of type `kind` without nulls."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.frombuffer(whole.buffers()[1], dtype=kind)[whole.offset : whole.offset + len(whole)]


def floats(given: Sequence[float | None]) -> pa.Array:
    """A column of float64; None is null."""
    column = np.array([0.0 if value is None else value for value in given], dtype=np.float64)
    there = np.packbits([value is not None for value in given], bitorder="little") if None in given else None
    buffers = [None if there is None else pa.py_buffer(there), pa.py_buffer(column)]
    return pa.Array.from_buffers(pa.float64(), len(column), buffers)


def texts(given: Sequence[str | None]) -> pa.Array:
    """A column of strings; None is null."""
    return _variable(pa.string(), [None if value is None else value.encode() for value in given])


def binaries(given: Sequence[bytes]) -> pa.Array:
    """A column of bytes."""
    return _variable(pa.binary(), given)


def _variable(kind: pa.DataType, given: Sequence[bytes | None]) -> pa.Array:
    """A column of variable length: values, offsets, and a validity bit for each value."""
    begins = np.zeros(len(given) + 1, dtype=np.int32)
    np.cumsum([len(value or b"") for value in given], out=begins[1:])
    there = np.packbits([value is not None for value in given], bitorder="little") if None in given else None
    data = b"".join(value for value in given if value is not None)
    buffers = [None if part is None else pa.py_buffer(part) for part in (there, begins, data)]
    return pa.Array.from_buffers(kind, len(given), buffers)
