"""The optimized form of the network: the same computation as `AlexNet` with fewer passes over memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.kernels.blocks import blocks, can_block
from alexnet.kernels.code import host
from alexnet.kernels.pool import can_pool, max_pool
from alexnet.network.layers import LocalResponseNorm, Weighted, output_size
from alexnet.network.model import AlexNet
from alexnet.network.normalization import local_response_norm

BLOCK = 4
"""Height and width in pixels of the blocks that the first convolution reads as channels: its stride."""


class OptimizedNetwork(nn.Module):
    """An `AlexNet` arranged for speed, with the same result up to rounding.

    ReLU runs within the response normalization or pooling that follows it. On a CPU the first convolution reads blocks
    of 4×4 pixels as 48 channels, since three channels leave most of a vector register empty.

    In bfloat16 the convolutions and fully connected layers have rounded copies of the weights, which are made once an
    update; autocast would make them in every forward pass. In float32 and float64 all parameters are shared with
    `network`. Batch normalization always is.

    Parameters
    ----------
    network : AlexNet
        The network that keeps the weights.
    dtype : torch.dtype
        Precision of the forward and backward pass.

    Attributes
    ----------
    dtype : torch.dtype
        As given.
    layers : ModuleList
        The modules, from the input to the output.
    copies : dict
        Maps each parameter of `network` to its rounded copy; empty in float32 and float64. Code that changes the
        weights changes both, as `alexnet.training.optimizers.update_all` does.
    """

    def __init__(self, network: AlexNet, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.copies: dict[nn.Parameter, nn.Parameter] = {}
        self.layers = nn.ModuleList(self._in_dtype(module) for module in network.children())
        self._steps = list(_fused_steps(list(self.layers)))
        pools = (number for number, step in enumerate(self._steps) if isinstance(step, _ReluPool))
        self._first_pool = next(pools, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) in `dtype` of an input (N, 3, S, S) as `AlexNet.forward` takes it."""
        return self.after_first_pool(self.first_pool(self.before_first_pool(x)))

    def before_first_pool(self, x: Tensor) -> Tensor:
        """The input of the first pooling, (N, C, H, W); `x` may have any height and width."""
        if not isinstance(self._steps[0], _BlockConvolution):
            x = x.to(self.dtype)
        return self._run(x, 0, self._first_pool)

    def first_pool(self, maps: Tensor) -> Tensor:
        """The first pooling of what `before_first_pool` returns."""
        return self._steps[self._first_pool](maps)

    def after_first_pool(self, pooled: Tensor) -> Tensor:
        """The logits (N, num_classes) of what `first_pool` returns."""
        return self._run(pooled, self._first_pool + 1, None)

    def penultimate(self, x: Tensor) -> Tensor:
        """The input of the output layer, (N, units) in `dtype`; `x` as `forward` takes it."""
        pooled = self.first_pool(self.before_first_pool(x))
        return self._run(pooled, self._first_pool + 1, -1)

    def output_of(self, features: Tensor) -> Tensor:
        """The logits (N, num_classes) of what `penultimate` returns."""
        return self._run(features, len(self._steps) - 1, None)

    def run_until(self, x: Tensor, module: nn.Module) -> Tensor:
        """The input of one of the modules without weights; `x` as `forward` takes it."""
        pooled = self.first_pool(self.before_first_pool(x))
        return self._run(pooled, self._first_pool + 1, self._steps.index(module))

    def run_after(self, activations: Tensor, module: nn.Module) -> Tensor:
        """The logits (N, num_classes) of what that module returns."""
        return self._run(activations, self._steps.index(module) + 1, None)

    def _run(self, x: Tensor, first: int, last: int | None) -> Tensor:
        for step in self._steps[first:last]:
            x = step(x)
        return x

    def _in_dtype(self, module: nn.Module) -> nn.Module:
        """The module itself, or a copy whose weights are rounded to `dtype`."""
        if self.dtype in (torch.float32, torch.float64) or not isinstance(module, Weighted):
            return module
        rounded = copy.deepcopy(module).to(self.dtype)
        self.copies.update(zip(module.parameters(), rounded.parameters(), strict=True))
        return rounded


