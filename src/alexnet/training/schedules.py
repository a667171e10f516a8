"""Schedules: the learning rate and the augmentation at every step."""

from __future__ import annotations

import math
from typing import Any

import torch

from alexnet.runs.recipe import Recipe


class Schedule:
    """The learning rate of every layer, the input size and the strength of the color augmentation at every step.

    "plateau" divides the learning rate by ten when the validation error has not improved for `recipe.patience` epochs,
    at most `recipe.lr_drops` times (paper, section 5); "by-hand" follows `recipe.events`; "cosine" rises linearly over
    the first `recipe.warmup` of the run and falls as half a cosine to 0.

    A training with a budget may change its number of epochs while it runs (`change_epochs`). What depends on the share
    of the training that is done then goes on from where it is, faster or slower, to the same end.

    Parameters
    ----------
    recipe : Recipe
        Schedule, learning rate and number of epochs.
    steps_per_epoch : int
        Batches of an epoch.

    Attributes
    ----------
    epochs : int
        Epochs of the training.
    pace : float
        Steps of a whole training at the present pace; other than `total_steps` after a change of the epochs.
    scale : float
        Factor of every learning rate; lowered once, after a divergence.
    drops : int
        Learning-rate drops of "plateau" so far.
    best_error, stale
        The lowest error after an epoch, and the epochs since then or since the last drop.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.epochs = recipe.epochs
        self.pace = float(self.total_steps)
        self.scale = 1.0
        self.drops = 0
        self.best_error = math.inf
        self.stale = 0

    @property
    def total_steps(self) -> int:
        """Steps of the training."""
        return self.epochs * self.steps_per_epoch

    def share(self, step: float) -> float:
        """The share of the training that is done after a number of steps, from 0 to 1."""
        return (step - (self.total_steps - self.pace)) / self.pace

    def first_step_of(self, share: float) -> float:
        """The reverse of `share`: the number of steps after which a share of the training is done."""
        return share * self.pace + (self.total_steps - self.pace)

    def change_epochs(self, epochs: int, step: int) -> None:
        """Train `epochs` in all instead, from a number of steps on that are done."""
        left = 1 - self.share(step)
        self.epochs = epochs
        self.pace = (self.total_steps - step) / left

    def lr(self, step: int, layer: str) -> float:
        """The learning rate of a layer's weights at a step (from 0, over all epochs)."""
        recipe = self.recipe
        lr = recipe.lr
        if recipe.schedule == "plateau":
            lr *= 0.1**self.drops
        elif recipe.schedule == "by-hand":
            for event in recipe.events:
                first = (event.epoch - 1) * self.steps_per_epoch + event.batch
                if first <= step and event.lr is not None and event.layer in (None, layer):
                    lr = event.lr
        elif self.total_steps > 1:  # a single step would be the last, with a learning rate of 0
            done = self.share(step + 1)
            rise = min(1.0, done / recipe.warmup) if recipe.warmup else 1.0
            fall = max(0.0, (done - recipe.warmup) / (1 - recipe.warmup))
            lr *= rise * 0.5 * (1 + math.cos(math.pi * fall))
        return lr * self.scale

    def color_std(self, epoch: int) -> float:
        """The standard deviation of the PCA color augmentation in an epoch (from 1)."""
        std = self.recipe.color_jitter
        for event in self.recipe.events:
            if event.epoch <= epoch and event.color_jitter is not None:
                std = event.color_jitter
        return std

    def input_size(self, step: int) -> int | None:
        """The input size at a step (from 0) of the first part of a run that has another; None for the usual."""
        early = step < self.first_step_of(self.recipe.early_share)
        return self.recipe.early_input_size if early else None

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rates of the optimizer's groups for a step; loaded layers may be frozen at first."""
        frozen = step < self.first_step_of(self.recipe.frozen_share)
        for group in optimizer.param_groups:
            factor = 0.0 if frozen and group["pretrained"] else group["lr_factor"]
            group["lr"] = self.lr(step, group["layer"]) * factor

    def after_epoch(self, error: float) -> bool:
        """Take the error of an epoch; returns whether the learning rate was just dropped."""
        if error < self.best_error:
            self.best_error, self.stale = error, 0
            return False
        self.stale += 1
        dropped = (
            self.recipe.schedule == "plateau"
            and self.stale >= self.recipe.patience
            and self.drops < self.recipe.lr_drops
        )
        if dropped:
            self.drops += 1
            self.stale = 0
        return dropped

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint keeps, as JSON values."""
        return {name: getattr(self, name) for name in ("epochs", "pace", "scale", "drops", "best_error", "stale")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)
