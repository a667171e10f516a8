"""Sharding: which process reads which images of a batch, and in which blocks the fully connected layers see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alexnet.network.model import AlexNet, towers_of
from alexnet.parallel.plan import towers_mismatch
from alexnet.runs.recipe import Recipe
from alexnet.runtime.errors import UsageError

Pieces = list[tuple[int, int]]
"""For each process, the first and the last (exclusive) image of a batch."""


@dataclass(frozen=True)
class Block:
    """Images that go through the fully connected layers together.

    Attributes
    ----------
    images : slice
        Which of the batch.
    mine : slice
        Which of this process's images they are.
    sizes : tuple of int
        How many of them each process has.
    """

    images: slice
    mine: slice
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sharding:
    """The distribution of a training over `size` processes.

    Attributes
    ----------
    layout : str or None
        A name of `plan.LAYOUTS`; None for a single process.
    size : int
        The number of processes.
    splits_batch : bool
        Whether each process reads its own images of a batch; otherwise each reads all.
    splits_logits : bool
        Whether each process has the logits of its own images only.
    in_blocks : bool
        Whether the fully connected layers see a training batch in blocks.
    pieces : callable
        For each block of a batch of some size, the images that each process reads.
    sums_gradients : {"none", "convolutions", "all"}
        The layers whose gradients are summed over the processes.
    """

    layout: str | None
    size: int
    splits_batch: bool
    splits_logits: bool
    in_blocks: bool
    pieces: Callable[[int], list[Pieces]]
    sums_gradients: str = "none"

    def rows_of_all(self, count: int) -> list[np.ndarray]:
        """For each process, the images of a batch that it reads, in the order in which it has them."""
        pieces = self.pieces(count)
        return [np.concatenate([np.arange(*block[rank]) for block in pieces]) for rank in range(self.size)]

    def rows(self, count: int, rank: int) -> np.ndarray | None:
        """The images of a batch that a process reads; None for all."""
        return self.rows_of_all(count)[rank] if self.splits_batch else None

    def blocks(self, count: int, rank: int) -> list[Block]:
        """The blocks of a training batch in a process; none where the fully connected layers see the whole batch."""
        if not self.in_blocks:
            return []
        if not self.splits_batch:
            return [Block(slice(*block[rank]), slice(*block[rank])) for block in self.pieces(count)]
        blocks, mine, start = [], 0, 0
        for pieces in self.pieces(count):
            sizes = tuple(last - first for first, last in pieces)
            blocks.append(Block(slice(start, start + sum(sizes)), slice(mine, mine + sizes[rank]), sizes))
            mine, start = mine + sizes[rank], start + sum(sizes)
        return blocks


def sharding_of(layout: str | None, recipe: Recipe, size: int = 1, passing: str = "in-shares") -> Sharding:
    """The sharding of a layout of `plan.LAYOUTS`; None for a single process."""

    def whole(count: int) -> list[Pieces]:
        return [bounds(count, size)]

    def everywhere(count: int) -> list[Pieces]:
        return [[(block.start, block.stop)] * size for block in fc_blocks(recipe, count)]

    def in_turn(count: int) -> list[Pieces]:
        blocks, nothing = fc_blocks(recipe, count) or equal_parts(count, size), (0, 0)
        return [
            [(block.start, block.stop) if rank == number else nothing for rank in range(size)]
            for number, block in enumerate(blocks)
        ]

    def in_shares(count: int) -> list[Pieces]:
        blocks = fc_blocks(recipe, count) or equal_parts(count, size)
        return [[(b.start + first, b.start + last) for first, last in bounds(b.stop - b.start, size)] for b in blocks]

    if layout in (None, "towers"):
        return Sharding(layout, size, False, False, recipe.fc_batch_size is not None, everywhere)
    if layout == "data":
        return Sharding(layout, size, True, True, False, whole, "all")
    pieces = {"at-once": whole, "in-turn": in_turn, "in-shares": in_shares}[passing]
    return Sharding(layout, size, True, False, True, pieces, "convolutions")


def check_layout(
    layout: str | None, network: AlexNet, recipe: Recipe, images: int, size: int = 1, passing: str = "in-shares"
) -> None:
    """Raise `UsageError` for a training that a layout cannot compute exactly.

    Parameters
    ----------
    layout : str, optional
        A name of `plan.LAYOUTS`; None for a single process.
    network : AlexNet
        The network, may be on the meta device.
    recipe : Recipe
        Its batch sizes.
    images : int
        Training images.
    size : int
        The number of processes.
    passing : str
        A name of `plan.PASSINGS`.
    """
    variant = network.variant
    if (layout == "one-weird-trick" or recipe.fc_batch_size is not None) and not variant.is_sequence:
        option = "--fc-batch-size" if layout is None else f"--parallel {layout}"
        raise UsageError(f"{option} is for networks with fully connected layers of their own, not for {variant.name}")
    if layout is None:
        return
    if layout == "towers":
        towers, mismatch = towers_of(network), towers_mismatch(network)
        if mismatch is not None:
            raise UsageError(f"{network.variant.name} can't be split into towers: {mismatch}; `paper` can")
        if size != towers:
            raise UsageError(f"--parallel towers needs {towers} processes, one per tower, not {size}")
        return
    batch_size = images // -(-images // recipe.batch_size)
    if batch_size < size:
        raise UsageError(
            f"{size} processes can't share batches of {batch_size} images: use fewer processes or a larger --batch-size"
        )
    if layout == "data" and recipe.fc_batch_size:
        raise UsageError("with --fc-batch-size use --parallel one-weird-trick, which supports it")
    blocks = len(fc_blocks(recipe, recipe.batch_size))
    if layout == "one-weird-trick" and blocks and passing == "at-once":
        raise UsageError("--fc-batch-size needs --passing in-turn or in-shares: at-once has one block per batch")
    if layout == "one-weird-trick" and blocks and passing == "in-turn" and blocks != size:
        raise UsageError(
            f"--passing in-turn has one block per process, so with {size} processes --fc-batch-size is "
            f"{-(-recipe.batch_size // size)}; or use --passing in-shares"
        )


def bounds(count: int, size: int) -> Pieces:
    """The range of `count` items that each of `size` processes has: equal parts, up to one item."""
    return [(count * rank // size, count * (rank + 1) // size) for rank in range(size)]


def equal_parts(count: int, number: int) -> list[slice]:
    """`number` parts of a batch, equal up to one image; empty ones are left out."""
    edges = [count * part // number for part in range(number + 1)]
    return [slice(first, last) for first, last in pairwise(edges) if last > first]


def fc_blocks(recipe: Recipe, count: int) -> list[slice]:
    """The blocks of a batch after each of which the fully connected layers are updated; none for the whole batch."""
    return equal_parts(count, -(-recipe.batch_size // recipe.fc_batch_size)) if recipe.fc_batch_size else []
