"""Budget: the wall time of a training chooses its method, its epochs and its input size, and is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet.runs.recipe import Recipe
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import format_duration
from alexnet.training.schedules import Schedule

LINEAR, SHORT, USUAL, LONG = "linear classifier", "short", "usual", "long"
"""Methods: a linear classifier on the pretrained features; fewer epochs at the small input size; about the epochs of
the recipe at its sizes; more of them."""
USUAL_SHARE = 0.5
"""Least share of the recipe's epochs at its full input size; with less time all epochs have the small one."""
MIN_EPOCHS, MIN_STEPS = 3, 60
"""Least length of a fine-tuning; with less time only a linear classifier is fitted."""
LONGEST = 4
"""Longest training, as a multiple of the recipe's epochs: more were never measured."""
PLANNED = 0.95
"""Share of the budget that is planned; the rest is for what the few timed steps do not show."""
FITTING = 10.0
"""Seconds allowed for the fit of a linear classifier, which is not timed before."""
ENDING = 5.0
"""Seconds allowed for writing the weights."""
MEASURED_AT_END = 1024
"""Forward passes of images at the end of a training, in the terms of `Cost.image`."""
PROBED = 2_000
"""Images of each split that the linear classifier reads."""
TOLERANCE = 0.05
"""Change of the whole number of epochs below which a schedule stays as it is, as a share of it."""
LAST_LENGTHENING = 0.5
"""Share of a training after which it is not lengthened: the learning rate falls already."""


