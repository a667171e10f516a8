"""How the learning rate and the color noise change over a training."""

from __future__ import annotations

import math
from typing import Any

import torch

from alexnet.runs.recipe import Recipe


class Schedule:
    """The learning rate of every layer, and the strength of the color noise, at every step of a training.

    "plateau" divides the rate by ten when the validation error has not improved for `recipe.patience` epochs, at most
    `recipe.lr_drops` times (paper, section 5); "by-hand" follows `recipe.events`; "cosine" rises linearly
    over the first `recipe.warmup` of the run and falls as half a cosine to 0. `scale` multiplies all of it: it is
    lowered once, after a loss that was NaN or Inf.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = recipe.epochs * steps_per_epoch
        self.scale = 1.0
        self.drops = 0
        self.best_error = math.inf
        self.stale = 0

    def rate(self, epoch: int, step: int, layer: str) -> float:
        """The learning rate of a layer's weights in an epoch (from 1), at a step (from 0, over all epochs)."""
        recipe = self.recipe
        rate = recipe.lr
        if recipe.schedule == "plateau":
            rate *= 0.1**self.drops
        elif recipe.schedule == "by-hand":
            for event in recipe.events:
                begins = (event.epoch - 1) * self.steps_per_epoch + event.batch
                if begins <= step and event.lr is not None and event.layer in (None, layer):
                    rate = event.lr
        else:
            done = (step + 1) / self.total_steps
            rise = min(1.0, done / recipe.warmup) if recipe.warmup else 1.0
            fall = max(0.0, (done - recipe.warmup) / (1 - recipe.warmup))
            rate *= rise * 0.5 * (1 + math.cos(math.pi * fall))
        return rate * self.scale

    def color(self, epoch: int) -> float:
        """The standard deviation of the color noise in an epoch (from 1)."""
        std = self.recipe.color_jitter
        for event in self.recipe.events:
            if event.epoch <= epoch and event.color_jitter is not None:
                std = event.color_jitter
        return std

    def input_size(self, step: int) -> int | None:
        """The side of the images at a step (from 0), where the recipe has another for its first part."""
        early = step < self.recipe.early_share * self.total_steps
        return self.recipe.early_input_size if early else None

    def apply(self, optimizer: torch.optim.Optimizer, epoch: int, step: int) -> None:
        """Set the rates of the optimizer's groups for a step; layers taken over may stand still for a while."""
        frozen = step < self.recipe.frozen_share * self.total_steps
        for group in optimizer.param_groups:
            factor = 0.0 if frozen and group["taken"] else group["lr_factor"]
            group["lr"] = self.rate(epoch, step, group["layer"]) * factor

    def after_epoch(self, error: float) -> bool:
        """Take the validation error of an epoch; True when the rate was just divided by ten."""
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
        """What a resumed training needs to go on, as JSON has it."""
        return {name: getattr(self, name) for name in ("scale", "drops", "best_error", "stale")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)
