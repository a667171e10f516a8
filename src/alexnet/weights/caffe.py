"""Caffe's `.caffemodel` and `.binaryproto`, read from protobuf's wire format, old `layers` and new `layer`.

Field numbers are those of the published caffe.proto (BVLC/caffe, src/caffe/proto/caffe.proto).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.runtime.errors import AlexNetError
from alexnet.weights.foreign import IMAGE_SIZE, ForeignWeights, color_mean, require_arrays, shape_text
from alexnet.weights.formats import ReadOptions
from alexnet.weights.imagenet import CAFFE_MEAN

CROP_SIZE = 227
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CONVOLUTION, _FULL, _NORM, _POOL = "Convolution", "InnerProduct", "LRN", "Pooling"
_OLD_TYPES = {4: _CONVOLUTION, 14: _FULL, 15: _NORM, 17: _POOL}


@dataclass(frozen=True)
class Layer:
    """A layer of a Caffe network.

    Parameters
    ----------
    name, type : str
        Its name, and its type in the new format.
    arrays : list of ndarray
        Its weights and biases, float32.
    norm : dict of str to float
        Settings of its normalization: size, alpha, beta and k.
    """

    name: str
    type: str
    arrays: list[np.ndarray]
    norm: dict[str, float]


def read_caffe(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read `bvlc_alexnet` or `bvlc_reference_caffenet`, distinguished by the order of pooling and normalization.

    Parameters
    ----------
    file : Path
        A `.caffemodel`.
    options : ReadOptions, optional
        `mean` is the mean image, as `caffe_mean` reads it.

    Raises
    ------
    AlexNetError
        If the file is damaged or holds another network.
    """
    layers = read_layers(file)
    order = [layer.type for layer in layers if layer.type in (_NORM, _POOL)]
    variant = {"LRN Pooling LRN Pooling Pooling": "caffe", "Pooling LRN Pooling LRN Pooling": "caffenet"}.get(
        " ".join(order)
    )
    if variant is None:
        raise AlexNetError(
            f"{file} is neither bvlc_alexnet nor bvlc_reference_caffenet: its pooling and normalization layers are "
            f"{', '.join(order) or 'none'}"
        )
    for layer in layers:
        if layer.type == _NORM and layer.norm != (expected := {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}):
            raise AlexNetError(f"{file}: {layer.name} normalizes with {layer.norm}, not {expected}")
    weights, names = _weights(layers)
    claim = f"{file} is not Caffe's {'bvlc_alexnet' if variant == 'caffe' else 'bvlc_reference_caffenet'}"
    require_arrays(weights, variant, claim, names)
    mean = caffe_mean(options.mean if options else None)
    return ForeignWeights("Caffe", variant, weights, mean, CROP_SIZE).from_bgr()


def caffe_mean(file: Path | None) -> Tensor:
    """Read the mean image that belongs to Caffe's weights.

    Parameters
    ----------
    file : Path or None
        A `.binaryproto`, or an `.npy` of shape (3, 256, 256) or (3,), channels as BGR; None for the mean color of
        ILSVRC-2012.

    Returns
    -------
    Tensor
        (256, 256, 3) float32 RGB, 0 to 255.

    Raises
    ------
    AlexNetError
        If the file is damaged, or an array of another shape.
    """
    if file is None:
        return color_mean(CAFFE_MEAN)
    content = _content(file)
    if content.startswith(b"\x93NUMPY"):
        try:
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except ValueError as error:
            raise AlexNetError(f"{file} is not a mean image: {error}") from None
    else:
        try:
            array = _array(memoryview(content), file)
        except (IndexError, ValueError, TypeError) as error:
            raise AlexNetError(f"{file} is not a mean image: {error or 'a number does not end'}") from None
    array = array.reshape(array.shape[1:]) if array.ndim == 4 and array.shape[0] == 1 else array
    if array.shape == (3,):
        return color_mean([float(value) for value in array[::-1]])
    if array.shape != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise AlexNetError(
            f"{file} is {shape_text(array.shape)}; a mean image is 3×{IMAGE_SIZE}×{IMAGE_SIZE}, or 3 numbers, as BGR"
        )
    return torch.from_numpy(np.ascontiguousarray(array[::-1].transpose(1, 2, 0), np.float32))


def read_layers(file: Path) -> list[Layer]:
    """Read the layers of a `.caffemodel`, in order.

    Raises
    ------
    AlexNetError
        If the file is damaged or another kind of file.
    """
    layers = []
    try:
        for number, kind, value in _fields(memoryview(_content(file)), file):
            if number in (2, 100) and kind == _BYTES:
                layers.append(_layer(value, file, old=number == 2))
    except (IndexError, ValueError, TypeError, struct.error) as error:  # a field of another kind than its number's
        raise AlexNetError(f"{file} is damaged or not Caffe's: {error or 'a number does not end'}") from None
    if not layers:
        raise AlexNetError(f"{file} holds no layers: it is not a .caffemodel")
    return layers


