"""ONNX files of any exporter, identified by what they compute.

A file's weights are matched by name or shape with the layers of each variant. A variant is accepted only if it
computes what the file does: the file's graph, run by ONNX Runtime, and the variant get the same random weights and
images, and then the file's own weights, and must give the same outputs. The structure of the graph is never parsed.

A file is not trusted: weights in other files are read from its own folder only, operators that could allocate without
bound are refused, and ONNX Runtime never opens a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from alexnet.network.model import AlexNet
from alexnet.network.variants import list_variants
from alexnet.runs.config import Config
from alexnet.runs.run import MEAN
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.weights.caffe import caffe_mean
from alexnet.weights.foreign import (
    MAX_ARRAY_SIZE,
    ForeignWeights,
    color_mean,
    config_from_json,
    require_finite,
    shape_text,
)
from alexnet.weights.formats import ReadOptions
from alexnet.weights.imagenet import TORCHVISION_MEAN, TORCHVISION_STD
from alexnet.weights.onnx_writer import CONFIG, onnx_package

TOLERANCE = 1e-4
"""Largest difference of an output, as a share of the largest output, at which two networks are the same."""
HALF_TOLERANCE = 2e-2
"""The same for files with float16 weights, which ONNX Runtime may compute in float16."""
_MAX_FILE_SIZE = 4 << 30
_BATCH_SIZE = 2
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_FOLDED = ("Constant", "ConstantOfShape", "DequantizeLinear", "Identity", "Transpose")  # evaluated for constants
# None of these makes a large output of a small file, and none reads a file or runs a nested graph.
_OPERATORS = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv"),
        *("DequantizeLinear", "Div", "Dropout", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "Identity", "LRN"),
        *("LogSoftmax", "MatMul", "MaxPool", "Mul", "Pad", "Pow", "ReduceMean", "ReduceSum", "Relu", "Reshape"),
        *("Shape", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"),
    )
)


def read_onnx(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read an ONNX file; see `from_onnx`.

    Parameters
    ----------
    file : Path
        The file. Weights in other files are read from the same folder.
    options : ReadOptions, optional
        `mean` is the mean image of a network of Caffe.

    Raises
    ------
    AlexNetError
        If the file is damaged, another network, or names files outside its folder.
    """
    size = file.stat().st_size
    if size > _MAX_FILE_SIZE:
        raise AlexNetError(f"{file} has {size:,} bytes, many times those of an AlexNet: it was not read")
    return from_onnx(file.read_bytes(), file, options.mean if options else None)


def from_onnx(content: bytes, file: str | Path = "the model", mean: Path | None = None) -> ForeignWeights:
    """Read an AlexNet of any exporter.

    Parameters
    ----------
    content : bytes
        The model, a serialized `ModelProto`.
    file : str or Path
        Its file, for messages, and whose folder holds the weights that are in other files.
    mean : Path, optional
        The mean image of a network of Caffe, as `caffe_mean` reads it.

    Returns
    -------
    ForeignWeights
        A model of `to_onnx` with its preprocessing and classes. Others say nothing about their input: one of the
        variants `caffe` and `caffenet` is assumed to read what Caffe's networks do, one of `one-weird-trick` what
        torchvision's does.

    Raises
    ------
    AlexNetError
        If the model is damaged, not a known variant, or of another variant and without preprocessing.
    """
    onnx = onnx_package()
    runtime = _runtime()
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own exceptions, which differ between its versions
        raise AlexNetError(f"{file} can't be read, it is damaged or not an ONNX file: {error}") from None
    try:
        model = _Model(onnx, runtime, proto, Path(file))
        stored = {entry.key: entry.value for entry in proto.metadata_props}.get(CONFIG)
        config = None if stored is None else config_from_json(stored, f"{file}: its description")
        image = None if config is None else _own_mean(model, config)
        match = _identify(model, config, image)
    except (IndexError, KeyError, AttributeError, TypeError, ValueError) as error:  # no field is sure to be there
        raise AlexNetError(f"{file} is damaged, its graph can't be read: {error}") from None
    if config is not None and image is not None:
        weights = {**match.weights, **match.counters()}
        network = ForeignWeights("alexnet's ONNX", match.variant, weights, image, config.crop_size)
        return network.with_config(config)
    common: dict[str, Any] = {"crop_size": match.side, "switches": match.switches}
    if match.variant in ("caffe", "caffenet"):
        network = ForeignWeights("ONNX, of Caffe", match.variant, match.weights, caffe_mean(mean), **common)
        return network.from_bgr()
    if match.variant == "one-weird-trick":
        image = color_mean(TORCHVISION_MEAN)
        network = ForeignWeights("ONNX, of torchvision", match.variant, match.weights, image, **common)
        return network.from_standardized(TORCHVISION_STD)
    raise AlexNetError(
        f"{file} is a {match.variant} network, but does not say what it reads (which mean, which order of channels): "
        "export it with `alexnet export RUN --to onnx`, which stores that"
    )


