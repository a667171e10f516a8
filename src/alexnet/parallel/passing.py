"""Passing: a batch's activations go to the fully connected layers block by block, and their gradients come back."""

from __future__ import annotations

import torch
from torch import Tensor

from alexnet.parallel.collectives import Group, Swap, total
from alexnet.parallel.sharding import Block

INTO, BACK = 1, 2  # tags: activations and gradients in transfer are apart from what the layers exchange meanwhile (0)


class Passing:
    """In a single process: the blocks of a batch's activations (N, F), one after the other."""

    def __init__(self, activations: Tensor, blocks: list[Block]) -> None:
        self.activations, self.blocks = activations.detach().contiguous(), blocks
        self.gradient = torch.empty_like(self.activations)

    def receive(self, number: int) -> Tensor:
        """The activations of all images of block `number`. Called once for each block, in order."""
        return self.activations[self.blocks[number].mine]

    def send_back(self, number: int, gradient: Tensor) -> None:
        """Return the gradient of what `receive` returned."""
        self.gradient[self.blocks[number].mine] = gradient

    def finish(self) -> Tensor:
        """The gradient of this process's activations, once all blocks have been sent back."""
        return self.gradient


class PassingOn(Passing):
    """In several processes: a block is assembled from what each has of it (arXiv 1404.5997, section 4.1).

    While a block is computed the next one is received, and the gradient of the one before is returned.
    """

    def __init__(self, activations: Tensor, blocks: list[Block], group: Group, into: str) -> None:
        super().__init__(activations, blocks)
        self.group, self.into = group, into
        self.incoming = self._send(0)
        self.returning: tuple[Block, Swap] | None = None

    def receive(self, number: int) -> Tensor:
        parts = self.incoming.wait()
        if number + 1 < len(self.blocks):
            self.incoming = self._send(number + 1)
        return torch.cat(parts)

    def send_back(self, number: int, gradient: Tensor) -> None:
        block, mine = self.blocks[number], self.activations[self.blocks[number].mine]
        pieces = list(gradient.contiguous().split(block.sizes))
        swap = self.group.begin_swap(f"back from {self.into}", pieces, [mine.shape] * self.group.size, BACK)
        self._take_back()
        self.returning = block, swap

    def finish(self) -> Tensor:
        self._take_back()
        return self.gradient

    def _send(self, number: int) -> Swap:
        block = self.blocks[number]
        mine = self.activations[block.mine]
        shapes = [(rows, *mine.shape[1:]) for rows in block.sizes]
        return self.group.begin_swap(f"into {self.into}", [mine] * self.group.size, shapes, INTO)

    def _take_back(self) -> None:
        """Sum the gradients of all processes for this process's images of the block that was sent back last."""
        if self.returning is not None:
            block, swap = self.returning
            self.gradient[block.mine] = total(swap.wait())
            self.returning = None
