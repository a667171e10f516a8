"""What stands in for a layer where a process has only a part of it, and what passes activations between processes."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alexnet.network.layers import LocalResponseNorm
from alexnet.network.model import AlexNet
from alexnet.network.optimized import FastDropout
from alexnet.parallel.collectives import Group

M = TypeVar("M", bound=nn.Module)


@dataclass
class Where:
    """Which part of which batch is on its way through the network.

    `count`: images of the batch of all processes. `rows`: those of this process, None for all. `block`: those that
    the fully connected layers see now; `sizes`: how many of the block come from each process. `batch` counts batches.
    """

    count: int = 0
    rows: Tensor | None = None
    block: slice = field(default_factory=lambda: slice(0, 0))
    sizes: list[int] = field(default_factory=list)
    batch: int = 0

    def begin(self, count: int, rows: Tensor | None, sizes: list[int]) -> None:
        """Another batch, whole."""
        self.count, self.rows, self.block, self.sizes = count, rows, slice(0, count), sizes
        self.batch += 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Where:
        return self


class LocalNetwork(AlexNet):
    """What one process has of a network: layers of the same names, some narrower, with exchanges between them."""

    def __init__(self, whole: AlexNet, modules: list[tuple[str, nn.Module]]) -> None:
        nn.Module.__init__(self)
        self.variant, self.num_classes, self.input_size, self.init = (
            *(whole.variant, whole.num_classes),
            *(whole.input_size, whole.init),
        )
        for name, module in modules:
            self.add_module(name, module)


def narrowed(module: M, group: Group) -> M:
    """This process's part of a layer's outputs: rows of its weights, of its biases and statistics."""
    twin = copy.copy(module)
    twin._parameters = {
        name: None if tensor is None else nn.Parameter(_part(tensor.detach(), group))
        for name, tensor in module._parameters.items()
    }
    twin._buffers = {name: None if tensor is None else _part(tensor, group) for name, tensor in module._buffers.items()}
    match twin:
        case nn.Conv2d():
            twin.out_channels = twin.weight.shape[0]
            twin.in_channels //= twin.groups  # the tower's own maps, or all of them
            twin.groups = 1
        case nn.Linear():
            twin.out_features = twin.weight.shape[0]
        case nn.BatchNorm2d():
            twin.num_features = twin.weight.shape[0]
        case LocalResponseNorm():
            twin.row = dataclasses.replace(twin.row, groups=1)
    return twin


def _part(tensor: Tensor, group: Group) -> Tensor:
    """Its rows that this process has; all of a single number."""
    first, last = group.part(tensor.shape[0]) if tensor.dim() else (0, 0)
    return (tensor[first:last] if tensor.dim() else tensor).clone()


class Exchange(nn.Module):
    """Every process's maps or units put together, in all: (N, part, ...) → (N, all, ...).

    `counts`: how many each process has. Backward, each gets the sum of what all found for its part; for the `last` one,
    after which all compute the same loss, that is its part of its own.
    """

    def __init__(self, group: Group, into: str, counts: list[int], last: bool = False) -> None:
        super().__init__()
        self.group, self.into, self.counts, self.last = group, into, counts, last

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Exchange.apply(x, self)
        return result

    def extra_repr(self) -> str:
        return f"into {self.into}, {self.counts}"


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, exchange: Exchange) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.exchange = exchange
        group = exchange.group
        x = _units_last(x).contiguous()
        shapes = [(*x.shape[:-1], count) for count in exchange.counts]
        parts = group.swap(f"into {exchange.into}", [x] * group.size, shapes)
        return _units_second(torch.cat(parts, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        exchange = ctx.exchange
        group = exchange.group
        pieces = _units_last(grad).split(exchange.counts, -1)
        mine = pieces[group.rank].contiguous()
        if exchange.last:
            return _units_second(mine), None
        outgoing = [mine if r == group.rank else piece.contiguous() for r, piece in enumerate(pieces)]
        found = group.swap(f"back from {exchange.into}", outgoing, [mine.shape] * group.size)
        return _units_second(total(found)), None


class GatherRows(nn.Module):
    """The activations of a batch's images put together from those of each process, in evaluation: (part, F) → (N, F).

    In front of the fully connected layers, whose parts see the images of all. In training `passing.PassingOn` does
    it, block by block.
    """

    def __init__(self, group: Group, where: Where, into: str) -> None:
        super().__init__()
        self.group, self.where, self.into = group, where, into

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        shapes = [(rows, *x.shape[1:]) for rows in self.where.sizes]
        return torch.cat(self.group.swap(f"into {self.into}", [x] * self.group.size, shapes))


class PartDropout(nn.Module):
    """Dropout of a part of a batch, or of a layer, with the coins that one process would throw for the whole.

    `units`: which columns this process has, and of how many; None for all. `images`: "own" rows of the batch, or the
    rows of the "block" that the fully connected layers see.
    """

    def __init__(self, dropout: nn.Dropout, where: Where, units: tuple[int, int, int] | None, images: str) -> None:
        super().__init__()
        self.whole = FastDropout(dropout)
        self.where, self.units, self.images = where, units, images
        self.factors: Tensor | None = None
        self.batch = -1

    def forward(self, x: Tensor) -> Tensor:
        where = self.where
        if not self.training:
            return x
        if self.factors is None or self.batch != where.batch:
            first, last, width = self.units or (0, x.shape[1], x.shape[1])
            channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
            ones = x.new_ones(where.count, width, *x.shape[2:])
            whole = self.whole.thrown(ones.contiguous(memory_format=torch.channels_last) if channels_last else ones)
            rows = where.rows if self.images == "own" else None
            self.factors = (whole if rows is None else whole[rows.to(x.device)])[:, first:last]
            self.batch = where.batch
        return x * (self.factors[where.block] if self.images == "block" else self.factors)


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalization by the statistics of the whole batch, of which each process has a part."""

    @classmethod
    def like(cls, norm: nn.BatchNorm2d, group: Group, where: Where) -> SyncBatchNorm:
        """The same layer, with the same weights."""
        twin = cls(norm.num_features, norm.eps, norm.momentum)
        twin._parameters, twin._buffers = norm._parameters, norm._buffers
        twin.group, twin.where = group, where
        return twin

    group: Group
    where: Where

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = self.where.count * x[0, 0].numel()
        mean = _Sum.apply(wide.sum((0, 2, 3)), self.group) / count
        centered = wide - mean[:, None, None]
        variance = _Sum.apply(centered.square().sum((0, 2, 3)), self.group) / count
        with torch.no_grad():
            share = self.momentum or 0.1
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_((variance * count / max(1, count - 1)).to(self.running_var.dtype), share)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over the processes, each of which goes on with all of it."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return _summed(grad, ctx.group), None


def _summed(x: Tensor, group: Group) -> Tensor:
    total = x.clone()
    dist.all_reduce(total)
    group.traffic.add("statistics", 2 * (group.size - 1) / group.size * total.nbytes, 0.0)
    return total


def total(parts: list[Tensor]) -> Tensor:
    """The sum, always in the same order."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _units_last(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) as (N, H, W, C); units (N, F) as they are."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _units_second(x: Tensor) -> Tensor:
    """The reverse: maps in channels-last memory."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x
