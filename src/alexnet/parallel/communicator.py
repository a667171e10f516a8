"""The communicator: what one process of a training exchanges with the others, and which batch it works on."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.data.loading import Batch
from alexnet.kernels.update import flat
from alexnet.parallel.collectives import Group, SingleProcess, communication
from alexnet.parallel.passing import Passing, PassingOn
from alexnet.parallel.sharding import Block, Sharding, bounds
from alexnet.runs.checkpoint import Checkpoint, tensors_of


@dataclass(frozen=True)
class BatchContext:
    """The part of a batch that is in the network now.

    Attributes
    ----------
    number : int
        Counts the batches.
    count : int
        Images of the batch in all processes.
    rows : Tensor or None
        Those of this process; None for all.
    sizes : list of int
        How many of them each process has.
    block : slice
        Those that the fully connected layers see.
    """

    number: int
    count: int
    rows: Tensor | None
    sizes: list[int]
    block: slice


class Communicator:
    """One process's exchange with the others, for every layout; in a single process nothing is exchanged.

    Whatever the layout, a step of all processes is the step of one process with the same batch.

    Parameters
    ----------
    group : SingleProcess or Group
        The processes.
    sharding : Sharding
        The distribution of batches over them.

    Attributes
    ----------
    context : BatchContext
        The batch in the network.
    sharded : dict of str to int
        The layers of which each process has a part, each with the outputs of all parts.
    fc_input : str
        The first fully connected layer, where activations are passed to it in blocks.
    whole_kernels : set of str
        The sharded convolutions without towers, whose kernels are one matrix.
    """

    def __init__(self, group: SingleProcess | Group, sharding: Sharding) -> None:
        self.group, self.sharding = group, sharding
        self.context = BatchContext(0, 0, None, [], slice(0, 0))
        self.sharded: dict[str, int] = {}
        self.fc_input = ""
        self.whole_kernels: set[str] = set()
        self._gradients = GradientSums(group) if isinstance(group, Group) else None

    @property
    def leads(self) -> bool:
        """Whether this process writes files and messages for all."""
        return self.group.leads

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.group.size

    def counts(self, outputs: int) -> list[int]:
        """The outputs of a sharded layer in each process."""
        return [last - first for first, last in bounds(outputs, self.size)]

    def part(self, outputs: int) -> tuple[int, int]:
        """The outputs of a sharded layer in this process, from the first to the last (exclusive)."""
        return bounds(outputs, self.size)[self.group.rank]

    # Batches.

    def rows(self, count: int) -> np.ndarray | None:
        """The images of a batch of `count` that this process reads; None for all."""
        return self.sharding.rows(count, self.group.rank)

    def blocks(self, count: int) -> list[Block]:
        """The blocks in which the fully connected layers see a training batch; none for the whole batch."""
        return self.sharding.blocks(count, self.group.rank)

    def start_batch(self, batch: Batch) -> Tensor:
        """Set the context of a batch; returns the labels of the logits that this process will have."""
        count = len(batch.labels)
        rows = self.sharding.rows_of_all(count) if self.sharding.splits_batch else []
        sizes = [len(of_one) for of_one in rows] or [count]
        self.context = BatchContext(self.context.number + 1, count, batch.rows, sizes, slice(0, count))
        return self.of_logits(batch, batch.labels)

    def of_logits(self, batch: Batch, values: Tensor) -> Tensor:
        """The values of the logits that this process will have, of those (N, ...) of all images of a batch."""
        if self.sharding.splits_logits:
            return values if batch.rows is None else values[batch.rows]
        rows = self.sharding.rows_of_all(len(batch.labels)) if self.sharding.splits_batch else []
        return values[np.concatenate(rows)] if rows else values

    def start_block(self, block: Block) -> None:
        """Set the context of a block of the batch."""
        self.context = replace(self.context, block=block.images)

    def pass_activations(self, activations: Tensor, blocks: list[Block]) -> Passing:
        """The passing of a batch's activations to the fully connected layers, block by block."""
        if isinstance(self.group, Group) and self.sharding.splits_batch:
            return PassingOn(activations, blocks, self.group, self.fc_input)
        return Passing(activations, blocks)

    # Losses and gradients.

    def scale_loss(self, loss: Tensor, labels: Tensor) -> Tensor:
        """The contribution of the mean loss of this process's logits to that of the batch."""
        return loss * (len(labels) / self.context.count) if self.sharding.splits_logits else loss

    def agree(self, loss: float, errors: int, stop: bool, save: bool) -> tuple[float, int, bool, bool]:
        """Loss and errors of the whole batch, and whether any process asks to stop, and the first to save."""
        counts = self.sharding.splits_logits or self.leads
        # One process decides when to save: clocks differ.
        total = self.group.sum(
            loss if counts else 0.0, errors if counts else 0, stop, save and self.leads, purpose="loss"
        )
        return total[0], int(total[1]), total[2] > 0, total[3] > 0

    def register(self, network: nn.Module) -> None:
        """Sum the gradients of a network over the processes as they arrive, and of no other from now on."""
        if self._gradients is None:
            return
        modules = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
        summed = {
            "none": [],
            "convolutions": [parameter for module in modules for parameter in module.parameters()],
            "all": list(network.parameters()),
        }
        self._gradients.register(summed[self.sharding.sums_gradients])

    def wait_for_gradients(self) -> None:
        """Wait until the gradients are those of the whole batch."""
        if self._gradients is not None:
            self._gradients.wait()

    def gather_kernels(self, layer: str, rows: Tensor) -> tuple[Tensor, slice]:
        """All rows of a convolution's matrix from those of this process, and which of them these are (`Muon`)."""
        if layer not in self.whole_kernels or not isinstance(self.group, Group):
            return rows, slice(None)  # the kernels of a tower are a matrix of their own
        outputs, rows = self.sharded[layer], rows.contiguous()
        shapes = [(count, rows.shape[1]) for count in self.counts(outputs)]
        parts = self.group.swap(f"kernels of {layer}", [rows] * self.size, shapes)
        return torch.cat(parts), slice(*self.part(outputs))

    # Measurements.

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return self.group.any(flag)

    def sum_over_logits(self, measured: Tensor) -> Tensor:
        """The sum over the logits of all processes of what was counted over those of this one."""
        return self.group.all_reduce(measured.cpu()) if self.sharding.splits_logits else measured

    def layer_mean(self, layer: str, values: Tensor) -> float:
        """The mean over the values of a layer in all processes."""
        if layer not in self.sharded:
            return values.mean().item()
        total, count = self.group.sum(values.double().sum().item(), values.numel())
        return total / count

    def alive_share(self, layer: str, units: Tensor) -> float:
        """The share of the units of a layer (bool) that are not zero in every process."""
        if layer in self.sharded:
            return self.layer_mean(layer, units)
        return self.group.all_reduce(units.to("cpu", torch.uint8), maximum=True).float().mean().item()

    def traffic(self) -> dict[str, list[float]]:
        """Bytes sent and seconds waited for each purpose since the last call."""
        return self.group.traffic.reset()

    # Checkpoints.

    @property
    def holds_state(self) -> bool:
        """Whether this process has a part of a checkpoint."""
        return self.leads or bool(self.sharded)

    def gather(self, content: Checkpoint) -> None:
        """Assemble a checkpoint in the process that writes it."""
        if not isinstance(self.group, Group):
            return
        for layer, holder, key in tensors_of(content):
            tensor = holder[key] = holder[key].cpu()
            if layer not in self.sharded or not tensor.dim():
                continue
            if not self.leads:
                self.group.send(flat(tensor), 0, files=True)
                continue
            pieces = [tensor]
            for other, count in list(enumerate(self.counts(self.sharded[layer])))[1:]:
                piece = _empty_like(tensor, count)
                self.group.receive(flat(piece), other, files=True)
                pieces.append(piece)
            holder[key] = torch.cat(pieces)

    def scatter(self, content: Checkpoint | None) -> Checkpoint | None:
        """The reverse: this process's part of a checkpoint that the first process has read."""
        if not isinstance(self.group, Group):
            return content
        skeleton = self.group.lead(lambda: None if content is None else content.to_meta())
        if skeleton is None:
            return None
        for (layer, holder, key), (_, source, _) in zip(
            tensors_of(skeleton), tensors_of(content or skeleton), strict=True
        ):
            tensor = source[key]
            split = layer in self.sharded and tensor.dim() > 0
            ranges = bounds(len(tensor), self.size) if split else []
            if not split:
                holder[key] = tensor if self.leads else torch.empty_like(tensor, device="cpu")
                self.group.broadcast(flat(holder[key]))
            elif self.leads:
                for other, (first, last) in list(enumerate(ranges))[1:]:
                    self.group.send(flat(tensor[first:last]), other)
                holder[key] = tensor[slice(*ranges[0])].clone()
            else:
                first, last = ranges[self.group.rank]
                holder[key] = _empty_like(tensor, last - first, "cpu")
                self.group.receive(flat(holder[key]), 0)
        return skeleton

    def leave(self) -> None:
        """Wait until all processes are done."""
        self.group.leave()


