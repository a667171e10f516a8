"""The layers of a process that has a part of a network, and the exchanges between them."""

from __future__ import annotations

import copy
import dataclasses
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from alexnet.network.layers import LocalResponseNorm
from alexnet.network.model import AlexNet
from alexnet.parallel.collectives import Group, total
from alexnet.parallel.communicator import Communicator

M = TypeVar("M", bound=nn.Module)


class LocalNetwork(AlexNet):
    """One process's part of a network: layers of the same names, some narrower, with exchanges between them."""

    def __init__(self, whole: AlexNet, modules: list[tuple[str, nn.Module]]) -> None:
        nn.Module.__init__(self)
        self.variant, self.num_classes, self.input_size, self.init = (
            *(whole.variant, whole.num_classes),
            *(whole.input_size, whole.init),
        )
        for name, module in modules:
            self.add_module(name, module)


def narrowed(module: M, communicator: Communicator) -> M:
    """This process's part of the outputs of a layer: rows of its weights, biases and statistics."""
    twin = copy.copy(module)

    def part(tensor: Tensor) -> Tensor:
        return (tensor[slice(*communicator.part(tensor.shape[0]))] if tensor.dim() else tensor).clone()

    twin._parameters = {
        name: None if tensor is None else nn.Parameter(part(tensor.detach()))
        for name, tensor in module._parameters.items()
    }
    twin._buffers = {name: None if tensor is None else part(tensor) for name, tensor in module._buffers.items()}
    match twin:
        case nn.Conv2d():
            twin.out_channels = twin.weight.shape[0]
            twin.in_channels //= twin.groups  # those of the tower, or all
            twin.groups = 1
        case nn.Linear():
            twin.out_features = twin.weight.shape[0]
        case nn.BatchNorm2d():
            twin.num_features = twin.weight.shape[0]
        case LocalResponseNorm():
            twin.row = dataclasses.replace(twin.row, groups=1)
    return twin


def _group(communicator: Communicator) -> Group:
    """The processes of a layer that exists only where there are several."""
    assert isinstance(communicator.group, Group)
    return communicator.group


class Exchange(nn.Module):
    """Assembles the feature maps or units of all processes: (N, part, ...) → (N, all, ...).

    In the backward pass each process gets the sum of the gradients of its part in all processes. After the `last` one
    all compute the same loss, and each takes the gradient of its part from its own.

    Parameters
    ----------
    communicator : Communicator
        The exchange with the other processes.
    into : str
        The layer that reads the result.
    counts : list of int
        The outputs of each process.
    last : bool
        Whether the loss reads the result.
    """

    def __init__(self, communicator: Communicator, into: str, counts: list[int], last: bool = False) -> None:
        super().__init__()
        self.group, self.into, self.counts, self.last = _group(communicator), into, counts, last

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
    """Assembles the activations of the images of all processes in evaluation: (part, F) → (N, F).

    Before the fully connected layers, whose parts see the images of all processes. In training `passing.PassingOn` does
    it, block by block.
    """

    def __init__(self, communicator: Communicator) -> None:
        super().__init__()
        self.communicator = communicator

    def forward(self, x: Tensor) -> Tensor:
        x, group = x.contiguous(), _group(self.communicator)
        shapes = [(rows, *x.shape[1:]) for rows in self.communicator.context.sizes]
        return torch.cat(group.swap(f"into {self.communicator.fc_input}", [x] * group.size, shapes))


class PartDropout(nn.Module):
    """Dropout of a part of a batch or of a layer, with the mask that a single process would draw for the whole.

    Parameters
    ----------
    dropout : nn.Dropout
        The layer of the whole network.
    communicator : Communicator
        Knows the batch.
    units : tuple of int, optional
        The first and the last (exclusive) column of this process, and the number of all; None for all.
    images : {"own", "block"}
        Whether the input has this process's images of the batch, or the block that the fully connected layers see.
    """

    def __init__(
        self, dropout: nn.Dropout, communicator: Communicator, units: tuple[int, int, int] | None, images: str
    ) -> None:
        super().__init__()
        self.p = dropout.p
        self.communicator, self.units, self.images = communicator, units, images
        self.factors: Tensor | None = None
        self.batch = -1

    def forward(self, x: Tensor) -> Tensor:
        context = self.communicator.context
        if not self.training:
            return x
        if self.factors is None or self.batch != context.number:
            first, last, width = self.units or (0, x.shape[1], x.shape[1])
            channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
            ones = x.new_ones(context.count, width, *x.shape[2:])
            layout = torch.channels_last if channels_last else torch.contiguous_format
            whole = functional.dropout(ones.contiguous(memory_format=layout), self.p)
            rows = context.rows if self.images == "own" else None
            self.factors = (whole if rows is None else whole[rows.to(x.device)])[:, first:last]
            self.batch = context.number
        return x * (self.factors[context.block] if self.images == "block" else self.factors)


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalization by the statistics of the whole batch, of which each process has a part."""

    communicator: Communicator

    @classmethod
    def like(cls, norm: nn.BatchNorm2d, communicator: Communicator) -> SyncBatchNorm:
        """The same layer, with the same weights."""
        twin = cls(norm.num_features, norm.eps, norm.momentum)
        twin._parameters, twin._buffers = norm._parameters, norm._buffers
        twin.communicator = communicator
        return twin

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        group = _group(self.communicator)
        count = self.communicator.context.count * x[0, 0].numel()
        mean = _Sum.apply(wide.sum((0, 2, 3)), group) / count
        centered = wide - mean[:, None, None]
        variance = _Sum.apply(centered.square().sum((0, 2, 3)), group) / count
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
    """The sum over the processes, which each of them has afterwards."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return _summed(grad, ctx.group), None


def _summed(x: Tensor, group: Group) -> Tensor:
    result = group.all_reduce(x.clone())
    group.traffic.add("statistics", 2 * (group.size - 1) / group.size * result.nbytes, 0.0)
    return result


def _units_last(x: Tensor) -> Tensor:
    """Feature maps (N, C, H, W) as (N, H, W, C); units (N, F) unchanged."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _units_second(x: Tensor) -> Tensor:
    """The reverse; feature maps in channels-last memory."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x
