"""The layers that PyTorch does not have, or has in another form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.network.normalization import local_response_norm, spatial_response_norm
from alexnet.network.rows import LocalNorm, SpatialNorm


class OverhangConv2d(nn.Conv2d):
    """A convolution whose last window may hang over the right and lower edge and reads zeros there."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, kernels, H', W'), where H' is ``1 + ceil((H + 2 · padding - size) / stride)``."""
        over = self.overhang(x.shape[-2:])
        return super().forward(functional.pad(x, (0, over[1], 0, over[0])) if any(over) else x)

    def overhang(self, sides: Sequence[int]) -> list[int]:
        """Rows below and columns to the right of an input of these sides that the last windows read beyond it."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        return [(output_size(self, side) - 1) * stride + kernel - side for side in sides]


def output_size(conv: nn.Conv2d, side: int) -> int:
    """The height (or width) of a convolution's output for an input of that height, padding included."""
    room, stride = side - conv.kernel_size[0], conv.stride[0]
    return (-(-room // stride) if isinstance(conv, OverhangConv2d) else room // stride) + 1


class LocallyConnected2d(nn.Module):
    """A convolution of stride 1 with kernels of its own at each output position, for inputs of a fixed size.

    Parameters
    ----------
    channels : int
        Input channels.
    kernels : int
        Output channels.
    size : int
        Height and width of a kernel.
    padding : int
        Zeros around the input.
    input_side : int
        Height and width of the input.

    Attributes
    ----------
    output_side : int
        Height and width of the output.
    weight : Parameter
        (output_side² · kernels, channels · size²): one row for each unit, position after position.
    bias : Parameter
        (output_side² · kernels,)
    """

    def __init__(self, channels: int, kernels: int, size: int, padding: int, input_side: int) -> None:
        super().__init__()
        self.channels, self.kernels, self.size, self.padding = channels, kernels, size, padding
        self.output_side = input_side + 2 * padding - size + 1
        self.weight = nn.Parameter(torch.empty(self.output_side**2 * kernels, channels * size**2))
        self.bias = nn.Parameter(torch.empty(len(self.weight)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, input_side, input_side) → (N, kernels, output_side, output_side)."""
        windows = functional.unfold(x, self.size, padding=self.padding).permute(2, 0, 1)
        rows = self.weight.view(len(windows), self.kernels, -1)
        units = torch.baddbmm(self.bias.view(len(windows), 1, self.kernels), windows, rows.mT)
        return units.permute(1, 2, 0).unflatten(2, (self.output_side, self.output_side))

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return (
            f"{self.channels}, {self.kernels}, size={self.size}, padding={self.padding}, output_side={self.output_side}"
        )


class PartialConv2d(nn.Module):
    """A convolution of stride 1 without padding whose kernels read some of the channels below, each its own.

    Parameters
    ----------
    channels : int
        Input channels.
    connections : sequence of sequence of int
        For each kernel the channels that it reads.
    size : int
        Height and width of a kernel.

    Attributes
    ----------
    weight : Parameter
        (connections of all kernels, size²), kernel after kernel.
    bias : Parameter
        (kernels,)
    """

    stride, padding, groups = (1, 1), (0, 0), 1

    def __init__(self, channels: int, connections: Sequence[Sequence[int]], size: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.connections = channels, len(connections), connections
        self.kernel_size = (size, size)
        self.weight = nn.Parameter(torch.empty(sum(map(len, connections)), size**2))
        self.bias = nn.Parameter(torch.empty(len(connections)))
        self._rows: dict[torch.device, Tensor] = {}

    def rows(self) -> list[int]:
        """For each place of the whole kernels the row of `weight`, or the one behind the last, for zeros."""
        numbers = iter(range(len(self.weight)))
        return [
            next(numbers) if channel in read else len(self.weight)
            for read in self.connections
            for channel in range(self.in_channels)
        ]

    def whole(self) -> Tensor:
        """The kernels with zeros where they read nothing, (kernels, channels, size, size)."""
        device = self.weight.device
        if device not in self._rows:
            self._rows[device] = torch.tensor(self.rows(), device=device)
        padded = torch.cat([self.weight, self.weight.new_zeros(1, self.weight.shape[1])])
        return padded[self._rows[device]].view(self.out_channels, self.in_channels, *self.kernel_size)

    def fan_in(self) -> Tensor:
        """For each row of `weight` the number of inputs of its unit, (connections, 1)."""
        counts = torch.tensor([len(read) for read in self.connections])
        return (counts.repeat_interleave(counts) * self.weight.shape[1])[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → (N, kernels, H - size + 1, W - size + 1)."""
        return functional.conv2d(x, self.whole(), self.bias)

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {len(self.weight)} connections"
        )


Convolution = nn.Conv2d | PartialConv2d
"""The modules whose kernels are shared by all positions."""
Weighted = nn.Conv2d | nn.Linear | LocallyConnected2d | PartialConv2d
"""The modules that the paper counts as layers: those with weights."""


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3), which is 1 at 1 and -1 at -1 (LeCun et al. 1998, appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape → the same shape."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class ScaledAvgPool2d(nn.AvgPool2d):
    """Average pooling, times a coefficient of the channel, plus a bias of the channel (LeCun et al. 1998)."""

    def __init__(self, channels: int, kernel_size: int, stride: int, *, ceil_mode: bool = False) -> None:
        super().__init__(kernel_size, stride, ceil_mode=ceil_mode)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H', W')."""
        mean = super().forward(x)
        weight, bias = (parameter.to(mean.dtype)[:, None, None] for parameter in (self.weight, self.bias))
        return mean * weight + bias


class GlobalAvgPool2d(nn.AdaptiveAvgPool2d):
    """The mean of each feature map: (N, C, H, W) → (N, C, 1, 1)."""

    def __init__(self) -> None:
        super().__init__(1)


LUMINANCE = (0.299, 0.587, 0.114)


class Luminance(nn.Module):
    """(N, 3, H, W) → (N, 1, H, W), with the weights of ITU-R BT.601; linear, so the mean may be subtracted before."""

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum of the channels."""
        red, green, blue = (weight * x[:, channel : channel + 1] for channel, weight in enumerate(LUMINANCE))
        return red + green + blue


class CodeDistances(nn.Module):
    """Minus the squared distances of the units below from the fixed code of each class (LeCun et al. 1998, RBF).

    Attributes
    ----------
    codes : Tensor
        (classes, units), +1 or -1, drawn from a generator of their own: the same in every network.
    """

    codes: Tensor

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        drawn = torch.randint(2, (classes, units), generator=torch.Generator().manual_seed(1998), device="cpu")
        self.register_buffer("codes", (2 * drawn - 1).to(dtype=torch.get_default_dtype(), device=torch.empty(0).device))

    def forward(self, x: Tensor) -> Tensor:
        """(N, units) → (N, classes)."""
        codes = self.codes.to(x.dtype)
        return 2 * x @ codes.T - x.square().sum(1, keepdim=True) - codes.square().sum(1)


class ResidualBlock(nn.Module):
    """The sum of two sequences of layers that read the same input; an empty shortcut is the identity."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H', W')."""
        return self.body(x) + self.shortcut(x)


def leaves(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that compute something themselves, each with its path: the layers, and those of residual blocks."""
    for path, module in network.named_modules():
        if path and not isinstance(module, nn.Sequential | ResidualBlock):
            yield path, module


class LocalResponseNorm(nn.Module):
    """`alexnet.network.normalization.local_response_norm` as a module, with the constants of a row."""

    def __init__(self, row: LocalNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        row = self.row
        return local_response_norm(
            x, row.size, row.alpha, row.beta, row.k, divide_by_n=row.divide_by_n, groups=row.groups
        )

    def extra_repr(self) -> str:
        """The row, for `repr`."""
        return str(self.row)


class SpatialResponseNorm(nn.Module):
    """`alexnet.network.normalization.spatial_response_norm` as a module, with the constants of a row."""

    def __init__(self, row: SpatialNorm) -> None:
        super().__init__()
        self.row = row

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return spatial_response_norm(x, self.row.size, self.row.alpha, self.row.beta)

    def extra_repr(self) -> str:
        """The row, for `repr`."""
        return str(self.row)
