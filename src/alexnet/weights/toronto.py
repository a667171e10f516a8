"""Toronto's `bvlc_alexnet.npy`: Caffe's weights as a dictionary of arrays, with the axes in TensorFlow's order."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.runtime.errors import AlexNetError
from alexnet.weights.caffe import CROP, caffe_mean
from alexnet.weights.foreign import Foreign, require_arrays
from alexnet.weights.pickles import array_of, load_arrays, objects_of

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def read_toronto(file: Path, mean: Path | None = None) -> Foreign:
    """`{"conv1": [weights, biases], …}` in an .npy; convolutions (H, W, in, out), fully connected layers (in, out).

    Blue comes first, and fc6 reads its maps position by position. `mean`: as for Caffe.
    Raises `AlexNetError` when it is no such file. No code in it runs.
    """
    layers = _dictionary(file)
    names: dict[str, str] = {}
    weights: dict[str, Tensor] = {}
    for theirs, content in layers.items():
        ours = "logits" if theirs == "fc8" else str(theirs)
        arrays = [array_of(part) for part in content] if isinstance(content, list | tuple) else []
        if len(arrays) != 2 or any(array is None or array.dtype.kind != "f" for array in arrays):
            raise AlexNetError(f"{file}: {theirs} is not a list of two arrays, weights and biases")
        for part, array in zip(("weight", "bias"), arrays, strict=True):
            names[f"{ours}.{part}"] = f"{theirs} ({'weights' if part == 'weight' else 'biases'})"
            weights[f"{ours}.{part}"] = torch.from_numpy(_turned(ours, np.asarray(array)))
    claim = f"{file} is not Toronto's bvlc_alexnet"
    require_arrays(weights, "caffe", claim, names)
    return Foreign("Caffe, by way of Toronto", "caffe", weights, caffe_mean(mean), CROP).reading_bgr()


def _dictionary(file: Path) -> dict[Any, Any]:
    content = file.read_bytes()
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception as error:  # a damaged header fails in numpy and in Python's tokenizer
        raise AlexNetError(f"{file} is a damaged .npy: {error}") from None
    if shape != () or dtype.kind != "O":
        raise AlexNetError(f"{file} is an array {shape} of {dtype}, not a dictionary of layers")
    found = load_arrays(content[stream.tell() :], file)
    elements = objects_of(found)
    if elements is None or len(elements) != 1 or not isinstance(elements[0], dict):
        raise AlexNetError(f"{file} holds no dictionary of layers")
    return elements[0]


def _turned(layer: str, array: np.ndarray) -> np.ndarray:
    """Into PyTorch's order of axes."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif layer == "fc6" and array.ndim == 2 and len(array) == 9216:
        array = array.reshape(6, 6, 256, -1).transpose(3, 2, 0, 1).reshape(array.shape[1], 9216)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array, np.float32)
