"""The state of a training: everything that a step changes, and therefore everything that a checkpoint holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alexnet.network.layers import Weighted, leaves
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.checkpoint import Checkpoint
from alexnet.training.diagnostics import Diagnostics
from alexnet.training.schedules import Schedule


@dataclass
class Counters:
    """The position of a training, and the running sums of its epoch.

    Attributes
    ----------
    epoch : int
        The epoch that is being trained, from 1.
    batch : int
        Batches of this epoch that are done.
    step : int
        Steps of all epochs that are done.
    loss_sum, errors, images
        Of this epoch so far: the sum of the losses over the images, the images classified wrongly, the images.
    best_error : float
        The lowest error rate after an epoch, on the validation split where there is one.
    averaged : int
        States of the network in the weight average.
    metrics_bytes : int
        Length of the part of metrics.jsonl that belongs to the steps done.
    seconds : float
        Wall time of a training with a budget, until this state was saved.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    errors: int = 0
    images: int = 0
    best_error: float = math.inf
    averaged: int = 0
    metrics_bytes: int = 0
    seconds: float = 0.0

    def count(self, images: int, loss: float, errors: int) -> None:
        """Add a step's mean loss and errors to the sums of the epoch."""
        self.images += images
        self.loss_sum += loss * images
        self.errors += errors

    def next_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.errors, self.images = 0.0, 0, 0


@dataclass
class TrainingState:
    """Network, optimizers, schedule, diagnostics, weight average and counters.

    `working` is the form of `network` that computes; the two share their weights, or hold copies of one another's
    (`OptimizedNetwork`).
    """

    network: AlexNet
    working: OptimizedNetwork
    optimizers: Sequence[torch.optim.Optimizer]
    schedule: Schedule
    diagnostics: Diagnostics
    counters: Counters = field(default_factory=Counters)
    average: dict[str, Tensor] = field(default_factory=dict)

    def start_step(self) -> None:
        """Set the learning rates of the step that comes next, and the network to training mode."""
        for optimizer in self.optimizers:
            self.schedule.apply(optimizer, self.counters.step)
        self.network.train()

    def end_step(self) -> None:
        """Count a step that was executed, and update the weight average."""
        self.counters.step += 1
        self.counters.batch += 1
        self.update_average()

    @torch.no_grad()
    def update_average(self) -> None:
        """Add the weights to the running mean of the last part of the run: a hundred times, or at every step."""
        counters, schedule = self.counters, self.schedule
        share, total = schedule.recipe.weight_averaging, schedule.total_steps
        first = total - round(share * schedule.pace)
        if not share or counters.step <= first or (total - counters.step) % max(1, (total - first) // 100):
            return
        counters.averaged += 1
        for name, value in self.network.state_dict().items():
            if name not in self.average:
                self.average[name] = value.clone()
            elif value.is_floating_point():
                self.average[name].lerp_(value, 1 / counters.averaged)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within, the network has the averaged weights, where there are some; after it, its own again."""
        if not self.average:
            yield
            return
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.update_copies()
        try:
            yield
        finally:
            self.network.load_state_dict(own)
            self.update_copies()

    @torch.no_grad()
    def update_copies(self) -> None:
        """Give the rounded copies of `working` the weights of `network`."""
        for parameter, copy in self.working.copies.items():
            copy.copy_(parameter)

    def layer_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and weight tensor of each layer with weights."""
        for name, module in leaves(self.network):
            if isinstance(module, Weighted):
                yield name, module.weight.detach()

    def content(self, *, optimizers: bool) -> Checkpoint:
        """A copy of everything, for a checkpoint; without the optimizers, for the weights alone."""
        state = {
            "counters": dataclasses.asdict(self.counters),
            "schedule": self.schedule.state_dict(),
            "diagnostics": self.diagnostics.state_dict(),
        }
        return Checkpoint.of(self.network, self.optimizers if optimizers else [], self.average, state)

    def restore(self, content: Checkpoint) -> None:
        """The reverse of `content`. Raises `AlexNetError` for a checkpoint of another network."""
        content.restore(self.network, self.optimizers)
        self.update_copies()
        self.average, state = content.average, content.state
        counted = dataclasses.fields(Counters)  # a checkpoint of an earlier version may have more
        self.counters = Counters(**{field.name: state["counters"][field.name] for field in counted})
        self.schedule.load_state_dict(state["schedule"])
        self.diagnostics.load_state_dict(state["diagnostics"])
