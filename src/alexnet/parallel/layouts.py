"""Who has which part of the network and of a batch: one process, data, towers, one weird trick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet.data.loading import Batch
from alexnet.network.layers import LocalResponseNorm
from alexnet.network.model import AlexNet, towers_of
from alexnet.parallel.collectives import Group
from alexnet.parallel.partition import (
    Exchange,
    GatherRows,
    LocalNetwork,
    PartDropout,
    SyncBatchNorm,
    Where,
    narrowed,
)
from alexnet.parallel.passing import Block, Passing, PassingOn
from alexnet.runs.checkpoint import Content, tensors_of
from alexnet.runs.recipe import Recipe
from alexnet.runtime.errors import UsageError

LAYOUTS = ("data", "towers", "one-weird-trick")
PASSINGS = ("at-once", "in-turn", "in-shares")
ENTRY = "full"  # the name of what stands in front of the fully connected layers, where they see a batch in blocks


class Alone:
    """One process, with the whole network and whole batches; and what other layouts change of it.

    What they all keep: a step of all processes is the step of one process with the same batch.
    """

    leads = True
    size = 1

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.where = Where()

    def check(self, network: AlexNet, images: int) -> None:
        """Raise `UsageError` for a training that this layout can't do exactly."""

    def rows(self, count: int) -> np.ndarray | None:
        """Which images of a batch of `count` this process reads; None for all."""
        return None

    def place(self, network: AlexNet) -> AlexNet:
        """What this process has of a network."""
        return LocalNetwork(network, list(self.local(network))) if self.recipe.fc_batch_size else network

    def local(self, network: AlexNet) -> Iterator[tuple[str, nn.Module]]:
        """The layers of a network as this process has them, and what stands between them."""
        modules = list(network.named_children())
        first = first_full(modules)
        yield from rows_apart(modules[:first], self.where, None, "own")
        yield ENTRY, nn.Identity()
        yield from rows_apart(modules[first:], self.where, None, "block")

    def watch(self, working: nn.Module) -> None:
        """Take note of the network that is about to be trained."""

    def begin(self, batch: Batch) -> Tensor:
        """A batch is on its way; the labels that belong to the logits that this process will get."""
        count = len(batch.labels)
        self.where.begin(count, batch.rows, [count])
        return batch.labels

    def blocks(self, count: int) -> list[Block]:
        """In which parts the fully connected layers see a training batch; none where they see it whole."""
        return [Block(part, part) for part in full_blocks(self.recipe, count)]

    def passing_of(self, activations: Tensor, blocks: list[Block]) -> Passing:
        """How the fully connected layers get what they read of a batch, block after block."""
        return Passing(activations, blocks)

    def enter(self, block: Block) -> None:
        """A block goes through the fully connected layers next."""
        self.where.block = block.images

    def share(self, loss: Tensor, labels: Tensor) -> Tensor:
        """Of the mean loss of this process's logits, its share in that of the batch."""
        return loss

    def totals(self, loss: float, wrong: int, stop: bool, save: bool) -> tuple[float, int, bool, bool]:
        """The loss and the mistakes of the whole batch, and whether to stop and to save, as all agree."""
        return loss, wrong, stop, save

    def finish(self) -> None:
        """Wait until the gradients are those of the whole batch."""

    def rows_of_all_kernels(self, layer: str, mine: Tensor) -> tuple[Tensor, slice]:
        """All rows of a convolution's matrix from this process's, and which of them these are (`optimizer.Muon`)."""
        return mine, slice(None)

    def any(self, flag: bool) -> bool:
        """Whether a process says so."""
        return flag

    def summed(self, measured: Tensor) -> Tensor:
        """What was counted over logits, over those of all processes."""
        return measured

    def mean(self, layer: str, values: Tensor) -> float:
        """The mean over a layer's values."""
        return values.mean().item()

    def alive(self, layer: str, units: Tensor) -> float:
        """The share of a layer's units (bool) that are not zero for every image."""
        return units.float().mean().item()

    @property
    def keeps(self) -> bool:
        """Whether this process has something of what a checkpoint keeps."""
        return True

    def whole(self, content: Content) -> None:
        """Put together what a checkpoint keeps, in the process that writes it."""

    def parts(self, content: Content | None) -> Content | None:
        """The reverse: of what the process that reads has read, what this one needs."""
        return content

    def traffic(self) -> dict[str, list[float]]:
        """Bytes that this process has sent and seconds it has waited since the last call, for each purpose."""
        return {}

    def leave(self) -> None:
        """The end, for all."""


