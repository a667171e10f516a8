"""Batches of a prepared dataset, read ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Split

READERS = {"cpu": 1, "cuda": 4}  # threads; on a CPU one is enough, and more would compete with the computation
READ_AHEAD = 2  # batches per reader


@dataclass(frozen=True)
class Batch:
    """Images and labels of a training or evaluation step.

    Attributes
    ----------
    images : Tensor
        (n, size, size, 3) uint8, as stored.
    labels : Tensor
        (N,) int64, of all images of the batch.
    rows : Tensor or None
        (n,) int64, positions of the images in the batch, where other processes hold the others; None: all.
    targets : Tensor or None
        (N, classes) float64, of all images of the batch: the weight of the image times the probabilities of its
        classes; None where all images count alike and their labels are certain.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None
    targets: Tensor | None = None


Rows = Callable[[int], np.ndarray | None]
"""Maps the size of a batch to the positions of the images that this process reads; None: all."""


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Return the number of batches in an epoch."""
    return -(-len(split) // batch_size)


def training_batches(
    split: Split,
    batch_size: int,
    seed: int,
    epoch: int,
    first: int = 0,
    rows: Rows | None = None,
    device: torch.device | None = None,
    targets: Callable[[np.ndarray], Tensor] | None = None,
    sampler: str = "random",
) -> Iterator[Batch]:
    """Read the batches of an epoch in random order.

    Every image comes once; the sizes of the batches differ by at most one.

    Parameters
    ----------
    split : Split
        The training split.
    batch_size : int
        Largest number of images in a batch.
    seed, epoch : int
        Determine the order; epochs are counted from 1.
    first : int
        Number of the first batch to read, from 0, for a resumed epoch.
    rows : callable, optional
        Which images of a batch to read. Default: all.
    device : torch.device, optional
        Where the images are put: a GPU is sent the next batch while it processes one. Default: the CPU.
    targets : callable, optional
        The targets of images by their indices.
    sampler : {"random", "balanced"}
        Every image once, or as many images of each class: those of rare ones several times.

    Yields
    ------
    Batch
        In order.
    """
    generator = np.random.default_rng((seed, epoch))
    order = balanced_order(split, generator) if sampler == "balanced" else generator.permutation(len(split))
    device = device or torch.device("cpu")
    batches = _read(
        split, np.array_split(order, steps_per_epoch(split, batch_size))[first:], rows, device.type, targets
    )
    return batches if device.type == "cpu" else _sent(batches, device)


def balanced_order(split: Split, generator: np.random.Generator) -> np.ndarray:
    """Indices of as many images as the split has, of each class the same number up to one, in random order.

    An image of a class comes again only when all others of it have come as often.
    """
    present = generator.permutation(np.flatnonzero(split.class_counts))
    parts = []
    for position, label in enumerate(present):
        members = np.flatnonzero(split.labels == label)
        wanted = len(split) // len(present) + (position < len(split) % len(present))
        rounds = [generator.permutation(members) for _ in range(-(-wanted // len(members)))]
        parts.append(np.concatenate([*rounds, members[:0]])[:wanted])
    return generator.permutation(np.concatenate(parts))


def evaluation_batches(split: Split, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """Read all images of a split in stored order, `batch_size` at a time; of each batch only `rows`."""
    count = len(split)
    return _read(split, [np.arange(i, min(i + batch_size, count)) for i in range(0, count, batch_size)], rows, "cpu")


def step_seeds(seed: int, step: int) -> tuple[int, int]:
    """Return the two seeds of a training step: that of the augmentation and that of the network.

    They depend on the run's seed and the step alone, so that a resumed run draws the same numbers as an uninterrupted
    one.
    """
    images, network = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    return int(images >> 1), int(network >> 1)


def _read(
    split: Split,
    batches: list[np.ndarray],
    rows: Rows | None,
    kind: str,
    targets: Callable[[np.ndarray], Tensor] | None = None,
) -> Iterator[Batch]:
    """Read batches in order, ahead of the consumer, on the CPU for a device of that type."""
    labels = torch.from_numpy(split.labels)

    def read(indices: np.ndarray) -> Batch:
        mine = None if rows is None else rows(len(indices))
        wanted = indices if mine is None else indices[mine]
        shape = (len(wanted), split.size, split.size, 3)
        images = torch.empty(
            shape, dtype=torch.uint8, pin_memory=kind == "cuda"
        )  # pinned memory is copied during a step
        split.gather(wanted, images.numpy())
        mine_of_batch = None if mine is None else torch.from_numpy(mine)
        return Batch(images, labels[indices], mine_of_batch, None if targets is None else targets(indices))

    readers = READERS.get(kind, 1)
    with ThreadPoolExecutor(readers, thread_name_prefix="loader") as pool:
        ahead = [pool.submit(read, indices) for indices in batches[: READ_AHEAD * readers]]
        for number in range(len(batches)):
            batch = ahead.pop(0).result()
            if number + READ_AHEAD * readers < len(batches):
                ahead.append(pool.submit(read, batches[number + READ_AHEAD * readers]))
            yield batch


def _sent(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with their images on a device, each copied there before the previous one is used."""
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
    """The batch, safe for kernels that are launched from now on."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(event)
    batch.images.record_stream(current)
    return batch