@dataclass(frozen=True)
class _Layer:
    """The weights of a layer of the graph: for each part the name of the value, and whether it is transposed."""

    names: Mapping[str, str]
    transposed: bool = False


@dataclass(frozen=True)
class _Match:
    """A variant that the graph computes, for images of `side` pixels, and the file's weights under its names."""

    variant: str
    switches: dict[str, str]
    side: int
    weights: dict[str, Tensor]

    def counters(self) -> dict[str, Tensor]:
        """The counters of batch normalization, which ONNX does not have and evaluation does not use."""
        names = [name for name in self.weights if name.endswith("running_mean")]
        return {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in names}


class _Model:
    """An ONNX model: its constants, the weights of its layers, and its outputs for any weights."""

    def __init__(self, onnx: ModuleType, runtime: ModuleType, proto: Any, file: Path) -> None:
        self.onnx, self.runtime, self.proto, self.file = onnx, runtime, proto, file
        _require_known_operators(proto, file)
        if proto.graph.sparse_initializer:
            raise AlexNetError(f"{file} has sparse weights, which no AlexNet has")
        for tensor in proto.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _load_external(onnx, tensor, file)
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._arrays: dict[str, np.ndarray] = {}
        self._sessions: dict[frozenset[str], Any] = {}
        for node in proto.graph.node:
            if node.op_type in _FOLDED and all(name in self.constants for name in node.input):
                self.constants[node.output[0]] = node
            if node.op_type == "ConstantOfShape":
                self.array(node.output[0])  # refuses an endless one before anything runs
        inputs = [one for one in proto.graph.input if one.name not in self.constants]
        if len(inputs) != 1:
            raise AlexNetError(f"{file} has {len(inputs)} inputs; a network for images has one")
        self.input = inputs[0].name
        self.input_type = inputs[0].type.tensor_type.elem_type
        self.shape = tuple(dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim)
        self.output = self._logits()
        halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in proto.graph.initializer)
        self.tolerance = HALF_TOLERANCE if halves else TOLERANCE

    def array(self, name: str) -> np.ndarray | None:
        """The value of a constant; None where `name` is none."""
        if name not in self.constants:
            return None
        if name not in self._arrays:
            try:
                self._arrays[name] = self._evaluate(name, self.constants[name])
            except (KeyError, ValueError, TypeError) as error:
                raise AlexNetError(f"{self.file} is damaged: {name} can't be read: {error}") from None
        return self._arrays[name]

    def _evaluate(self, name: str, constant: Any) -> np.ndarray:
        if isinstance(constant, self.onnx.TensorProto):
            return self._to_array(constant)
        given = {one.name: self.onnx.helper.get_attribute_value(one) for one in constant.attribute}
        inputs = [array for one in constant.input if (array := self.array(one)) is not None]
        value = self._to_array(given["value"]) if "value" in given else None
        match constant.op_type:
            case "Constant":
                return value if value is not None else np.asarray(next(iter(given.values())))
            case "ConstantOfShape":
                sides = [int(side) for side in inputs[0]]
                if math.prod(sides) > MAX_ARRAY_SIZE:
                    raise AlexNetError(f"{self.file}: {name} would have more numbers than any AlexNet")
                return np.full(sides, value.reshape(()) if value is not None else np.float32(0))
            case "DequantizeLinear":
                return _dequantized(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, given.get("axis", 1))
            case "Transpose":
                return np.transpose(inputs[0], given.get("perm"))
        return inputs[0]

    def _to_array(self, tensor: Any) -> np.ndarray:
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            raise AlexNetError(f"{self.file} keeps {tensor.name or 'a constant'} in another file: save it as one")
        array: np.ndarray = self.onnx.numpy_helper.to_array(tensor)
        return array

    def layers(self) -> list[_Layer]:
        """The layers with constant weights, in the order of the graph."""
        found = []
        for node in self.proto.graph.node:
            given = {one.name: self.onnx.helper.get_attribute_value(one) for one in node.attribute}
            constant = [name if name in self.constants else None for name in node.input]
            match node.op_type, constant:
                case "Conv", [_, str(weight), *bias]:
                    found.append(_Layer(_parts(weight, *bias)))
                case "Gemm", [_, str(weight), *bias]:
                    found.append(_Layer(_parts(weight, *bias), transposed=not given.get("transB")))
                case "MatMul", [None, str(weight)] if (bias_of := self._added_to(node.output[0])) is not None:
                    found.append(_Layer(_parts(weight, bias_of), transposed=True))
                case "BatchNormalization", [_, str(), str(), str(), str()]:
                    found.append(_Layer(dict(zip(_BATCH_NORM, node.input[1:], strict=True))))
        return found

    def _added_to(self, value: str) -> str | None:
        """The vector that is added to a value: the bias of a matrix product."""
        for node in self.proto.graph.node:
            if node.op_type == "Add" and value in node.input:
                other = next((name for name in node.input if name != value), "")
                array = self.array(other)
                return other if array is not None and array.ndim == 1 else None
        return None

    def weights(self, layer: _Layer) -> dict[str, np.ndarray]:
        """The weights of a layer in PyTorch's order of axes."""
        arrays = {part: np.asarray(self.array(name)) for part, name in layer.names.items()}
        return {part: array.T if layer.transposed and array.ndim == 2 else array for part, array in arrays.items()}

    def outputs(self, images: np.ndarray, weights: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Run the model.

        `weights` takes the place of constants, by the names of their values; they become inputs, so that neither the
        constants nor what they were computed from is part of the model that runs.
        """
        given = {self.input: images, **(weights or {})}
        try:
            if frozenset(given) not in self._sessions:
                self._sessions[frozenset(given)] = self._session(given)
            output: np.ndarray = self._sessions[frozenset(given)].run(None, given)[0]
        except AlexNetError:
            raise
        except Exception as error:  # ONNX Runtime and protobuf have exceptions of their own
            reason = str(error).strip().split("\n")[0]
            raise AlexNetError(f"{self.file} is damaged, ONNX Runtime can't run it: {reason}") from None
        return output.astype(np.float32)

    def _session(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """The model in ONNX Runtime, with these inputs."""
        graph = self.proto.graph
        proto = self.onnx.ModelProto(ir_version=self.proto.ir_version, opset_import=self.proto.opset_import)
        proto.graph.name = graph.name or "alexnet"
        proto.graph.node.extend(node for node in graph.node if node.output[0] not in inputs)
        proto.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in inputs)
        proto.graph.input.extend(one for one in graph.input if one.name not in inputs)
        element_type = self.onnx.helper.np_dtype_to_tensor_dtype
        describe = self.onnx.helper.make_tensor_value_info
        proto.graph.input.extend(
            describe(name, element_type(array.dtype), array.shape) for name, array in inputs.items()
        )
        proto.graph.output.append(describe(self.output, graph.output[0].type.tensor_type.elem_type, None))
        if len(inputs) > 1:
            _require_bounded(self.onnx, proto, self.file)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
        # Without fallback: it would print to stdout, and try the same again.
        return self.runtime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )

    def _logits(self) -> str:
        """The output before a final softmax, which would hide differences."""
        made = {node.output[0]: node for node in self.proto.graph.node}
        name: str = self.proto.graph.output[0].name
        for _ in made:
            if name not in made or made[name].op_type not in ("Softmax", "LogSoftmax", "Identity"):
                break
            name = made[name].input[0]
        return name


def _identify(model: _Model, config: Config | None, image: Tensor | None) -> _Match:
    """The first variant that computes what the model does; that of `config`, with its mean image, where it is given."""
    fitting: list[tuple[float, str]] = []
    nearest = (-1, "")
    images: dict[int, tuple[np.ndarray, Tensor]] = {}
    random: dict[str, np.ndarray] = {}
    expected: dict[int, np.ndarray] = {}
    layers = model.layers()
    for variant, switches, network in _candidates(config):
        parts = _parts_of(network)
        matched = _matched_by_name(model, parts) or layers
        agreeing, problem = _compare(model, network, parts, matched)
        if problem:
            nearest = max(nearest, (agreeing, problem), key=lambda one: one[0])
            continue
        side = _side(model, network)
        if side not in images:
            images[side] = _random_images(model, side, config, image)
        random = random or _random_weights(model, matched)
        if side not in expected:
            expected[side] = model.outputs(images[side][0], random)
        given, pixels = images[side]
        difference = _difference(network, _named(parts, matched, random), pixels, expected[side])
        if not difference <= model.tolerance:  # NaN is none
            fitting.append((difference, _called(variant, switches)))
            continue
        own = {name: np.asarray(model.array(name)) for layer in matched for name in layer.names.values()}
        weights = _named(parts, matched, own)
        require_finite(weights, model.file)
        # Weights that the graph computes, such as 8-bit ones, are left to it: their computation is checked, too.
        computed = any(not hasattr(model.constants[name], "dims") for name in own)
        difference = _difference(network, weights, pixels, model.outputs(given, None if computed else own))
        if not difference <= model.tolerance:  # NaN is none
            raise AlexNetError(
                f"{model.file} is damaged: with its own weights its outputs differ from those of {variant} by "
                f"{difference:.2g} of the largest"
            )
        return _Match(variant, switches, side, weights)
    if fitting:
        difference, name = min(fitting, key=lambda one: one[0])
        raise AlexNetError(
            f"{model.file} is not a network of `alexnet variants`: its weights fit {name}, but with the same weights "
            f"its outputs differ by {difference:.2g} of the largest"
        )
    raise AlexNetError(f"{model.file} is not a network of `alexnet variants`: {nearest[1]}")


def _candidates(config: Config | None) -> Iterator[tuple[str, dict[str, str], AlexNet]]:
    """Name, switches and network, without memory, of all variants; the unchanged ones first."""
    if config is not None:
        with torch.device("meta"):
            network = config.network().eval()
        yield config.recipe.variant, config.switches, network
        return
    combinations = product((None, "none", "lrn", "batch"), (None, "tanh"), (None, "non-overlapping"))
    named = [dict(zip(("normalization", "activation", "pooling"), values, strict=True)) for values in combinations]
    switches = [{key: value for key, value in one.items() if value is not None} for one in named]
    for one, variant in product(switches, list_variants()):
        try:
            with torch.device("meta"):
                network = AlexNet(variant, 1, **one).eval()  # type: ignore[arg-type]
        except UsageError:
            continue  # it has no place for response normalization
        yield variant, one, network


def _called(variant: str, switches: Mapping[str, str]) -> str:
    return " ".join((variant, *(f"--{key} {value}" for key, value in switches.items())))


def _parts_of(network: AlexNet) -> dict[str, dict[str, Tensor]]:
    """For each layer with weights its arrays, without the counters of batch normalization."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, array in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if part != "num_batches_tracked":
            parts.setdefault(layer, {})[part] = array
    return parts


def _matched_by_name(model: _Model, parts: Mapping[str, Mapping[str, Tensor]]) -> list[_Layer]:
    """The layers of a file that has the names of this package; none for another."""
    named = [_Layer({part: f"{layer}.{part}" for part in arrays}) for layer, arrays in parts.items()]
    every = all(name in model.constants for layer in named for name in layer.names.values())
    return named if every else []


def _compare(
    model: _Model, network: AlexNet, parts: Mapping[str, Mapping[str, Tensor]], layers: list[_Layer]
) -> tuple[int, str]:
    """How many layers agree in shape, and the first that does not; units of fully connected layers are free."""
    variant = network.variant.name
    agreeing = 0
    width = None
    for (name, wanted), layer in zip(parts.items(), layers, strict=False):
        found = {part: array.shape for part, array in model.weights(layer).items()}
        shapes = {part: tuple(array.shape) for part, array in wanted.items()}
        if isinstance(network.get_submodule(name), nn.Linear) and len(found["weight"]) == 2:
            units = found["weight"][0]
            shapes = {"weight": (units, width or shapes["weight"][1]), "bias": (units,)}
            width = units
        if "bias" not in found:  # exporters leave out zeros
            shapes.pop("bias", None)
        if found != shapes:
            what = ", ".join(f"{part} {shape_text(shape)}" for part, shape in found.items())
            other = ", ".join(f"{part} {shape_text(shape)}" for part, shape in shapes.items())
            return agreeing, f"layer {agreeing + 1} with weights has {what}, not {other} as in {variant}"
        agreeing += 1
    if len(layers) != len(parts):
        return agreeing, f"it has {len(layers)} layers with weights, not {len(parts)} as in {variant}"
    return agreeing, ""


def _side(model: _Model, network: AlexNet) -> int:
    """The side of the images that the network reads: as the model says, else as the variant has it."""
    if len(model.shape) != 4:
        raise AlexNetError(f"{model.file} has an input with {len(model.shape)} axes; images have 4")
    _, channels, height, width = model.shape
    if model.input_type == model.onnx.TensorProto.UINT8:
        return network.input_size  # preprocessed in the graph
    if channels not in (0, 3) or height != width:
        raise AlexNetError(f"{model.file} reads images {channels}×{height}×{width}; an AlexNet reads squares of RGB")
    if height > 4096:
        raise AlexNetError(f"{model.file} reads images of {height:,} pixels, more than 4096")
    return height or network.input_size


def _random_images(model: _Model, side: int, config: Config | None, mean: Tensor | None) -> tuple[np.ndarray, Tensor]:
    """Images for the model, and the same as the network reads them."""
    generator = torch.Generator().manual_seed(0)
    count = model.shape[0] or _BATCH_SIZE
    if count > 256:
        raise AlexNetError(f"{model.file} reads batches of {count:,} images: export it with a dynamic batch")
    if model.input_type == model.onnx.TensorProto.UINT8:
        if config is None or mean is None or model.shape[1:] != (config.size, config.size, 3):
            raise AlexNetError(f"{model.file} reads 8-bit images, but does not say how they are preprocessed")
        images = torch.randint(256, (count, config.size, config.size, 3), generator=generator, dtype=torch.uint8)
        return images.numpy(), config.preprocess(mean).center(images)
    pixels = (torch.rand(count, 3, side, side, generator=generator) - 0.5) * 240
    dtype = model.onnx.helper.tensor_dtype_to_np_dtype(model.input_type)
    given = pixels.numpy().astype(dtype)
    return given, torch.from_numpy(given.astype(np.float32))


def _random_weights(model: _Model, layers: list[_Layer]) -> dict[str, np.ndarray]:
    """Random weights for every layer, by the names of the graph, that keep the activations as large as the pixels."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal(999_983, np.float32)  # a prime: repeated, no two kernels are the same
    random = {}
    for layer in layers:
        batch_norm = "running_var" in layer.names
        for part, name in layer.names.items():
            array = np.asarray(model.array(name))
            if part == "weight" and not batch_norm:
                fan_in = array.shape[0] if layer.transposed else math.prod(array.shape[1:])
                values = np.resize(block, array.shape) * np.float32(math.sqrt(2 / max(fan_in, 1)))
            elif part in ("weight", "running_var"):
                values = rng.uniform(0.5, 2, array.shape)
            else:
                values = rng.uniform(-1, 1, array.shape)
            random[name] = values.astype(array.dtype)
    return random


def _named(
    parts: Mapping[str, Mapping[str, Tensor]], layers: list[_Layer], arrays: Mapping[str, np.ndarray]
) -> dict[str, Tensor]:
    """Arrays by the names of the graph → tensors under this package's names."""
    weights = {}
    for name, layer in zip(parts, layers, strict=True):
        for part, value in layer.names.items():
            array = arrays[value].T if layer.transposed and arrays[value].ndim == 2 else arrays[value]
            weights[f"{name}.{part}"] = torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
        if "bias" in parts[name] and "bias" not in layer.names:
            weights[f"{name}.bias"] = torch.zeros(len(weights[f"{name}.weight"]))
    return weights


@torch.inference_mode()
def _difference(network: AlexNet, weights: Mapping[str, Tensor], pixels: Tensor, expected: np.ndarray) -> float:
    """The largest difference of an output from the expected one, as a share of the largest; Inf for another shape."""
    try:
        outputs = functional_call(network, dict(weights), pixels.clone()).numpy()
    except RuntimeError:  # the shapes of its layers do not fit one another, or its images are too small
        return math.inf
    if outputs.shape != expected.shape:
        return math.inf
    largest = float(np.abs(expected).max())
    difference = float(np.abs(outputs - expected).max())
    return difference / largest if largest else difference


def _own_mean(model: _Model, config: Config) -> Tensor:
    """The mean image of a model of this package: among its constants, or in mean.npy beside it."""
    mean = model.array(MEAN)
    beside = model.file.with_name("mean.npy")
    if mean is None and beside.exists():
        try:
            mean = np.load(beside, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise AlexNetError(f"{beside} can't be read: {error}") from None
    if mean is None or mean.shape != (config.size, config.size, 3):
        raise AlexNetError(f"{model.file} lacks its mean image: put the mean.npy of the export beside it")
    return torch.from_numpy(np.array(mean, np.float32))


def _parts(weight: str, bias: str | None = None) -> dict[str, str]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _dequantized(integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> np.ndarray:
    """(integers - zero) · scale; the last two are single numbers, or one for each index of an axis."""
    axis %= max(integers.ndim, 1)
    shape = [-1 if i == axis else 1 for i in range(integers.ndim)] if scale.size > 1 else []
    numbers = integers.astype(np.float32) - (zero.astype(np.float32).reshape(shape) if zero is not None else 0)
    return numbers * scale.reshape(shape)


def _require_known_operators(proto: Any, file: Path) -> None:
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS or not node.output:
            raise AlexNetError(f"{file}: the operator {node.op_type} ({node.name or 'unnamed'}) is in no AlexNet here")
    if proto.functions:
        raise AlexNetError(f"{file} defines operators of its own: export it without functions")


def _require_bounded(onnx: ModuleType, proto: Any, file: Path) -> None:
    """Refuse a graph with a value larger than any in an AlexNet."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    for value in inferred.graph.value_info:
        if math.prod(side.dim_value or 1 for side in value.type.tensor_type.shape.dim) > MAX_ARRAY_SIZE:
            raise AlexNetError(f"{file}: {value.name} would have more numbers than any AlexNet")


def _load_external(onnx: ModuleType, tensor: Any, file: Path) -> None:
    """Read a tensor that is kept in another file of the same folder, as torch exports it since 2.9."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    beside = file.parent / location
    if location in ("", ".", "..") or any(character in location for character in "/\\\0:"):
        raise AlexNetError(
            f"{file} keeps {tensor.name} in another file, {location!r}, which is not in its folder: it was not read"
        )
    try:
        if beside.resolve(strict=True).parent != file.parent.resolve(strict=True) or not beside.is_file():
            raise AlexNetError(
                f"{file} keeps {tensor.name} in {location}, a link that leads out of its folder: it was not read"
            )
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        needed = math.prod(tensor.dims) * itemsize
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
        if min(offset, length, *tensor.dims) < 0 or length != needed or offset + length > beside.stat().st_size:
            raise AlexNetError(f"{beside} is truncated, or does not belong to {file}: {tensor.name} is not in it")
        with beside.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
    except FileNotFoundError:
        raise AlexNetError(
            f"{file} keeps its weights in {location}, which is missing: put both files into one folder"
        ) from None
    except OSError as error:
        raise AlexNetError(f"{beside} can't be read: {error.strerror or error}") from None
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _runtime() -> ModuleType:
    """The onnxruntime package, which is an extra."""
    try:
        import onnxruntime
    except ImportError as error:
        raise AlexNetError(f"reading ONNX requires onnxruntime: pip install 'alexnet[onnx]' ({error})") from None
    runtime: ModuleType = onnxruntime
    return runtime
