"""ONNX: our networks written as a graph, operator by operator, for any engine that reads it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet import __version__
from alexnet.data.augment import Preprocess
from alexnet.errors import AlexNetError
from alexnet.model import AlexNet, LocalResponseNorm, OverhangConv2d, SpatialResponseNorm

if TYPE_CHECKING:
    import onnx

OPSET = 17  # of 2022: every operator below exists in it, and ONNX Runtime has read it since 1.13
IR_VERSION = 8


def to_onnx(
    network: AlexNet,
    *,
    side: int | None = None,
    softmax: bool = False,
    preprocess: Preprocess | None = None,
) -> onnx.ModelProto:
    """The network as an ONNX model with a dynamic batch, float32, as in evaluation mode.

    Input `images`: (N, 3, side, side) float32, what `AlexNet.forward` takes; `side` is the network's own where None.
    With `preprocess` the input is `pictures` instead, (N, size, size, 3) uint8 RGB, of which the graph itself takes
    the central patch and subtracts the mean, as `Preprocess.centre` does; `side` is then that of the preprocessing.
    Output `logits`: (N, classes) float32, or `probabilities` with `softmax`. The weights keep their names.
    Raises `AlexNetError` where the onnx package is missing.
    """
    onnx = _package()
    graph = _Graph(onnx)
    if preprocess is None:
        side = side or network.input_size
        value, shape = "images", ["N", 3, side, side]
        graph.inputs.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape))
    else:
        side = preprocess.side or preprocess.crop
        value, shape = "pictures", ["N", preprocess.size, preprocess.size, 3]
        graph.inputs.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.UINT8, shape))
        value = _add_preprocess(graph, preprocess, value)
    shadow = copy.deepcopy(network).to("meta", torch.float32).eval()
    x = torch.empty(1, 3, side, side, device="meta")
    for name, module in network.named_children():
        value = _add(graph, name, module, x.shape, value)
        x = shadow.get_submodule(name)(x)
    if softmax:
        value = graph.add("Softmax", "probabilities", [value], axis=1)
    output = onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, ["N", network.num_classes])
    proto = onnx.helper.make_graph(graph.nodes, "alexnet", graph.inputs, [output], graph.constants)
    return onnx.helper.make_model(
        proto,
        producer_name="alexnet",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )


class _Graph:
    """The nodes and constants of a graph that grows; each node is named after its output."""

    def __init__(self, onnx: ModuleType) -> None:
        self.onnx = onnx
        self.inputs: list[Any] = []
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, output: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Tensor | np.ndarray | float) -> str:
        array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else np.asarray(value, np.float32)
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def _add_preprocess(graph: _Graph, preprocess: Preprocess, pictures: str) -> str:
    """Central patch, minus the mean, times the scale, at the network's side."""
    size, crop = preprocess.size, preprocess.crop
    first = (size - crop) // 2
    mean = preprocess.mean[first : first + crop, first : first + crop]
    if crop < size:
        places = [
            graph.integers("centre.first", [first, first]),
            graph.integers("centre.end", [first + crop, first + crop]),
            graph.integers("centre.axes", [1, 2]),
        ]
        pictures = graph.add("Slice", "centre", [pictures, *places])
    value = graph.add("Cast", "centre.float", [pictures], to=graph.onnx.TensorProto.FLOAT)
    value = graph.add("Sub", "centre.less_mean", [value, graph.constant("preprocess.mean", mean)])
    value = graph.add("Mul", "centre.scaled", [value, graph.constant("preprocess.scale", preprocess.scale)])
    value = graph.add("Transpose", "centre.planes", [value], perm=[0, 3, 1, 2])
    side = preprocess.side or crop
    if side == crop:
        return value
    # Antialiased resizing is linear along each side: what it makes of the unit vectors is its matrix.
    rows = functional.interpolate(torch.eye(crop)[None, None], size=(side, crop), mode="bilinear", antialias=True)[0, 0]
    return _both_sides(graph, "resized", rows, value)


def _both_sides(graph: _Graph, name: str, rows: Tensor, value: str) -> str:
    """`rows` (new, old) applied to the rows and to the columns of every map."""
    down = graph.constant(f"{name}.rows", rows)
    across = graph.constant(f"{name}.columns", rows.T)
    return graph.add("MatMul", name, [graph.add("MatMul", f"{name}.down", [down, value]), across])


