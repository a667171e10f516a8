"""From a prepared dataset to batches, read ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Split

READERS = {"cpu": 1, "cuda": 4}  # threads; beside a CPU's own work one is enough, and more would take from it
READ_AHEAD = 2  # batches a reader


@dataclass(frozen=True)
class Batch:
    """Images as stored, (n, size, size, 3) uint8, and the labels (N,) int64 of all images of the batch.

    `rows` (n,) int64: which of the batch the images are, where other processes have the others; None: all.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None


Rows = Callable[[int], np.ndarray | None]
"""Which images of a batch of so many a process reads; None for all."""


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """How many batches it takes to see every image once."""
    return -(-len(split) // batch_size)


def training_batches(
    split: Split,
    batch_size: int,
    seed: int,
    epoch: int,
    first: int = 0,
    rows: Rows | None = None,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch in an order that `seed` and `epoch` determine, from batch number `first` on.

    Every image comes once; the sizes of the batches differ by at most one. Of each only `rows` are read. Their
    images are on the CPU, or with `device` there: a graphics card is sent the next batch while it works on one.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(split))
    device = device or torch.device("cpu")
    batches = _read(split, np.array_split(order, steps_per_epoch(split, batch_size))[first:], rows, device.type)
    return batches if device.type == "cpu" else _sent(batches, device)


def evaluation_batches(split: Split, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """All images in stored order; of each batch only `rows` are read."""
    count = len(split)
    return _read(split, [np.arange(i, min(i + batch_size, count)) for i in range(0, count, batch_size)], rows, "cpu")


def step_seeds(seed: int, step: int) -> tuple[int, int]:
    """Two seeds of its own for each step of each run, one for the images and one for the network.

    So a step draws the same numbers in a run that was resumed and one that was never stopped.
    """
    images, network = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    return int(images >> 1), int(network >> 1)


def _read(split: Split, batches: list[np.ndarray], rows: Rows | None, kind: str) -> Iterator[Batch]:
    """The batches in order, read ahead on the CPU for a device of that kind."""
    labels = torch.from_numpy(split.labels)

    def read(indices: np.ndarray) -> Batch:
        mine = None if rows is None else rows(len(indices))
        wanted = indices if mine is None else indices[mine]
        shape = (len(wanted), split.size, split.size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=kind == "cuda")  # pinned, it is sent beside a step
        split.gather(wanted, images.numpy())
        return Batch(images, labels[indices], None if mine is None else torch.from_numpy(mine))

    readers = READERS.get(kind, 1)
    with ThreadPoolExecutor(readers, thread_name_prefix="loader") as pool:
        ahead = [pool.submit(read, indices) for indices in batches[: READ_AHEAD * readers]]
        for number in range(len(batches)):
            batch = ahead.pop(0).result()
            if number + READ_AHEAD * readers < len(batches):
                ahead.append(pool.submit(read, batches[number + READ_AHEAD * readers]))
            yield batch


def _sent(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with their images on a device, each sent there before the one in front of it is used."""
    if device.type != "cuda":
        yield from (replace(batch, images=batch.images.to(device)) for batch in batches)
        return
    stream, before = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            sent = replace(batch, images=batch.images.to(device, non_blocking=True))
        now = sent, stream.record_event()
        if before is not None:
            yield _arrived(*before)
        before = now
    if before is not None:
        yield _arrived(*before)


def _arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
    """A batch for what is launched from now on."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(event)
    batch.images.record_stream(current)
    return batch
