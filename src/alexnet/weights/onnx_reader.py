"""ONNX read back."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.network.layers import (
    LocallyConnected2d,
    LocalResponseNorm,
    SpatialResponseNorm,
    Weighted,
)
from alexnet.network.model import AlexNet
from alexnet.network.variants import list_variants
from alexnet.runs.run import MEAN, Config
from alexnet.runtime.errors import AlexNetError
from alexnet.weights.caffe import caffe_mean
from alexnet.weights.foreign import MAX_ARRAY_SIZE, ForeignWeights, color_mean, config_from_json
from alexnet.weights.formats import ReadOptions
from alexnet.weights.imagenet import TORCHVISION_MEAN, TORCHVISION_STD
from alexnet.weights.onnx_writer import CONFIG, _averages, _copies, onnx_package

_PASSED = ("Dropout", "Identity", "Softmax", "LogSoftmax")


def from_onnx(content: bytes, file: str | Path = "the model", mean: Path | None = None) -> ForeignWeights:
    """An AlexNet of any exporter: told by its operators in their order, at the size of image that the file names.

    A file of `to_onnx` comes back whole, with preprocessing and classes. Of others the weights say nothing of the
    images they were trained on: in the layout of `caffe` and `caffenet` they are taken to read what Caffe's do
    (`mean` as there), in that of `one-weird-trick` what torchvision's do, and there is no default for the rest.
    Raises `AlexNetError` when the file is damaged, another network, or keeps its weights elsewhere.
    """
    onnx = onnx_package()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own exceptions, which differ between its versions
        raise AlexNetError(f"{file} can't be read, it is damaged or no ONNX file: {error}") from None
    try:
        graph = _Read(onnx, model, file)
        input_size, value = graph.entry()
        rows, arrays = graph.chain(value, input_size)
    except (IndexError, KeyError, AttributeError, TypeError, ValueError) as error:  # no attribute is sure to be there
        raise AlexNetError(f"{file} is damaged, its graph can't be followed: {error}") from None
    own = {entry.key: entry.value for entry in model.metadata_props}.get(CONFIG)
    config = None if own is None else config_from_json(own, f"{file}: its description")
    variant, switches, names = _named_like(rows, input_size, file, config)
    weights = {
        f"{ours}.{part}": torch.from_numpy(np.array(array, np.float32))
        for ours, parts in zip(names, arrays, strict=True)
        for part, array in parts.items()
    }
    if config is not None:
        return _own(config, graph, weights, file)
    if variant in ("caffe", "caffenet"):
        network = ForeignWeights("ONNX, of Caffe", variant, weights, caffe_mean(mean), input_size, switches=switches)
        return network.from_bgr()
    if variant == "one-weird-trick":
        image = color_mean(TORCHVISION_MEAN)
        network = ForeignWeights("ONNX, of torchvision", variant, weights, image, input_size, switches=switches)
        return network.from_standardized(TORCHVISION_STD)
    raise AlexNetError(
        f"{file} is a {variant} network, but does not say what it reads: what mean, what order of colors"
    )


def _own(config: Config, graph: _Read, weights: dict[str, Tensor], file: str | Path) -> ForeignWeights:
    """A file of ours, with its config.json inside and the mean image among its constants, or beside."""
    mean = graph.array(MEAN)
    beside = Path(file).with_name("mean.npy")
    if mean is None and beside.exists():
        try:
            mean = np.load(beside, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise AlexNetError(f"{beside} can't be read: {error}") from None
    if mean is None or mean.shape != (config.size, config.size, 3):
        raise AlexNetError(f"{file} lacks its mean image: it is in the file, or beside it in mean.npy")
    # How many batches a normalization has seen is not in ONNX, and nothing that is computed here asks for it.
    seen = [name.replace("running_mean", "num_batches_tracked") for name in weights if name.endswith("running_mean")]
    weights |= dict.fromkeys(seen, torch.tensor(0))
    image = torch.from_numpy(np.array(mean, np.float32))
    return ForeignWeights("alexnet's ONNX", config.recipe.variant, weights, image, config.crop_size).with_config(config)


Row = tuple[Any, ...]
"""What a layer computes, apart from its weights: see `_Read.chain`."""


class _Read:
    """A graph that is followed from its input to its end, operator by operator."""

    def __init__(self, onnx: ModuleType, model: Any, file: str | Path) -> None:
        self.onnx, self.model, self.file = onnx, model, file
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes = []
        for node in model.graph.node:
            if node.op_type in ("Constant", "ConstantOfShape", "DequantizeLinear") and all(
                name in self.constants for name in node.input
            ):
                self.constants[node.output[0]] = node
            else:
                self.nodes.append(node)
        self._reshaped = {node.input[0] for node in self.nodes if node.op_type == "Reshape"}

    def array(self, name: str) -> np.ndarray | None:
        """The value of a constant; None where `name` is none."""
        found = self.constants.get(name)
        if found is None:
            return None
        try:
            if isinstance(found, self.onnx.TensorProto):
                return self._tensor(found)
            if found.op_type == "DequantizeLinear":
                return self._dequantized(found)
            values = self.attributes(found)
            if found.op_type == "Constant":
                return self._tensor(values["value"])
            sides = self.array(found.input[0])
            fill = self._tensor(values["value"]).reshape(()) if "value" in values else np.float32(0)
            if sides is None or int(np.prod(sides, dtype=object)) > MAX_ARRAY_SIZE:
                raise AlexNetError(f"{self.file}: {name} would have more numbers than any AlexNet")
            return np.full([int(input_size) for input_size in sides], fill)
        except (KeyError, ValueError, TypeError) as error:
            raise AlexNetError(f"{self.file} is damaged: {name} can't be read: {error}") from None

    def _dequantized(self, node: Any) -> np.ndarray:
        """(whole numbers - zero) · scale, the last two one for all or one for each index of an axis."""
        whole, scale, *zero = self._weights(node, 0)
        axis = self.attributes(node).get("axis", 1) % max(whole.ndim, 1)
        shape = [-1 if i == axis else 1 for i in range(whole.ndim)] if scale.size > 1 else []
        numbers = whole.astype(np.float32) - (zero[0].astype(np.float32).reshape(shape) if zero else 0)
        return numbers * scale.reshape(shape)

    def _tensor(self, tensor: Any) -> np.ndarray:
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            raise AlexNetError(f"{self.file} keeps {tensor.name} in another file: save it as one")
        return self.onnx.numpy_helper.to_array(tensor)

    def attributes(self, node: Any) -> dict[str, Any]:
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    def entry(self) -> tuple[int, str]:
        """The input_size in pixels of the images that reach the first convolution, and the value that holds them."""
        inputs = [i for i in self.model.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise AlexNetError(f"{self.file} has {len(inputs)} inputs, a network of images has one")
        sides = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
        value, crop_size = inputs[0].name, sides[-1] if sides else 0
        # The preprocessing of `to_onnx`, if it is there, ends in the value that the first convolution reads.
        for node in self.nodes:
            if node.op_type == "Conv":
                return (crop_size if crop_size > 3 else 227), value
            if value not in node.input:
                break
            if node.op_type == "Slice":
                first, end = (self.array(part) for part in node.input[1:3])
                crop_size = int(end[0] - first[0]) if first is not None and end is not None else 0
            elif node.op_type == "MatMul":
                other = self.array(next(name for name in node.input if name != value))
                crop_size = len(other) if other is not None and node.input[1] == value else crop_size
            elif node.op_type == "Cast" and len(sides) == 4 and sides[3] == 3:
                crop_size = sides[1]
            value = node.output[0]
        raise AlexNetError(f"{self.file} does not lead from its input to a convolution: it is no AlexNet")

    def chain(self, value: str, input_size: int) -> tuple[list[Row], list[dict[str, np.ndarray]]]:  # noqa: PLR0912, PLR0915
        """Every layer as a row with the side of its output, and the weights of each row that has some."""
        rows: list[Row] = []
        arrays: list[dict[str, np.ndarray]] = []
        flat = False
        for _ in self.nodes:  # a graph that runs in a circle comes to an end, too
            readers = [node for node in self.nodes if value in node.input]
            if not readers:
                break
            node, after = readers[0], readers[0].output[0]
            given = self.attributes(node)
            match node.op_type:
                case "Conv" if after in self._reshaped:
                    after, input_size, row, local = self._local(node, input_size)
                    rows.append(row)
                    arrays.append(local)
                case "Conv":
                    weight, *bias = self._weights(node, 1)
                    kernel, stride, first, input_size = self._windows(given, weight.shape[-1], input_size)
                    rows.append(("conv", len(weight), kernel, stride, first, given.get("group", 1), input_size))
                    arrays.append({"weight": weight} | ({"bias": bias[0]} if bias else {}))
                case "BatchNormalization":
                    parts = self._weights(node, 1)
                    rows.append(("batch", _rounded(given.get("epsilon", 1e-5))))
                    names = ("weight", "bias", "running_mean", "running_var")
                    arrays.append(dict(zip(names, parts, strict=True)))
                case "Relu" | "Tanh":
                    rows.append((node.op_type.lower(),))
                case "LRN":
                    rows.append(_norm_row(given, 1))
                case "Split":
                    after, row = self._towers(node)
                    rows.append(row)
                case "Mul" if len(readers) == 2:
                    after, row = self._spatial(value, node)
                    rows.append(row)
                case "AveragePool" if given.get("kernel_shape") == [1, 1]:
                    pass
                case "MaxPool" | "AveragePool":
                    kernel, stride, first, input_size = self._windows(given, None, input_size)
                    rows.append(("pool" if node.op_type == "MaxPool" else "mean", kernel, stride, first, input_size))
                case "MatMul" if not flat:
                    after, input_size = self._fit(value, node)
                case "Flatten" | "Reshape":
                    flat = True
                case "Gemm" | "MatMul":
                    after, full = self._full(node)
                    rows.append(("full", len(full["weight"])))
                    arrays.append(full)
                case known if known in _PASSED:
                    pass
                case other:
                    raise AlexNetError(
                        f"{self.file}: the operator {other} ({node.name or after}) is in no AlexNet here"
                    )
            if len(readers) > (2 if node.op_type == "Mul" else 1):
                raise AlexNetError(f"{self.file}: {value} is read by {len(readers)} operators, not one after the other")
            value = after
        return rows, arrays

    def _weights(self, node: Any, first: int) -> list[np.ndarray]:
        found = [self.array(name) for name in node.input[first:] if name]
        if not found or any(array is None for array in found):
            raise AlexNetError(f"{self.file}: the weights of {node.name or node.output[0]} are not in it")
        return [np.asarray(array) for array in found]

    def _windows(self, given: dict[str, Any], kernel: int | None, input_size: int) -> tuple[int, int, int, int]:
        """Side and stride of the windows, zeros before the first, and how many there are along a input_size."""
        sizes = given.get("kernel_shape") or [kernel or 0] * 2
        strides, pads = given.get("strides", [1, 1]), given.get("pads", [0, 0, 0, 0])
        same = len(set(sizes)) == 1 and len(set(strides)) == 1 and pads[0] == pads[1] and pads[2] == pads[3]
        plain = given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and set(given.get("dilations", [1])) == {1}
        if not same or not plain or len(pads) != 4:
            raise AlexNetError(f"{self.file}: windows of {sizes}, strides {strides}, padding {pads} are in no AlexNet")
        room = input_size + pads[0] + pads[2] - sizes[0]
        steps = -(-room // strides[0]) if given.get("ceil_mode") else room // strides[0]
        return sizes[0], strides[0], pads[0], steps + 1

    def _local(self, conv: Any, input_size: int) -> tuple[str, int, Row, dict[str, np.ndarray]]:
        """A locally connected layer as `_add_local` writes it."""
        problem = f"{self.file}: the operators from {conv.name or conv.output[0]} on are no locally connected layer"
        copies, nodes = self._weights(conv, 1)[0], [conv]
        for wanted in ("Reshape", "Transpose", "MatMul", "Add", "Transpose", "Reshape"):
            following = [node for node in self.nodes if nodes[-1].output[0] in node.input]
            if len(following) != 1 or following[0].op_type != wanted:
                raise AlexNetError(problem)
            nodes.append(following[0])
        made = {node.output[0]: node for node in self.nodes}
        size, (bias,) = copies.shape[-1], self._weights(made[nodes[4].input[1]], 0)[:1]
        (weight,) = self._weights(made[made[nodes[3].input[1]].input[0]], 0)[:1]
        _, _, first, after = self._windows(self.attributes(conv), size, input_size)
        maps, kernels = len(copies) // size**2, len(bias) // max(1, after) ** 2
        whole = weight.shape == (after**2 * kernels, len(copies)) and bias.shape == (len(weight),)
        windows = copies.shape == (maps * size**2, 1, size, size)
        if not whole or not windows or not np.array_equal(copies, _copies(maps, size)):
            raise AlexNetError(problem)
        row = ("local", kernels, size, first, after)
        return nodes[-1].output[0], after, row, {"weight": weight, "bias": bias}

    def _towers(self, split: Any) -> tuple[str, Row]:
        norms = [node for node in self.nodes if node.input[0] in split.output and node.op_type == "LRN"]
        ends = [node for node in self.nodes if norms and norms[0].output[0] in node.input]
        in_order = [n.input[0] for n in norms] == list(split.output)
        if not in_order or len(ends) != 1 or list(ends[0].input) != [n.output[0] for n in norms]:
            raise AlexNetError(f"{self.file}: {split.name or 'a split'} is not into towers that are each normalized")
        settings = {_norm_row(self.attributes(node), len(norms)) for node in norms}
        if ends[0].op_type != "Concat" or len(settings) != 1:
            raise AlexNetError(f"{self.file}: the towers of {split.name or 'a split'} are normalized differently")
        return ends[0].output[0], settings.pop()

    def _spatial(self, value: str, square: Any) -> tuple[str, Row]:
        """x · (1 + alpha · average of x²) ^ -beta."""
        nodes = [square]
        numbers: list[float | None] = []
        for wanted in ("AveragePool", "Mul", "Add", "Pow", "Mul"):
            following = [node for node in self.nodes if nodes[-1].output[0] in node.input]
            if len(following) != 1 or following[0].op_type != wanted:
                raise AlexNetError(f"{self.file}: the operators from {square.name or 'Mul'} on are no normalization")
            nodes.append(following[0])
            if wanted != "AveragePool" and value not in nodes[-1].input:
                number = self.array(nodes[-1].input[1])
                numbers.append(_rounded(number.item()) if number is not None and number.size == 1 else None)
        given = self.attributes(nodes[1])
        pads = [given.get("kernel_shape", [0])[0] // 2] * 4
        if list(square.input) != [value] * 2 or value not in nodes[-1].input or given.get("pads") != pads:
            raise AlexNetError(f"{self.file}: the operators from {square.name or 'Mul'} on are no normalization")
        return nodes[-1].output[0], ("spatial", given["kernel_shape"][0], *numbers)

    def _fit(self, value: str, node: Any) -> tuple[str, int]:
        """The averaging to 6×6 maps, written as two products: checked against the averages themselves."""
        after = [n for n in self.nodes if node.output[0] in n.input]
        rows = self.array(node.input[0])
        columns = self.array(after[0].input[1]) if len(after) == 1 and after[0].op_type == "MatMul" else None
        if rows is None or columns is None or node.input[1] != value or rows.ndim != 2:
            raise AlexNetError(f"{self.file}: the product {node.name or node.output[0]} is in no AlexNet here")
        averages = _averages(rows.shape[1]).numpy()
        if not np.allclose(rows, averages) or not np.allclose(columns, averages.T):
            raise AlexNetError(f"{self.file}: {node.name or node.output[0]} does not average to 6×6 maps")
        return after[0].output[0], 6

    def _full(self, node: Any) -> tuple[str, dict[str, np.ndarray]]:
        """A fully connected layer, outputs first: a Gemm, or a MatMul and an Add."""
        given = self.attributes(node)
        weight, *bias = self._weights(node, 1)
        if weight.ndim != 2 or {given.get("alpha", 1.0), given.get("beta", 1.0)} != {1.0} or given.get("transA"):
            raise AlexNetError(f"{self.file}: {node.name or node.output[0]} is no plain fully connected layer")
        after = node.output[0]
        adds = [n for n in self.nodes if after in n.input and n.op_type == "Add"]
        if node.op_type == "MatMul" and adds:
            bias = [np.asarray(self.array(next(name for name in adds[0].input if name != after)))]
            after = adds[0].output[0]
        return after, {"weight": weight if given.get("transB") else weight.T} | ({"bias": bias[0]} if bias else {})


def _norm_row(given: dict[str, Any], towers: int) -> Row:
    values = (given.get("alpha", 1e-4), given.get("beta", 0.75), given.get("bias", 1.0))
    return ("lrn", given.get("size"), *map(_rounded, values), towers)


def _rounded(value: float) -> float:
    """Constants are written as float32: six digits are what they have in common with ours."""
    return float(f"{value:.6g}")


def _named_like(
    rows: list[Row], input_size: int, file: str | Path, config: Config | None
) -> tuple[str, dict[str, str], list[str]]:
    """The variant and the switches whose layers compute `rows`, and the names of its layers with weights, in order.

    With the `config` of a file of ours it must be that network.
    """
    combinations = [
        {"normalization": n, "activation": a, "pooling": p}
        for n in (("batch",) if any(row[0] == "batch" for row in rows) else (None, "none", "lrn"))
        for a in (("tanh",) if ("tanh",) in rows else (None,))
        for p in (None, "non-overlapping")
    ]
    candidates = [(name, {key: v for key, v in c.items() if v}) for c in combinations for name in list_variants()]
    if config is not None:
        candidates = [(config.recipe.variant, config.switches)]
    nearest: list[Row] = []
    for variant, switches in candidates:
        with torch.device("meta"):
            network = AlexNet(variant, 1, **switches)  # type: ignore[arg-type]
        wanted, names = _rows(network.eval(), input_size)
        if _shapes_alike(wanted, rows):
            return variant, switches, names
        if not nearest or _agreeing(wanted, rows) > _agreeing(nearest, rows):
            nearest = wanted
    number = _agreeing(nearest, rows)
    here = rows[number] if number < len(rows) else "nothing more"
    there = nearest[number] if number < len(nearest) else "nothing more"
    raise AlexNetError(f"{file} is no AlexNet of `alexnet variants`: layer {number + 1} is {here}, not {there}")


def _agreeing(ours: list[Row], rows: list[Row]) -> int:
    """How many of the first rows are the same; the units of fully connected layers are left to the shapes."""
    pairs = zip(ours, rows, strict=False)
    return next(
        (i for i, (one, other) in enumerate(pairs) if one != other and (one[0], other[0]) != ("full", "full")),
        min(len(ours), len(rows)),
    )


def _shapes_alike(ours: list[Row], rows: list[Row]) -> bool:
    return len(ours) == len(rows) == _agreeing(ours, rows)


def _rows(network: AlexNet, input_size: int) -> tuple[list[Row], list[str]]:
    """Our own layers as `_Read.chain` describes those of a file, and the names of those with weights."""
    rows: list[Row] = []
    names = []
    x = torch.empty(1, 3, input_size, input_size, device="meta")
    for name, module in network.named_children():
        try:
            x = module(x)
        except RuntimeError:  # images too small for this variant
            return [], []
        after = x.shape[-1]
        if isinstance(module, Weighted | nn.BatchNorm2d):
            names.append(name)
        match module:
            case nn.Conv2d():
                kernel, stride, first = module.kernel_size[0], module.stride[0], module.padding[0]
                rows.append(("conv", module.out_channels, kernel, stride, first, module.groups, after))
            case nn.BatchNorm2d():
                rows.append(("batch", _rounded(module.eps)))
            case nn.ReLU() | nn.Tanh():
                rows.append((type(module).__name__.lower(),))
            case LocalResponseNorm():
                row = module.row
                alpha = row.alpha if row.divide_by_n else row.alpha * row.size
                rows.append(("lrn", row.size, *map(_rounded, (alpha, row.beta, row.k)), row.groups))
            case SpatialResponseNorm():
                rows.append(("spatial", module.row.size, _rounded(module.row.alpha), 1.0, -module.row.beta))
            case nn.MaxPool2d() | nn.AvgPool2d():
                kind = "pool" if isinstance(module, nn.MaxPool2d) else "mean"
                rows.append((kind, module.kernel_size, module.stride, 0, after))
            case LocallyConnected2d(kernels=kernels, size=size, padding=padding):
                rows.append(("local", kernels, size, padding, after))
            case nn.Linear():
                rows.append(("full", module.out_features))
    return rows, names


def read_onnx(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read a file."""
    return from_onnx(file.read_bytes(), file, options.mean if options else None)
