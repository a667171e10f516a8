"""Toronto's `bvlc_alexnet.npy`: Caffe's weights as a dictionary of arrays, with TensorFlow's order of axes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.runtime.errors import AlexNetError
from alexnet.weights.caffe import CROP_SIZE, caffe_mean
from alexnet.weights.foreign import ForeignWeights, require_arrays
from alexnet.weights.formats import ReadOptions
from alexnet.weights.pickles import array_of, load_arrays, objects_of


def read_toronto(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read ``{"conv1": [weights, biases], ...}`` from an .npy file.

    Convolutions are (H, W, in, out), fully connected layers (in, out); channels are BGR, and fc6 reads its feature
    maps position by position.

    Parameters
    ----------
    file : Path
        The file; no code in it runs.
    options : ReadOptions, optional
        `mean` is the mean image, as for Caffe.

    Raises
    ------
    AlexNetError
        If the file is damaged or another network.
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
            weights[f"{ours}.{part}"] = torch.from_numpy(_in_torch_order(ours, np.asarray(array)))
    claim = f"{file} is not Toronto's bvlc_alexnet"
    require_arrays(weights, "caffe", claim, names)
    mean = caffe_mean(options.mean if options else None)
    return ForeignWeights("Caffe, converted in Toronto", "caffe", weights, mean, CROP_SIZE).from_bgr()


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
    elements = objects_of(load_arrays(content[stream.tell() :], file))
    if elements is None or len(elements) != 1 or not isinstance(elements[0], dict):
        raise AlexNetError(f"{file} holds no dictionary of layers")
    return elements[0]


def _in_torch_order(layer: str, array: np.ndarray) -> np.ndarray:
    """The array with PyTorch's order of axes."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif layer == "fc6" and array.ndim == 2 and len(array) == 9216:
        array = array.reshape(6, 6, 256, -1).transpose(3, 2, 0, 1).reshape(array.shape[1], 9216)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array, np.float32)
