"""Networks written as ONNX graphs, operator by operator, for any engine that reads them."""

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
from alexnet.data.augmentation import Preprocessing
from alexnet.network.layers import (
    LUMINANCE,
    CodeDistances,
    GlobalAvgPool2d,
    LocallyConnected2d,
    LocalResponseNorm,
    Luminance,
    OverhangConv2d,
    PartialConv2d,
    ResidualBlock,
    ScaledAvgPool2d,
    ScaledTanh,
    SpatialResponseNorm,
    Weighted,
)
from alexnet.network.model import AlexNet
from alexnet.runs.run import MEAN
from alexnet.runtime.errors import AlexNetError

if TYPE_CHECKING:
    import onnx

OPSET = 17  # of 2022: it has every operator below, and ONNX Runtime reads it since 1.13
IR_VERSION = 8
CONFIG = "alexnet.config"
"""Key of the model's metadata under which a run's config.json is stored."""


DECISION = "alexnet.decision"
"""Key under which the decision.json of a run is stored."""
FEATURES = "features"


def to_onnx(
    network: AlexNet,
    *,
    input_size: int | None = None,
    softmax: bool = False,
    preprocess: Preprocessing | None = None,
    config: str | None = None,
    decision: str | None = None,
    features: bool = False,
    int8: bool = False,
) -> onnx.ModelProto:
    """Convert a network to an ONNX model with a dynamic batch size, float32, in evaluation mode.

    Parameters
    ----------
    network : AlexNet
        The network.
    input_size : int, optional
        Side of its input in pixels; by default that of the variant. Without effect with `preprocess`.
    softmax : bool
        Whether the output is ``probabilities`` instead of ``logits``, (N, classes) float32.
    preprocess : Preprocessing, optional
        Preprocessing that becomes part of the model. Its input is then ``images``, (N, size, size, 3) uint8 RGB, of
        which the graph computes `Preprocessing.center`; otherwise ``input``, (N, 3, input_size, input_size) float32.
    config : str, optional
        A config.json that is stored in the model's metadata, for `from_onnx`.
    decision : str, optional
        A decision.json that is stored in the model's metadata.
    features : bool
        Whether the model has a second output, ``features``, (N, units) float32: the input of the output layer, from
        which the distance of a decision rule is computed.
    int8 : bool
        Whether the weights are stored as 8-bit integers with one scale per kernel or unit. Those of batch
        normalization, and the computation, stay float32.

    Returns
    -------
    onnx.ModelProto
        The model; its weights have the names of the network's state dict.

    Raises
    ------
    AlexNetError
        If the package onnx is missing.
    """
    onnx = onnx_package()
    graph = _Graph(onnx, int8)
    if preprocess is None:
        input_size = input_size or network.input_size
        value, shape = "input", ["N", 3, input_size, input_size]
        graph.inputs.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape))
    else:
        input_size = preprocess.input_size or preprocess.crop_size
        value, shape = "images", ["N", preprocess.size, preprocess.size, 3]
        graph.inputs.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.UINT8, shape))
        value = _add_preprocess(graph, preprocess, value)
    shadow = copy.deepcopy(network).to("meta", torch.float32).eval()
    x = torch.empty(1, 3, input_size, input_size, device="meta")
    value = _add_sequence(graph, "", network, shadow, x, value)
    if softmax:
        value = graph.add("Softmax", "probabilities", [value], axis=1)
    outputs = [onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, ["N", network.num_classes])]
    if features:
        last = next(node for node in graph.nodes if node.name == network.variant.output_layer)
        units = graph.add("Flatten", FEATURES, [last.input[0]], axis=1)
        outputs.append(onnx.helper.make_tensor_value_info(units, onnx.TensorProto.FLOAT, ["N", None]))
    proto = onnx.helper.make_graph(graph.nodes, "alexnet", graph.inputs, outputs, graph.constants)
    model = onnx.helper.make_model(
        proto,
        producer_name="alexnet",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    stored = {CONFIG: config, DECISION: decision}
    if known := {key: value for key, value in stored.items() if value is not None}:
        onnx.helper.set_model_props(model, known)
    return model


class _Graph:
    """The nodes and constants of a graph under construction; each node is named after its output."""

    def __init__(self, onnx: ModuleType, int8: bool) -> None:
        self.onnx, self.int8 = onnx, int8
        self.inputs: list[Any] = []
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, output: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Tensor | np.ndarray | float) -> str:
        array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(array, np.float32, order="C"), name))
        return name

    def weight(self, name: str, values: Tensor) -> str:
        """The weights of a layer, outputs first."""
        if not self.int8:
            return self.constant(name, values)
        values = values.detach().cpu().float()
        scale = (values.flatten(1).abs().amax(1) / 127).clamp(min=1e-30)
        integers = (values / scale.reshape(-1, *[1] * (values.dim() - 1))).round().to(torch.int8)
        self.constants.append(self.onnx.numpy_helper.from_array(integers.numpy(), f"{name}.int8"))
        return self.add("DequantizeLinear", name, [f"{name}.int8", self.constant(f"{name}.scale", scale)], axis=0)

    def integers(self, name: str, values: Sequence[int]) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def _add_preprocess(graph: _Graph, preprocess: Preprocessing, images: str) -> str:
    """The center crop minus the mean, times the scale, resized to the input size."""
    size, crop_size = preprocess.size, preprocess.crop_size
    first = (size - crop_size) // 2
    value = graph.add("Cast", "images.float", [images], to=graph.onnx.TensorProto.FLOAT)
    # The whole mean image, although one crop of it is used, so that the run can be restored from the file.
    value = graph.add("Sub", "images.less_mean", [value, graph.constant(MEAN, preprocess.mean)])
    if crop_size < size:
        bounds = [
            graph.integers("center.first", [first, first]),
            graph.integers("center.end", [first + crop_size, first + crop_size]),
            graph.integers("center.axes", [1, 2]),
        ]
        value = graph.add("Slice", "center", [value, *bounds])
    value = graph.add("Mul", "center.scaled", [value, graph.constant("preprocess.scale", preprocess.scale)])
    value = graph.add("Transpose", "center.planes", [value], perm=[0, 3, 1, 2])
    input_size = preprocess.input_size or crop_size
    if input_size == crop_size:
        return value
    # Antialiased resizing is linear along each axis: the resized unit vectors are its matrix.
    rows = functional.interpolate(
        torch.eye(crop_size)[None, None], size=(input_size, crop_size), mode="bilinear", antialias=True
    )[0, 0]
    return _both_axes(graph, "resized", rows, value)


