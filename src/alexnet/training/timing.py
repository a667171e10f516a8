"""Timing: the seconds of a training step and of an image, from a few steps of a training that is thrown away."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.data.loading import Batch, training_batches
from alexnet.parallel.collectives import SingleProcess
from alexnet.parallel.communicator import Communicator
from alexnet.parallel.sharding import sharding_of
from alexnet.runs.config import Config
from alexnet.runs.run import Run
from alexnet.training.budget import Cost
from alexnet.training.divergence import Diverged
from alexnet.training.loop import Training
from alexnet.training.steps import step_executor
from alexnet.training.validation import central_crops

STEPS = 3
"""Timed steps of each input size, after one that is not."""


def measure_cost(config: Config, dataset: PreparedDataset, device: torch.device, sizes: Sequence[int]) -> Cost | None:
    """Time training steps of each input size, and images in evaluation mode; None where a step diverges.

    Nothing is kept: the network, its optimizers and the run folder are those of a training of its own.
    """
    with TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", config)
        training = Training(
            run, dataset, device, Communicator(SingleProcess(), sharding_of(None, config.recipe, 1, ""))
        )
        batches = _batches(training)
        try:
            return Cost(
                {size: _step_seconds(training, batches, size) for size in sizes}, _image_seconds(training, batches)
            )
        except Diverged:
            return None


def _batches(training: Training) -> Iterator[Batch]:
    """Training batches without end."""
    recipe = training.recipe
    for epoch in itertools.count(1):
        yield from training_batches(
            training.training,
            recipe.batch_size,
            recipe.seed,
            epoch,
            device=training.device,
            targets=training.targets,
            sampler=recipe.sampler,
        )


def _step_seconds(training: Training, batches: Iterator[Batch], size: int) -> float:
    """Median seconds of a step with an input size; the weights stay as they are."""
    state = training.state
    early = state.schedule.input_size(0)
    state.counters.step = 0 if early == size else state.schedule.total_steps - 1
    steps = step_executor(state, training.inputs, training.communicator, lambda: (False, False), lambda _: None)
    seconds = []
    for _ in range(1 + STEPS):
        start = time.monotonic()
        state.start_step()
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
        steps.step(next(batches))
        steps.finish()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds[1:])


@torch.no_grad()
def _image_seconds(training: Training, batches: Iterator[Batch]) -> float:
    """Median seconds of an image in evaluation mode."""
    state, seconds = training.state, []
    state.network.eval()
    for _ in range(1 + STEPS):
        batch = next(batches)
        start = time.monotonic()
        state.working(central_crops(batch, training.preprocess, training.dtype)).float().cpu()
        seconds.append((time.monotonic() - start) / len(batch.labels))
    return statistics.median(seconds[1:])
