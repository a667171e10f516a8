"""The network for inference: its weights no longer change, so they are arranged once for the kernels that read them.

A product reads its weights in blocks that fit the registers of the CPU. Where weights may change, oneDNN or MKL arrange
them anew for every batch, which for a small batch takes longer than the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.kernels.safe import is_safe_mode
from alexnet.kernels.winograd import WinogradConv, can_transform
from alexnet.network.layers import OverhangConv2d
from alexnet.network.model import AlexNet
from alexnet.network.optimized import FitSize, FullyConnected, OptimizedNetwork, ResidualSum, Step, without_batch_norm


class FrozenNetwork(OptimizedNetwork):
    """An `OptimizedNetwork` for inference: without gradients, in evaluation mode, with weights that do not change.

    Batch normalization is folded into the convolutions. On a CPU with oneDNN each convolution and fully connected layer
    has a copy of its weights in the layout of oneDNN, made when it is first needed; ReLU is a part of it. Where an
    input is not of the nominal size, the averaging of the last feature maps is folded into the weights of the first
    fully connected layer, which are fewer then.

    Parameters
    ----------
    network : AlexNet
        In evaluation mode; it is not changed.
    dtype : torch.dtype
        Precision of the forward pass.
    packed : bool
        Whether to make those copies. They cost 0.2 seconds and the memory of the weights, which a single batch of
        images does not repay.
    """

    def __init__(self, network: AlexNet, dtype: torch.dtype = torch.float32, *, packed: bool = True) -> None:
        self._packs = packed and _can_pack(next(network.parameters()).device, dtype)
        super().__init__(without_batch_norm(network), dtype)

    def named_steps(self) -> Iterator[tuple[tuple[str, ...], Step]]:
        """Not offered: a step may compute more than two layers."""
        raise NotImplementedError

    def _arranged(self, modules: Sequence[nn.Module]) -> Iterator[Step]:
        steps = [step for step in super()._arranged(modules) if not isinstance(step, nn.Identity | nn.Dropout)]
        return _packed_steps(steps, self.dtype) if self._packs else iter(steps)

    def _in_dtype(self, module: nn.Module) -> nn.Module:
        # A packed copy is rounded when it is made.
        return module if self._packs and isinstance(module, nn.Conv2d | nn.Linear) else super()._in_dtype(module)


_OPERATORS = (
    "_reorder_convolution_weight",
    "_convolution_pointwise",
    "_reorder_linear_weight",
    "_linear_pointwise",
    "_get_mkldnn_serialized_md",
    "_is_mkldnn_bf16_supported",
)
"""Operators of oneDNN that PyTorch's compiler calls. They are not public, and absent from builds without it."""


def _can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes on this device in this precision."""
    return (
        not is_safe_mode()
        and device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def _packed_steps(steps: list[Step], dtype: torch.dtype) -> Iterator[Step]:
    """The steps with packed weights; some of them compute several."""
    position = 0
    while position < len(steps):
        length = 1
        match steps[position : position + 4]:
            case [nn.Conv2d() as conv, nn.ReLU(), *_]:
                length = 2
                yield _PackedConv(conv, dtype, relu=True)
            case [nn.Conv2d() as conv, *_]:
                yield _PackedConv(conv, dtype, relu=False)
            # Not where it is the output layer, whose input `penultimate` returns.
            case [FitSize() as fit, nn.Flatten(), FullyConnected() as layer, following]:
                relu = isinstance(following, nn.ReLU)
                length = 3 + relu
                yield _PackedFirstLinear(layer.linear, dtype, relu=relu, fit=fit)
            case [FullyConnected() as layer, *rest]:
                relu = isinstance(next(iter(rest), None), nn.ReLU)
                length = 1 + relu
                yield _PackedLinear(layer.linear, dtype, relu=relu)
            case [ResidualSum() as block, *_]:
                parts = (
                    [step for step in part if not isinstance(step, nn.Identity)]
                    for part in (block.body, block.shortcut)
                )
                yield ResidualSum(*(list(_packed_steps(part, dtype)) for part in parts))
            case [step, *_]:
                yield step
        position += length


class _Packed:
    """A layer with packed weights.

    Parameters
    ----------
    layer : Module
        The layer.
    dtype : torch.dtype
        Precision of the weights.
    relu : bool
        Whether ReLU follows.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, dtype: torch.dtype, *, relu: bool) -> None:
        self.dtype, self.relu = dtype, "relu" if relu else "none"
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)