class GradientSums:
    """Sums each gradient over the processes as it arrives, while those of the layers below are computed."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.parameters: list[nn.Parameter] = []
        self.hooks: list[Any] = []
        self.ready: set[int] = set()
        self.works: list[Any] = []
        self.start = 0.0

    def register(self, parameters: list[nn.Parameter]) -> None:
        """Sum the gradients of these parameters from now on, and of no others."""
        for hook in self.hooks:
            hook.remove()
        self.parameters = parameters[::-1]
        self.hooks = [p.register_post_accumulate_grad_hook(self.arrived) for p in parameters]
        self.ready, self.works = set(), []

    def arrived(self, parameter: Tensor) -> None:
        """Start the sums that are due, in the same order in every process."""
        self.ready.add(id(parameter))
        while len(self.works) < len(self.parameters) and id(self.parameters[len(self.works)]) in self.ready:
            gradient = self.parameters[len(self.works)].grad
            assert gradient is not None
            self.start = self.start if self.works else time.monotonic()
            self.works.append(self.group.start_all_reduce(flat(gradient)))
            share = 2 * (self.group.size - 1) / self.group.size  # the share of it that a ring sends
            self.group.traffic.add("gradients", share * gradient.nbytes, 0.0)

    def wait(self) -> None:
        """Wait for the sums."""
        start = time.perf_counter()
        with communication(self.group.timeout, self.start):
            for work in self.works:
                work.wait()
        self.ready, self.works = set(), []
        self.group.traffic.add("gradients", 0.0, time.perf_counter() - start)


def _empty_like(tensor: Tensor, rows: int, device: str | None = None) -> Tensor:
    """An uninitialized tensor with the layout of another, and its own number of rows."""
    channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (rows, *tensor.shape[1:]),
        dtype=tensor.dtype,
        device=device or tensor.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
