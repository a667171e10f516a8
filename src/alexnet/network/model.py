"""AlexNet and its relatives: one table of layers a variant, one forward for all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.network.normalization import local_response_norm, spatial_response_norm
from alexnet.runs.recipe import INITIALIZATIONS
from alexnet.runtime.errors import UsageError, check_choice

ACTIVATIONS = ("relu", "tanh")
NORMALIZATIONS = ("lrn", "none", "batch")
POOLINGS = ("overlapping", "non-overlapping")
SWITCHES = ("activation", "normalization", "pooling", "drop_layer")
"""What of a recipe changes the layers of a variant that have weights to go with them."""

# The rows of a variant's table.


@dataclass(frozen=True)
class Conv:
    """`kernels` of `size`×`size`, each seeing one of `groups` equal parts of the maps below.

    With `overhang` the last window may hang over the right and lower edge and read zeros there, so that
    the output has 1 + ceil((input - size) / stride) rows, as the released code computes it.
    """

    name: str
    kernels: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    overhang: bool = False
    std: float = 0.01


@dataclass(frozen=True)
class Local:
    """As `Conv` with stride 1, but with kernels of its own at each place (locally connected, unshared weights)."""

    name: str
    kernels: int
    size: int
    padding: int = 0
    std: float = 0.01


@dataclass(frozen=True)
class Activation:
    name: str


@dataclass(frozen=True)
class LocalNorm:
    """Local response normalization across maps (paper, section 3.3); `groups` towers normalize their own maps."""

    name: str
    groups: int = 1
    k: float = 2.0
    divide_by_n: bool = False
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75


@dataclass(frozen=True)
class SpatialNorm:
    """Response normalization over the neighborhood in the same map (released configuration #145)."""

    name: str
    size: int = 5
    alpha: float = 0.001
    beta: float = 0.75


@dataclass(frozen=True)
class Pool:
    """Max pooling 3×3 with stride 2 (paper, section 3.4); `ceil`: windows may hang over the edge."""

    name: str
    ceil: bool = False
    average: bool = False


@dataclass(frozen=True)
class Dropout:
    name: str


@dataclass(frozen=True)
class Full:
    """A fully connected layer; `units` is None for the last one, which has one unit a class."""

    name: str
    units: int | None
    std: float = 0.01


Weights = Conv | Local | Full
Layer = Weights | Activation | LocalNorm | SpatialNorm | Pool | Dropout


@dataclass(frozen=True)
class Variant:
    """A network as data: what it is, the side of its input in pixels, its initialization and its layers."""

    name: str
    description: str
    input_size: int
    init: str
    layers: tuple[Layer, ...]


Kernels = tuple[int, int, int, int, int]
WHOLE, HALF = (96, 256, 384, 384, 256), (48, 128, 192, 192, 256)
"""Kernels of the five convolutions: on two GPUs, and on one (paper, section 3.2)."""


def _head() -> tuple[Layer, ...]:
    """fc6, fc7 and the logits, with dropout on the *outputs* of fc6 and fc7 (paper, section 4.2)."""
    return (
        *(Full("fc6", 4096), Activation("relu6"), Dropout("drop6")),
        *(Full("fc7", 4096), Activation("relu7"), Dropout("drop7")),
        Full("logits", None),
    )


def _paper_convolutions(*, towers: int, kernels: Kernels = WHOLE) -> tuple[Layer, ...]:
    n1, n2, n3, n4, n5 = kernels
    return (
        *(Conv("conv1", n1, 11, stride=4, overhang=True), Activation("relu1")),
        *(LocalNorm("norm1", towers), Pool("pool1")),
        *(Conv("conv2", n2, 5, padding=2, groups=towers), Activation("relu2")),
        *(LocalNorm("norm2", towers), Pool("pool2")),
        *(Conv("conv3", n3, 3, padding=1), Activation("relu3")),
        *(Conv("conv4", n4, 3, padding=1, groups=towers), Activation("relu4")),
        *(Conv("conv5", n5, 3, padding=1, groups=towers), Activation("relu5"), Pool("pool5")),
    )


def _paper_like(*, towers: int, kernels: Kernels = WHOLE) -> tuple[Layer, ...]:
    return (*_paper_convolutions(towers=towers, kernels=kernels), *_head())


def _caffe(*, pool_first: bool) -> tuple[Layer, ...]:
    """Caffe's two networks, which differ in what comes first: pooling or normalization."""

    def reduced(number: int) -> tuple[Layer, ...]:
        norm, pool = LocalNorm(f"norm{number}", k=1.0, divide_by_n=True), Pool(f"pool{number}")
        return (pool, norm) if pool_first else (norm, pool)

    return (
        *(Conv("conv1", 96, 11, stride=4), Activation("relu1"), *reduced(1)),
        *(Conv("conv2", 256, 5, padding=2, groups=2), Activation("relu2"), *reduced(2)),
        *(Conv("conv3", 384, 3, padding=1), Activation("relu3")),
        *(Conv("conv4", 384, 3, padding=1, groups=2), Activation("relu4")),
        # At 227 pixels no window hangs over. At 224 the last does here and only here, as in ONNX's `bvlcalexnet`.
        *(Conv("conv5", 256, 3, padding=1, groups=2), Activation("relu5"), Pool("pool5", ceil=True)),
        *_head(),
    )


def _released(
    *,
    kernels: Kernels = WHOLE,
    towers: int = 2,
    normalized: bool = True,
    sixth: bool = False,
) -> tuple[Layer, ...]:
    """Configuration #145 of the released code and its relatives (layer order as there, not as in the paper)."""
    norm1: tuple[Layer, ...] = (LocalNorm("norm1", towers, divide_by_n=True),)
    norm2: tuple[Layer, ...] = (LocalNorm("norm2", towers, divide_by_n=True), SpatialNorm("spatial2"))
    conv6: tuple[Layer, ...] = (Conv("conv6", 256, 3, padding=1), Activation("relu_conv6"))
    n1, n2, n3, n4, n5 = kernels
    return (
        Conv("conv1", n1, 11, stride=4, overhang=True),
        *(norm1 if normalized else ()),
        *(Pool("pool1", ceil=True), Activation("relu1")),
        *(Conv("conv2", n2, 5, padding=2, groups=towers), Activation("relu2")),
        *(norm2 if normalized else ()),
        Pool("pool2", ceil=True),
        *(Conv("conv3", n3, 3, padding=1), Activation("relu3")),
        *(Conv("conv4", n4, 3, padding=1, groups=towers), Activation("relu4")),
        *(Conv("conv5", n5, 3, padding=1, groups=towers), Pool("pool5", ceil=True), Activation("relu5")),
        *(conv6 if sixth else ()),
        *_head(),
    )


_ONE_WEIRD_TRICK: tuple[Layer, ...] = (
    *(Conv("conv1", 64, 11, stride=4, padding=2), Activation("relu1"), Pool("pool1")),
    *(Conv("conv2", 192, 5, padding=2), Activation("relu2"), Pool("pool2")),
    *(Conv("conv3", 384, 3, padding=1), Activation("relu3")),
    *(Conv("conv4", 256, 3, padding=1), Activation("relu4")),
    *(Conv("conv5", 256, 3, padding=1), Activation("relu5"), Pool("pool5")),
    # torchvision drops the *inputs* of fc6 and fc7 (pytorch/vision issue 549); so does this layout.
    *(Dropout("drop5"), Full("fc6", 4096), Activation("relu6")),
    *(Dropout("drop6"), Full("fc7", 4096), Activation("relu7")),
    Full("logits", None),
)


def _cifar(*layers: Layer) -> tuple[Layer, ...]:
    """A network of the CIFAR-10 configurations of cuda-convnet; `std` is that of its first weights."""
    return (*layers, Full("logits", None))


def _cifar_two_convolutions(norms: tuple[LocalNorm, LocalNorm] | None, local3: int) -> tuple[Layer, ...]:
    """Configurations conv-local-13pct and conv-local-11pct: two convolutions, two locally connected layers."""
    norm1, norm2 = ((norm,) for norm in norms) if norms else ((), ())
    return _cifar(
        *(Conv("conv1", 64, 5, padding=2, std=0.0001), Activation("relu1"), Pool("pool1", ceil=True), *norm1),
        *(Conv("conv2", 64, 5, padding=2), Activation("relu2"), *norm2, Pool("pool2", ceil=True)),
        *(Local("local3", local3, 3, padding=1, std=0.04), Activation("relu3")),
        *(Local("local4", 32, 3, padding=1, std=0.04), Activation("relu4")),
    )


_CIFAR_18PCT = _cifar(
    *(Conv("conv1", 32, 5, padding=2, std=0.0001), Activation("relu1"), Pool("pool1", ceil=True)),
    SpatialNorm("spatial1", 3, 5e-5),
    *(Conv("conv2", 32, 5, padding=2), Activation("relu2"), Pool("pool2", ceil=True, average=True)),
    SpatialNorm("spatial2", 3, 5e-5),
    *(Conv("conv3", 64, 5, padding=2), Activation("relu3"), Pool("pool3", ceil=True, average=True)),
)

_NORMS_OF_11PCT = (
    LocalNorm("norm1", k=1.0, divide_by_n=True, size=9, alpha=1e-3),
    LocalNorm("norm2", k=1.0, divide_by_n=True, size=9, alpha=1e-3),
)

_VARIANTS = (
    Variant(
        "paper",
        "The network of the paper: two towers, response normalization as printed, overlapping pooling.",
        *(227, "paper", _paper_like(towers=2)),
    ),
    Variant(
        "one-tower",
        "The paper's network without towers: every kernel sees all maps below.",
        *(227, "paper", _paper_like(towers=1)),
    ),
    Variant(
        "paper-half",
        "The paper's one-GPU network of section 3.2: one tower, half the kernels in conv1 to conv4.",
        *(227, "paper", _paper_like(towers=1, kernels=HALF)),
    ),
    Variant(
        "convolutions",
        "The paper's five convolutions, and the classes straight from pool5: what the starter was trained as.",
        *(227, "he", (*_paper_convolutions(towers=2), Full("logits", None))),
    ),
    Variant(
        "one-weird-trick",
        "64-192-384-256-256 kernels, no normalization (arXiv 1404.5997), laid out as torchvision's `alexnet`.",
        *(224, "he", _ONE_WEIRD_TRICK),
    ),
    Variant(
        "caffe",
        "Caffe's bvlc_alexnet: grouped convolutions, normalization across all maps with k = 1 and alpha / n.",
        *(227, "paper", _caffe(pool_first=False)),
    ),
    Variant(
        "caffenet",
        "Caffe's bvlc_reference_caffenet: as `caffe`, pooled before it is normalized.",
        *(227, "paper", _caffe(pool_first=True)),
    ),
    Variant(
        "released-2012",
        "Configuration #145 of the released 2012 code, the network behind the paper's 40.7 / 18.2 and 37.5 / 17.0.",
        *(224, "released-2012", _released()),
    ),
    Variant(
        "released-2012-half",
        "Configuration #145-half: the one-GPU network of section 3.2, half the kernels in conv1 to conv4.",
        *(224, "released-2012", _released(kernels=HALF, towers=1)),
    ),
    Variant(
        "released-2012-six-conv",
        "Configuration #146: #145 with a sixth convolution over pool5, pre-trained on Fall 2011 in the paper.",
        *(224, "released-2012", _released(sixth=True)),
    ),
    Variant(
        "released-2012-no-norm",
        "Configuration #148: #145 without any normalization layer, the comparison of section 3.3.",
        *(224, "released-2012", _released(normalized=False)),
    ),
    Variant(
        "cifar-18pct",
        "cuda-convnet's 18pct on CIFAR-10: three convolutions and the classes, the four layers of figure 1.",
        *(32, "cuda-convnet", _CIFAR_18PCT),
    ),
    Variant(
        "cifar-13pct",
        "cuda-convnet's conv-local-13pct on CIFAR-10: two convolutions, two locally connected layers.",
        *(24, "cuda-convnet", _cifar_two_convolutions(None, 32)),
    ),
    Variant(
        "cifar-11pct",
        "cuda-convnet's conv-local-11pct on CIFAR-10: wider, with response normalization (section 3.3).",
        *(24, "cuda-convnet", _cifar_two_convolutions(_NORMS_OF_11PCT, 64)),
    ),
)


def variants() -> dict[str, Variant]:
    """Every network by name, each a table of layers."""
    return {variant.name: variant for variant in _VARIANTS}


# The modules that PyTorch does not have.


class OverhangConv2d(nn.Conv2d):
    """A convolution whose last window may hang over the right and lower edge, reading zeros there."""

    def forward(self, x: Tensor) -> Tensor:
        over = self.overhang(x.shape[-2:])
        return super().forward(functional.pad(x, (0, over[1], 0, over[0])) if any(over) else x)

    def overhang(self, sides: Sequence[int]) -> list[int]:
        """The rows below and columns to the right that windows over a map of these sides read beyond it."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        return [(windows(self, side) - 1) * stride + kernel - side for side in sides]


def windows(conv: nn.Conv2d, side: int) -> int:
    """How many windows of a convolution there are along a side, which has its padding."""
    room, stride = side - conv.kernel_size[0], conv.stride[0]
    return (-(-room // stride) if isinstance(conv, OverhangConv2d) else room // stride) + 1


class LocallyConnected2d(nn.Module):
    """Kernels of its own at each place of maps with a given side: (N, C, side, side) → (N, kernels, H, H).

    `weight` (H · H · kernels, C · size · size) has a row a unit, place after place; `bias` one number a unit.
    """

    def __init__(self, maps: int, kernels: int, size: int, padding: int, side: int) -> None:
        super().__init__()
        self.maps, self.kernels, self.size, self.padding = maps, kernels, size, padding
        self.places = side + 2 * padding - size + 1
        self.weight = nn.Parameter(torch.empty(self.places**2 * kernels, maps * size**2))
        self.bias = nn.Parameter(torch.empty(len(self.weight)))

    def forward(self, x: Tensor) -> Tensor:
        crops = functional.unfold(x, self.size, padding=self.padding).permute(2, 0, 1)
        rows = self.weight.view(len(crops), self.kernels, -1)
        units = torch.baddbmm(self.bias.view(len(crops), 1, self.kernels), crops, rows.mT)
        return units.permute(1, 2, 0).unflatten(2, (self.places, self.places))

    def extra_repr(self) -> str:
        return f"{self.maps}, {self.kernels}, size={self.size}, padding={self.padding}, places={self.places}"


Weighted = nn.Conv2d | nn.Linear | LocallyConnected2d
"""The modules that are layers with weights, as the paper counts them."""


class LocalResponseNorm(nn.Module):
    """`alexnet.network.normalization.local_response_norm` as a module."""

    def __init__(self, row: LocalNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, x: Tensor) -> Tensor:
        row = self.row
        return local_response_norm(
            x, row.size, row.alpha, row.beta, row.k, divide_by_n=row.divide_by_n, groups=row.groups
        )

    def extra_repr(self) -> str:
        return str(self.row)


class SpatialResponseNorm(nn.Module):
    """`alexnet.network.normalization.spatial_response_norm` as a module."""

    def __init__(self, row: SpatialNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, x: Tensor) -> Tensor:
        return spatial_response_norm(x, self.row.size, self.row.alpha, self.row.beta)

    def extra_repr(self) -> str:
        return str(self.row)


class AlexNet(nn.Module):
    """AlexNet (paper, section 3), any variant of it.

    `variant` is a name of `variants()`. The switches change any variant for the paper's comparisons; None keeps
    what the variant has:

    - `activation`: "relu" or "tanh" (3.1);
    - `normalization`: "lrn", "none", or "batch": batch normalization between every convolution and what follows it;
    - `pooling`: "overlapping" (3×3, stride 2) or "non-overlapping" (2×2, stride 2) (3.4);
    - `drop_layer`: a convolution to leave out, any but the first, with its non-linearity and normalization (7);
    - `dropout`: the probability of dropping a unit; 0 for none (4.2);
    - `init`: "paper" (5), "released-2012", "cuda-convnet" (that of the variant's table), or "he", which trains at
      once on few images.

    The initial weights are drawn from torch's global generator. Raises `UsageError` for an unknown name.
    """

    def __init__(
        self,
        variant: str = "paper",
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
        table = variants()[check_choice(variant, variants(), "variant")]
        if num_classes < 1:
            raise UsageError(f"num_classes is {num_classes}; a network needs at least one class")
        if dropout is not None and not 0 <= dropout < 1:
            raise UsageError(f"dropout is {dropout}; it is a probability from 0 up to, not including, 1")
        for value, known, what in (
            (activation, ACTIVATIONS, "activation"),
            (normalization, NORMALIZATIONS, "normalization"),
            (pooling, POOLINGS, "pooling"),
            (init, INITIALIZATIONS, "init"),
        ):
            if value is not None:
                check_choice(value, known, what)
        self.variant = table
        self.num_classes = num_classes
        self.input_size = table.input_size
        self.init = init or table.init
        layers = _with_lrn(table.layers) if normalization == "lrn" else table.layers
        if drop_layer is not None:
            layers = _left_out(layers, drop_layer, variant)
        for name, module in _modules(layers, self.input_size, num_classes, activation, normalization, pooling, dropout):
            self.add_module(name, module)
        self.initialize(self.init)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels minus the mean, (N, 3, S, S) floating point RGB → logits (N, num_classes).

        S is `input_size`, or 224 or 227 alike where conv1 hangs over the edge. For other sizes the maps of the
        last pooling are averaged to the size that fc6 expects.
        """
        for module in self.children():
            x = module(x)
        return x

    def layer_names(self) -> list[str]:
        """The names that `features` takes, in the order that an image passes them."""
        return [name for name, _ in self.named_children() if name not in ("fit", "flatten")]

    def features(self, x: Tensor, layer: str) -> Tensor:
        """The activations of a named layer, (N, C, H, W) or (N, units), for input as `forward` takes it.

        A convolution or fully connected layer is read after its non-linearity where that follows at once
        (`conv1` … `conv5`, `fc6`, `fc7`), so `features(x, "fc7")` are the 4096 numbers of the paper's section 6.1.
        Raises `UsageError` for a name that the variant does not have.
        """
        for module in list(self.children())[: self._end_of(layer)]:
            x = module(x)
        return x

    def each_of(self, x: Tensor, layers: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """`features` of several layers in one pass, in the order that an image passes them.

        What is yielded is good until the next is asked for: what follows may work in place. Raises `UsageError` for a
        name that the variant does not have.
        """
        ends = {self._end_of(layer): layer for layer in layers}
        for number, module in enumerate(self.children(), start=1):
            x = module(x)
            if number in ends:
                yield ends[number], x

    def logits_from(self, activations: Tensor, layer: str) -> Tensor:
        """The rest of the way: what `features` gave for a layer → logits (N, num_classes).

        Raises `UsageError` for a name that the variant does not have.
        """
        x = activations
        for module in list(self.children())[self._end_of(layer) :]:
            x = module(x)
        return x

    def _end_of(self, layer: str) -> int:
        """How many modules an image has passed where `features` reads a layer."""
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
        """Draw all weights anew (paper, section 5; for the released code its configuration files).

        "paper": N(0, 0.01²), biases 1 in conv2, conv4, conv5, fc6, fc7 and 0 elsewhere. "released-2012": the same
        with a standard deviation of 0.03 in conv3 and above. "cuda-convnet": that of each row of the table, zero
        biases. "he": variance 2 / fan-in (1 / fan-in for tanh), zero
        biases, and zeros in the last layer, so that the loss starts at ln(classes) whatever the images.
        """
        tanh = any(isinstance(module, nn.Tanh) for module in self.children())
        for name, module in self.named_children():
            if not isinstance(module, Weighted) or module.weight.is_meta:
                continue  # nothing to draw where there is no memory; torch would import its compiler for it
            fan_in = module.weight[0].numel()
            std = 0.01
            if scheme == "released-2012" and name in ("conv3", "conv4", "conv5", "conv6"):
                std = 0.03
            elif scheme == "cuda-convnet":
                std = next(row.std for row in self.variant.layers if isinstance(row, Weights) and row.name == name)
            elif scheme == "he":
                std = 0.0 if name == "logits" else math.sqrt((1 if tanh else 2) / fan_in)
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                ones = scheme in ("paper", "released-2012") and name in ("conv2", "conv4", "conv5", "fc6", "fc7")
                nn.init.constant_(module.bias, 1.0 if ones else 0.0)

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
            rows.append((cost.name, "×".join(map(str, cost.output)), *_shape_words(cost.module), *numbers))
        rows.append(("total", "", "", "", "", *(f"{n:,}" for n in totals)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(c.ljust(w) if i < 5 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def costs(self, side: int | None = None) -> list[LayerCost]:
        """What each layer costs for one image: output shape, parameters, multiply-adds, neurons.

        `side`: of the image, `input_size` by default.
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


def towers_of(network: AlexNet) -> int:
    """How many towers the network has (paper, section 3.2): 1 or 2."""
    return max(m.groups for m in network.children() if isinstance(m, nn.Conv2d))


@dataclass(frozen=True)
class LayerCost:
    """One row of `AlexNet.summary()`: for one image, and without the biases' additions."""

    name: str
    output: tuple[int, ...]
    module: nn.Module
    parameters: int
    multiply_adds: int
    neurons: int


def _modules(
    layers: tuple[Layer, ...],
    side: int,
    num_classes: int,
    activation: str | None,
    normalization: str | None,
    pooling: str | None,
    dropout: float | None,
) -> Iterator[tuple[str, nn.Module]]:
    """A table for images of `side` pixels, with the switches applied, as named modules."""
    maps, flat = 3, False
    for row in layers:
        match row:
            case Conv(name, kernels, size, stride, padding, groups, overhang):
                batch = normalization == "batch"
                kind = OverhangConv2d if overhang else nn.Conv2d
                conv = kind(maps, kernels, size, stride, padding, groups=groups, bias=not batch)
                yield name, conv
                maps, side = kernels, windows(conv, side + 2 * padding)
                if batch:
                    yield f"batch{name[-1]}", nn.BatchNorm2d(kernels)
            case Local(name, kernels, size, padding):
                local = LocallyConnected2d(maps, kernels, size, padding, side)
                yield name, local
                maps, side = kernels, local.places
            case LocalNorm(name) if normalization in (None, "lrn"):
                yield name, LocalResponseNorm(row)
            case SpatialNorm(name) if normalization in (None, "lrn"):
                yield name, SpatialResponseNorm(row)
            case Activation(name):
                yield name, nn.Tanh() if activation == "tanh" else nn.ReLU(inplace=True)
            case Pool(name, ceil, average):
                size, ceil = (2, False) if pooling == "non-overlapping" else (3, ceil)
                yield name, (nn.AvgPool2d if average else nn.MaxPool2d)(size, 2, ceil_mode=ceil)
                side = (side - size + ceil) // 2 + 1
            case Dropout(name):
                probability = 0.5 if dropout is None else dropout
                if probability:
                    yield name, nn.Dropout(probability)
            case Full(name, units):
                if not flat:
                    # The identity on the nominal input; lets every variant read other sizes.
                    yield "fit", nn.AdaptiveAvgPool2d(side)
                    yield "flatten", nn.Flatten()
                    maps, flat = maps * side**2, True
                yield name, nn.Linear(maps, units or num_classes)
                maps = units or num_classes


def _with_lrn(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Response normalization where the paper has it, unless there is some: after the first and second non-linearity."""
    if any(isinstance(row, LocalNorm) for row in layers):
        return layers
    added: list[Layer] = []
    for row in layers:
        added.append(row)
        if isinstance(row, Activation) and row.name in ("relu1", "relu2"):
            added.append(LocalNorm(f"norm{row.name[-1]}"))
    return tuple(added)


def _left_out(layers: tuple[Layer, ...], name: str, variant: str) -> tuple[Layer, ...]:
    """The table without a convolution and what is done to its maps; a pooling stays, for what is above it."""
    convolutions = [row.name for row in layers if isinstance(row, Conv | Local)]
    check_choice(name, convolutions[1:], f"convolution to leave out of {variant}:")
    kept: list[Layer] = []
    out = False
    for row in layers:
        if isinstance(row, Weights):
            out = row.name == name
        if not out or isinstance(row, Pool | Dropout):
            kept.append(row)
    return tuple(kept)


def _shape_words(module: nn.Module) -> tuple[str, str, str]:  # noqa: PLR0911
    """Kernels, stride/pad and groups of a layer, as the table prints them."""
    match module:
        case nn.Conv2d():
            kernels, maps, height, width = module.weight.shape
            return (
                f"{kernels} of {maps}×{height}×{width}",
                f"{module.stride[0]}/{module.padding[0]}",
                str(module.groups),
            )
        case nn.Linear():
            return f"{module.in_features}→{module.out_features}", "", ""
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "max" if isinstance(module, nn.MaxPool2d) else "mean"
            return f"{kind} {module.kernel_size}×{module.kernel_size}", f"{module.stride}/{module.padding}", ""
        case LocallyConnected2d(kernels=kernels, maps=maps, size=size, padding=padding):
            return f"{kernels} of {maps}×{size}×{size} a place", f"1/{padding}", ""
        case LocalResponseNorm():
            return f"{module.row.size} maps", "", str(module.row.groups)
        case SpatialResponseNorm():
            return f"{module.row.size}×{module.row.size}", "", ""
    return "", "", ""