class _PackedConv(_Packed):
    """A convolution; where Winograd's algorithm is faster, by that.

    On CPUs with matrix units (AMX) the layout that oneDNN reads depends on the number of images, and from another one
    it converts the weights in every call, which takes longer than the convolution of 16 images. Therefore the weights
    are packed for each shape of input; shapes with the same layout share them.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, *, relu: bool) -> None:
        super().__init__(conv, dtype, relu=relu)
        self.conv = conv
        self.weights: dict[torch.Size, Tensor] = {}
        self.options = [list(value) for value in (conv.padding, conv.stride, conv.dilation)]
        self.winograd = WinogradConv(conv, relu=relu)

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        if can_transform(conv, x):
            return self.winograd(x)
        if isinstance(conv, OverhangConv2d) and any(over := conv.overhang(x.shape[-2:])):
            x = functional.pad(x, (0, over[1], 0, over[0]))
        if x.shape not in self.weights:
            self.weights[x.shape] = self._packed_for(x.shape)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weights[x.shape], self.bias, *self.options, conv.groups, self.relu, [], ""
        )
        return result

    def _packed_for(self, shape: torch.Size) -> Tensor:
        """The weights in the layout for inputs of this shape."""
        conv = self.conv
        weight = conv.weight.detach().to(self.dtype)
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.options, conv.groups, list(shape))
        others = list(self.weights.values())  # another thread may add one meanwhile
        return next((other for other in others if _layout(other) == _layout(packed)), packed)


def _layout(packed: Tensor) -> bytes:
    """oneDNN's description of the memory of a packed tensor."""
    description: Tensor = torch.ops.mkldnn._get_mkldnn_serialized_md(packed)
    return description.numpy().tobytes()


class _PackedLinear(_Packed):
    """A fully connected layer."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, *, relu: bool) -> None:
        super().__init__(linear, dtype, relu=relu)
        self.linear = linear
        self.weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight is None:
            self.weight = self.packed(self.linear.weight)
        return self.product(x, self.weight)

    def packed(self, weight: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(self.dtype), None)
        return result

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, self.relu, [], "")
        return result


class _PackedFirstLinear(_PackedLinear):
    """The first fully connected layer with the averaging below it, for the size of the feature maps that it sees first.

    The weights are in the order of the memory of channels-last feature maps.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, *, relu: bool, fit: FitSize) -> None:
        super().__init__(linear, dtype, relu=relu)
        self.fit = fit
        self.sides: tuple[int, ...] | None = None

    def __call__(self, maps: Tensor) -> Tensor:
        if self.sides is None:
            self.weight, self.sides = self.packed(self._folded(*maps.shape[1:])), tuple(maps.shape[2:])
        if maps.shape[2:] == self.sides:
            assert self.weight is not None
            return self.product(maps.permute(0, 2, 3, 1).flatten(1), self.weight)
        x = functional.linear(self.fit(maps).flatten(1), self.linear.weight.to(self.dtype), self.bias)
        return x if self.relu == "none" else x.relu_()

    def _folded(self, channels: int, height: int, width: int) -> Tensor:
        """The weights (units, height · width · channels) of feature maps of these sides."""
        weight = self.linear.weight.detach().view(len(self.linear.weight), channels, -1)
        pixels = torch.eye(height * width).view(-1, 1, height, width)
        averaging = self.fit(pixels).flatten(1)  # row p is what pixel p contributes to each value of the nominal size
        if averaging.shape[0] != averaging.shape[1]:
            weight = weight @ averaging.T
        return weight.transpose(1, 2).flatten(1)