def _both_axes(graph: _Graph, name: str, rows: Tensor, value: str) -> str:
    """The matrix `rows` (new, old) applied to the columns and to the rows of every feature map.

    The constant is the second factor of both products: OpenCV's reader (4.6) takes no other.
    """
    columns = graph.constant(f"{name}.columns", rows.T)
    across = graph.add("MatMul", f"{name}.across", [value, columns])
    turned = graph.add("Transpose", f"{name}.turned", [across], perm=[0, 1, 3, 2])
    down = graph.add("MatMul", f"{name}.down", [turned, columns])
    return graph.add("Transpose", name, [down], perm=[0, 1, 3, 2])


def _add_sequence(graph: _Graph, path: str, modules: nn.Module, shadow: nn.Module, x: Tensor, value: str) -> str:
    """Add the nodes of modules one after the other; `shadow`, on the meta device, computes the shapes from `x`."""
    for name, module in modules.named_children():
        twin = shadow.get_submodule(name)
        if isinstance(module, ResidualBlock):
            parts = [
                _add_sequence(graph, f"{path}{name}.{part}.", inner, twin.get_submodule(part), x, value)
                for part, inner in module.named_children()
            ]
            value = graph.add("Add", f"{path}{name}", parts)
        else:
            value = _add(graph, f"{path}{name}", module, x.shape, value)
        x = twin(x)
    return value


