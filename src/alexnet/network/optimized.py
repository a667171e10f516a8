"""The optimized form of the network: the same computation as `AlexNet` with fewer passes over memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, zip_longest

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.kernels.code import host
from alexnet.kernels.pool import can_pool, max_pool
from alexnet.network.layers import LocalResponseNorm, ResidualBlock, Weighted, leaves
from alexnet.network.model import AlexNet
from alexnet.network.normalization import local_response_norm

Step = Callable[[Tensor], Tensor]
"""A module, or a function in place of several."""


def without_batch_norm(network: AlexNet) -> AlexNet:
    """The network for inference: batch normalization, as in evaluation, folded into the convolution below it.

    Parameters
    ----------
    network : AlexNet
        In evaluation mode; it is not changed.

    Returns
    -------
    AlexNet
        A network with the same outputs up to rounding; `network` itself where it has no batch normalization.
    """
    pairs = list(_normalized_convolutions(network))
    if not pairs:
        return network
    # Parameters that folding leaves alone are shared: the fully connected layers are most of the memory.
    kept = {id(parameter): parameter for parameter in network.parameters()}
    folded = copy.deepcopy(network, kept)
    with torch.no_grad():
        for path, norm_path in pairs:
            conv, norm = folded.get_submodule(path), network.get_submodule(norm_path)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            gain, offset = gain_and_offset(norm, 0.0 if conv.bias is None else conv.bias)
            conv.weight = nn.Parameter(conv.weight * gain[:, None, None, None])
            conv.bias = nn.Parameter(offset)
            parent, _, name = norm_path.rpartition(".")
            folded.get_submodule(parent)._modules[name] = nn.Identity()
    return folded


def gain_and_offset(norm: nn.BatchNorm2d, bias: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Batch normalization after a layer with a bias, at inference: a factor and an offset of each feature map."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias + (bias - norm.running_mean) * gain


def _normalized_convolutions(network: AlexNet) -> Iterator[tuple[str, str]]:
    """The paths of each convolution and of the batch normalization that reads it alone."""
    for (path, module), (after, following) in pairwise(leaves(network)):
        siblings = path.rpartition(".")[0] == after.rpartition(".")[0]
        if siblings and isinstance(module, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            yield path, after


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
        self._names = [name for name, _ in network.named_children()]
        self._steps = list(self._arranged(list(self.layers)))
        pools = (number for number, step in enumerate(self._steps) if isinstance(step, ReluPool))
        self._first_pool = next(pools, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) in `dtype` of an input (N, 3, S, S) as `AlexNet.forward` takes it."""
        return self.after_first_pool(self.first_pool(self.before_first_pool(x)))

    def named_steps(self) -> Iterator[tuple[tuple[str, ...], Step]]:
        """The functions that `forward` calls one after another, each with the names of the layers that it computes."""
        names = iter(self._names)
        for step in self._steps:
            fused = isinstance(step, _ReluNorm) or (isinstance(step, ReluPool) and step.relu)
            yield tuple(next(names) for _ in range(1 + fused)), step

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

    def _arranged(self, modules: Sequence[nn.Module]) -> Iterator[Step]:
        """The functions that `forward` calls one after another."""
        return _fused_steps(modules)

    def _run(self, x: Tensor, first: int, last: int | None) -> Tensor:
        for step in self._steps[first:last]:
            x = step(x)
        return x

    def _in_dtype(self, module: nn.Module) -> nn.Module:
        """The module itself, or a copy whose weights are rounded to `dtype`."""
        if self.dtype in (torch.float32, torch.float64) or not isinstance(module, Weighted | ResidualBlock):
            return module
        if isinstance(module, ResidualBlock):
            return ResidualBlock(
                *(nn.Sequential(*map(self._in_dtype, part)) for part in (module.body, module.shortcut))
            )
        rounded = copy.deepcopy(module).to(self.dtype)
        self.copies.update(zip(module.parameters(), rounded.parameters(), strict=True))
        return rounded


def _fused_steps(modules: Sequence[nn.Module]) -> Iterator[Step]:
    """The modules as functions; some of them fuse two modules."""
    pairs = iter(zip_longest(modules, modules[1:]))
    for module, following in pairs:
        match module, following:
            case nn.ReLU(), LocalResponseNorm():
                next(pairs)
                yield _ReluNorm(following)
            case nn.ReLU(), nn.MaxPool2d() if _is_overlapping(following):
                next(pairs)
                yield ReluPool(following, relu=True)
            case nn.MaxPool2d(), _ if _is_overlapping(module):
                yield ReluPool(module, relu=False)
            case ResidualBlock(), _:
                yield ResidualSum(*(list(_fused_steps(list(part))) for part in (module.body, module.shortcut)))
            case nn.AdaptiveAvgPool2d(), _:
                yield FitSize(module)
            case nn.Linear(), _:
                yield FullyConnected(module)
            case _:
                yield module


class ResidualSum:
    """A residual block."""

    def __init__(self, body: list[Step], shortcut: list[Step]) -> None:
        self.body, self.shortcut = body, shortcut

    def __call__(self, x: Tensor) -> Tensor:
        added = x
        for step in self.shortcut:
            added = step(added)
        for step in self.body:
            x = step(x)
        return x + added


def _is_overlapping(pool: nn.MaxPool2d) -> bool:
    """Whether the windows are those of the paper, which the kernels compute."""
    return (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 0)


class _ReluNorm:
    """ReLU and local response normalization in one pass over memory."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        self.row = norm.row

    def __call__(self, x: Tensor) -> Tensor:
        row = self.row
        return local_response_norm(
            x, row.size, row.alpha, row.beta, row.k, divide_by_n=row.divide_by_n, groups=row.groups, relu=True
        )


class ReluPool:
    """Max pooling 3×3, with ReLU before it in the same pass over memory where there is one."""

    def __init__(self, pool: nn.MaxPool2d, relu: bool) -> None:
        self.pool, self.relu = pool, relu

    def __call__(self, x: Tensor) -> Tensor:
        if can_pool(x):
            return max_pool(x, relu=self.relu, ceil=self.pool.ceil_mode)
        return self.pool(functional.relu(x) if self.relu else x)


class FullyConnected:
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


class FitSize:
    """The averaging of feature maps to their nominal size; skipped where they have it."""

    def __init__(self, fit: nn.AdaptiveAvgPool2d) -> None:
        self.fit = fit

    def __call__(self, x: Tensor) -> Tensor:
        return x if x.shape[2:] == (self.fit.output_size,) * 2 else self.fit(x)
