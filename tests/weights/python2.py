"""Pickles as Python 2 wrote them, opcode by opcode: strings are bytes, arrays are numpy.core.multiarray's."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np


class Named:
    """An object of a class that the pickle names; `state` is its attributes."""

    def __init__(self, module: str, name: str, state: dict[str, Any]) -> None:
        self.module, self.name, self.state = module, name, state


def dumps(value: Any) -> bytes:
    """Protocol 2, which cPickle calls its highest."""
    return b"".join([b"\x80\x02", *_pieces(value), b"."])


def _pieces(value: Any) -> Iterator[bytes]:
    match value:
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            yield b"J" + struct.pack("<i", value)
        case float():
            yield b"G" + struct.pack(">d", value)
        case str() | bytes():
            raw = value.encode("latin1") if isinstance(value, str) else value
            yield b"T" + struct.pack("<i", len(raw))
            yield raw
        case list() | tuple():
            yield b"](" if isinstance(value, list) else b"("
            for part in value:
                yield from _pieces(part)
            yield b"e" if isinstance(value, list) else b"t"
        case dict():
            yield b"}("
            for key, part in value.items():
                yield from (*_pieces(key), *_pieces(part))
            yield b"u"
        case np.ndarray():
            yield from _array(value)
        case Named():
            yield _name("copy_reg", "_reconstructor") + b"(" + _name(value.module, value.name)
            yield _name("__builtin__", "object") + b"NtR"
            yield from _pieces(value.state)
            yield b"b"
        case _:
            raise TypeError(type(value))


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _array(array: np.ndarray) -> Iterator[bytes]:
    """ndarray.__reduce__ of numpy 1.6: an empty array, then version, shape, type, order and bytes."""
    objects = array.dtype == object
    fortran = array.ndim > 1 and array.flags.f_contiguous
    yield _name("numpy.core.multiarray", "_reconstruct") + b"(" + _name("numpy", "ndarray")
    yield from (*_pieces((0,)), *_pieces("b"), b"tR", b"(", *_pieces(1), *_pieces(tuple(array.shape)))
    yield _name("numpy", "dtype")
    yield from _pieces(("O8" if objects else array.dtype.str[1:], 0, 1))
    yield b"R"
    yield from _pieces((3, "|" if objects else "<", None, None, None, -1, -1, 63 if objects else 0))
    yield b"b"
    yield from _pieces(fortran)
    yield from _pieces(list(array.ravel()) if objects else array.tobytes(order="F" if fortran else "C"))
    yield b"tb"
