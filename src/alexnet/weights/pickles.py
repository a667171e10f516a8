"""Pickles of arrays, read without running anything: an unpickler that knows arrays and numbers and nothing else."""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.runtime.errors import AlexNetError

MAX_BYTES = 4 << 30
MAX_RATIO = 50
"""Weights hardly compress; what unpacks to more than this times its size is no weights."""


def load_arrays(content: bytes, file: str | Path) -> Any:
    """What a pickle of any Python holds: dictionaries, lists, text, numbers, numpy arrays (see `array_of`).

    Nothing that the pickle names is imported or called. Raises `AlexNetError`, also for a pickle that names more.
    """
    try:
        return _Unpickler(io.BytesIO(content), file).load()
    except AlexNetError:
        raise
    except Exception as error:  # whatever nonsense a damaged or a hostile pickle makes of the stack
        raise AlexNetError(f"{file} can't be read as a pickle: {error or type(error).__name__}") from None


def array_of(value: Any) -> np.ndarray | None:
    """A numpy array or number that `load_arrays` read; None for anything else."""
    if isinstance(value, _Array):
        return value.array
    return np.asarray(value) if isinstance(value, int | float) else None


def objects_of(value: Any) -> list[Any] | None:
    """The elements of an array of objects; None for anything else."""
    return value.objects if isinstance(value, _Array) else None


def check_zip(file: Path) -> None:
    """Raise an `AlexNetError` for an archive that is damaged, or unpacks to far more than it is: a zip bomb."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise AlexNetError(f"{file} is a damaged archive: {error}") from None
    if unpacked > min(MAX_BYTES, MAX_RATIO * max(file.stat().st_size, 1 << 20)):
        raise AlexNetError(
            f"{file} would unpack to {unpacked:,} bytes from {file.stat().st_size:,}: no weights do; it is left packed"
        )


class _Array:
    """A numpy array that is being unpickled: its state is checked here, never handed to numpy."""

    array: np.ndarray | None = None
    objects: list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, content = state[-4:]
        if not isinstance(dtype, _Dtype) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("an array without a type or shape")
        if dtype.name == "O":
            if len(content) != math.prod(shape):
                raise ValueError("an array of objects with another number of them")
            self.objects = list(content)
            return
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        kind = np.dtype(dtype.order + dtype.name)
        if len(raw) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"an array of {tuple(shape)} {kind} with {len(raw):,} bytes")
        flat = np.frombuffer(raw, kind).astype(kind.newbyteorder("="))
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """The type of an array's elements: booleans, whole numbers, floating point, text, or objects."""

    def __init__(self, name: Any, *_: Any) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        if not re.fullmatch(r"[biuf][1248]|O8?|[SU]\d{0,4}", text):
            raise ValueError(f"an array of {text!r}")
        self.name, self.order = text[0] if text[0] == "O" else text, "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ("<", ">") else "<"


class _Inert:
    """Stands for an object of cuda-convnet's command line, which its checkpoints carry along; it holds nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _Ndarray:
    """Stands for numpy's class where a pickle names it; never made."""


def _new_array(*_: Any) -> _Array:
    return _Array()


def _new_number(dtype: Any, content: Any) -> float | int:
    array = _Array()
    array.__setstate__(((), dtype, False, content))
    if array.array is None:
        raise ValueError("a number that is none")
    return array.array.item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _new_array), ("scalar", _new_number))
    },
    ("_codecs", "encode"): _latin1,
    **{(module, "OrderedDict"): dict for module in ("collections", "ordereddict", "util", "python_util.ordereddict")},
    ("copy_reg", "_reconstructor"): _Inert,
    ("__builtin__", "object"): _Inert,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: io.BytesIO, file: str | Path) -> None:
        super().__init__(content, encoding="latin1")  # the strings of Python 2 are bytes
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if module in ("options", "python_util.options"):
            return _Inert
        if (module, name) not in _KNOWN:
            raise AlexNetError(
                f"{self.file} names {module}.{name}, which is neither an array nor a number: nothing of it was run"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise AlexNetError(f"{self.file} refers to what is not in it")
