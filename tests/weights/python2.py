"""Pickles as Python 2 wrote them, opcode by opcode: strings are bytes, arrays are numpy.core.multiarray's."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


class Named:
    """An object of a class that the pickle names; `state` is its attributes."""

    def __init__(self, module: str, name: str, state: dict[str, Any]) -> None:
        self.module, self.name, self.state = module, name, state


def dumps(value: Any) -> bytes:
    """Protocol 2, which cPickle calls its highest."""
    return b"\x80\x02" + _write(value) + b"."


def _write(value: Any) -> bytes:  # noqa: PLR0911
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str() | bytes():
            raw = value.encode("latin1") if isinstance(value, str) else value
            return b"T" + struct.pack("<i", len(raw)) + raw
        case list():
            return b"](" + b"".join(map(_write, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_write, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_write(part) for pair in value.items() for part in pair) + b"u"
        case np.ndarray():
            return _array(value)
        case Named():
            new = b"(" + _name("copy_reg", "_reconstructor")[0:0] + _name(value.module, value.name)
            new = _name("copy_reg", "_reconstructor") + new + _name("__builtin__", "object") + b"Nt" + b"R"
            return new + _write(value.state) + b"b"
    raise TypeError(type(value))


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _array(array: np.ndarray) -> bytes:
    """ndarray.__reduce__ of numpy 1.6: an empty array, then version, shape, type, order and bytes."""
    fortran = array.ndim > 1 and array.flags.f_contiguous
    raw = array.tobytes(order="F" if fortran else "C") if array.dtype != object else list(array.ravel())
    kind = "O8" if array.dtype == object else array.dtype.str[1:]
    order = "|" if array.dtype == object else "<"
    dtype = _name("numpy", "dtype") + _write((kind, 0, 1)) + b"R"
    dtype += _write((3, order, None, None, None, -1, -1, 63 if array.dtype == object else 0)) + b"b"
    empty = _name("numpy.core.multiarray", "_reconstruct")
    empty += b"(" + _name("numpy", "ndarray") + _write((0,)) + _write("b") + b"tR"
    state = b"(" + _write(1) + _write(tuple(array.shape)) + dtype + _write(bool(fortran)) + _write(raw) + b"t"
    return empty + state + b"b"
