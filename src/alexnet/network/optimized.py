"""The optimized form of the network: the same computation as `AlexNet` with fewer passes over memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.kernels.code import host
from alexnet.kernels.pool import can_pool, max_pool
from alexnet.network.layers import LocalResponseNorm, Weighted
from alexnet.network.model import AlexNet
from alexnet.network.normalization import local_response_norm


class OptimizedNetwork(nn.Module):
    """An `AlexNet` arranged for speed, with the same result up to rounding.

    ReLU runs within the response normalization or pooling that follows it.

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
        return self._run(x.to(self.dtype), 0, self._first_pool)

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
