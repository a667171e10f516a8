"""Files that `torch.save` wrote: state dicts, and checkpoints that hold them among other objects.

The pickle inside is read by an unpickler of this package: it builds containers and the descriptions of tensors, and
puts inert objects in the place of everything else (`argparse.Namespace`, a framework's settings, whole networks), so
that no code in a file runs. Only the tensors that are asked for are read.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from alexnet.runtime.errors import AlexNetError
from alexnet.weights.foreign import MAX_ARRAY_SIZE, ForeignWeights
from alexnet.weights.formats import ReadOptions
from alexnet.weights.pickles import Dictionary, Function, Inert, inert_class, require_sound_archive
from alexnet.weights.state_dicts import find_state_dict, network_from_state_dict

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_NAMED_DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (*_DTYPES.values(), torch.complex64, torch.complex128)
}


def read_pytorch(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read a `.pth`, `.pt`, `.ckpt` or `.bin` file of `torch.save`, in today's format or in that before torch 1.6.

    Parameters
    ----------
    file : Path
        A state dict, or a checkpoint that holds one at any key, such as those of torchvision's training script,
        PyTorch Lightning and timm. Prefixes of wrappers (``module.``, ``_orig_mod.``, ``model.``) are removed.
    options : ReadOptions, optional
        `key` chooses among several state dicts; `variant` names the network of a state dict in this package's layout.

    Raises
    ------
    AlexNetError
        If the file is damaged, holds a whole pickled network, or no AlexNet.
    """
    options = options or ReadOptions()
    checkpoint = load_checkpoint(file)
    if isinstance(checkpoint, Inert):
        kind = "a whole pickled network" if checkpoint.is_network else "a pickled object"
        raise AlexNetError(
            f"{file} holds {kind} ({checkpoint.qualified_name}), which only its own code can read: save its state "
            "dict instead, torch.save(model.state_dict(), 'weights.pth')"
        )
    if not isinstance(checkpoint, dict):
        raise AlexNetError(
            f"{file} holds no state dict but a {type(checkpoint).__name__}: "
            "save one, torch.save(model.state_dict(), 'weights.pth')"
        )
    return network_from_state_dict(find_state_dict(checkpoint, str(file), options.key), file, options)


