"""The network as it runs: the same sums as `AlexNet`, in the precision chosen, with fewer passes over memory."""

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


class OptimizedNetwork(nn.Module):
    """An `AlexNet` arranged for speed; called like it, with the same result up to rounding.

    `network` keeps the float32 weights. In bfloat16 the convolutions and fully connected layers here have copies of
    them, rounded: made once an update, where autocast would make them once a pass, with gradients of their own.
    `copies` maps each of those parameters to its copy; who changes the weights changes both, as `update_all` does. In
    float32 there are none, and everything is shared with `network`, as batch normalization always is.

    ReLU runs within the response normalization or pooling that follows it, and on a CPU the first convolution reads
    blocks of 4×4 pixels as 48 maps, since three maps leave a vector register mostly empty.
    """

    def __init__(self, network: AlexNet, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.copies: dict[nn.Parameter, nn.Parameter] = {}
        self.layers = nn.ModuleList(self._copied(module) for module in network.children())
        self._steps = list(_fused(list(self.layers)))
        pools = (number for number, step in enumerate(self._steps) if isinstance(step, _Pool))
        self._first_pool = next(pools, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) pixels minus the mean, any floating point → logits (N, num_classes) in the precision chosen."""
        return self.above(self.pool(self.first_maps(x)))

    def first_maps(self, x: Tensor) -> Tensor:
        """What the first pooling reads: input as `forward` takes it, of any height and width → (N, C, H, W)."""
        if not isinstance(self._steps[0], _BlockConvolution):
            x = x.to(self.dtype)
        for step in self._steps[: self._first_pool]:
            x = step(x)
        return x

    def pool(self, maps: Tensor) -> Tensor:
        """The first pooling of what `first_maps` returns."""
        return self._steps[self._first_pool](maps)

    def above(self, pooled: Tensor) -> Tensor:
        """From what `pool` returns to the logits (N, num_classes)."""
        for step in self._steps[self._first_pool + 1 :]:
            pooled = step(pooled)
        return pooled

    def below(self, x: Tensor, module: nn.Module) -> Tensor:
        """What a module without weights reads: input as `forward` takes it."""
        return self._through(self.pool(self.first_maps(x)), self._first_pool + 1, self._steps.index(module))

    def beyond(self, activations: Tensor, module: nn.Module) -> Tensor:
        """From what that module returns to the logits (N, num_classes)."""
        return self._through(activations, self._steps.index(module) + 1, None)

    def _through(self, x: Tensor, first: int, last: int | None) -> Tensor:
        for step in self._steps[first:last]:
            x = step(x)
        return x

    def _copied(self, module: nn.Module) -> nn.Module:
        whole = self.dtype in (torch.float32, torch.float64)
        if whole or not isinstance(module, Weighted):
            return module
        twin = copy.deepcopy(module).to(self.dtype)
        self.copies.update(zip(module.parameters(), twin.parameters(), strict=True))
        return twin


def _fused(modules: list[nn.Module]) -> Iterator[Callable[[Tensor], Tensor]]:
    """What is done one after the other; some steps are two modules in one."""
    rest = iter(zip(modules, [*modules[1:], None], strict=True))
    for module, following in rest:
        match module, following:
            case nn.ReLU(), LocalResponseNorm():
                next(rest)
                yield _ReluNorm(following)
            case nn.ReLU(), nn.MaxPool2d() if following.kernel_size == 3:
                next(rest)
                yield _Pool(following, relu=True)
            case nn.MaxPool2d(), _ if module.kernel_size == 3:
                yield _Pool(module, relu=False)
            case nn.Conv2d(), _ if _reads_blocks(module):
                yield _BlockConvolution(module)
            case nn.Dropout(), _:
                yield FastDropout(module)
            case nn.AdaptiveAvgPool2d(), _:
                yield _Fit(module)
            case nn.Linear(), _:
                yield _Full(module)
            case _:
                yield module


class _ReluNorm:
    def __init__(self, norm: LocalResponseNorm) -> None:
        self.row = norm.row

    def __call__(self, x: Tensor) -> Tensor:
        row = self.row
        return local_response_norm(
            x, row.size, row.alpha, row.beta, row.k, divide_by_n=row.divide_by_n, groups=row.groups, relu=True
        )


class _Pool:
    def __init__(self, pool: nn.MaxPool2d, relu: bool) -> None:
        self.pool, self.relu = pool, relu

    def __call__(self, x: Tensor) -> Tensor:
        if can_pool(x):
            return max_pool(x, relu=self.relu, ceil=self.pool.ceil_mode)
        return self.pool(functional.relu(x) if self.relu else x)


def _reads_blocks(conv: nn.Conv2d) -> bool:
    return conv.in_channels == 3 and conv.stride == (4, 4) and conv.kernel_size == (11, 11) and conv.groups == 1


class _BlockConvolution:
    """A convolution of 11×11 with stride 4 over RGB as one of 3×3 with stride 1 over blocks of 4×4 pixels, 48 maps."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        if x.requires_grad or not can_block(x):
            return conv(x.to(conv.weight.dtype))
        weight = functional.pad(conv.weight, (0, 1, 0, 1)).unflatten(3, (3, 4)).unflatten(2, (3, 4))
        weight = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)  # the maps are the block's rows, columns and colors
        weight = weight.contiguous(memory_format=torch.channels_last)
        padding = int(conv.padding[0])
        if padding:
            x = functional.pad(x, (padding, 0, padding, 0)).contiguous(memory_format=torch.channels_last)
        height, width = (output_size(conv, side + padding) for side in x.shape[2:])
        return functional.conv2d(blocks(x, height + 2, width + 2, weight.dtype), weight, conv.bias)


class FastDropout:
    """Dropout with coins of single precision on a CPU, where torch draws each in double."""

    def __init__(self, dropout: nn.Dropout) -> None:
        self.dropout = dropout

    def __call__(self, x: Tensor) -> Tensor:
        return self.thrown(x) if self.dropout.training else x

    def thrown(self, x: Tensor) -> Tensor:
        """What dropout leaves of `x` in training."""
        p = self.dropout.p
        if x.device.type != "cpu":
            return functional.dropout(x, p)
        kept = torch.rand(x.shape) >= p
        return x * kept.to(x.dtype).mul_(1 / (1 - p))


class _Full:
    """A fully connected layer; of a few images in float32 by oneDNN, which reads the weights once, where they lie.

    torch takes MKL, which first packs them anew for every batch: for ten views of an image that takes longer than the
    sums themselves. One or two images it does not pack; but on AMD's processors it then reads at two thirds of the
    rate.
    """

    def __init__(self, full: nn.Linear) -> None:
        self.full = full
        self.few = range(1 if host().name.startswith("znver") else 3, 65)

    def __call__(self, x: Tensor) -> Tensor:
        full = self.full
        if x.requires_grad or torch.is_grad_enabled() or not self._suits(x):
            return full(x)
        return torch._C._nn.mkldnn_linear(x.to_mkldnn(), full.weight, full.bias).to_dense()

    def _suits(self, x: Tensor) -> bool:
        float32 = x.dtype == self.full.weight.dtype == torch.float32
        return float32 and x.device.type == "cpu" and len(x) in self.few and torch.backends.mkldnn.is_available()


class _Fit:
    """The averaging to the maps of the nominal input, where they are not such already."""

    def __init__(self, fit: nn.AdaptiveAvgPool2d) -> None:
        self.fit = fit

    def __call__(self, x: Tensor) -> Tensor:
        return x if x.shape[2:] == (self.fit.output_size,) * 2 else self.fit(x)
