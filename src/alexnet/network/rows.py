"""The rows of a variant's table: one dataclass for each kind of layer. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

ACTIVATIONS = ("relu", "tanh", "scaled-tanh")


@dataclass(frozen=True)
class Conv:
    """A convolution.

    Parameters
    ----------
    name : str
        Name of the module and prefix of its arrays in a state dict.
    kernels : int
        Number of kernels, which is the number of output channels.
    size : int
        Height and width of a kernel, in pixels of its input.
    stride, padding : int
        As in `torch.nn.Conv2d`.
    groups : int
        Each kernel reads one of `groups` equal parts of the channels below.
    overhang : bool
        Whether the last window may hang over the right and lower edge and read zeros there, so that the output has
        ``1 + ceil((input - size) / stride)`` rows, as the released code computes it.
    batch_norm : str or None
        Name of the batch normalization that follows the convolution when `normalization` is "batch"; by default
        ``batch_`` and the convolution's name.
    std : float
        Standard deviation of the initial weights, scheme "cuda-convnet".
    released_std : float
        Standard deviation of the initial weights, scheme "released-2012".
    bias : float or None
        Initial biases, schemes "paper" and "released-2012"; None for a convolution without biases.
    connections : tuple of tuple of int, optional
        For each kernel the input channels that it reads, instead of all; it has weights for these only.
    """

    name: str
    kernels: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    overhang: bool = False
    batch_norm: str | None = None
    std: float = 0.01
    released_std: float = 0.01
    bias: float | None = 0.0
    connections: tuple[tuple[int, ...], ...] | None = None

    @property
    def batch_norm_name(self) -> str:
        """Name of the batch normalization that follows when `normalization` is "batch"."""
        return self.batch_norm or f"batch_{self.name}"


@dataclass(frozen=True)
class LocallyConnected:
    """A convolution of stride 1 whose weights are not shared: each output position has its own kernels.

    Parameters are those of `Conv`.
    """

    name: str
    kernels: int
    size: int
    padding: int = 0
    std: float = 0.01
    released_std: float = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class FullyConnected:
    """A fully connected layer.

    Parameters
    ----------
    name : str
        Name of the module and prefix of its arrays in a state dict.
    units : int or None
        Number of units; None for the output layer, which has one unit for each class.
    std, released_std, bias : float
        Initial values, as in `Conv`.
    """

    name: str
    units: int | None
    std: float = 0.01
    released_std: float = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class Activation:
    """The non-linearity: that of its `kind`, unless `activation` names another for the whole network.

    Parameters
    ----------
    name : str
        Name of the module.
    kind : {"relu", "tanh", "scaled-tanh"}
        "scaled-tanh" is 1.7159 tanh(2x / 3) of LeNet-5.
    lrn : str or None
        Name of the local response normalization that ``normalization="lrn"`` inserts after it in a variant that has
        none of its own; None for none here.
    """

    name: str
    lrn: str | None = None
    kind: str = "relu"


@dataclass(frozen=True)
class LocalNorm:
    """Local response normalization across channels (paper, section 3.3).

    Parameters
    ----------
    name : str
        Name of the module.
    groups : int
        Number of towers; no window crosses from one to the next.
    k, alpha, beta, size
        Constants of the formula; `size` is the number of channels in a window.
    divide_by_n : bool
        Whether alpha is divided by `size`, as in the released code, Caffe and PyTorch, and not in the paper's formula.
    """

    name: str
    groups: int = 1
    k: float = 2.0
    divide_by_n: bool = False
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75


@dataclass(frozen=True)
class SpatialNorm:
    """Response normalization over the `size` × `size` neighborhood in the same channel (configuration #145)."""

    name: str
    size: int = 5
    alpha: float = 0.001
    beta: float = 0.75


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization of each channel (Ioffe and Szegedy 2015), for tables that have it as a layer of their own."""

    name: str


@dataclass(frozen=True)
class Pool:
    """Pooling; by default over windows of 3×3 with stride 2 (paper, section 3.4).

    Parameters
    ----------
    name : str
        Name of the module.
    ceil : bool
        Whether windows may hang over the edge, as `ceil_mode` of `torch.nn.MaxPool2d`.
    average : bool
        Average pooling instead of max pooling.
    size, stride, padding : int
        As in `torch.nn.MaxPool2d`; average pooling has no padding.
    trainable : bool
        Whether each average is multiplied by a coefficient of its channel, and a bias added, as in LeNet-5.
    """

    name: str
    ceil: bool = False
    average: bool = False
    size: int = 3
    stride: int = 2
    padding: int = 0
    trainable: bool = False


@dataclass(frozen=True)
class GlobalPool:
    """The mean of each feature map, whatever its size (global average pooling)."""

    name: str


@dataclass(frozen=True)
class Dropout:
    """Dropout with probability 0.5, or that of `AlexNet`'s `dropout`."""

    name: str


@dataclass(frozen=True)
class Grayscale:
    """The luminance of an RGB input, one channel (ITU-R BT.601); no weights."""

    name: str


@dataclass(frozen=True)
class RadialBasis:
    """The output layer of LeNet-5: each class has a fixed code of +1 and -1, one number for each unit below.

    The logit of a class is minus the squared distance of the units from its code. Nothing in it is trained.
    """

    name: str


@dataclass(frozen=True)
class Residual:
    """A residual block: the sum of what `layers` and `shortcut` make of the same input (He et al. 2015).

    Parameters
    ----------
    name : str
        Name of the block.
    layers : tuple of Layer
        Convolutions, normalizations and non-linearities, from the input up.
    shortcut : tuple of Layer
        Layers of the shortcut; none for the identity.
    """

    name: str
    layers: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


WeightedLayer = Conv | LocallyConnected | FullyConnected
OutputLayer = FullyConnected | RadialBasis
Layer = (
    WeightedLayer
    | Activation
    | LocalNorm
    | SpatialNorm
    | BatchNorm
    | Pool
    | GlobalPool
    | Dropout
    | Grayscale
    | RadialBasis
    | Residual
)
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Layer.__args__}


def all_rows(layers: Sequence[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every row with the path of its module, from the input up: residual blocks, then the rows inside them.

    A row inside a block has a path such as ``block2.body.conv_a``, or ``block2.shortcut.conv``.
    """
    for row in layers:
        path = f"{prefix}{row.name}"
        yield path, row
        if isinstance(row, Residual):
            yield from all_rows(row.layers, f"{path}.body.")
            yield from all_rows(row.shortcut, f"{path}.shortcut.")


def row_to_dict(row: Layer) -> dict[str, Any]:
    """A row as JSON-able values; `row_from_dict` reads it."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return row_to_dict(value) if type(value) in KINDS.values() else value

    values = {field.name: plain(getattr(row, field.name)) for field in fields(row)}
    return {"layer": type(row).__name__, **values}


def row_from_dict(values: Mapping[str, Any]) -> Layer:
    """The row that `row_to_dict` described. Raises KeyError, TypeError or AttributeError for anything else."""

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(read(item) for item in value)
        return row_from_dict(value) if isinstance(value, Mapping) else value

    given = {name: read(value) for name, value in values.items() if name != "layer"}
    row: Layer = KINDS[values["layer"]](**given)
    return row