@dataclass(frozen=True)
class Cost:
    """Measured seconds: of a training step by input size, and of an image in evaluation mode."""

    step: Mapping[int, float]
    image: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; `from_dict` reads them."""
        return {"step": {str(size): seconds for size, seconds in self.step.items()}, "image": self.image}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cost:
        """The reverse of `to_dict`."""
        return cls({int(size): seconds for size, seconds in values["step"].items()}, values["image"])


@dataclass(frozen=True)
class Work:
    """The parts of a training: its epochs, and all before and after them.

    Attributes
    ----------
    steps : int
        Steps of an epoch.
    images, validation : int
        Images of the two splits.
    input_size : int
        Input size of the training after its early part.
    pretrained : bool
        Whether the features of pretrained weights are measured before the training.
    """

    steps: int
    images: int
    validation: int
    input_size: int
    pretrained: bool

    def before(self, cost: Cost) -> float:
        """Seconds before the first step: of the linear probe."""
        probed = min(self.images, PROBED) + min(self.validation, PROBED)
        return probed * cost.image + FITTING if self.pretrained else 0.0

    def after(self, cost: Cost) -> float:
        """Seconds after the last step: of writing the weights."""
        return MEASURED_AT_END * cost.image + ENDING

    def epoch(self, cost: Cost, early: int | None, early_share: float) -> float:
        """Mean seconds of an epoch of which `early_share` has the input size `early`."""
        full = cost.step[self.input_size]
        step = full if early is None else early_share * cost.step[early] + (1 - early_share) * full
        return self.steps * step + self.validation * cost.image


@dataclass(frozen=True)
class Plan:
    """A plan: the method, the changes to the recipe, and the estimated seconds of everything."""

    method: str
    changes: dict[str, Any]
    seconds: float


def sizes_of(recipe: Recipe, input_size: int) -> tuple[int, ...]:
    """The input sizes whose steps are timed."""
    early = recipe.early_input_size
    return (input_size,) if early in (None, input_size) or not recipe.early_share else (early, input_size)


def usual_plan(recipe: Recipe, work: Work, cost: Cost) -> Plan:
    """The recipe as it is, with its estimate."""
    epoch = work.epoch(cost, recipe.early_input_size, recipe.early_share)
    return Plan(USUAL, {}, work.before(cost) + work.after(cost) + recipe.epochs * epoch)


def plan(recipe: Recipe, work: Work, cost: Cost, budget: float, *, linear: bool) -> Plan:
    """Choose method, epochs and input size so that everything takes the budget, or less.

    Parameters
    ----------
    recipe : Recipe
        With its usual epochs and sizes.
    work : Work
        Images and steps.
    cost : Cost
        Measured for the sizes of `sizes_of`.
    budget : float
        Seconds that are left.
    linear : bool
        Whether a linear classifier can be fitted instead.

    Raises
    ------
    AlexNetError
        If the budget is too short for one epoch, and for a linear classifier.
    """
    early = recipe.early_input_size if recipe.early_share else None
    around = work.before(cost) + work.after(cost)
    left = PLANNED * budget - around
    full = work.epoch(cost, early, recipe.early_share)
    epochs = int(left / full)
    if epochs >= USUAL_SHARE * recipe.epochs or early is None:
        small = None
        epochs = min(epochs, LONGEST * recipe.epochs)
        method = LONG if epochs > recipe.epochs else USUAL if epochs >= USUAL_SHARE * recipe.epochs else SHORT
    else:
        small, method = early, SHORT
        full = work.epoch(cost, early, 1.0)
        epochs = min(int(left / full), recipe.epochs)
    least = max(MIN_EPOCHS, -(-MIN_STEPS // work.steps))
    if epochs < least and linear:
        return Plan(LINEAR, {"epochs": 1}, around + min(work.images, PROBED) * cost.image)  # two crops of each
    if epochs < 1:
        raise AlexNetError(
            f"the budget of {format_duration(budget)} is too short: one epoch of {work.images:,} images takes about "
            f"{format_duration(full)} on this machine, and the rest {format_duration(around)}; give "
            f"`--budget {math.ceil((around + full) / (60 * PLANNED))}m` or more, or prepare fewer images"
        )
    changes: dict[str, Any] = {"epochs": epochs}
    if small is not None:
        changes |= {"input_size": small, "early_input_size": None}
    return Plan(method, changes, around + epochs * full)


def describe(chosen: Plan, recipe: Recipe, work: Work, input_size: int) -> str:
    """The plan in one line, for people."""
    time = f"about {format_duration(chosen.seconds)}"
    if recipe.budget is not None:
        budget = float(recipe.budget)
        time += f"{', more than' if chosen.seconds > budget else ' of'} the budget of {format_duration(budget)}"
    time += " on this machine"
    if chosen.method == LINEAR:
        return f"{time}: too short for a fine-tuning; a linear classifier on the pretrained features"
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)} of {work.steps:,} step{'s' * (work.steps != 1)}"
    early = recipe.early_input_size
    size = f"at {input_size} pixels"
    if early is not None and early != input_size:
        size = f"at {early} pixels for {recipe.early_share:.0%} of the training, then at {input_size}"
    return f"{time}: {epochs} {size}{_hint_for_the_rest(chosen, recipe)}"


def _hint_for_the_rest(chosen: Plan, recipe: Recipe) -> str:
    """A use of the rest of a budget that is more than twice as long as the longest training; empty otherwise."""
    if recipe.budget is None or chosen.method != LONG or 2 * chosen.seconds > float(recipe.budget):
        return ""
    return (
        "; a longer training is not planned: the rest of the time is enough for other networks, whose mean is more "
        "accurate (`--networks`)"
    )


def epochs_that_fit(
    schedule: Schedule, work: Work, cost: Cost, *, epoch: int, slowdown: float, left: float, longest: int
) -> int:
    """How many epochs a training should have in all, by the time that is left after `epoch` of them.

    Parameters
    ----------
    schedule : Schedule
        As it is planned now.
    work, cost : Work, Cost
        What an epoch takes, by the plan.
    epoch : int
        Epochs done.
    slowdown : float
        Seconds of the last epochs as a multiple of what was planned.
    left : float
        Seconds of the budget that are left for epochs.
    longest : int
        Largest number of epochs.

    Returns
    -------
    int
        The present number unless it is off by more than `TOLERANCE`; at least one epoch more than are done.
    """
    recipe, done = schedule.recipe, schedule.share(epoch * schedule.steps_per_epoch)
    early_left = max(0.0, recipe.early_share - done) / (1 - done)
    one = slowdown * work.epoch(cost, recipe.early_input_size, early_left)
    fitting = min(epoch + max(1, int(left / one)), longest)
    change = fitting - schedule.epochs
    if abs(change) <= TOLERANCE * schedule.epochs or (change > 0 and done > LAST_LENGTHENING):
        return schedule.epochs
    return fitting


def planned_seconds(schedule: Schedule, work: Work, cost: Cost, epoch: int) -> float:
    """Seconds that an epoch (from 1) takes by the plan."""
    first, steps = (epoch - 1) * schedule.steps_per_epoch, schedule.steps_per_epoch
    early = schedule.recipe.early_input_size
    share = min(max((schedule.first_step_of(schedule.recipe.early_share) - first) / steps, 0.0), 1.0)
    return work.epoch(cost, early, share if early is not None else 0.0)
