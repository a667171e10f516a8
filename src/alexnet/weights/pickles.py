"""Pickles read without running anything: an unpickler that knows containers, numbers and arrays and nothing else."""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.runtime.errors import AlexNetError

MAX_FILE_SIZE = 4 << 30
MAX_COMPRESSION = 50
"""Weights hardly compress: an archive that unpacks to more than this times its size is not one of weights."""


def load_arrays(content: bytes, file: str | Path) -> Any:
    """Read a pickle of any Python version that holds dictionaries, lists, text, numbers and NumPy arrays.

    Nothing that the pickle names is imported or called; see `array_of` for its arrays.

    Parameters
    ----------
    content : bytes
        The pickle.
    file : str or Path
        Name for messages.

    Raises
    ------
    AlexNetError
        If the pickle is damaged or names anything else.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content), file).load()
    except AlexNetError:
        raise
    except Exception as error:  # a damaged or hostile pickle raises errors of any type
        raise AlexNetError(f"{file} can't be read as a pickle: {error or type(error).__name__}") from None


def array_of(value: Any) -> np.ndarray | None:
    """Return a NumPy array or number that `load_arrays` read; None for anything else."""
    if isinstance(value, _Array):
        return value.array
    return np.asarray(value) if isinstance(value, int | float) else None


def objects_of(value: Any) -> list[Any] | None:
    """Return the elements of an array of objects; None for anything else."""
    return value.objects if isinstance(value, _Array) else None


def require_sound_archive(file: Path) -> None:
    """Raise an `AlexNetError` for a zip archive that is damaged, or a zip bomb."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise AlexNetError(f"{file} is a damaged archive: {error}") from None
    size = file.stat().st_size
    if unpacked > min(MAX_FILE_SIZE, MAX_COMPRESSION * max(size, 1 << 20)):
        raise AlexNetError(
            f"{file} would unpack to {unpacked:,} bytes from {size:,}, which weights never do: it was not unpacked"
        )


class Inert:
    """Takes the place of an object whose class is not known here. It accepts any state and holds none of it."""

    qualified_name = "object"
    is_network = False
    """Whether its state is that of a `torch.nn.Module`."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        self.is_network = isinstance(state, dict) and "_modules" in state

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


def inert_class(module: str, name: str) -> type[Inert]:
    """Return a class of inert objects that remembers which class the pickle named."""
    return type("Inert", (Inert,), {"qualified_name": f"{module}.{name}"})


class Function:
    """A function that a pickle may call. A pickle can't change its attributes, as it could those of a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise ValueError("the pickle changes a function")


class Dictionary(dict[Any, Any]):
    """Takes the place of an OrderedDict; attributes, such as `_metadata` of a state dict, are dropped."""

    def __setstate__(self, _: Any) -> None:
        pass


class _Array:
    """A NumPy array that is being unpickled: its state is checked here and never given to NumPy."""

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
    """The type of an array's elements: booleans, integers, floating point, text, or objects."""

    def __init__(self, name: Any, *_: Any) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        if not re.fullmatch(r"[biuf][1248]|O8?|[SU]\d{0,4}", text):
            raise ValueError(f"an array of {text!r}")
        self.name, self.order = text[0] if text[0] == "O" else text, "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ("<", ">") else "<"


class _Ndarray:
    """Takes the place of NumPy's class where a pickle names it; never instantiated."""

    def __setstate__(self, _: Any) -> None:
        raise ValueError("the pickle changes a class")


def _new_array(*_: Any) -> _Array:
    return _Array()


def _new_number(dtype: Any, content: Any) -> float | int:
    array = _Array()
    array.__setstate__(((), dtype, False, content))
    if array.array is None:
        raise ValueError("a number without a value")
    return array.array.item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in {encoding!r}")
    return text.encode("latin1")


KNOWN_ARRAYS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    **{
        (f"numpy.{core}.multiarray", name): Function(function)
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _new_array), ("scalar", _new_number))
    },
    ("_codecs", "encode"): Function(_latin1),
    **{
        (module, "OrderedDict"): Dictionary
        for module in ("collections", "ordereddict", "util", "python_util.ordereddict")
    },
}
"""Names that a pickle may use, and their replacements: containers and NumPy arrays."""


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses a pickle that names anything unknown, but for the command-line options in cuda-convnet's checkpoints."""

    def __init__(self, content: io.BytesIO, file: str | Path) -> None:
        super().__init__(content, encoding="latin1")  # the strings of Python 2 are bytes
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        inert = (("copy_reg", "_reconstructor"), ("__builtin__", "object"))
        if module in ("options", "python_util.options") or (module, name) in inert:
            return inert_class(module, name)
        if (module, name) not in KNOWN_ARRAYS:
            raise AlexNetError(
                f"{self.file} names {module}.{name}, which is neither an array nor a number: nothing of it was run"
            )
        return KNOWN_ARRAYS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise AlexNetError(f"{self.file} refers to objects that are not in it")
