"""The layers that PyTorch does not have, or has in another form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.network.normalization import local_response_norm, spatial_response_norm
from alexnet.network.variants import LocalNorm, SpatialNorm


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


Weighted = nn.Conv2d | nn.Linear | LocallyConnected2d
"""The modules that the paper counts as layers: those with weights."""


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