def _add(graph: _Graph, name: str, module: nn.Module, shape: torch.Size, value: str) -> str:  # noqa: PLR0911, PLR0912
    """Add the nodes of a module that reads `value`, a tensor of `shape`; returns the name of its output."""
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
        case PartialConv2d():
            return _add_partial(graph, name, module, value)
        case Luminance():
            return graph.add(
                "Conv",
                name,
                [value, graph.constant(f"{name}.colors", torch.tensor(LUMINANCE).view(1, 3, 1, 1))],
                kernel_shape=[1, 1],
            )
        case ScaledTanh():
            inner = graph.add("Mul", f"{name}.inner", [value, graph.constant(f"{name}.slope", 2 / 3)])
            outer = graph.add("Tanh", f"{name}.tanh", [inner])
            return graph.add("Mul", name, [outer, graph.constant(f"{name}.height", 1.7159)])
        case CodeDistances():
            return _add_distances(graph, name, module, value)
        case LocalResponseNorm():
            return _add_local_norm(graph, name, module, shape[1], value)
        case SpatialResponseNorm():
            return _add_spatial_norm(graph, name, module, value)
        case nn.ReLU():
            return graph.add("Relu", name, [value])
        case nn.Tanh():
            return graph.add("Tanh", name, [value])
        case nn.MaxPool2d() | nn.AvgPool2d():
            operator = "MaxPool" if isinstance(module, nn.MaxPool2d) else "AveragePool"
            window, strides, pads = [module.kernel_size] * 2, [module.stride] * 2, [module.padding] * 4
            options = {"kernel_shape": window, "strides": strides, "pads": pads, "ceil_mode": int(module.ceil_mode)}
            if not isinstance(module, ScaledAvgPool2d):
                return graph.add(operator, name, [value], **options)
            average = graph.add(operator, f"{name}.average", [value], **options)
            weight, bias = (_per_channel(graph, f"{name}.{part}", getattr(module, part)) for part in ("weight", "bias"))
            return graph.add("Add", name, [graph.add("Mul", f"{name}.scaled", [average, weight]), bias])
        case GlobalAvgPool2d():
            return graph.add("GlobalAveragePool", name, [value])
        case nn.AdaptiveAvgPool2d():
            side = module.output_size
            assert isinstance(side, int)
            if tuple(shape[2:]) == (side, side):
                return value
            return _both_axes(graph, name, _adaptive_average(shape[2], side), value)
        case LocallyConnected2d():
            return _add_local(graph, name, module, value)
        case nn.Flatten():
            return graph.add("Flatten", name, [value], axis=1)
        case nn.Linear():
            return graph.add("Gemm", name, [value, *_parameters(graph, name, module)], transB=1)
        case nn.Dropout():
            return value
    raise TypeError(f"the layer {name} is a {type(module).__name__}")


def _parameters(graph: _Graph, name: str, module: Weighted) -> list[str]:
    """The names of the weights, and of the biases if the module has some."""
    weight = graph.weight(f"{name}.weight", module.weight)
    return [weight] if module.bias is None else [weight, graph.constant(f"{name}.bias", module.bias)]


def _per_channel(graph: _Graph, name: str, values: Tensor) -> str:
    """A number for each channel, in the shape that ONNX broadcasts over feature maps."""
    shape = graph.integers(f"{name}.shape", [len(values), 1, 1])
    return graph.add("Reshape", f"{name}.maps", [graph.constant(name, values), shape])


def _add_partial(graph: _Graph, name: str, module: PartialConv2d, value: str) -> str:
    """A convolution of kernels with zeros for the channels that they do not read."""
    weight, bias = _parameters(graph, name, module)
    zeros = graph.constant(f"{name}.nothing", torch.zeros(1, module.weight.shape[1]))
    padded = graph.add("Concat", f"{name}.padded", [weight, zeros], axis=0)
    rows = graph.integers(f"{name}.rows", module.rows())
    gathered = graph.add("Gather", f"{name}.gathered", [padded, rows], axis=0)
    sides = graph.integers(f"{name}.sides", [module.out_channels, module.in_channels, *module.kernel_size])
    whole = graph.add("Reshape", f"{name}.whole", [gathered, sides])
    return graph.add("Conv", name, [value, whole, bias], kernel_shape=list(module.kernel_size))