class Shared(Alone):
    """What the layouts of several processes have in common."""

    splits_rows = True  # each process reads its own images of a batch
    splits_logits = True  # and has the logits of these alone

    def __init__(self, group: Group, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.group = group
        self.leads, self.size = group.leads, group.size
        self.gradients = Gradients(group)
        self.outputs: dict[str, int] = {}  # of the layers of which each process has a part, how many there are in all

    def check(self, network: AlexNet, images: int) -> None:
        batch_size = images // -(-images // self.recipe.batch_size)
        if self.splits_rows and batch_size < self.size:
            raise UsageError(
                f"{self.size} processes can't share batches of {batch_size} images: "
                "take fewer processes or a larger --batch-size"
            )

    def rows(self, count: int) -> np.ndarray | None:
        return np.arange(*self.group.part(count)) if self.splits_rows else None

    def place(self, network: AlexNet) -> AlexNet:
        for tensor in [*network.parameters(), *network.buffers()]:
            dist.broadcast(flat(tensor.detach()), 0)  # hosts may round the first weights differently
        return LocalNetwork(network, list(self.local(network)))

    def part_of(self, name: str, module: nn.Module) -> nn.Module:
        """This process's part of a layer."""
        self.outputs[name] = next(module.parameters()).shape[0]
        return narrowed(module, self.group)

    def counts(self, outputs: int) -> list[int]:
        """How many of a layer's outputs each process has."""
        return [last - first for first, last in self.group.bounds(outputs)]

    def outputs_apart(self, modules: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
        """Each process's part of the outputs of these layers, put together where a layer reads those of all.

        What the first of them reads is whole, and so is what leaves the last.
        """
        outputs, columns = 0, 1  # of the layer before: how many in all, and how many numbers each is
        seen = False  # a fully connected layer
        for name, module in modules:
            match module:
                case nn.Conv2d() | nn.Linear():
                    if outputs and getattr(module, "groups", 1) == 1:
                        if isinstance(module, nn.Linear) and not seen:
                            yield ENTRY, nn.Identity()
                        yield f"into_{name}", self.exchange(name, outputs, columns)
                    seen = seen or isinstance(module, nn.Linear)
                    yield name, self.part_of(name, module)
                    outputs, columns = module.weight.shape[0], 1
                case nn.BatchNorm2d():
                    yield name, self.part_of(name, module)
                case LocalResponseNorm():
                    yield name, narrowed(module, self.group)
                case nn.AdaptiveAvgPool2d(output_size=int(side)):
                    columns = side**2
                    yield name, module
                case nn.Dropout():
                    first, last = self.group.part(outputs)
                    yield name, PartDropout(module, self.where, (first, last, outputs), "block")
                case _:
                    yield name, module
        yield "into_loss", self.exchange("loss", outputs, columns, last=True)

    def exchange(self, into: str, outputs: int, columns: int, last: bool = False) -> Exchange:
        """Puts together what each process has of `outputs`."""
        return Exchange(self.group, into, [count * columns for count in self.counts(outputs)], last)

    def watch(self, working: nn.Module) -> None:
        self.gradients.watch(list(working.parameters()))

    def begin(self, batch: Batch) -> Tensor:
        count = len(batch.labels)
        self.where.begin(count, batch.rows, self.counts(count))
        return batch.labels if batch.rows is None or not self.splits_logits else batch.labels[batch.rows]

    def share(self, loss: Tensor, labels: Tensor) -> Tensor:
        return loss * (len(labels) / self.where.count) if self.splits_logits else loss

    def totals(self, loss: float, wrong: int, stop: bool, save: bool) -> tuple[float, int, bool, bool]:
        start = time.perf_counter()
        mine = self.splits_logits or self.leads
        # One process decides when to save: clocks differ.
        total = self.group.sum(loss if mine else 0.0, wrong if mine else 0, stop, save and self.leads)
        self.group.traffic.add("loss", 0.0, time.perf_counter() - start)
        return total[0], int(total[1]), total[2] > 0, total[3] > 0

    def finish(self) -> None:
        self.gradients.finish()

    def any(self, flag: bool) -> bool:
        return self.group.any(flag)

    def summed(self, measured: Tensor) -> Tensor:
        if self.splits_logits:
            measured = measured.cpu()
            dist.all_reduce(measured)
        return measured

    def mean(self, layer: str, values: Tensor) -> float:
        if layer not in self.outputs:
            return super().mean(layer, values)
        total, count = self.group.sum(values.double().sum().item(), values.numel())
        return total / count

    def alive(self, layer: str, units: Tensor) -> float:
        if layer in self.outputs:
            return self.mean(layer, units)
        found = units.to("cpu", torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.float().mean().item()

    @property
    def keeps(self) -> bool:
        return self.leads or bool(self.outputs)

    def whole(self, content: Content) -> None:
        for layer, holder, key in tensors_of(content):
            tensor = holder[key] = holder[key].cpu()
            if layer not in self.outputs or not tensor.dim():
                continue
            if not self.leads:
                dist.send(flat(tensor), 0, group=self.group.files)
                continue
            pieces = [tensor]
            for other, count in list(enumerate(self.counts(self.outputs[layer])))[1:]:
                piece = _like(tensor, count)
                dist.recv(flat(piece), other, group=self.group.files)
                pieces.append(piece)
            holder[key] = torch.cat(pieces)

    def parts(self, content: Content | None) -> Content | None:
        skeleton = self.group.lead(lambda: None if content is None else content.described())
        if skeleton is None:
            return None
        for (layer, holder, key), (_, source, _) in zip(
            tensors_of(skeleton), tensors_of(content or skeleton), strict=True
        ):
            tensor = source[key]
            split = layer in self.outputs and tensor.dim() > 0
            bounds = self.group.bounds(len(tensor)) if split else []
            if not split:
                holder[key] = tensor if self.leads else torch.empty_like(tensor, device="cpu")
                dist.broadcast(flat(holder[key]), 0)
            elif self.leads:
                for other, (first, last) in list(enumerate(bounds))[1:]:
                    dist.send(flat(tensor[first:last]), other)
                holder[key] = tensor[slice(*bounds[0])].clone()
            else:
                first, last = bounds[self.group.rank]
                holder[key] = _like(tensor, last - first, "cpu")
                dist.recv(flat(holder[key]), 0)
        return skeleton

    def traffic(self) -> dict[str, list[float]]:
        return self.group.traffic.taken()

    def leave(self) -> None:
        self.group.leave()


class Data(Shared):
    """Every process has the whole network and its share of each batch; the gradients are summed on the way back."""

    def check(self, network: AlexNet, images: int) -> None:
        super().check(network, images)
        if self.recipe.fc_batch_size:
            raise UsageError("with --fc-batch-size use --parallel one-weird-trick, which does it")

    def local(self, network: AlexNet) -> Iterator[tuple[str, nn.Module]]:
        yield from rows_apart(list(network.named_children()), self.where, self.group, "own")


def why_no_towers(network: AlexNet) -> str | None:
    """Why a network can't be split into its towers; None where it can."""
    towers = towers_of(network)
    for name, module in network.named_children():
        if isinstance(module, LocalResponseNorm) and module.row.groups != towers:
            return f"{name} of {network.variant.name} crosses them"
    return "it has none" if towers == 1 else None


class Towers(Shared):
    """The paper's two graphics cards (section 3.2): each process has one tower and sees every image.

    They exchange activations into conv3, fc6, fc7 and fc8 only, and the logits into the softmax. Each has half of every
    layer: of its kernels or units, of its velocity, of its activations.
    """

    splits_rows = splits_logits = False

    def __init__(self, group: Group, recipe: Recipe) -> None:
        super().__init__(group, recipe)
        self.across: set[str] = set()  # convolutions that are one, and not one a tower

    def check(self, network: AlexNet, images: int) -> None:
        towers, why_not = towers_of(network), why_no_towers(network)
        if why_not is not None:
            raise UsageError(f"{network.variant.name} can't be split into towers: {why_not}; `paper` can")
        if self.size != towers:
            raise UsageError(f"--parallel towers needs {towers} processes, one a tower, not {self.size}")

    def local(self, network: AlexNet) -> Iterator[tuple[str, nn.Module]]:
        modules = list(network.named_children())
        self.across = {name for name, module in modules if isinstance(module, nn.Conv2d) and module.groups == 1}
        yield from self.outputs_apart(modules)

    def rows_of_all_kernels(self, layer: str, mine: Tensor) -> tuple[Tensor, slice]:
        if layer not in self.across:
            return mine, slice(None)  # a tower's kernels are a matrix of their own
        counts, mine = self.counts(self.outputs[layer]), mine.contiguous()
        parts = self.group.swap(f"kernels of {layer}", [mine] * self.size, [(count, mine.shape[1]) for count in counts])
        return torch.cat(parts), slice(*self.group.part(self.outputs[layer]))

    def watch(self, working: nn.Module) -> None:
        """Nothing to sum: each process has the whole gradient of its part."""


class OneWeirdTrick(Shared):
    """Convolutions as in `Data`, fully connected layers by their units (arXiv 1404.5997).

    `passing`: how the convolutions' results come together. "at-once": those of all, then one pass of the fully
    connected layers; "in-turn": those of one process after the other; "in-shares": an equal share of each at a time.
    """

    splits_logits = False

    def __init__(self, group: Group, recipe: Recipe, passing: str = "in-shares") -> None:
        super().__init__(group, recipe)
        self.passing = passing
        self.into = ""  # the first of the fully connected layers

    def check(self, network: AlexNet, images: int) -> None:
        super().check(network, images)
        full = len(full_blocks(self.recipe, self.recipe.batch_size))
        if full and self.passing == "at-once":
            raise UsageError("--fc-batch-size needs --passing in-turn or in-shares: at once there is one batch for all")
        if full and self.passing == "in-turn" and full != self.size:
            raise UsageError(
                f"--passing in-turn has a block a process, so with {self.size} processes --fc-batch-size is "
                f"{-(-self.recipe.batch_size // self.size)}; or use --passing in-shares"
            )

    def pieces(self, count: int) -> list[list[tuple[int, int]]]:
        """For each block, from where to where in the batch each process's images of it are."""
        if self.passing == "at-once":
            return [self.group.bounds(count)]
        blocks = full_blocks(self.recipe, count) or in_blocks(count, self.size)
        if self.passing == "in-turn":
            nothing = (0, 0)
            return [
                [(b.start, b.stop) if r == number else nothing for r in range(self.size)]
                for number, b in enumerate(blocks)
            ]
        return [
            [(b.start + first, b.start + last) for first, last in self.group.bounds(b.stop - b.start)] for b in blocks
        ]

    def rows_of_all(self, count: int) -> list[np.ndarray]:
        """For each process, which images of a batch it reads, in the order that it has them."""
        pieces = self.pieces(count)
        return [np.concatenate([np.arange(*piece[r]) for piece in pieces]) for r in range(self.size)]

    def rows(self, count: int) -> np.ndarray:
        return self.rows_of_all(count)[self.group.rank]

    def blocks(self, count: int) -> list[Block]:
        blocks, mine, start = [], 0, 0
        for pieces in self.pieces(count):
            sizes = tuple(last - first for first, last in pieces)
            own = sizes[self.group.rank]
            blocks.append(Block(slice(start, start + sum(sizes)), slice(mine, mine + own), sizes))
            mine, start = mine + own, start + sum(sizes)
        return blocks

    def passing_of(self, activations: Tensor, blocks: list[Block]) -> Passing:
        return PassingOn(activations, blocks, self.group, self.into)

    def begin(self, batch: Batch) -> Tensor:
        super().begin(batch)
        rows = self.rows_of_all(len(batch.labels))
        self.where.sizes = [len(of_one) for of_one in rows]
        return batch.labels[np.concatenate(rows)]

    def local(self, network: AlexNet) -> Iterator[tuple[str, nn.Module]]:
        modules = list(network.named_children())
        first = first_full(modules)
        yield from rows_apart(modules[:first], self.where, self.group, "own")
        self.into = modules[first][0]
        yield ENTRY, GatherRows(self.group, self.where, self.into)
        yield from self.outputs_apart(modules[first:])

    def watch(self, working: nn.Module) -> None:
        convolutions = [module for module in working.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
        self.gradients.watch([p for module in convolutions for p in module.parameters()])


def open_layout(mode: str | None, recipe: Recipe, group: Group | None, passing: str = "in-shares") -> Alone:
    """The layout of that name: None, "data", "towers" or "one-weird-trick"."""
    if mode is None or group is None:
        return Alone(recipe)
    if mode == "one-weird-trick":
        return OneWeirdTrick(group, recipe, passing)
    return {"data": Data, "towers": Towers}[mode](group, recipe)


class Gradients:
    """Sums each gradient over the processes as soon as it is there, while those of the layers below are computed."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.parameters: list[nn.Parameter] = []
        self.hooks: list[Any] = []
        self.ready: set[int] = set()
        self.works: list[Any] = []

    def watch(self, parameters: list[nn.Parameter]) -> None:
        """Sum the gradients of these, from now on, and of no others."""
        for hook in self.hooks:
            hook.remove()
        self.parameters = parameters[::-1]
        self.hooks = [p.register_post_accumulate_grad_hook(self.arrived) for p in parameters]
        self.ready, self.works = set(), []

    def arrived(self, parameter: Tensor) -> None:
        """A gradient is there: sum those that are due. Every process sums them in the same order."""
        self.ready.add(id(parameter))
        while len(self.works) < len(self.parameters) and id(self.parameters[len(self.works)]) in self.ready:
            gradient = self.parameters[len(self.works)].grad
            assert gradient is not None
            self.works.append(dist.all_reduce(flat(gradient), async_op=True))
            share = 2 * (self.group.size - 1) / self.group.size  # what a ring sends of it
            self.group.traffic.add("gradients", share * gradient.nbytes, 0.0)

    def finish(self) -> None:
        """Wait for the sums."""
        start = time.perf_counter()
        for work in self.works:
            work.wait()
        self.ready, self.works = set(), []
        self.group.traffic.add("gradients", 0.0, time.perf_counter() - start)


def in_blocks(count: int, number: int) -> list[slice]:
    """`number` parts of a batch, as equal as can be."""
    edges = [count * block // number for block in range(number + 1)]
    return [slice(first, last) for first, last in pairwise(edges) if last > first]


def full_blocks(recipe: Recipe, count: int) -> list[slice]:
    """The blocks of a batch after each of which the fully connected layers are updated; none where after all of it."""
    return in_blocks(count, -(-recipe.batch_size // recipe.fc_batch_size)) if recipe.fc_batch_size else []


def first_full(modules: list[tuple[str, nn.Module]]) -> int:
    """Where the fully connected layers begin."""
    return next(number for number, (_, module) in enumerate(modules) if isinstance(module, nn.Linear))


def rows_apart(
    modules: list[tuple[str, nn.Module]], where: Where, group: Group | None, images: str
) -> Iterator[tuple[str, nn.Module]]:
    """Layers that see some images of a batch, and behave as if they saw them all."""
    for name, module in modules:
        match module:
            case nn.BatchNorm2d() if group is not None:
                yield name, SyncBatchNorm.like(module, group, where)
            case nn.Dropout():
                yield name, PartDropout(module, where, None, images)
            case _:
                yield name, module


def flat(tensor: Tensor) -> Tensor:
    """All values of a dense tensor in the order that they have in memory, without a copy."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _like(tensor: Tensor, rows: int, device: str | None = None) -> Tensor:
    """Room for so many rows of a tensor, laid out as it is."""
    channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (rows, *tensor.shape[1:]),
        dtype=tensor.dtype,
        device=device or tensor.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
