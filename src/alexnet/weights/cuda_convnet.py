"""Checkpoints of cuda-convnet, 2012: pickles of Python 2 with one dictionary per layer, and one layer per tower.

The layers are those of the released configurations #145, #145-half, #146 and #148 (layer.py of the released code
documents the dictionaries). A convolution stores its weights as (channels · rows · columns, kernels), a fully
connected layer as (inputs, outputs), one array for each layer that it reads.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.network.rows import Activation, Conv, Dropout, FullyConnected, LocalNorm, Pool, SpatialNorm
from alexnet.network.variants import Variant, get_variant, list_variants
from alexnet.runtime.errors import AlexNetError
from alexnet.weights.foreign import IMAGE_SIZE, ForeignWeights, color_mean, require_arrays
from alexnet.weights.formats import ReadOptions
from alexnet.weights.imagenet import CAFFE_MEAN
from alexnet.weights.pickles import array_of, load_arrays, require_sound_archive

CROP_SIZE = 224
_TYPES = {Conv: "conv", Activation: "relu", LocalNorm: "cmrnorm", SpatialNorm: "rnorm", Pool: "pool", Dropout: "hs"}
_TYPES |= {FullyConnected: "fc"}
_WEIGHTED = ("conv", "fc")

Layers = dict[str, dict[str, Any]]


def read_cuda_convnet(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read the checkpoint of an epoch, pickled or zipped.

    Parameters
    ----------
    file : Path
        The checkpoint; no code in it runs.
    options : ReadOptions, optional
        `mean` is the data's `batches.meta`, with its mean image and the names of the classes; by default the mean
        color of ILSVRC-2012, and numbered classes.

    Raises
    ------
    AlexNetError
        If the file is damaged, or not a checkpoint of one of the released networks.
    """
    checkpoint = load_arrays(_content(file), file)
    state = checkpoint.get("model_state") if isinstance(checkpoint, dict) else None
    stored = state.get("layers") if isinstance(state, dict) else None
    listed = list(stored.values()) if isinstance(stored, dict) else stored
    if not isinstance(listed, list) or not all(isinstance(layer, dict) and "name" in layer for layer in listed):
        raise AlexNetError(f"{file} is not a checkpoint of cuda-convnet: it has no layers in a model_state")
    layers = {str(layer["name"]): layer for layer in listed}
    stages = _stages(file, layers)
    path = _path(file, layers, stages)
    types = [layer_type for layer_type, _ in path]
    released = [get_variant(name) for name in list_variants() if name.startswith("released")]
    known = [variant for variant in released if _layer_types(variant) == types]
    if not known:
        raise AlexNetError(f"{file} has layers that no released network has: {' '.join(types)}")
    weights, names = _weights(file, layers, stages, known[0])
    kernels = len(weights["conv1.weight"])
    variant = next((v for v in known if any(isinstance(r, Conv) and r.kernels == kernels for r in v.layers)), known[0])
    require_arrays(weights, variant.name, f"{file} is not the network {variant.name}", names)
    _require_norms(file, variant, [layer for _, layer in path])
    classes = len(weights["logits.bias"])
    mean, labels = _metadata(options.mean if options else None, classes)
    return ForeignWeights(
        "cuda-convnet",
        variant.name,
        weights,
        mean,
        CROP_SIZE,
        mean_of_center=True,
        classes=labels or _numbered(classes),
    )


def _numbered(classes: int) -> list[str]:
    width = len(str(classes - 1))
    return [f"class {number:0{width}}" for number in range(classes)]


