"""The network: any variant as one module."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.network.layers import (
    LocallyConnected2d,
    LocalResponseNorm,
    OverhangConv2d,
    SpatialResponseNorm,
    Weighted,
    output_size,
)
from alexnet.network.variants import (
    ACTIVATIONS,
    INITIALIZATIONS,
    NORMALIZATIONS,
    POOLINGS,
    Activation,
    Conv,
    Dropout,
    FullyConnected,
    Layer,
    LocallyConnected,
    LocalNorm,
    Pool,
    SpatialNorm,
    Variant,
    WeightedLayer,
    get_variant,
)
from alexnet.runtime.errors import UsageError, check_choice

FIT, FLATTEN = "fit", "flatten"
"""Modules between the last feature maps and the first fully connected layer that have no row."""


class AlexNet(nn.Module):
    """AlexNet (paper, section 3), any variant of it.

    The initial weights are drawn from torch's global generator.

    Parameters
    ----------
    variant : str or Variant
        A name of `list_variants()`, or a table of layers.
    num_classes : int
        Units of the output layer.
    activation : {"relu", "tanh"} or None
        The non-linearity (section 3.1). None here and below keeps what the variant has.
    normalization : {"lrn", "none", "batch"} or None
        Local response normalization (3.3), none, or batch normalization between every convolution and what follows it.
    pooling : {"overlapping", "non-overlapping"} or None
        Windows of 3×3 or of 2×2, both with stride 2 (3.4).
    drop_layer : str or None
        A convolution to leave out, any but the first, with its non-linearity and normalization (7).
    dropout : float or None
        Probability of dropping a unit, 0 up to, not including, 1; 0 for no dropout; None for 0.5 (4.2).
    init : {"paper", "released-2012", "cuda-convnet", "he"} or None
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
        layers = _with_lrn(table) if normalization == "lrn" else table.layers
        if drop_layer is not None:
            layers = _without_layer(layers, drop_layer, table.name)
        builder = _Builder(
            table,
            num_classes,
            activation=activation,
            normalization=normalization,
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
        return next(name for name, module in self.named_children() if isinstance(module, nn.Conv2d))

    @property
    def feature_layer(self) -> str:
        """Name of the last layer with weights below the output layer: fc7 of the paper's network (section 6.1)."""
        return self.weighted_layers()[-2] if len(self.weighted_layers()) > 1 else self.output_layer

    def layer_names(self) -> list[str]:
        """The names that `features` takes, from the input to the output."""
        return [name for name, _ in self.named_children() if name not in (FIT, FLATTEN)]

    def weighted_layers(self) -> list[str]:
        """Names of the layers with weights, from the input to the output."""
        return [name for name, module in self.named_children() if isinstance(module, Weighted)]

    def is_fully_connected(self, layer: str) -> bool:
        """Whether a layer is fully connected: its activations are (N, units) and not (N, C, H, W)."""
        return isinstance(self.get_submodule(layer), nn.Linear)

    def features(self, x: Tensor, layer: str) -> Tensor:
        """The activations of one layer.

        A convolution or fully connected layer is read after the non-linearity that follows it directly (`conv1` …
        `conv5`, `fc6`, `fc7`), so ``features(x, "fc7")`` are the 4096 numbers of the paper's section 6.1.

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
        if isinstance(self.get_submodule(layer), nn.Conv2d | nn.Linear) and isinstance(following, nn.ReLU | nn.Tanh):
            last += 1
        return last + 1

    @torch.no_grad()
    def initialize(self, scheme: str) -> None:
        """Draw all weights anew from torch's global generator.

        Parameters
        ----------
        scheme : {"paper", "released-2012", "cuda-convnet", "he"}
            "paper" (section 5): N(0, 0.01²), and the biases of the variant's table: 1 in conv2, conv4, conv5, fc6 and
            fc7 of the paper's network. "released-2012": the same with a standard deviation of 0.03 in conv3 and above,
            as the released configurations have it. "cuda-convnet": the standard deviation of each row of the table,
            zero biases. "he": variance 2 / fan-in (1 / fan-in for tanh), zero biases, and zeros in the output layer,
            so that the loss starts at ln(classes) whatever the images are.
        """
        tanh = any(isinstance(module, nn.Tanh) for module in self.children())
        rows = {row.name: row for row in self.variant.layers if isinstance(row, WeightedLayer)}
        for name, module in self.named_children():
            if not isinstance(module, Weighted) or module.weight.is_meta:
                continue  # nothing to draw without memory; torch would import its compiler for it
            std, bias = 0.01, 0.0
            match scheme:
                case "paper":
                    bias = rows[name].bias
                case "released-2012":
                    std, bias = rows[name].released_std, rows[name].bias
                case "cuda-convnet":
                    std = rows[name].std
                case "he":
                    fan_in = module.weight[0].numel()
                    std = 0.0 if name == self.output_layer else math.sqrt((1 if tanh else 2) / fan_in)
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
            One for each name of `layer_names()`.
        """
        shadow = copy.deepcopy(self).to("meta").eval()
        side = self.input_size if side is None else side
        x = torch.empty(1, 3, side, side, device="meta")
        result = []
        for name, module in shadow.named_children():
            x = module(x)
            if name not in self.layer_names():
                continue
            parameters = sum(p.numel() for p in module.parameters())
            multiply_adds = neurons = 0
            if isinstance(module, Weighted):
                positions = x[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
                multiply_adds = module.weight.numel() * positions
                neurons = x.numel()
            result.append(LayerCost(name, tuple(x.shape[1:]), module, parameters, multiply_adds, neurons))
        return result


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one image.

    Parameters
    ----------
    name : str
        Name of the layer.
    output : tuple of int
        Shape of its output, without the batch.
    module : Module
        The layer itself, on the meta device.
    parameters, multiply_adds, neurons : int
        Numbers of each; the additions of the biases are not counted.
    """

    name: str
    output: tuple[int, ...]
    module: nn.Module
    parameters: int
    multiply_adds: int
    neurons: int


def towers_of(network: AlexNet) -> int:
    """Number of towers of a network (paper, section 3.2): the largest number of groups of a convolution."""
    return max(m.groups for m in network.children() if isinstance(m, nn.Conv2d))


class _Builder:
    """Turns the rows of a table into named modules, row by row; knows the shape that each row reads."""

    def __init__(
        self,
        variant: Variant,
        num_classes: int,
        *,
        activation: str | None,
        normalization: str | None,
        pooling: str | None,
        dropout: float,
    ) -> None:
        self.variant, self.num_classes = variant, num_classes
        self.activation, self.normalization, self.pooling, self.dropout = activation, normalization, pooling, dropout
        self.channels, self.side = 3, variant.input_size  # units, once the feature maps are flattened
        self.flat = False

    def build(self, layers: Sequence[Layer]) -> Iterator[tuple[str, nn.Module]]:
        """The modules, each with its name."""
        for row in layers:
            yield from self._modules(row)
            if self.side < 1:
                raise UsageError(f"variant {self.variant.name!r}: {row.name} has no output for its input size")

    def _modules(self, row: Layer) -> Iterator[tuple[str, nn.Module]]:
        match row:
            case Conv():
                yield from self._convolution(row)
            case LocallyConnected():
                local = LocallyConnected2d(self.channels, row.kernels, row.size, row.padding, self.side)
                yield row.name, local
                self.channels, self.side = row.kernels, local.output_side
            case LocalNorm() if self.normalization in (None, "lrn"):
                yield row.name, LocalResponseNorm(row)
            case SpatialNorm() if self.normalization in (None, "lrn"):
                yield row.name, SpatialResponseNorm(row)
            case Activation():
                yield row.name, nn.Tanh() if self.activation == "tanh" else nn.ReLU(inplace=True)
            case Pool():
                size, ceil = (2, False) if self.pooling == "non-overlapping" else (3, row.ceil)
                yield row.name, (nn.AvgPool2d if row.average else nn.MaxPool2d)(size, 2, ceil_mode=ceil)
                self.side = (self.side - size + ceil) // 2 + 1
            case Dropout() if self.dropout:
                yield row.name, nn.Dropout(self.dropout)
            case FullyConnected():
                yield from self._fully_connected(row)

    def _convolution(self, row: Conv) -> Iterator[tuple[str, nn.Module]]:
        if self.channels % row.groups or row.kernels % row.groups:
            raise UsageError(
                f"variant {self.variant.name!r}: {row.name} has {row.groups} groups, which do not divide its "
                f"{self.channels} input channels and {row.kernels} kernels"
            )
        batch = self.normalization == "batch"
        kind = OverhangConv2d if row.overhang else nn.Conv2d
        options = {"stride": row.stride, "padding": row.padding, "groups": row.groups}
        conv = kind(self.channels, row.kernels, row.size, bias=not batch, **options)  # type: ignore[arg-type]
        yield row.name, conv
        self.channels, self.side = row.kernels, output_size(conv, self.side + 2 * row.padding)
        if batch:
            yield row.batch_norm_name, nn.BatchNorm2d(row.kernels)

    def _fully_connected(self, row: FullyConnected) -> Iterator[tuple[str, nn.Module]]:
        if not self.flat:
            # The identity on the nominal input; makes every variant read other sizes.
            yield FIT, nn.AdaptiveAvgPool2d(self.side)
            yield FLATTEN, nn.Flatten()
            self.channels, self.flat = self.channels * self.side**2, True
        units = self.num_classes if row.units is None else row.units
        yield row.name, nn.Linear(self.channels, units)
        self.channels = units


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
    """The table without a convolution, its non-linearity and normalization; a pooling stays for the layers above."""
    convolutions = [row.name for row in layers if isinstance(row, Conv | LocallyConnected)]
    check_choice(name, convolutions[1:], f"convolution to leave out of {variant}:")
    kept: list[Layer] = []
    dropping = False
    for row in layers:
        if isinstance(row, WeightedLayer):
            dropping = row.name == name
        if not dropping or isinstance(row, Pool | Dropout):
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
