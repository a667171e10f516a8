"""The registry of weight formats, how a file is recognized by its content and which function reads it; export formats.

The command line, the documentation and the error messages take their lists from here. Nothing in this module imports
torch, so that `alexnet --help` stays fast.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.runtime.errors import AlexNetError

if TYPE_CHECKING:
    from alexnet.weights.foreign import ForeignWeights

_START = 64  # bytes that formats are recognized by
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # torch.save before 1.6: a pickle of the magic number
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(d", b"(l", b"c")
_CAFFE = (b"\x0a", b"\x12", b"\x1a", b"\xa2\x06")  # the network's name, its input, or its first layer
_MAX_SAFETENSORS_HEADER = 1 << 27


@dataclass(frozen=True)
class WeightFile:
    """A file whose format is to be recognized.

    Parameters
    ----------
    path : Path
        The file.
    start : bytes
        Its first 64 bytes.
    """

    path: Path
    start: bytes

    @classmethod
    def open(cls, path: Path) -> WeightFile:
        """Read the start of a file. Raises OSError."""
        with path.open("rb") as file:
            return cls(path, file.read(_START))

    @cached_property
    def members(self) -> list[str]:
        """Names of the members of a zip archive; empty for other files."""
        if not self.start.startswith(b"PK"):
            return []
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise AlexNetError(f"{self.path} is a truncated or damaged archive: {error}") from None

    def has_member(self, *endings: str) -> bool:
        """Whether the name of a member of the zip archive ends in one of `endings`."""
        return any(name.endswith(endings) for name in self.members)


@dataclass(frozen=True)
class ReadOptions:
    """Facts about a file that it may not contain itself.

    Parameters
    ----------
    mean : Path, optional
        File of the mean image that was subtracted in the training.
    variant : str, optional
        The variant whose weights these are.
    key : str, optional
        Which state dict of a checkpoint to read, such as ``"model_ema"``.
    """

    mean: Path | None = None
    variant: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class WeightFormat:
    """A format of weight files; see `register_weight_format`.

    Parameters
    ----------
    name : str
        Short unique name, such as ``"caffe"``.
    description : str
        One phrase for messages and documentation, such as ``"Caffe (.caffemodel)"``.
    detect : callable
        `WeightFile` → whether the file has this format. It looks at the content; the name of a file says nothing.
    read : callable
        (path, `ReadOptions`) → `ForeignWeights`. It raises `AlexNetError` for damaged files and other networks, runs
        no code from the file, and allocates no more than the file's content justifies.
    takes_mean : bool
        Whether `ReadOptions.mean` applies to the format.
    """

    name: str
    description: str
    detect: Callable[[WeightFile], bool]
    read: Callable[[Path, ReadOptions], ForeignWeights]
    takes_mean: bool = False


def register_weight_format(weight_format: WeightFormat) -> None:
    """Make a format of weight files known to `import_weights`, `alexnet import` and ``--init``.

    The last registered format is asked first, so that it can take precedence over the formats of this package.

    Raises
    ------
    ValueError
        If a format of that name is registered already.

    Examples
    --------
    A format that stores a torchvision state dict as an ``.npz`` archive of NumPy arrays:

    >>> import numpy as np, torch
    >>> from alexnet.weights import WeightFormat, register_weight_format
    >>> from alexnet.weights.torchvision import network_from_torchvision
    >>> def read_npz(path, options):
    ...     with np.load(path, allow_pickle=False) as arrays:
    ...         state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    ...     return network_from_torchvision(state, str(path))
    >>> register_weight_format(WeightFormat(
    ...     "npz", "NumPy archive of torchvision's arrays (.npz)",
    ...     detect=lambda file: file.has_member("features.0.weight.npy"), read=read_npz))
    """
    if any(known.name == weight_format.name for known in _FORMATS):
        raise ValueError(f"the weight format {weight_format.name!r} is registered already")
    _FORMATS.insert(0, weight_format)


def weight_formats() -> tuple[WeightFormat, ...]:
    """Return the registered formats, in the order in which a file is tried."""
    return tuple(_FORMATS)


def format_list() -> str:
    """Return the descriptions of all formats as one phrase for messages."""
    return ", ".join(known.description for known in _FORMATS)


def find_format(file: WeightFile) -> WeightFormat:
    """Return the format of a file.

    Raises
    ------
    AlexNetError
        If the file has no registered format, or is a program that can only be run. The message says what it is.
    """
    for detect, message in _REFUSED:
        if detect(file):
            raise AlexNetError(f"{file.path} {message}")
    for known in _FORMATS:
        if known.detect(file):
            return known
    raise AlexNetError(f"{file.path} {_what_else(file)}; readable weights are {format_list()}")


_REFUSED: tuple[tuple[Callable[[WeightFile], bool], str], ...] = (
    (
        lambda file: file.has_member("model.weights.h5"),
        "is a Keras model: convert it to ONNX or safetensors first",
    ),
    (
        # The second is the name before torch 2.7.
        lambda file: file.has_member("archive_format", "serialized_exported_program.json"),
        "is a program of torch.export, which can only be run: save the weights of the network that it was exported "
        "from, torch.save(model.state_dict(), 'weights.pth')",
    ),
    (
        lambda file: file.has_member("constants.pkl") and any("/code/" in name for name in file.members),
        "is a TorchScript program, which can only be run: save its weights, "
        "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')",
    ),
)
_OTHERS = (
    (b"\x89PNG", "is a PNG image"),
    (b"\xff\xd8\xff", "is a JPEG image"),
    (b"%PDF", "is a PDF document"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"<", "is a web page or XML, not the file itself: download it again"),
    (b"\x1f\x8b", "is a gzip archive: unpack it first"),
    (b"BZh", "is a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "is an xz archive: unpack it first"),
    (b"\x89HDF", "is an HDF5 file (Keras, MATLAB): convert it to ONNX or safetensors first"),
    (b"MATLAB 5.0", "is a MATLAB file: convert it to ONNX or safetensors first"),
    (b"GGUF", "is a GGUF file, a format of language models"),
    (b"PK", "is a zip archive of other files, or damaged: unpack it, and give the file with the weights"),
)


def _what_else(file: WeightFile) -> str:
    """Say what a file of no known format is."""
    if not file.start:
        return "is empty"
    if file.start[4:8] == b"TFL3":
        return "is a TensorFlow Lite file: convert it to ONNX or safetensors first"
    for start, description in _OTHERS:
        if file.start.startswith(start):
            return description
    return f"is not a weight file of a known format (it begins with {file.start[:8]!r})"


def _reader(module: str, function: str) -> Callable[[Path, ReadOptions], ForeignWeights]:
    """A function of a module of this package that is imported when it is first called."""

    def read(path: Path, options: ReadOptions) -> ForeignWeights:
        weights: ForeignWeights = getattr(import_module(f"alexnet.weights.{module}"), function)(path, options)
        return weights

    return read


def _is_safetensors(file: WeightFile) -> bool:
    start = file.start
    return len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < _MAX_SAFETENSORS_HEADER


_FORMATS: list[WeightFormat] = [
    WeightFormat(
        "pytorch",
        "PyTorch state dict or checkpoint (.pth, .pt, .ckpt, .bin)",
        lambda file: file.start.startswith(_LEGACY_TORCH) or file.has_member("data.pkl"),
        _reader("pytorch", "read_pytorch"),
    ),
    WeightFormat("safetensors", "safetensors", _is_safetensors, _reader("safetensors", "read_safetensors")),
    WeightFormat(
        "onnx",
        "ONNX (.onnx)",
        lambda file: file.start.startswith(b"\x08"),  # the number of the ONNX version comes first
        _reader("onnx_reader", "read_onnx"),
        takes_mean=True,
    ),
    WeightFormat(
        "toronto",
        "Toronto's bvlc_alexnet.npy",
        lambda file: file.start.startswith(b"\x93NUMPY"),
        _reader("toronto", "read_toronto"),
        takes_mean=True,
    ),
    WeightFormat(
        "cuda-convnet",
        "cuda-convnet checkpoint",
        lambda file: file.start.startswith(_PICKLE) or "data" in file.members,
        _reader("cuda_convnet", "read_cuda_convnet"),
        takes_mean=True,
    ),
    WeightFormat(
        "caffe",
        "Caffe (.caffemodel)",
        lambda file: file.start.startswith(_CAFFE),
        _reader("caffe", "read_caffe"),
        takes_mean=True,
    ),
]


@dataclass(frozen=True)
class ExportFormat:
    """A format that `export` writes.

    Parameters
    ----------
    file : str
        Name of the file in the exported folder.
    description : str
        One phrase for the command line and the documentation.
    is_program : bool
        Whether the file can be run, so that its preprocessing can be inside.
    """

    file: str
    description: str
    is_program: bool


PREPROCESSING = ("inside", "beside")
ONNX_BASED = ("onnx", "openvino")
"""Export formats that are written from an ONNX model."""
EXPORT_FORMATS = {
    "onnx": ExportFormat("model.onnx", "ONNX", is_program=True),
    "openvino": ExportFormat("model.xml", "OpenVINO", is_program=True),
    "safetensors": ExportFormat("model.safetensors", "one file in the layout of this package", is_program=False),
    "torch-export": ExportFormat("model.pt2", "a program of torch.export (.pt2)", is_program=True),
    "hub": ExportFormat("model.safetensors", "a folder for the Hugging Face hub", is_program=False),
}