def load_checkpoint(file: Path) -> Any:
    """Read the objects of a file of `torch.save`, with a `StoredTensor` for each tensor.

    Raises
    ------
    AlexNetError
        If the file is damaged.
    """
    try:
        return _load_zip(file) if zipfile.is_zipfile(file) else _load_legacy(file)
    except (AlexNetError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged or hostile pickle raises errors of any type
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise AlexNetError(f"{file} can't be read, it is damaged or not a PyTorch file: {reason}") from None


class StoredTensor:
    """A tensor in a file, not read yet."""

    __slots__ = ("_dtype", "_offset", "_storage", "_stride", "shape")

    def __init__(self, storage: _Storage, offset: int, shape: Any, stride: Any, dtype: torch.dtype) -> None:
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError("a tensor with a shape that makes no sense")
        self.shape = tuple(shape)
        self._storage, self._offset, self._stride, self._dtype = storage, offset, tuple(stride), dtype

    def __setstate__(self, _: Any) -> None:
        raise ValueError("the pickle changes a tensor")

    def load(self) -> Tensor:
        """Read the tensor."""
        count = math.prod(self.shape)
        if not count:
            return torch.empty(self.shape, dtype=self._dtype)
        last = self._offset + sum((side - 1) * step for side, step in zip(self.shape, self._stride, strict=True))
        if count > MAX_ARRAY_SIZE or (last + 1) * self._dtype.itemsize > self._storage.size:
            raise AlexNetError(f"{self._storage.file} is damaged: a tensor is larger than what is stored of it")
        flat = torch.frombuffer(bytearray(self._storage.read()), dtype=self._dtype)
        return flat.as_strided(self.shape, self._stride, self._offset).clone(memory_format=torch.contiguous_format)


class _Storage:
    """The memory of one or more tensors: `size` bytes, which `content` reads from the file."""

    __slots__ = ("content", "dtype", "file", "size", "swapped")

    def __init__(self, file: Path, dtype: torch.dtype, size: int) -> None:
        self.file, self.dtype, self.size = file, dtype, size
        self.swapped = False
        self.content: Callable[[], bytes] | None = None

    def __setstate__(self, _: Any) -> None:
        raise ValueError("the pickle changes a storage")

    def read(self) -> bytes:
        content = self.content() if self.content is not None else b""
        if len(content) != self.size:
            raise AlexNetError(f"{self.file} is truncated: {len(content):,} of {self.size:,} bytes of a tensor")
        if self.swapped and self.dtype.itemsize > 1:
            return np.frombuffer(content, f"u{self.dtype.itemsize}").byteswap().tobytes()
        return content


class _DefaultDict(Dictionary):
    """Takes the place of a defaultdict, without its factory."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


class _StorageType:
    """Takes the place of a storage class where a pickle names it."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    return StoredTensor(storage, offset, shape, stride, storage.dtype)


def _rebuild_typed_tensor(
    storage: _Storage, offset: int, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: torch.dtype, *_: Any
) -> StoredTensor:
    return StoredTensor(storage, offset, shape, stride, dtype)


def _first(value: Any, *_: Any) -> Any:
    return value


def _call(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    return function(*arguments) if isinstance(function, Function) else Inert()


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Dictionary,
    ("collections", "defaultdict"): _DefaultDict,
    ("torch._utils", "_rebuild_tensor"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_rebuild_typed_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_first),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_first),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_call),
}


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers and `StoredTensor`; everything else becomes an inert object."""

    def __init__(self, stream: IO[bytes], file: Path) -> None:
        super().__init__(stream, encoding="latin1")
        self.file = file
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module in ("torch", "torch.storage", "torch.cuda") and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        if module == "torch" and name in _NAMED_DTYPES:
            return _NAMED_DTYPES[name]
        return inert_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(count, int) or count < 0:
            raise ValueError("a reference to something other than a tensor's memory")
        if any(part is not None for part in view):
            raise ValueError(
                "a view of a storage, as torch wrote it before 0.4: load and save it with torch 1.6 or newer"
            )
        dtype = storage_type.dtype
        return self.storages.setdefault(str(key), _Storage(self.file, dtype, count * dtype.itemsize))


def _load_zip(file: Path) -> Any:
    require_sound_archive(file)
    with zipfile.ZipFile(file) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"
        unpickler = _Unpickler(io.BytesIO(archive.read(pickled)), file)
        loaded = unpickler.load()
    for key, storage in unpickler.storages.items():
        storage.swapped = order.strip() == b"big"
        storage.content = _member_reader(file, f"{folder}data/{key}")
    return loaded


def _member_reader(file: Path, member: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.read(member)
        except (KeyError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise AlexNetError(f"{file} is damaged: {member} can't be read: {error}") from None

    return read


def _load_legacy(file: Path) -> Any:
    """Five pickles (magic number, version, system, objects, keys of the storages), then the storages themselves."""
    end = file.stat().st_size
    with file.open("rb") as stream:
        for _ in range(2):
            _Unpickler(stream, file).load()
        system = _Unpickler(stream, file).load()
        unpickler = _Unpickler(stream, file)
        loaded = unpickler.load()
        for key in _Unpickler(stream, file).load():
            storage = unpickler.storages[str(key)]
            (count,) = struct.unpack("<q", stream.read(8))
            first = stream.tell()
            if count * storage.dtype.itemsize != storage.size or first + storage.size > end:
                raise ValueError("it is truncated")
            storage.swapped = isinstance(system, dict) and system.get("little_endian") is False
            storage.content = _range_reader(file, first, storage.size)
            stream.seek(storage.size, io.SEEK_CUR)
    return loaded


def _range_reader(file: Path, first: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with file.open("rb") as stream:
            stream.seek(first)
            return stream.read(size)

    return read