def _weights(layers: list[Layer]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The arrays under our names, by the order of their layers; and our names → those in the file."""
    weights, names = {}, {}
    ours = {_CONVOLUTION: iter(f"conv{i}" for i in range(1, 100)), _FULL: iter(("fc6", "fc7", "logits"))}
    for layer in layers:
        if not layer.arrays:
            continue
        name = next(ours[layer.type], layer.name) if layer.type in ours else layer.name
        for number, array in enumerate(layer.arrays):
            part = ("weight", "bias")[number] if number < 2 else f"array {number + 1}"
            # Old files have four axes for everything: 1×1×4096×9216, 1×1×1×4096.
            wanted = {"weight": 4 if layer.type == _CONVOLUTION else 2, "bias": 1}.get(part, array.ndim)
            while array.ndim > wanted and array.shape[0] == 1:
                array = array[0]  # noqa: PLW2901
            names[f"{name}.{part}"] = f"{layer.name} ({'weights' if part == 'weight' else 'biases'})"
            weights[f"{name}.{part}"] = torch.from_numpy(array)
    return weights, names


def _layer(view: memoryview, file: Path, old: bool) -> Layer:
    """A V1LayerParameter (`old`) or LayerParameter."""
    name_field, type_field, array_field, norm_field = (4, 5, 6, 18) if old else (1, 2, 7, 118)
    name, layer_type, arrays, norm = "", "", [], {"size": 5.0, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    for number, kind, value in _fields(view, file):
        if number == name_field and kind == _BYTES:
            name = bytes(value).decode("utf-8", "replace")
        elif number == type_field:
            layer_type = _OLD_TYPES.get(value, str(value)) if old else bytes(value).decode("utf-8", "replace")
        elif number == array_field and kind == _BYTES:
            arrays.append(_array(value, file))
        elif number == norm_field and kind == _BYTES:
            for field, wire_type, setting in _fields(value, file):
                key = {1: "size", 2: "alpha", 3: "beta", 5: "k"}.get(field)
                if key:
                    decoded = float(setting) if wire_type == _VARINT else struct.unpack("<f", setting)[0]
                    norm[key] = float(f"{decoded:.6g}")  # stored as float32
    return Layer(name, layer_type, arrays, norm)


def _array(view: memoryview, file: Path) -> np.ndarray:
    """A BlobProto as float32."""
    legacy, shape, parts = [0, 0, 0, 0], None, []
    for number, kind, value in _fields(view, file):
        if number in (1, 2, 3, 4) and kind == _VARINT:
            legacy[number - 1] = value
        elif number == 7 and kind == _BYTES:
            shape = [
                side
                for field, wire_type, sides in _fields(value, file)
                if field == 1
                for side in _integers(sides, wire_type)
            ]
        elif number in (5, 8):
            dtype = np.dtype("<f4" if number == 5 else "<f8")
            if len(value) % dtype.itemsize:
                raise AlexNetError(f"{file} is damaged: an array of {len(value):,} bytes")
            parts.append(np.frombuffer(value, dtype))
    array = np.concatenate(parts) if parts else np.empty(0, "<f4")
    sides = legacy if shape is None else shape
    if any(side < 0 for side in sides) or int(np.prod(sides, dtype=object)) != len(array):
        raise AlexNetError(f"{file} is damaged: an array {shape_text(sides)} with {len(array):,} elements")
    return np.ascontiguousarray(array.reshape(sides), np.float32)


def _integers(value: memoryview | int, kind: int) -> Iterator[int]:
    """The integers of a repeated field, packed or one at a time."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while kind == _BYTES and at < len(value):
        number, at = _varint(value, at)
        yield number


def _fields(view: memoryview, file: Path) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field of a message: an int for a varint, bytes otherwise."""
    at = 0
    try:
        while at < len(view):
            key, at = _varint(view, at)
            number, kind = key >> 3, key & 7
            if kind == _VARINT:
                value, at = _varint(view, at)
                yield number, kind, value
                continue
            if kind == _BYTES:
                length, at = _varint(view, at)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise ValueError
            if number == 0 or at + length > len(view):
                raise ValueError
            yield number, kind, view[at : at + length]
            at += length
    except (IndexError, ValueError):
        raise AlexNetError(f"{file} is truncated or not Caffe's: its {len(view):,} bytes end in the middle") from None


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AlexNetError(f"{file} can't be read: {error.strerror}") from None
