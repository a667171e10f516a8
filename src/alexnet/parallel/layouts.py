"""Layouts: a network mapped to the processes of a training, and the communicator that belongs to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from torch import nn

from alexnet.kernels.update import flat
from alexnet.network.layers import LocalResponseNorm, ResidualBlock
from alexnet.network.model import AlexNet
from alexnet.parallel.collectives import Group
from alexnet.parallel.communicator import Communicator
from alexnet.parallel.partition import Exchange, GatherRows, LocalNetwork, PartDropout, SyncBatchNorm, narrowed

FC_ENTRY = "fc_entry"  # the module before the fully connected layers, where they see a batch in blocks
Modules = Iterator[tuple[str, nn.Module]]


def parallelize(network: AlexNet, communicator: Communicator) -> AlexNet:
    """Map a network to the layout of a communicator: the part of it that this process has.

    "data": each process has the whole network and its share of each batch (all-reduce of the gradients). "towers":
    each process has one tower (paper, section 3.2) and sees every image; activations are exchanged before conv3, fc6,
    fc7 and fc8 only, and the logits before the softmax. "one-weird-trick": data parallel convolutions and model
    parallel fully connected layers (arXiv 1404.5997).

    Parameters
    ----------
    network : AlexNet
        The whole network, the same in all processes but for rounding.
    communicator : Communicator
        The exchange with the other processes; it records which layers are sharded.

    Returns
    -------
    AlexNet
        In a single process the network itself, unless the fully connected layers are updated more often than the
        convolutions.
    """
    group = communicator.group
    if isinstance(group, Group):
        for tensor in [*network.parameters(), *network.buffers()]:
            group.broadcast(flat(tensor.detach()))  # hosts may round the initial weights differently
    elif not communicator.sharding.in_blocks:
        return network
    mapping = {None: _in_blocks, "data": _data, "towers": _towers, "one-weird-trick": _one_weird_trick}[
        communicator.sharding.layout
    ]
    return LocalNetwork(network, list(mapping(list(network.named_children()), communicator)))


def _in_blocks(modules: list[tuple[str, nn.Module]], communicator: Communicator) -> Modules:
    first = _first_full(modules)
    yield from _split_by_images(modules[:first], communicator, "own")
    yield FC_ENTRY, nn.Identity()
    yield from _split_by_images(modules[first:], communicator, "block")


def _data(modules: list[tuple[str, nn.Module]], communicator: Communicator) -> Modules:
    yield from _split_by_images(modules, communicator, "own")


def _towers(modules: list[tuple[str, nn.Module]], communicator: Communicator) -> Modules:
    communicator.whole_kernels = {
        name for name, module in modules if isinstance(module, nn.Conv2d) and module.groups == 1
    }
    yield from _split_by_outputs(modules, communicator)


def _one_weird_trick(modules: list[tuple[str, nn.Module]], communicator: Communicator) -> Modules:
    first = _first_full(modules)
    yield from _split_by_images(modules[:first], communicator, "own")
    communicator.fc_input = modules[first][0]
    yield FC_ENTRY, GatherRows(communicator)
    yield from _split_by_outputs(modules[first:], communicator)


def _first_full(modules: list[tuple[str, nn.Module]]) -> int:
    """The position of the first fully connected layer."""
    return next(number for number, (_, module) in enumerate(modules) if isinstance(module, nn.Linear))


def _split_by_images(modules: list[tuple[str, nn.Module]], communicator: Communicator, images: str) -> Modules:
    """Layers that see some images of a batch, and compute what they would if they saw all."""
    for name, module in modules:
        match module:
            case nn.BatchNorm2d() if communicator.size > 1:
                yield name, SyncBatchNorm.like(module, communicator)
            case nn.Dropout():
                yield name, PartDropout(module, communicator, None, images)
            case ResidualBlock():
                parts = (
                    _split_by_images(list(part.named_children()), communicator, images) for part in module.children()
                )
                yield name, ResidualBlock(*(nn.Sequential(OrderedDict(part)) for part in parts))
            case _:
                yield name, module


def _split_by_outputs(modules: list[tuple[str, nn.Module]], communicator: Communicator) -> Modules:
    """This process's part of the outputs of these layers, exchanged where a layer reads those of all.

    The input of the first layer and the output of the last are whole.
    """
    outputs, columns = 0, 1  # of the layer before: in all processes, and values of each
    after_full = False

    def exchange(into: str, last: bool = False) -> Exchange:
        return Exchange(communicator, into, [count * columns for count in communicator.counts(outputs)], last)

    def part_of(name: str, module: nn.Module) -> nn.Module:
        communicator.sharded[name] = next(module.parameters()).shape[0]
        return narrowed(module, communicator)

    for name, module in modules:
        match module:
            case nn.Conv2d() | nn.Linear():
                if outputs and getattr(module, "groups", 1) == 1:
                    if isinstance(module, nn.Linear) and not after_full:
                        yield FC_ENTRY, nn.Identity()
                    yield f"into_{name}", exchange(name)
                after_full = after_full or isinstance(module, nn.Linear)
                yield name, part_of(name, module)
                outputs, columns = module.weight.shape[0], 1
            case nn.BatchNorm2d():
                yield name, part_of(name, module)
            case LocalResponseNorm():
                yield name, narrowed(module, communicator)
            case nn.AdaptiveAvgPool2d(output_size=int(side)):
                columns = side**2
                yield name, module
            case nn.Dropout():
                first, last = communicator.part(outputs)
                yield name, PartDropout(module, communicator, (first, last, outputs), "block")
            case _:
                yield name, module
    yield "into_loss", exchange("loss", last=True)