def _fused_steps(modules: list[nn.Module]) -> Iterator[Callable[[Tensor], Tensor]]:
    """The modules as functions; some of them fuse two modules."""
    pairs = iter(zip(modules, [*modules[1:], None], strict=True))
    for module, following in pairs:
        match module, following:
            case nn.ReLU(), LocalResponseNorm():
                next(pairs)
                yield _ReluNorm(following)
            case nn.ReLU(), nn.MaxPool2d() if following.kernel_size == 3:
                next(pairs)
                yield _ReluPool(following, relu=True)
            case nn.MaxPool2d(), _ if module.kernel_size == 3:
                yield _ReluPool(module, relu=False)
            case nn.Conv2d(), _ if _reads_blocks(module):
                yield _BlockConvolution(module)
            case nn.Dropout(), _:
                yield FastDropout(module)
            case nn.AdaptiveAvgPool2d(), _:
                yield _FitSize(module)
            case nn.Linear(), _:
                yield _FullyConnected(module)
            case _:
                yield module


class _ReluNorm:
    """ReLU and local response normalization in one pass over memory."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        self.row = norm.row

    def __call__(self, x: Tensor) -> Tensor:
        row = self.row
        return local_response_norm(
            x, row.size, row.alpha, row.beta, row.k, divide_by_n=row.divide_by_n, groups=row.groups, relu=True
        )


class _ReluPool:
    """Max pooling 3×3, with ReLU before it in the same pass over memory where there is one."""

    def __init__(self, pool: nn.MaxPool2d, relu: bool) -> None:
        self.pool, self.relu = pool, relu

    def __call__(self, x: Tensor) -> Tensor:
        if can_pool(x):
            return max_pool(x, relu=self.relu, ceil=self.pool.ceil_mode)
        return self.pool(functional.relu(x) if self.relu else x)


def _reads_blocks(conv: nn.Conv2d) -> bool:
    return conv.in_channels == 3 and conv.stride == (4, 4) and conv.kernel_size == (11, 11) and conv.groups == 1


class _BlockConvolution:
    """A convolution of 11×11 with stride 4 over RGB, computed as one of 3×3 with stride 1 over blocks of 4×4 pixels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        if x.requires_grad or not can_block(x):
            return conv(x.to(conv.weight.dtype))
        # 11×11 kernels padded to 12×12 are 3×3 blocks; the channels are a block's rows, columns and colors.
        weight = functional.pad(conv.weight, (0, 1, 0, 1)).unflatten(3, (3, BLOCK)).unflatten(2, (3, BLOCK))
        weight = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
        weight = weight.contiguous(memory_format=torch.channels_last)
        padding = int(conv.padding[0])
        if padding:
            x = functional.pad(x, (padding, 0, padding, 0)).contiguous(memory_format=torch.channels_last)
        height, width = (output_size(conv, side + padding) for side in x.shape[2:])
        return functional.conv2d(blocks(x, height + 2, width + 2, weight.dtype), weight, conv.bias)


class FastDropout:
    """Dropout whose mask is drawn in single precision on a CPU, where torch draws it in double."""

    def __init__(self, dropout: nn.Dropout) -> None:
        self.dropout = dropout

    def __call__(self, x: Tensor) -> Tensor:
        """`x` with dropout in training, unchanged in evaluation."""
        return self.drop(x) if self.dropout.training else x

    def drop(self, x: Tensor) -> Tensor:
        """`x` with units set to zero and the others scaled by ``1 / (1 - p)``, whatever the mode."""
        p = self.dropout.p
        if x.device.type != "cpu":
            return functional.dropout(x, p)
        kept = torch.rand(x.shape) >= p
        return x * kept.to(x.dtype).mul_(1 / (1 - p))


class _FullyConnected:
    """A fully connected layer; for few images in float32 by oneDNN, which reads the weights once and in place.

    torch uses MKL, which first packs the weights anew for every batch: for ten views of an image that takes longer
    than the product itself. It does not pack them for one or two images; but on AMD's CPUs it then reads at two thirds
    of the memory bandwidth.
    """

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        self.small_batches = range(1 if host().name.startswith("znver") else 3, 65)

    def __call__(self, x: Tensor) -> Tensor:
        linear = self.linear
        if x.requires_grad or torch.is_grad_enabled() or not self._suits_onednn(x):
            return linear(x)
        return torch._C._nn.mkldnn_linear(x.to_mkldnn(), linear.weight, linear.bias).to_dense()

    def _suits_onednn(self, x: Tensor) -> bool:
        float32 = x.dtype == self.linear.weight.dtype == torch.float32
        small = len(x) in self.small_batches
        return float32 and x.device.type == "cpu" and small and torch.backends.mkldnn.is_available()


class _FitSize:
    """The averaging of feature maps to their nominal size; skipped where they have it."""

    def __init__(self, fit: nn.AdaptiveAvgPool2d) -> None:
        self.fit = fit

    def __call__(self, x: Tensor) -> Tensor:
        return x if x.shape[2:] == (self.fit.output_size,) * 2 else self.fit(x)
