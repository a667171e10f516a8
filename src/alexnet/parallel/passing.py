"""How a batch's activations reach the fully connected layers block by block, and how their gradients come back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.parallel.collectives import Group, Swap
from alexnet.parallel.partition import total

INTO, BACK = 1, 2  # tags: what is on its way here must not be taken for what the layers exchange meanwhile (0)


@dataclass(frozen=True)
class Block:
    """Images that go through the fully connected layers together.

    `images`: which of the batch; `mine`: which of this process's they are; `sizes`: how many each process has.
    """

    images: slice
    mine: slice
    sizes: tuple[int, ...] = ()


class Passing:
    """One process: the blocks of a batch's activations (N, F) as they are, one after the other."""

    def __init__(self, activations: Tensor, blocks: list[Block]) -> None:
        self.activations, self.blocks = activations.detach().contiguous(), blocks
        self.gradient = torch.empty_like(self.activations)

    def arrived(self, number: int) -> Tensor:
        """The activations of block `number`, of all its images. Asked in turn, each once."""
        return self.activations[self.blocks[number].mine]

    def give_back(self, number: int, gradient: Tensor) -> None:
        """The gradient of what `arrived` returned."""
        self.gradient[self.blocks[number].mine] = gradient

    def finish(self) -> Tensor:
        """The gradient of this process's activations, when all blocks have been given back."""
        return self.gradient


class PassingOn(Passing):
    """Several processes, which put a block together from what each has of it (arXiv 1404.5997, section 4.1).

    While a block is computed the next one is on its way here, and the gradient of the one before on its way back.
    """

    def __init__(self, activations: Tensor, blocks: list[Block], group: Group, into: str) -> None:
        super().__init__(activations, blocks)
        self.group, self.into = group, into
        self.coming = self._send(0)
        self.going: tuple[Block, Swap] | None = None

    def arrived(self, number: int) -> Tensor:
        parts = self.coming.wait()
        if number + 1 < len(self.blocks):
            self.coming = self._send(number + 1)
        return torch.cat(parts)

    def give_back(self, number: int, gradient: Tensor) -> None:
        block, mine = self.blocks[number], self.activations[self.blocks[number].mine]
        pieces = list(gradient.contiguous().split(block.sizes))
        going = self.group.begin_swap(f"back from {self.into}", pieces, [mine.shape] * self.group.size, BACK)
        self._take_back()
        self.going = block, going

    def finish(self) -> Tensor:
        self._take_back()
        return self.gradient

    def _send(self, number: int) -> Swap:
        block = self.blocks[number]
        mine = self.activations[block.mine]
        shapes = [(rows, *mine.shape[1:]) for rows in block.sizes]
        return self.group.begin_swap(f"into {self.into}", [mine] * self.group.size, shapes, INTO)

    def _take_back(self) -> None:
        """What all found for this process's images of the block that was given back last."""
        if self.going is not None:
            block, going = self.going
            self.gradient[block.mine] = total(going.wait())
            self.going = None
