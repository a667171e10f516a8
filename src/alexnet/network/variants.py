"""Variants: networks as tables of layers, and the registry that finds them by name.

This module does not import torch, so that the command line can list the variants at once.

A variant of one's own is a table that is registered under a new name; `AlexNet`, the recipes and the command
line then know it:

>>> from alexnet.network.rows import Activation, Conv, FullyConnected, Pool
>>> from alexnet.network.variants import Variant, register_variant
>>> tiny = Variant(
...     name="tiny",
...     description="Two convolutions for images of 32×32 pixels.",
...     input_size=32,
...     init="he",
...     layers=(
...         *(Conv("conv1", kernels=16, size=5, padding=2), Activation("relu1", lrn="norm1"), Pool("pool1", ceil=True)),
...         *(Conv("conv2", kernels=32, size=5, padding=2), Activation("relu2"), Pool("pool2", ceil=True)),
...         FullyConnected("logits", units=None),
...     ),
... )
>>> register_variant(tiny)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet.network.neighbors import lenet5, lenet5_1998, resnet, vgg
from alexnet.network.rows import (
    ACTIVATIONS,
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    FullyConnected,
    Grayscale,
    Layer,
    LocallyConnected,
    LocalNorm,
    OutputLayer,
    Pool,
    Residual,
    SpatialNorm,
    all_rows,
    row_from_dict,
    row_to_dict,
)
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice

NORMALIZATIONS = ("lrn", "none", "batch")
POOLINGS = ("overlapping", "non-overlapping")
INITIALIZATIONS = ("paper", "released-2012", "cuda-convnet", "he", "lecun")
"""The schemes of `AlexNet.initialize`."""
SWITCHES = ("activation", "normalization", "pooling", "drop_layer")
"""The values of a recipe that change the layers of a variant."""


@dataclass(frozen=True)
class Variant:
    """A network as a table of layers.

    Parameters
    ----------
    name : str
        Name by which the registry, recipes and the command line find it.
    description : str
        One sentence.
    input_size : int
        Height and width of the input, in pixels.
    init : str
        Initialization scheme that is used when none is given, one of `INITIALIZATIONS`.
    layers : tuple of Layer
        The rows, from the input up (`alexnet.network.rows`). The last one is the output layer: a `FullyConnected` with
        `units=None`, or a `RadialBasis`.

    Raises
    ------
    UsageError
        If the table does not describe a network: two layers of one name, no output layer at its end, a value out of
        range.
    """

    name: str
    description: str
    input_size: int
    init: str
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        where = f"variant {self.name!r}"
        if not self.name or not isinstance(self.name, str):
            raise UsageError("a variant needs a name")
        if self.input_size < 1:
            raise UsageError(f"{where}: input_size is {self.input_size}; it must be at least 1")
        check_choice(self.init, INITIALIZATIONS, f"{where}: init")
        rows = dict(all_rows(self.layers))
        names = [row.name for row in rows.values()]
        names += [row.batch_norm_name for row in rows.values() if isinstance(row, Conv)]
        names += [row.lrn for row in rows.values() if isinstance(row, Activation) and row.lrn]
        for name in names:
            if not name.isidentifier():
                raise UsageError(f"{where}: a layer can't be named {name!r}; use letters, digits and underscores")
        for row in rows.values():
            if isinstance(row, Activation):
                check_choice(row.kind, ACTIVATIONS, f"{where}: kind of {row.name}")
        paths = [path for path, _ in all_rows(self.layers)]
        if repeated := next((path for path in paths if paths.count(path) > 1), None):
            raise UsageError(f"{where} has two layers named {repeated!r}; a name identifies one layer")
        outputs = [row for row in self.layers if isinstance(row, OutputLayer) and getattr(row, "units", None) is None]
        if len(outputs) != 1 or self.layers[-1] is not outputs[0]:
            raise UsageError(f"{where}: its last layer, and only that one, must be a FullyConnected with units=None")
        if not isinstance(next((row for row in self.layers if not isinstance(row, Grayscale)), None), Conv):
            raise UsageError(f"{where}: its first layer must be a Conv")
        if any(isinstance(row, Residual | OutputLayer) for path, row in rows.items() if "." in path):
            raise UsageError(f"{where}: a residual block can't hold another one or a fully connected layer")

    @property
    def output_layer(self) -> str:
        """Name of the layer with one unit for each class."""
        return self.layers[-1].name

    @property
    def first_convolution(self) -> str:
        """Name of the convolution that reads the pixels."""
        return next(row.name for row in self.layers if isinstance(row, Conv))

    @property
    def has_batch_norm(self) -> bool:
        """Whether batch normalization is part of the table, whatever `normalization` is."""
        return any(isinstance(row, BatchNorm) for _, row in all_rows(self.layers))

    @property
    def is_sequence(self) -> bool:
        """Whether every layer reads the one below alone, up to a fully connected one: no blocks, no codes."""
        return not any(isinstance(row, Residual) for row in self.layers) and isinstance(self.layers[-1], FullyConnected)

    @property
    def fully_connected_layers(self) -> list[str]:
        """Names of the fully connected layers, the output layer among them."""
        return [row.name for row in self.layers if isinstance(row, FullyConnected)]

    def batch_norms(self) -> dict[str, str]:
        """Name of the batch normalization of each convolution that has one when `normalization` is "batch"."""
        if self.has_batch_norm:
            return {}
        rows = [row for row in self.layers if isinstance(row, Conv) and row.connections is None]
        return {row.name: row.batch_norm_name for row in rows}

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON-able values; `from_dict` reads it."""
        return {
            "name": self.name,
            "description": self.description,
            "input_size": self.input_size,
            "init": self.init,
            "layers": [row_to_dict(row) for row in self.layers],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variant:
        """The variant that `to_dict` described.

        Raises
        ------
        AlexNetError
            If the values do not describe a variant.
        """
        try:
            rows = tuple(row_from_dict(row) for row in values["layers"])
            return cls(values["name"], values["description"], values["input_size"], values["init"], rows)
        except (KeyError, TypeError, AttributeError) as error:
            raise AlexNetError(f"the table of a variant can't be read: {type(error).__name__}: {error}") from error


Kernels = tuple[int, int, int, int, int]
WHOLE, HALF = (96, 256, 384, 384, 256), (48, 128, 192, 192, 256)
"""Kernels of the five convolutions: on two GPUs, and on one (paper, section 3.2)."""

# Positive biases give the ReLUs positive inputs in the early stages of learning (paper, section 5).
_POSITIVE_BIAS = ("conv2", "conv4", "conv5", "fc6", "fc7")
_WIDE = ("conv3", "conv4", "conv5", "conv6")  # std 0.03 in the released configurations


def _conv(number: int, kernels: int, size: int, **options: Any) -> Conv:
    """A convolution with the names and initial values that the tables below have in common."""
    name = f"conv{number}"
    return Conv(
        name,
        kernels,
        size,
        batch_norm=f"batch{number}",
        released_std=0.03 if name in _WIDE else 0.01,
        bias=1.0 if name in _POSITIVE_BIAS else 0.0,
        **options,
    )


def _relu(number: int) -> Activation:
    """The non-linearity after a convolution; the paper normalizes the first two (section 3.3)."""
    return Activation(f"relu{number}", lrn=f"norm{number}" if number <= 2 else None)


def _hidden(number: int) -> FullyConnected:
    return FullyConnected(f"fc{number}", 4096, bias=1.0)


_OUTPUT = FullyConnected("logits", None)


def _classifier() -> tuple[Layer, ...]:
    """fc6, fc7 and the logits, with dropout on the *outputs* of fc6 and fc7 (paper, section 4.2)."""
    return (
        *(_hidden(6), Activation("relu6"), Dropout("drop6")),
        *(_hidden(7), Activation("relu7"), Dropout("drop7")),
        _OUTPUT,
    )


def _paper_convolutions(*, towers: int, kernels: Kernels = WHOLE) -> tuple[Layer, ...]:
    n1, n2, n3, n4, n5 = kernels
    return (
        *(_conv(1, n1, 11, stride=4, overhang=True), _relu(1), LocalNorm("norm1", towers), Pool("pool1")),
        *(_conv(2, n2, 5, padding=2, groups=towers), _relu(2), LocalNorm("norm2", towers), Pool("pool2")),
        *(_conv(3, n3, 3, padding=1), _relu(3)),
        *(_conv(4, n4, 3, padding=1, groups=towers), _relu(4)),
        *(_conv(5, n5, 3, padding=1, groups=towers), _relu(5), Pool("pool5")),
    )


def _paper(*, towers: int, kernels: Kernels = WHOLE) -> tuple[Layer, ...]:
    return (*_paper_convolutions(towers=towers, kernels=kernels), *_classifier())


def _caffe(*, pool_first: bool) -> tuple[Layer, ...]:
    """Caffe's two networks, which differ in the order of pooling and normalization."""

    def reduced(number: int) -> tuple[Layer, ...]:
        norm, pool = LocalNorm(f"norm{number}", k=1.0, divide_by_n=True), Pool(f"pool{number}")
        return (pool, norm) if pool_first else (norm, pool)

    return (
        *(_conv(1, 96, 11, stride=4), _relu(1), *reduced(1)),
        *(_conv(2, 256, 5, padding=2, groups=2), _relu(2), *reduced(2)),
        *(_conv(3, 384, 3, padding=1), _relu(3)),
        *(_conv(4, 384, 3, padding=1, groups=2), _relu(4)),
        # At 227 pixels no window hangs over. At 224 the last does here and only here, as in ONNX's `bvlcalexnet`.
        *(_conv(5, 256, 3, padding=1, groups=2), _relu(5), Pool("pool5", ceil=True)),
        *_classifier(),
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
    conv6: tuple[Layer, ...] = (_conv(6, 256, 3, padding=1), Activation("relu_conv6"))
    n1, n2, n3, n4, n5 = kernels
    return (
        _conv(1, n1, 11, stride=4, overhang=True),
        *(norm1 if normalized else ()),
        *(Pool("pool1", ceil=True), _relu(1)),
        *(_conv(2, n2, 5, padding=2, groups=towers), _relu(2)),
        *(norm2 if normalized else ()),
        Pool("pool2", ceil=True),
        *(_conv(3, n3, 3, padding=1), _relu(3)),
        *(_conv(4, n4, 3, padding=1, groups=towers), _relu(4)),
        *(_conv(5, n5, 3, padding=1, groups=towers), Pool("pool5", ceil=True), _relu(5)),
        *(conv6 if sixth else ()),
        *_classifier(),
    )


_ONE_WEIRD_TRICK: tuple[Layer, ...] = (
    *(_conv(1, 64, 11, stride=4, padding=2), _relu(1), Pool("pool1")),
    *(_conv(2, 192, 5, padding=2), _relu(2), Pool("pool2")),
    *(_conv(3, 384, 3, padding=1), _relu(3)),
    *(_conv(4, 256, 3, padding=1), _relu(4)),
    *(_conv(5, 256, 3, padding=1), _relu(5), Pool("pool5")),
    # torchvision drops the *inputs* of fc6 and fc7 (pytorch/vision issue 549); so does this table.
    *(Dropout("drop5"), _hidden(6), Activation("relu6")),
    *(Dropout("drop6"), _hidden(7), Activation("relu7")),
    _OUTPUT,
)


def _cifar_local(norms: tuple[LocalNorm, LocalNorm] | None, local3: int) -> tuple[Layer, ...]:
    """Configurations conv-local-13pct and conv-local-11pct: two convolutions, two locally connected layers."""
    norm1, norm2 = ((norm,) for norm in norms) if norms else ((), ())
    return (
        *(_conv(1, 64, 5, padding=2, std=0.0001), _relu(1), Pool("pool1", ceil=True), *norm1),
        *(_conv(2, 64, 5, padding=2), _relu(2), *norm2, Pool("pool2", ceil=True)),
        *(LocallyConnected("local3", local3, 3, padding=1, std=0.04), _relu(3)),
        *(LocallyConnected("local4", 32, 3, padding=1, std=0.04), _relu(4)),
        _OUTPUT,
    )


_CIFAR_18PCT: tuple[Layer, ...] = (
    *(_conv(1, 32, 5, padding=2, std=0.0001), _relu(1), Pool("pool1", ceil=True)),
    SpatialNorm("spatial1", 3, 5e-5),
    *(_conv(2, 32, 5, padding=2), _relu(2), Pool("pool2", ceil=True, average=True)),
    SpatialNorm("spatial2", 3, 5e-5),
    *(_conv(3, 64, 5, padding=2), _relu(3), Pool("pool3", ceil=True, average=True)),
    _OUTPUT,
)

_NORMS_OF_11PCT = (
    LocalNorm("norm1", k=1.0, divide_by_n=True, size=9, alpha=1e-3),
    LocalNorm("norm2", k=1.0, divide_by_n=True, size=9, alpha=1e-3),
)

_BUILT_IN = (
    Variant(
        name="paper",
        description="The network of the paper: two towers, response normalization as printed, overlapping pooling.",
        input_size=227,
        init="paper",
        layers=_paper(towers=2),
    ),
    Variant(
        name="one-tower",
        description="The paper's network without towers: every kernel reads all channels below.",
        input_size=227,
        init="paper",
        layers=_paper(towers=1),
    ),
    Variant(
        name="paper-half",
        description="The paper's one-GPU network of section 3.2: one tower, half the kernels in conv1 to conv4.",
        input_size=227,
        init="paper",
        layers=_paper(towers=1, kernels=HALF),
    ),
    Variant(
        name="convolutions",
        description="The paper's five convolutions and an output layer on pool5: the network of the starter weights.",
        input_size=227,
        init="he",
        layers=(*_paper_convolutions(towers=2), _OUTPUT),
    ),
    Variant(
        name="one-weird-trick",
        description="64-192-384-256-256 kernels, no normalization (arXiv 1404.5997), as torchvision's `alexnet`.",
        input_size=224,
        init="he",
        layers=_ONE_WEIRD_TRICK,
    ),
    Variant(
        name="caffe",
        description="Caffe's bvlc_alexnet: grouped convolutions, normalization across all channels, k = 1, alpha / n.",
        input_size=227,
        init="paper",
        layers=_caffe(pool_first=False),
    ),
    Variant(
        name="caffenet",
        description="Caffe's bvlc_reference_caffenet: as `caffe`, with pooling before normalization.",
        input_size=227,
        init="paper",
        layers=_caffe(pool_first=True),
    ),
    Variant(
        name="released-2012",
        description="Configuration #145 of the released 2012 code, behind the paper's 40.7 / 18.2 and 37.5 / 17.0.",
        input_size=224,
        init="released-2012",
        layers=_released(),
    ),
    Variant(
        name="released-2012-half",
        description="Configuration #145-half: the one-GPU network of section 3.2, half the kernels in conv1 to conv4.",
        input_size=224,
        init="released-2012",
        layers=_released(kernels=HALF, towers=1),
    ),
    Variant(
        name="released-2012-six-conv",
        description="Configuration #146: #145 with a sixth convolution over pool5, pretrained on Fall 2011.",
        input_size=224,
        init="released-2012",
        layers=_released(sixth=True),
    ),
    Variant(
        name="released-2012-no-norm",
        description="Configuration #148: #145 without normalization layers, the comparison of section 3.3.",
        input_size=224,
        init="released-2012",
        layers=_released(normalized=False),
    ),
    Variant(
        name="cifar-18pct",
        description="cuda-convnet's 18pct on CIFAR-10: three convolutions and an output layer, as in figure 1.",
        input_size=32,
        init="cuda-convnet",
        layers=_CIFAR_18PCT,
    ),
    Variant(
        name="cifar-13pct",
        description="cuda-convnet's conv-local-13pct on CIFAR-10: two convolutions, two locally connected layers.",
        input_size=24,
        init="cuda-convnet",
        layers=_cifar_local(None, 32),
    ),
    Variant(
        name="cifar-11pct",
        description="cuda-convnet's conv-local-11pct on CIFAR-10: wider, with response normalization (section 3.3).",
        input_size=24,
        init="cuda-convnet",
        layers=_cifar_local(_NORMS_OF_11PCT, 64),
    ),
    Variant(
        name="lenet5-1998",
        description="LeNet-5 as published in 1998: a table of connections, trainable averages, tanh, fixed codes.",
        input_size=32,
        init="lecun",
        layers=lenet5_1998(),
    ),
    Variant(
        name="lenet5",
        description="LeNet-5 in its common form, as Caffe's `lenet`: max pooling, ReLU, softmax.",
        input_size=28,
        init="he",
        layers=lenet5(),
    ),
    Variant(
        name="vgg11",
        description="VGG-11, configuration A of Simonyan and Zisserman (2014), as torchvision's `vgg11`.",
        input_size=224,
        init="he",
        layers=vgg((1, 1, 2, 2, 2)),
    ),
    Variant(
        name="vgg16",
        description="VGG-16, configuration D of Simonyan and Zisserman (2014), as torchvision's `vgg16`.",
        input_size=224,
        init="he",
        layers=vgg((2, 2, 3, 3, 3)),
    ),
    Variant(
        name="resnet18",
        description="ResNet-18 of He et al. (2015), as torchvision's `resnet18`.",
        input_size=224,
        init="he",
        layers=resnet((2, 2, 2, 2), bottleneck=False),
    ),
    Variant(
        name="resnet50",
        description="ResNet-50 of He et al. (2015) with stride 2 in the 3×3 convolutions, as torchvision's `resnet50`.",
        input_size=224,
        init="he",
        layers=resnet((3, 4, 6, 3), bottleneck=True),
    ),
)

_registry = {variant.name: variant for variant in _BUILT_IN}


def list_variants() -> list[str]:
    """The names of all variants: the built-in ones, then those registered."""
    return list(_registry)


def get_variant(name: str) -> Variant:
    """The variant of that name.

    Raises
    ------
    UsageError
        If no variant has the name; the message lists those that exist.
    """
    return _registry[check_choice(name, _registry, "variant")]


def register_variant(variant: Variant) -> None:
    """Make a variant known by its name to `AlexNet`, the recipes and the command line of this process.

    Registering a name again replaces the earlier table, so that a notebook cell can be run twice. A run folder keeps
    the table of a registered variant: it can be opened later without registering it.

    Parameters
    ----------
    variant : Variant
        The table of layers; see the example at the top of this module.

    Raises
    ------
    UsageError
        If a built-in variant has the name.
    """
    if is_built_in(variant.name):
        raise UsageError(f"{variant.name!r} is a built-in variant; register yours under another name")
    _registry[variant.name] = variant


def is_built_in(name: str) -> bool:
    """Whether the package itself has a variant of that name."""
    return any(variant.name == name for variant in _BUILT_IN)
