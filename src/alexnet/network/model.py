"""The network: any variant as one module."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from alexnet.network.layers import (
    CodeDistances,
    Convolution,
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
    leaves,
    output_size,
)
from alexnet.network.rows import (
    ACTIVATIONS,
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    FullyConnected,
    GlobalPool,
    Grayscale,
    Layer,
    LocallyConnected,
    LocalNorm,
    Pool,
    RadialBasis,
    Residual,
    SpatialNorm,
    WeightedLayer,
    all_rows,
)
from alexnet.network.variants import INITIALIZATIONS, NORMALIZATIONS, POOLINGS, Variant, get_variant
from alexnet.runtime.errors import UsageError, check_choice

FIT, FLATTEN = "fit", "flatten"
"""Modules between the last feature maps and the first fully connected layer that have no row."""
_NONLINEARITIES = {"relu": nn.ReLU, "tanh": nn.Tanh, "scaled-tanh": ScaledTanh}


class AlexNet(nn.Module):
    """AlexNet (paper, section 3), any variant of it.

    The initial weights are drawn from torch's global generator.

    Parameters
    ----------
    variant : str or Variant
        A name of `list_variants()`, or a table of layers.
    num_classes : int
        Units of the output layer.
    activation : {"relu", "tanh", "scaled-tanh"} or None
        The non-linearity (section 3.1). None here and below keeps what the variant has.
    normalization : {"lrn", "none", "batch"} or None
        Local response normalization (3.3), none, or batch normalization between every convolution and what follows it.
    pooling : {"overlapping", "non-overlapping"} or None
        Windows of 3×3 or of 2×2, both with stride 2 (3.4).
    drop_layer : str or None
        A convolution or residual block to leave out, any but the first, with its non-linearity and normalization (7).
    dropout : float or None
        Probability of dropping a unit, 0 up to, not including, 1; 0 for no dropout; None for 0.5 (4.2).
    init : {"paper", "released-2012", "cuda-convnet", "he", "lecun"} or None
        Initialization scheme, see `initialize`.

    Attributes
    ----------
    variant : Variant
        The table of layers, without the switches above.
    num_classes : int
        Units of the output layer.
    input_size : int
        Height and width of the nominal input, in pixels.
    init : str
        The initialization scheme.

    Raises
    ------
    UsageError
        For an unknown name, a value out of range, or a table whose layers do not fit each other.
    """

    def __init__(
        self,
        variant: str | Variant = "paper",
        num_classes: int = 1000,
        *,
        activation: str | None = None,
        normalization: str | None = None,
        pooling: str | None = None,
        drop_layer: str | None = None,
        dropout: float | None = None,
        init: str | None = None,
    ) -> None:
        super().__init__()
        table = variant if isinstance(variant, Variant) else get_variant(variant)
        if num_classes < 1:
            raise UsageError(f"num_classes is {num_classes}; a network needs at least one class")
        if dropout is not None and not 0 <= dropout < 1:
            raise UsageError(f"dropout is {dropout}; it is a probability from 0 up to, not including, 1")
        for value, allowed, parameter in (
            (activation, ACTIVATIONS, "activation"),
            (normalization, NORMALIZATIONS, "normalization"),
            (pooling, POOLINGS, "pooling"),
            (init, INITIALIZATIONS, "init"),
        ):
            if value is not None:
                check_choice(value, allowed, parameter)
        self.variant = table
        self.num_classes = num_classes
        self.input_size = table.input_size
        self.init = init or table.init
        layers = _with_normalization(table, normalization)
        if drop_layer is not None:
            layers = _without_layer(layers, drop_layer, table.name)
        builder = _Builder(
            table,
            num_classes,
            activation=activation,
            pooling=pooling,
            dropout=0.5 if dropout is None else dropout,
        )
        for name, module in builder.build(layers):
            if hasattr(self, name):
                raise UsageError(f"variant {table.name!r}: a layer can't be named {name!r}; choose another name")
            self.add_module(name, module)
        self.initialize(self.init)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch.

        Parameters
        ----------
        x : Tensor
            (N, 3, S, S) floating point: RGB pixels minus the mean. S is `input_size`; where conv1 may hang over the
            edge, 224 and 227 give the same shapes. For other sizes the last feature maps are averaged to the size
            that the first fully connected layer expects.

        Returns
        -------
        Tensor
            (N, num_classes)
        """
        for module in self.children():
            x = module(x)
        return x

    @property
    def output_layer(self) -> str:
        """Name of the layer with one unit for each class."""
        return self.variant.output_layer

    @property
    def first_convolution(self) -> str:
        """Name of the convolution that reads the pixels."""
        return self.variant.first_convolution

    @property
    def feature_layer(self) -> str:
        """Name of the layer whose activations describe an image: fc7 of the paper's network (section 6.1).

        It is the last one with weights below the output layer, or the global average pooling above that.
        """
        names = [
            name
            for name, module in self.named_children()
            if isinstance(module, Weighted | ResidualBlock | GlobalAvgPool2d) and name != self.output_layer
        ]
        return names[-1] if names else self.output_layer

    def layer_names(self) -> list[str]:
        """The names that `features` takes, from the input to the output."""
        return [name for name, _ in self.named_children() if name not in (FIT, FLATTEN)]

    def weighted_layers(self) -> list[str]:
        """Names of the layers with weights and of the output layer, from the input up; a residual block is one."""
        return [
            name
            for name, module in self.named_children()
            if isinstance(module, Weighted | ResidualBlock | CodeDistances)
        ]

    def is_fully_connected(self, layer: str) -> bool:
        """Whether a layer is fully connected: its activations are (N, units) and not (N, C, H, W)."""
        return isinstance(self.get_submodule(layer), nn.Linear | CodeDistances)

    def features(self, x: Tensor, layer: str) -> Tensor:
        """The activations of one layer.

        A convolution, residual block or fully connected layer is read after the non-linearity that follows it directly
        (`conv1` … `conv5`, `fc6`, `fc7`), so ``features(x, "fc7")`` are the 4096 numbers of the paper's section 6.1.

        Parameters
        ----------
        x : Tensor
            Input as `forward` takes it.
        layer : str
            A name of `layer_names()`.

        Returns
        -------
        Tensor
            (N, C, H, W) or (N, units)

        Raises
        ------
        UsageError
            If the network has no layer of that name.
        """
        for module in list(self.children())[: self._end_of(layer)]:
            x = module(x)
        return x

    def iter_features(self, x: Tensor, layers: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """`features` of several layers in one forward pass, from the input to the output.

        Yields the name and the activations of each layer. The activations are valid until the next item is requested:
        the modules above may work in place.

        Raises
        ------
        UsageError
            If the network has no layer of one of the names.
        """
        ends = {self._end_of(layer): layer for layer in layers}
        for number, module in enumerate(self.children(), start=1):
            x = module(x)
            if number in ends:
                yield ends[number], x

    def logits_from(self, activations: Tensor, layer: str) -> Tensor:
        """The rest of the forward pass: from what `features` returned for a layer to the logits (N, num_classes).

        Raises
        ------
        UsageError
            If the network has no layer of that name.
        """
        x = activations
        for module in list(self.children())[self._end_of(layer) :]:
            x = module(x)
        return x

    def _end_of(self, layer: str) -> int:
        """Number of modules that lie below the point where `features` reads a layer."""
        names = [name for name, _ in self.named_children()]
        check_choice(layer, self.layer_names(), "layer")
        last = names.index(layer)
        while last + 1 < len(names) and isinstance(self.get_submodule(names[last + 1]), nn.BatchNorm2d):
            last += 1
        following = self.get_submodule(names[last + 1]) if last + 1 < len(names) else None
        nonlinear = isinstance(following, tuple(_NONLINEARITIES.values()))
        if nonlinear and isinstance(self.get_submodule(layer), Convolution | nn.Linear | ResidualBlock):
            last += 1
        return last + 1

    @torch.no_grad()
    def initialize(self, scheme: str) -> None:
        """Draw all weights anew from torch's global generator.

        Parameters
        ----------
        scheme : {"paper", "released-2012", "cuda-convnet", "he", "lecun"}
            "paper" (section 5): N(0, 0.01²), and the biases of the variant's table: 1 in conv2, conv4, conv5, fc6 and
            fc7 of the paper's network. "released-2012": the same with a standard deviation of 0.03 in conv3 and above,
            as the released configurations have it. "cuda-convnet": the standard deviation of each row of the table,
            zero biases. "he": variance 2 / fan-in (1 / fan-in for tanh), zero biases, and zeros in the output layer,
            so that the loss starts at ln(classes) whatever the images are. "lecun" (LeCun et al. 1998): uniform in
            ±2.4 / fan-in, zero biases.
        """
        tanh = any(isinstance(module, nn.Tanh | ScaledTanh) for module in self.children())
        rows = {path: row for path, row in all_rows(self.variant.layers) if isinstance(row, WeightedLayer)}
        for name, module in leaves(self):
            if not isinstance(module, Weighted) or module.weight.is_meta:
                continue  # nothing to draw without memory; torch would import its compiler for it
            std, bias = 0.01, 0.0
            match scheme:
                case "paper":
                    bias = rows[name].bias or 0.0
                case "released-2012":
                    std, bias = rows[name].released_std, rows[name].bias or 0.0
                case "cuda-convnet":
                    std = rows[name].std
                case "he":
                    std = 0.0 if name == self.output_layer else math.sqrt((1 if tanh else 2) / _fan_in(module))
            if scheme == "lecun":
                fan_in = module.fan_in() if isinstance(module, PartialConv2d) else _fan_in(module)
                module.weight.copy_(nn.init.uniform_(module.weight, -2.4, 2.4) / fan_in)
            else:
                nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)

    def summary(self) -> str:
        """The network as a table: output shape, kernels, parameters, multiply-adds and neurons of each layer."""
        rows: list[tuple[str, ...]] = [
            ("layer", "output", "kernels", "stride/pad", "groups", "parameters", "multiply-adds", "neurons")
        ]
        totals = [0, 0, 0]
        size = self.input_size
        rows.append(("input", f"3×{size}×{size}", "", "", "", "", "", ""))
        for cost in self.costs():
            totals = [a + b for a, b in zip(totals, (cost.parameters, cost.multiply_adds, cost.neurons), strict=True)]
            numbers = (f"{n:,}" if n else "" for n in (cost.parameters, cost.multiply_adds, cost.neurons))
            rows.append((cost.name, "×".join(map(str, cost.output)), *_shape_cells(cost.module), *numbers))
        rows.append(("total", "", "", "", "", *(f"{n:,}" for n in totals)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(c.ljust(w) if i < 5 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def costs(self, side: int | None = None) -> list[LayerCost]:
        """The cost of each layer for one image.

        Parameters
        ----------
        side : int or None
            Height and width of the image in pixels, by default `input_size`.

        Returns
        -------
        list of LayerCost
            One for each layer, and for each layer of a residual block, in the order in which they are computed.
        """
        shadow = copy.deepcopy(self).to("meta").eval()
        side = self.input_size if side is None else side
        result: list[LayerCost] = []

        def measure(name: str, module: nn.Module, inputs: tuple[Tensor, ...], x: Tensor) -> None:
            parameters = sum(p.numel() for p in module.parameters())
            multiply_adds = neurons = 0
            if isinstance(module, Weighted):
                positions = x[0, 0].numel() if isinstance(module, Convolution) else 1
                multiply_adds = module.weight.numel() * positions
                neurons = x.numel()
            shapes = tuple(inputs[0].shape[1:]), tuple(x.shape[1:])
            result.append(LayerCost(name, *shapes, module, parameters, multiply_adds, neurons))

        for name, module in leaves(shadow):
            if name not in (FIT, FLATTEN):
                module.register_forward_hook(partial(measure, name))
        shadow(torch.empty(1, 3, side, side, device="meta"))
        return result


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one image.

    Parameters
    ----------
    name : str
        Name of the layer; its path, in a residual block.
    input, output : tuple of int
        Shapes of its input and output, without the batch.
    module : Module
        The layer itself, on the meta device.
    parameters, multiply_adds, neurons : int
        Numbers of each; the additions of the biases are not counted.
    """

    name: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    module: nn.Module
    parameters: int
    multiply_adds: int
    neurons: int


def towers_of(network: AlexNet) -> int:
    """Number of towers of a network (paper, section 3.2): the largest number of groups of a convolution."""
    return max(m.groups for m in network.children() if isinstance(m, Convolution))


def _fan_in(module: Weighted) -> float:
    """The mean number of inputs of a unit."""
    return float(module.fan_in().double().mean()) if isinstance(module, PartialConv2d) else module.weight[0].numel()


class _Builder:
    """Turns the rows of a table into named modules, row by row; knows the shape that each row reads."""

    def __init__(
        self,
        variant: Variant,
        num_classes: int,
        *,
        activation: str | None,
        pooling: str | None,
        dropout: float,
    ) -> None:
        self.variant, self.num_classes = variant, num_classes
        self.activation, self.pooling, self.dropout = activation, pooling, dropout
        self.channels, self.side = 3, variant.input_size  # units, once the feature maps are flattened
        self.flat = False

    def build(self, layers: Sequence[Layer]) -> Iterator[tuple[str, nn.Module]]:
        """The modules, each with its name."""
        for row in layers:
            yield from self._modules(row)
            if self.side < 1:
                raise UsageError(f"variant {self.variant.name!r}: {row.name} has no output for its input size")

    def _modules(self, row: Layer) -> Iterator[tuple[str, nn.Module]]:  # noqa: PLR0912
        match row:
            case Conv():
                yield row.name, self._convolution(row)
            case LocallyConnected():
                local = LocallyConnected2d(self.channels, row.kernels, row.size, row.padding, self.side)
                yield row.name, local
                self.channels, self.side = row.kernels, local.output_side
            case LocalNorm():
                yield row.name, LocalResponseNorm(row)
            case SpatialNorm():
                yield row.name, SpatialResponseNorm(row)
            case BatchNorm():
                yield row.name, nn.BatchNorm2d(self.channels)
            case Activation():
                kind = self.activation or row.kind
                yield row.name, nn.ReLU(inplace=True) if kind == "relu" else _NONLINEARITIES[kind]()
            case Pool():
                yield row.name, self._pooling(row)
            case GlobalPool():
                yield row.name, GlobalAvgPool2d()
                self.side = 1
            case Dropout() if self.dropout:
                yield row.name, nn.Dropout(self.dropout)
            case Grayscale():
                yield row.name, Luminance()
                self.channels = 1
            case Residual():
                yield row.name, self._residual(row)
            case FullyConnected():
                yield from self._flattened()
                units = self.num_classes if row.units is None else row.units
                yield row.name, nn.Linear(self.channels, units)
                self.channels = units
            case RadialBasis():
                yield from self._flattened()
                yield row.name, CodeDistances(self.channels, self.num_classes)

    def _convolution(self, row: Conv) -> nn.Conv2d | PartialConv2d:
        where = f"variant {self.variant.name!r}: {row.name}"
        channels, self.channels = self.channels, row.kernels
        if row.connections is not None:
            read = {channel for channels in row.connections for channel in channels}
            if len(row.connections) != row.kernels or not read <= set(range(channels)):
                raise UsageError(f"{where} has connections that do not fit {channels} channels, {row.kernels} kernels")
            self.side -= row.size - 1
            return PartialConv2d(channels, row.connections, row.size)
        if channels % row.groups or row.kernels % row.groups:
            raise UsageError(
                f"{where} has {row.groups} groups, which do not divide its {channels} input channels and "
                f"{row.kernels} kernels"
            )
        kind = OverhangConv2d if row.overhang else nn.Conv2d
        options = {"stride": row.stride, "padding": row.padding, "groups": row.groups}
        conv = kind(channels, row.kernels, row.size, bias=row.bias is not None, **options)  # type: ignore[arg-type]
        self.side = output_size(conv, self.side + 2 * row.padding)
        return conv

    def _pooling(self, row: Pool) -> nn.Module:
        if self.pooling == "non-overlapping" and row.size > row.stride:
            row = replace(row, size=2, stride=2, padding=0, ceil=False)
        elif self.pooling == "overlapping" and row.size <= row.stride:
            row = replace(row, size=3, stride=2, ceil=True)
        self.side = (self.side + 2 * row.padding - row.size + row.ceil * (row.stride - 1)) // row.stride + 1
        if row.trainable:
            return ScaledAvgPool2d(self.channels, row.size, row.stride, ceil_mode=row.ceil)
        if row.average:
            return nn.AvgPool2d(row.size, row.stride, ceil_mode=row.ceil)
        return nn.MaxPool2d(row.size, row.stride, row.padding, ceil_mode=row.ceil)

    def _residual(self, row: Residual) -> ResidualBlock:
        channels, side = self.channels, self.side
        parts = []
        for layers in (row.layers, row.shortcut):
            self.channels, self.side = channels, side
            modules = dict(self.build(layers))
            first = next(iter(modules.values()), None)
            if isinstance(first, nn.ReLU):
                first.inplace = False  # the other part reads the same input
            parts.append((nn.Sequential(OrderedDict(modules)), self.channels, self.side))
        (body, *shape), (shortcut, *other) = parts
        if shape != other:
            sizes = [f"{maps} channels of {side}×{side}" for maps, side in (shape, other)]
            raise UsageError(f"variant {self.variant.name!r}: {row.name} adds {sizes[0]} to {sizes[1]} of its shortcut")
        return ResidualBlock(body, shortcut)

    def _flattened(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules before the first fully connected layer."""
        if not self.flat:
            # The identity on the nominal input; makes every variant read other sizes.
            yield FIT, nn.AdaptiveAvgPool2d(self.side)
            yield FLATTEN, nn.Flatten()
            self.channels, self.flat = self.channels * self.side**2, True


def _with_normalization(variant: Variant, normalization: str | None) -> tuple[Layer, ...]:
    """The table with the normalization that replaces its own, None for its own."""
    if normalization is None or (normalization == "batch" and variant.has_batch_norm):
        return variant.layers
    if normalization == "lrn":
        return _with_lrn(variant)
    return tuple(_normalized(variant.layers, batch=normalization == "batch"))


def _normalized(layers: Sequence[Layer], *, batch: bool) -> Iterator[Layer]:
    """The rows without normalization, or with batch normalization after each convolution in its place."""
    for row in layers:
        match row:
            case LocalNorm() | SpatialNorm() | BatchNorm():
                continue
            case Residual():
                body, shortcut = (tuple(_normalized(part, batch=batch)) for part in (row.layers, row.shortcut))
                yield replace(row, layers=body, shortcut=shortcut)
            case Conv() if batch and row.connections is None:
                yield replace(row, bias=None)
                yield BatchNorm(row.batch_norm_name)
            case Conv() if row.bias is None:  # a shift of the batch normalization took its place
                yield replace(row, bias=0.0)
            case _:
                yield row


def _with_lrn(variant: Variant) -> tuple[Layer, ...]:
    """The table with local response normalization: its own, or, without one, where its activations name one."""
    if any(isinstance(row, LocalNorm) for row in variant.layers):
        return variant.layers
    added: list[Layer] = []
    for row in variant.layers:
        added.append(row)
        if isinstance(row, Activation) and row.lrn:
            added.append(LocalNorm(row.lrn))
    if len(added) == len(variant.layers):
        raise UsageError(
            f"normalization is 'lrn'; variant {variant.name!r} has no place for it: no Activation of it has an `lrn`"
        )
    return tuple(added)


def _without_layer(layers: tuple[Layer, ...], name: str, variant: str) -> tuple[Layer, ...]:
    """The table without a layer, its non-linearity and normalization; a pooling stays for the layers above."""
    droppable = [row.name for row in layers if isinstance(row, Conv | LocallyConnected | Residual)]
    check_choice(name, droppable[1:], f"layer to leave out of {variant}:")
    kept: list[Layer] = []
    dropping = False
    for row in layers:
        if isinstance(row, WeightedLayer | Residual | RadialBasis):
            dropping = row.name == name
        if not dropping or isinstance(row, Pool | GlobalPool | Dropout):
            kept.append(row)
    return tuple(kept)


def _shape_cells(module: nn.Module) -> tuple[str, str, str]:  # noqa: PLR0911
    """Kernels, stride/padding and groups of a layer, as `summary` prints them."""
    match module:
        case nn.Conv2d():
            kernels, channels, height, width = module.weight.shape
            return (
                f"{kernels} of {channels}×{height}×{width}",
                f"{module.stride[0]}/{module.padding[0]}",
                str(module.groups),
            )
        case PartialConv2d():
            size = module.kernel_size[0]
            return f"{module.out_channels} of up to {module.in_channels}×{size}×{size}", "1/0", "1"
        case nn.Linear():
            return f"{module.in_features}→{module.out_features}", "", ""
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "max" if isinstance(module, nn.MaxPool2d) else "mean"
            return f"{kind} {module.kernel_size}×{module.kernel_size}", f"{module.stride}/{module.padding}", ""
        case LocallyConnected2d(kernels=kernels, channels=channels, size=size, padding=padding):
            return f"{kernels} of {channels}×{size}×{size} per position", f"1/{padding}", ""
        case LocalResponseNorm():
            return f"{module.row.size} channels", "", str(module.row.groups)
        case SpatialResponseNorm():
            return f"{module.row.size}×{module.row.size}", "", ""
    return "", "", ""