def _content(file: Path) -> bytes:
    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    require_sound_archive(file)
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.read("data")
    except (KeyError, zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise AlexNetError(f"{file} is a damaged archive, or not one of cuda-convnet: {error}") from None


def _inputs(layer: Mapping[str, Any], layers: Layers) -> list[str]:
    """The names of the layers that a layer reads, by name or by number."""
    below = layer.get("inputs", [])
    below = [below] if isinstance(below, str | int) else list(below) if isinstance(below, list | tuple) else []
    ordered = list(layers)
    return [ordered[i] if isinstance(i, int) and 0 <= i < len(ordered) else str(i) for i in below]


def _source(file: Path, layers: Layers, name: str) -> tuple[str, float]:
    """The layer with weights, or the data, whose output reaches `name`; and the factor of the dropout in between."""
    keep = 1.0
    for _ in range(len(layers) + 1):
        layer = layers.get(name)
        if layer is None:
            raise AlexNetError(f"{file}: a layer reads {name!r}, which does not exist")
        if layer.get("type") in (*_WEIGHTED, "data"):
            return name, keep
        if layer.get("type") == "hs":
            share = array_of(layer.get("keep", 0.5))
            keep *= float(share) if share is not None else 0.5
        below = _inputs(layer, layers)
        if len(below) != 1:
            raise AlexNetError(f"{file}: {name} ({layer.get('type')}) reads {len(below)} layers, not one")
        name = below[0]
    raise AlexNetError(f"{file}: the layers form a cycle")


def _stages(file: Path, layers: Layers) -> list[list[str]]:
    """The layers with weights by depth; at each depth one layer per tower, in order of their names."""
    left = {name for name, layer in layers.items() if layer.get("type") in _WEIGHTED}
    done: set[str] = {name for name, layer in layers.items() if layer.get("type") == "data"}
    stages: list[list[str]] = []
    while left:
        ready = sorted(
            name for name in left if all(_source(file, layers, i)[0] in done for i in _inputs(layers[name], layers))
        )
        if not ready:
            raise AlexNetError(f"{file}: the layers form a cycle")
        stages.append(ready)
        left -= set(ready)
        done |= set(ready)
    if not stages:
        raise AlexNetError(f"{file} has no layers with weights")
    return stages


def _path(file: Path, layers: Layers, stages: list[list[str]]) -> list[tuple[str, dict[str, Any]]]:
    """Type and dictionary of the layers of the first tower, from the first convolution to the last layer."""
    detached = {i for layer in layers.values() if layer.get("type") == "neuron" for i in _inputs(layer, layers)}
    backwards: list[tuple[str, dict[str, Any]]] = []
    name = stages[-1][0]
    while len(backwards) <= 2 * len(layers):
        layer = layers[name]
        kind = str(layer.get("type"))
        if kind == "data":
            return backwards[::-1]
        neuron = layer.get("neuron")
        neuron = neuron.get("type") if isinstance(neuron, dict) else neuron
        if kind == "neuron":
            backwards.append((str(neuron), layer))
        else:
            backwards += [(str(neuron), layer)] if neuron and name not in detached else []
            backwards.append((kind, layer))
        below = sorted(_inputs(layer, layers))
        if not below or below[0] not in layers:
            break
        name = below[0]
    raise AlexNetError(f"{file}: no path leads from {stages[-1][0]} to the data")


def _layer_types(variant: Variant) -> list[str]:
    return [_TYPES[type(row)] for row in variant.layers]


def _weights(
    file: Path, layers: Layers, stages: list[list[str]], variant: Variant
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The joined arrays of all towers under our names; and our names → those in the file."""
    ours = [row.name for row in variant.layers if isinstance(row, Conv | FullyConnected)]
    if len(stages) != len(ours):
        raise AlexNetError(f"{file} has {len(stages)} successive layers with weights, not {len(ours)}")
    weights, names = {}, {}
    below: list[str] = []
    for name, towers in zip(ours, stages, strict=True):
        blocks = [dict(_blocks(file, layers, tower)) for tower in towers]
        grouped = len(towers) > 1 and len(below) == len(towers) and all(len(block) == 1 for block in blocks)
        order = [[source] for source in below] if grouped else [below or sorted(blocks[0])] * len(towers)
        for tower, block, wanted in zip(towers, blocks, order, strict=True):
            if sorted(block) != sorted(wanted):
                raise AlexNetError(f"{file}: {tower} reads {', '.join(block)}, not {', '.join(wanted)}")
        try:
            arrays = [
                np.concatenate([block[source] for source in wanted], axis=1)
                for block, wanted in zip(blocks, order, strict=True)
            ]
            weight = np.concatenate(arrays, axis=0)
            bias = np.concatenate([_floats(file, tower, layers[tower].get("biases")).ravel() for tower in towers])
        except ValueError as error:
            raise AlexNetError(f"{file}: the towers of {', '.join(towers)} can't be joined: {error}") from None
        for part, array in (("weight", weight), ("bias", bias)):
            weights[f"{name}.{part}"] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
            names[f"{name}.{part}"] = f"{' and '.join(towers)} ({'weights' if part == 'weight' else 'biases'})"
        below = towers
    return weights, names


def _blocks(file: Path, layers: Layers, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """For each layer that `name` reads, its name and the weights, outputs first, times the keep rate of dropout."""
    layer = layers[name]
    parts, below = layer.get("weights"), _inputs(layer, layers)
    if not isinstance(parts, list) or len(parts) != len(below):
        raise AlexNetError(f"{file}: {name} has no weights for each of the {len(below)} layers that it reads")
    for number, (part, reads) in enumerate(zip(parts, below, strict=True)):
        array = _floats(file, name, part)
        if array.ndim != 2:
            raise AlexNetError(f"{file}: the weights of {name} have {array.ndim} axes, not 2")
        source, keep = _source(file, layers, reads)
        array = array.T * np.float32(keep)
        if layer["type"] == "conv":
            sizes = layer.get("filterSize")
            size = array_of(sizes[number] if isinstance(sizes, list) and number < len(sizes) else sizes)
            side = int(size) if size is not None and size.ndim == 0 else 0
            if side < 1 or array.shape[1] % side**2:
                raise AlexNetError(f"{file}: {name} has {array.shape[1]} weights per kernel, which is not a square")
            array = array.reshape(len(array), -1, side, side)
        yield source, array


def _floats(file: Path, name: str, value: Any) -> np.ndarray:
    array = array_of(value)
    if array is None or array.dtype.kind != "f":
        raise AlexNetError(f"{file}: the weights of {name} are not a floating-point array")
    return array


def _require_norms(file: Path, variant: Variant, way: list[dict[str, Any]]) -> None:
    """Require that the constants of the normalization layers, where the file has them, are those of the variant."""
    rows = [row for row in variant.layers if isinstance(row, LocalNorm | SpatialNorm)]
    for row, layer in zip(rows, [one for one in way if one.get("type") in ("cmrnorm", "rnorm")], strict=True):
        local = isinstance(row, LocalNorm)
        wanted = {"size": row.size, "scale": row.alpha / (row.size if local else row.size**2), "pow": row.beta}
        for key, value in (wanted | ({"minDiv": row.k} if isinstance(row, LocalNorm) else {})).items():
            given = array_of(layer.get(key))
            if given is not None and not np.allclose(given, value, rtol=1e-4):
                raise AlexNetError(f"{file}: {layer['name']} normalizes with {key} {given}, not {value}")


def _metadata(file: Path | None, classes: int) -> tuple[Tensor, list[str] | None]:
    """The mean image and the class names of a `batches.meta`."""
    if file is None:
        return color_mean(CAFFE_MEAN), None
    meta = load_arrays(_content(file), file)
    mean = array_of(meta.get("data_mean")) if isinstance(meta, dict) else None
    if mean is None or mean.size != 3 * IMAGE_SIZE * IMAGE_SIZE or mean.dtype.kind != "f":
        raise AlexNetError(
            f"{file} has no data_mean of 3×{IMAGE_SIZE}×{IMAGE_SIZE} elements: give the batches.meta of the data"
        )
    image = np.ascontiguousarray(mean.reshape(3, IMAGE_SIZE, IMAGE_SIZE).transpose(1, 2, 0), np.float32)
    labels = meta.get("label_names")
    fits = isinstance(labels, list) and len(labels) == classes and len({str(name) for name in labels}) == classes
    return torch.from_numpy(image), [str(name) for name in labels] if fits else None
