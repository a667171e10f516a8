"""From a prepared dataset to batches, read ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Split

READ_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Pictures as stored, (n, size, size, 3) uint8, and the labels (N,) int64 of all pictures of the batch.

    `rows` (n,) int64: which of the batch the pictures are, where other processes have the others; None: all.
    """

    pictures: Tensor
    labels: Tensor
    rows: Tensor | None = None


Rows = Callable[[int], np.ndarray | None]
"""Which pictures of a batch of so many a process reads; None for all."""


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """How many batches it takes to see every picture once."""
    return -(-len(split) // batch_size)


def training_batches(
    split: Split, batch_size: int, seed: int, epoch: int, first: int = 0, rows: Rows | None = None
) -> Iterator[Batch]:
    """The batches of an epoch in an order that `seed` and `epoch` determine, from batch number `first` on.

    Every picture comes once; the sizes of the batches differ by at most one. Of each only `rows` are read.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(split))
    return _read(split, np.array_split(order, steps_per_epoch(split, batch_size))[first:], rows)


def evaluation_batches(split: Split, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """All pictures in stored order; of each batch only `rows` are read."""
    count = len(split)
    return _read(split, [np.arange(i, min(i + batch_size, count)) for i in range(0, count, batch_size)], rows)


def step_seeds(seed: int, step: int) -> tuple[int, int]:
    """Two seeds of its own for each step of each run, one for the pictures and one for the network.

    So a step draws the same numbers in a run that was resumed and one that was never stopped.
    """
    pictures, network = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    return int(pictures >> 1), int(network >> 1)


def _read(split: Split, batches: list[np.ndarray], rows: Rows | None) -> Iterator[Batch]:
    labels = torch.from_numpy(split.labels)

    def read(indices: np.ndarray) -> Batch:
        mine = None if rows is None else rows(len(indices))
        if mine is None:
            return Batch(torch.from_numpy(split.gather(indices)), labels[indices])
        return Batch(torch.from_numpy(split.gather(indices[mine])), labels[indices], torch.from_numpy(mine))

    with ThreadPoolExecutor(1, thread_name_prefix="loader") as reader:
        ahead = [reader.submit(read, indices) for indices in batches[:READ_AHEAD]]
        for number in range(len(batches)):
            batch = ahead.pop(0).result()
            if number + READ_AHEAD < len(batches):
                ahead.append(reader.submit(read, batches[number + READ_AHEAD]))
            yield batch