def _add(graph: _Graph, name: str, module: nn.Module, shape: torch.Size, value: str) -> str:  # noqa: PLR0911, PLR0912
    """The nodes of one module that reads `value`, a tensor of `shape`; returns the name of what it gives."""
    match module:
        case nn.Conv2d():
            kernel, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
            before, after = [padding, padding], [padding, padding]
            if isinstance(module, OverhangConv2d):
                after = [padding + over for over in module.overhang(shape[2:])]
            return graph.add(
                *("Conv", name, [value, *_parameters(graph, name, module)]),
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[*before, *after],
                group=module.groups,
            )
        case nn.BatchNorm2d():
            names = ("weight", "bias", "running_mean", "running_var")
            inputs = [graph.constant(f"{name}.{part}", getattr(module, part)) for part in names]
            return graph.add("BatchNormalization", name, [value, *inputs], epsilon=module.eps)
        case LocalResponseNorm():
            return _add_local_norm(graph, name, module, shape[1], value)
        case SpatialResponseNorm():
            return _add_spatial_norm(graph, name, module, value)
        case nn.ReLU():
            return graph.add("Relu", name, [value])
        case nn.Tanh():
            return graph.add("Tanh", name, [value])
        case nn.MaxPool2d():
            window, strides = [module.kernel_size] * 2, [module.stride] * 2
            ceil = int(module.ceil_mode)
            return graph.add("MaxPool", name, [value], kernel_shape=window, strides=strides, ceil_mode=ceil)
        case nn.AdaptiveAvgPool2d():
            if tuple(shape[2:]) == (6, 6):
                return value
            rows = functional.adaptive_avg_pool2d(torch.eye(shape[2])[None], (6, shape[3]))[0]
            return _both_sides(graph, name, rows, value)
        case nn.Flatten():
            return graph.add("Flatten", name, [value], axis=1)
        case nn.Linear():
            return graph.add("Gemm", name, [value, *_parameters(graph, name, module)], transB=1)
        case nn.Dropout():
            return value
    raise AlexNetError(f"the layer {name} ({type(module).__name__}) has no form in ONNX here")


def _parameters(graph: _Graph, name: str, module: nn.Conv2d | nn.Linear) -> list[str]:
    """The weights, and the biases where there are any."""
    parts = [("weight", module.weight)] + ([("bias", module.bias)] if module.bias is not None else [])
    return [graph.constant(f"{name}.{part}", values) for part, values in parts]


def _add_local_norm(graph: _Graph, name: str, module: LocalResponseNorm, maps: int, value: str) -> str:
    """ONNX divides alpha by the size, and knows no towers: each is split off and normalised for itself."""
    row = module.row
    attributes = {
        "size": row.size,
        "alpha": row.alpha if row.divide_by_n else row.alpha * row.size,
        "beta": row.beta,
        "bias": row.k,
    }
    if row.groups == 1:
        return graph.add("LRN", name, [value], **attributes)
    towers = [f"{name}.tower{number}" for number in range(1, row.groups + 1)]
    parts = graph.integers(f"{name}.maps", [maps // row.groups] * row.groups)
    graph.nodes.append(graph.onnx.helper.make_node("Split", [value, parts], towers, name=f"{name}.towers", axis=1))
    normalized = [graph.add("LRN", f"{tower}.normalized", [tower], **attributes) for tower in towers]
    return graph.add("Concat", name, normalized, axis=1)


def _add_spatial_norm(graph: _Graph, name: str, module: SpatialResponseNorm, value: str) -> str:
    """x · (1 + alpha · the mean square of the neighbourhood, zeros outside the map among it) ^ -beta."""
    row = module.row
    squares = graph.add("Mul", f"{name}.squares", [value, value])
    energy = graph.add(
        *("AveragePool", f"{name}.energy", [squares]),
        kernel_shape=[row.size, row.size],
        pads=[row.size // 2] * 4,
        count_include_pad=1,
    )
    weighted = graph.add("Mul", f"{name}.weighted", [energy, graph.constant(f"{name}.alpha", row.alpha)])
    base = graph.add("Add", f"{name}.base", [weighted, graph.constant(f"{name}.one", 1.0)])
    factor = graph.add("Pow", f"{name}.factor", [base, graph.constant(f"{name}.power", -row.beta)])
    return graph.add("Mul", name, [value, factor])


def _package() -> ModuleType:
    """The onnx package, which is an extra."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise AlexNetError(f"ONNX needs the onnx package: pip install 'alexnet[onnx]' ({error})") from None
    return onnx