def _add_distances(graph: _Graph, name: str, module: CodeDistances, value: str) -> str:
    """Minus the squared distance from the code of each class: 2·x·c - x·x - c·c."""
    codes = graph.constant(f"{name}.codes", module.codes)
    axis = graph.integers(f"{name}.axis", [1])

    def norms(part: str, vectors: str, keepdims: int) -> str:
        squares = graph.add("Mul", f"{name}.{part}.squares", [vectors, vectors])
        return graph.add("ReduceSum", f"{name}.{part}", [squares, axis], keepdims=keepdims)

    products = graph.add("Gemm", f"{name}.products", [value, codes], transB=1, alpha=2.0)
    without = graph.add("Sub", f"{name}.without", [products, norms("units", value, 1)])
    return graph.add("Sub", name, [without, norms("norms", codes, 0)])


def _add_local(graph: _Graph, name: str, module: LocallyConnected2d, value: str) -> str:
    """A locally connected layer: a convolution that unfolds the windows, and one matrix product per position."""
    crop, places, kernels = module.channels * module.size**2, module.output_side**2, module.kernels

    def shaped(part: str, value: str, *sides: int) -> str:
        return graph.add("Reshape", f"{name}.{part}", [value, graph.integers(f"{name}.{part}.shape", sides)])

    copied = graph.add(
        *("Conv", f"{name}.copied", [value, graph.constant(f"{name}.copies", _copies(module.channels, module.size))]),
        kernel_shape=[module.size] * 2,
        pads=[module.padding] * 4,
        group=module.channels,
    )
    crops = graph.add("Transpose", f"{name}.places", [shaped("crops", copied, 0, crop, places)], perm=[2, 0, 1])
    weight, bias = _parameters(graph, name, module)
    rows = graph.add("Transpose", f"{name}.columns", [shaped("rows", weight, places, kernels, crop)], perm=[0, 2, 1])
    sums = graph.add("MatMul", f"{name}.sums", [crops, rows])
    units = graph.add("Add", f"{name}.units", [sums, shaped("biases", bias, places, 1, kernels)])
    maps = graph.add("Transpose", f"{name}.maps", [units], perm=[1, 2, 0])
    sides = graph.integers(f"{name}.shape", [0, kernels, module.output_side, module.output_side])
    return graph.add("Reshape", name, [maps, sides])


def _copies(channels: int, size: int) -> Tensor:
    """Kernels that each copy one position of a window: (channels · size · size, 1, size, size)."""
    return torch.eye(size**2).reshape(size**2, 1, size, size).repeat(channels, 1, 1, 1)


def _add_local_norm(graph: _Graph, name: str, module: LocalResponseNorm, channels: int, value: str) -> str:
    """ONNX divides alpha by the size and has no groups: each tower is split off and normalized by itself."""
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
    parts = graph.integers(f"{name}.maps", [channels // row.groups] * row.groups)
    graph.nodes.append(graph.onnx.helper.make_node("Split", [value, parts], towers, name=f"{name}.towers", axis=1))
    normalized = [graph.add("LRN", f"{tower}.normalized", [tower], **attributes) for tower in towers]
    return graph.add("Concat", name, normalized, axis=1)


def _add_spatial_norm(graph: _Graph, name: str, module: SpatialResponseNorm, value: str) -> str:
    """x · (1 + alpha · mean square of the zero-padded neighborhood) ^ -beta."""
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


def onnx_package() -> ModuleType:
    """Import the package onnx, which is an extra. Raises `AlexNetError` if it is missing."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise AlexNetError(f"ONNX requires the package onnx: pip install 'alexnet[onnx]' ({error})") from None
    return onnx


def _adaptive_average(old: int, new: int) -> Tensor:
    """Adaptive average pooling of `old` positions to `new` as a matrix, (new, old)."""
    return functional.adaptive_avg_pool2d(torch.eye(old)[None], (new, old))[0]
