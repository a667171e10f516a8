"""The execution of a training step: eager, in blocks of images, or recorded as a CUDA graph.

The three have one interface, `StepExecutor`: `step` trains on a batch, `finish` waits for what is not known yet. Each
computes the same update; they differ in how often the fully connected layers are updated, and in when the loss of a
step is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.data.augmentation import AugmentationPipeline
from alexnet.data.loading import Batch, step_seeds
from alexnet.kernels.safe import is_safe_mode
from alexnet.parallel.communicator import Communicator
from alexnet.parallel.layouts import FC_ENTRY
from alexnet.runs.recipe import Recipe
from alexnet.training.divergence import diverged, first_nonfinite, is_divergent
from alexnet.training.optimizers import clear_gradients, update_all
from alexnet.training.recorded_step import PendingResult, RecordedStep, capture_for, tensors_of_step
from alexnet.training.state import TrainingState


class StepResult(NamedTuple):
    """A step that is done, of all processes together.

    `step` counts from 1; `loss` is the mean over the `images`, `errors` how many of them were classified wrongly.
    `stop`, `save`: whether a process asks to stop, and whether a checkpoint is due.
    """

    step: int
    images: int
    loss: float
    errors: int
    stop: bool
    save: bool


class StepExecutor(Protocol):
    """How a training step is executed."""

    def step(self, batch: Batch) -> StepResult | None:
        """Train on a batch: the result of the latest step that is known now, None without one.

        Raises `Diverged` when its loss is NaN, Inf or exploded.
        """

    def finish(self) -> StepResult | None:
        """Wait for the last step, and return its result where `step` has not; raises as `step` does."""


@dataclass(frozen=True)
class TrainingInputs:
    """The input of the network for a training batch: augmented crops, drawn by the seed of the step.

    `pipeline_of` makes the augmentation pipeline for a standard deviation of the color augmentation.
    """

    pipeline_of: Callable[[float], AugmentationPipeline]
    recipe: Recipe
    network_input_size: int
    device: torch.device
    dtype: torch.dtype

    def size(self, state: TrainingState) -> int:
        """Side of the input in the step that comes next."""
        return state.schedule.input_size(state.counters.step) or self.network_input_size

    def pipeline(self, state: TrainingState) -> AugmentationPipeline:
        """The augmentation pipeline of the epoch."""
        return self.pipeline_of(state.schedule.color_std(state.counters.epoch))

    def draw(self, batch: Batch, state: TrainingState) -> tuple[Tensor, ...]:
        """The augmentation parameters of a batch."""
        generator = torch.Generator().manual_seed(step_seeds(self.recipe.seed, state.counters.step)[0])
        return self.pipeline(state).draw(len(batch.labels), generator, batch.rows)

    def __call__(self, batch: Batch, state: TrainingState) -> Tensor:
        """(N, 3, S, S) on the device; the same at every call in a step."""
        images = batch.images.to(self.device)
        return self.pipeline(state).apply(images, self.draw(batch, state), self.size(state), self.dtype)


@dataclass(frozen=True)
class EagerSteps:
    """One forward and one backward pass of the whole batch, then one update.

    Parameters
    ----------
    state : TrainingState
        What the steps change.
    inputs : TrainingInputs
        The augmentation.
    communicator : Communicator
        The exchange with the other processes.
    requests : callable
        Whether this process asks to stop, and whether a checkpoint is due.
    """

    state: TrainingState
    inputs: TrainingInputs
    communicator: Communicator
    requests: Callable[[], tuple[bool, bool]]

    def step(self, batch: Batch) -> StepResult:
        inputs, communicator, working = self.inputs, self.communicator, self.state.working
        torch.manual_seed(step_seeds(inputs.recipe.seed, self.state.counters.step)[1])
        labels = communicator.start_batch(batch).to(inputs.device)
        targets = None
        if batch.targets is not None:
            targets = communicator.of_logits(batch, batch.targets).to(inputs.device)
        # No name for the inputs: their memory is free during the backward pass.
        logits = working(inputs(batch, self.state))
        loss = communicator.scale_loss(mean_loss(logits, labels, inputs.recipe, targets), labels)
        result = self.agree(batch, loss.item(), count_errors(logits, labels))
        loss.backward()
        communicator.wait_for_gradients()
        update_all(self.state.optimizers, working.copies)
        return result

    def finish(self) -> None:
        return None

    def agree(self, batch: Batch, loss: float, errors: int) -> StepResult:
        """The result of all processes from that of this one; raises `Diverged`, in all of them."""
        step, inputs, communicator = self.state.counters.step + 1, self.inputs, self.communicator
        loss, errors, stop, save = communicator.agree(loss, errors, *self.requests())
        if is_divergent(loss):
            crops = inputs(batch, self.state)
            where = first_nonfinite(self.state.network, crops, inputs.device, inputs.dtype, communicator.any)
            raise diverged(step, loss, where)
        return StepResult(step, len(batch.labels), loss, errors, stop, save)


@dataclass(frozen=True)
class BlockSteps(EagerSteps):
    """The fully connected layers see the batch a block of images at a time (arXiv 1404.5997, section 4.1).

    With `fc_batch_size` they are updated after each block, by its mean gradient; the convolutions after the batch.
    """

    def step(self, batch: Batch) -> StepResult:
        state, inputs, communicator, working = self.state, self.inputs, self.communicator, self.state.working
        torch.manual_seed(step_seeds(inputs.recipe.seed, state.counters.step)[1])
        communicator.start_batch(batch)
        labels = batch.labels.to(inputs.device)
        blocks, update_each = communicator.blocks(len(labels)), inputs.recipe.fc_batch_size is not None
        entry = state.network.get_submodule(FC_ENTRY)
        activations = working.run_until(inputs(batch, state), entry)
        passing = communicator.pass_activations(activations, blocks)
        loss, errors = 0.0, 0
        for number, block in enumerate(blocks):
            communicator.start_block(block)
            received, block_labels = passing.receive(number).requires_grad_(), labels[block.images]
            logits = working.run_after(received, entry)
            share = len(block_labels) / len(labels)
            targets = None if batch.targets is None else batch.targets[block.images].to(inputs.device)
            block_loss = mean_loss(logits, block_labels, inputs.recipe, targets)
            (block_loss if update_each else block_loss * share).backward()
            assert received.grad is not None
            passing.send_back(number, received.grad * share if update_each else received.grad)
            loss, errors = loss + block_loss.item() * share, errors + count_errors(logits, block_labels)
            if update_each:
                update_all(state.optimizers, working.copies)
        gradient = passing.finish()
        result = self.agree(batch, loss, errors)
        activations.backward(gradient)
        communicator.wait_for_gradients()
        update_all(state.optimizers, working.copies)
        return result


class RecordedSteps:
    """The whole step as one launch of a CUDA graph, on one GPU.

    The GPU starts the next step before the CPU has read the loss of the one before: `step` returns the result of the
    step before. Parameters as for `EagerSteps`; `record` is how a step is recorded, and `note` reports a fall-back to
    eager steps.
    """

    def __init__(
        self,
        state: TrainingState,
        inputs: TrainingInputs,
        communicator: Communicator,
        requests: Callable[[], tuple[bool, bool]],
        note: Callable[[str], None],
    ) -> None:
        self.state, self.inputs, self.communicator, self.requests = state, inputs, communicator, requests
        capture = capture_for(inputs.device)
        assert capture is not None
        changed = partial(tensors_of_step, state.network, state.working.copies.values(), state.optimizers)
        self.recorded = RecordedStep(inputs.device, capture, changed, note)
        self.pending: PendingResult | None = None

    def step(self, batch: Batch) -> StepResult | None:
        state, inputs = self.state, self.inputs
        step, size, count = state.counters.step, inputs.size(state), len(batch.labels)
        rates = tuple(group["lr"] for optimizer in state.optimizers for group in optimizer.param_groups)
        labels = self.communicator.start_batch(batch)
        weighted = batch.targets is not None
        targets = () if batch.targets is None else (batch.targets,)
        tensors = (batch.images, labels, *targets, *inputs.draw(batch, state))
        seed = step_seeds(inputs.recipe.seed, step)[1]
        totals = self.recorded((count, size, rates), partial(self.train_on, size, weighted), tensors, seed)
        before, self.pending = self.pending, PendingResult.of(totals, step + 1, count)
        return None if before is None else self.read(before)

    def finish(self) -> StepResult | None:
        last, self.pending = self.pending, None
        return None if last is None else self.read(last)

    @torch.enable_grad()
    def train_on(self, size: int, weighted: bool, images: Tensor, labels: Tensor, *parameters: Tensor) -> Tensor:
        """A whole step on the device: its loss and errors (2,), NaN or not."""
        state, inputs = self.state, self.inputs
        targets, parameters = (parameters[0], parameters[1:]) if weighted else (None, parameters)
        clear_gradients(state.optimizers, state.working.copies)  # a recording that failed may have left some
        logits = state.working(inputs.pipeline(state).apply(images, parameters, size, inputs.dtype))
        loss = mean_loss(logits, labels, inputs.recipe, targets)
        loss.backward()
        update_all(state.optimizers, state.working.copies)
        return torch.stack([loss.detach().double(), (logits.argmax(1) != labels).sum().double()])

    def read(self, pending: PendingResult) -> StepResult:
        """Wait for a step, and check it; by then the weights have changed, and the layer is not known."""
        loss, errors = pending.read()
        if is_divergent(loss):
            raise diverged(pending.step, loss, "the loss")
        return StepResult(pending.step, pending.images, loss, errors, *self.requests())


def step_executor(
    state: TrainingState,
    inputs: TrainingInputs,
    communicator: Communicator,
    requests: Callable[[], tuple[bool, bool]],
    note: Callable[[str], None],
) -> StepExecutor:
    """The executor that suits recipe, device and communicator."""
    recipe = inputs.recipe
    if communicator.blocks(recipe.batch_size):
        return BlockSteps(state, inputs, communicator, requests)
    recordable = communicator.size == 1 and recipe.optimizer == "paper" and not is_safe_mode()
    if recordable and capture_for(inputs.device) is not None:
        return RecordedSteps(state, inputs, communicator, requests, note)
    return EagerSteps(state, inputs, communicator, requests)


def mean_loss(logits: Tensor, labels: Tensor, recipe: Recipe, targets: Tensor | None = None) -> Tensor:
    """The mean cross-entropy in nats, computed in float32 at least.

    `targets` (n, classes) are weighted and smoothed already (`alexnet.training.sample_weights`); without them the
    `labels` (n,) are the targets.
    """
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    if targets is not None:
        return functional.cross_entropy(logits, targets.to(logits.dtype))
    return functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def count_errors(logits: Tensor, labels: Tensor) -> int:
    """How many labels differ from the class with the largest logit."""
    return int((logits.argmax(1) != labels).sum())
