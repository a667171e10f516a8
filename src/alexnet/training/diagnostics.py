"""Diagnostics of a training: problems detected while it trains, each in one line with its numbers and a remedy.

Nothing here prints or changes a weight. The loop passes its measurements, and reports the findings that it gets back.
A finding is reported once, and again only when it had disappeared for a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.data.dataset import Split
from alexnet.network.layers import ResidualBlock, Weighted
from alexnet.network.model import AlexNet
from alexnet.network.variants import get_variant
from alexnet.runs.recipe import SMALL_MAX_IMAGES, Recipe, recipes
from alexnet.training.agreement import CERTAIN, Agreement, agreement, neighbors_agree
from alexnet.training.findings import Finding

# A mean loss within 2% of the loss of guessing is guessing; 10% below it something is learned.
GUESSING = 0.98
LEARNED = 0.9

# A unit of a convolution is a whole feature map: a healthy network has few dead ones. In fc6 and fc7, whose units are
# active for few images each, up to three quarters are zero for a batch of two classes.
DEAD_MAPS = 0.5
DEAD_UNITS = 0.95

# Mean |Δw| / mean |w| of one step of a network that does not learn. SGD and AdamW have 1e-4 to 5e-3, Muon 2e-2.
EXPLODING = 0.05
# The same times the steps of the whole run: no network learns when its weights change by 1%.
VANISHING = 0.01

# Cohen's kappa that must be ruled out before labels are suspected; too few images rule out nothing.
SHOWS_IN_VALIDATION = 0.2
SHOWS_IN_NEIGHBORS = 0.15

CHECKS_IN_A_ROW = 3  # validations that must agree before a class or the labels are reported
MIN_CLASS_IMAGES = 5  # validation images of a class; with fewer, never predicting it can be chance
FORGET_AFTER = 5  # checks without a finding after which it is reported again


@dataclass(frozen=True)
class LayerUpdate:
    """Mean absolute weight and mean absolute update of a layer in the last step, as the 2012 code printed them."""

    name: str
    weight: float
    update: float


@dataclass(frozen=True)
class EpochValidation:
    """Loss (nats) and error rate (0 to 1) on the validation split; predictions and images of each class."""

    loss: float
    error: float
    predicted_counts: list[int]
    class_counts: list[int]


@torch.no_grad()
def dead_units(
    network: AlexNet, batch: Tensor, alive_share: Callable[[str, Tensor], float] | None = None
) -> dict[str, float]:
    """The share of the units of each layer with ReLU that are zero for every image of a batch.

    Parameters
    ----------
    network : AlexNet
        The network.
    batch : Tensor
        What `forward` takes, (N, 3, S, S).
    alive_share : callable, optional
        From a layer and its units that are not zero in this process (bool) to their share in all processes.

    Returns
    -------
    dict of str to float
        From 0 to 1, by layer; empty for tanh. A unit of a convolution is a whole feature map.
    """
    training = network.training
    network.eval()
    shares: dict[str, float] = {}
    x, layer = batch, ""
    for name, module in network.named_children():
        x = module(x)
        if isinstance(module, Weighted | ResidualBlock):
            layer = name
        elif isinstance(module, nn.ReLU):
            alive = (x > 0).transpose(0, 1).flatten(1).any(1)
            shares[layer] = 1 - (alive.float().mean().item() if alive_share is None else alive_share(layer, alive))
    network.train(training)
    return shares


def guessing_loss(class_counts: Sequence[float], label_smoothing: float = 0.0) -> float:
    """The lowest loss (nats) of a network that ignores the image, and predicts the class frequencies.

    ln(number of classes) when all are equally frequent, less otherwise.
    """
    p = np.asarray(class_counts, dtype=np.float64) / (sum(class_counts) or 1)
    p = (1 - label_smoothing) * p + label_smoothing / len(p)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


@dataclass
class _History:
    """The state that a checkpoint keeps, as JSON values."""

    loss_sum: float = 0.0
    steps: int = 0
    block: float | None = None  # mean loss of the last whole block of steps
    best_block: float = math.inf
    reported: dict[str, dict[str, int]] = field(default_factory=dict)  # kind → where → checks since it last held
    never_predicted: dict[str, int] = field(default_factory=dict)  # class → validations in a row without it
    at_chance: int = 0  # validations in a row no better than chance


class Diagnostics:
    """The diagnostics of one training: from the loss of every step and the measurements of every epoch to new findings.

    Parameters
    ----------
    classes : list of str
        The class names.
    class_counts : list of int
        Training images of each class.
    recipe : Recipe
        The recipe of the training.
    steps_per_epoch : int
        Batches of an epoch.
    train, validation : Split, optional
        The splits; they are read once where the loss raises the question whether the labels are shuffled.
    class_masses : list of float, optional
        How much each class counts in the loss. Default: `class_counts`.
    """

    def __init__(
        self,
        classes: list[str],
        class_counts: list[int],
        recipe: Recipe,
        steps_per_epoch: int,
        *,
        train: Split | None = None,
        validation: Split | None = None,
        class_masses: list[float] | None = None,
    ) -> None:
        self.classes = classes
        self.class_counts = class_counts
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.train = train
        self.validation = validation
        self.total_steps = recipe.epochs * steps_per_epoch
        # The targets behind the masses are smoothed already.
        smoothing = recipe.label_smoothing if class_masses is None else 0.0
        self.guess = guessing_loss(class_masses or class_counts, smoothing)
        self.block_steps = _block_steps(steps_per_epoch, self.total_steps)
        # A twentieth of the run; up to 3,000 steps, for N(0, 0.01²) may take thousands to leave its plateau.
        self.fair_steps = min(max(150, self.total_steps // 20), 3000, self.total_steps // 2)
        self.history = _History()

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint keeps, as JSON values."""
        return asdict(self.history)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        self.history = _History(**state)

    def after_step(self, step: int, loss: float) -> list[Finding]:
        """Take the loss of a step (from 1): a plateau at the loss of guessing, or a collapse back to it."""
        history = self.history
        history.loss_sum += loss
        history.steps += 1
        if history.steps < self.block_steps:
            return []
        before, mean = history.block, history.loss_sum / history.steps
        history.block, history.loss_sum, history.steps = mean, 0.0, 0
        lowest, history.best_block = history.best_block, min(history.best_block, mean)
        # Two blocks, the second no lower: a loss that still falls from far above is no plateau.
        guessing = before is not None and before >= GUESSING * self.guess and mean >= GUESSING * max(before, self.guess)
        if not guessing or not self.guess or step < self.fair_steps:
            return self._new([], "plateau", "collapse")
        collapsed = lowest < LEARNED * self.guess
        return self._new(self._collapse(step, mean, lowest) if collapsed else self._plateau(step, mean))

    def after_epoch(
        self,
        epoch: int,
        *,
        train_loss: float,
        train_error: float,
        validation: EpochValidation | None,
        layers: list[LayerUpdate],
        dead: dict[str, float],
    ) -> list[Finding]:
        """Take the measurements after an epoch (from 1): units and updates of the layers, classes, labels."""
        learning = train_loss < GUESSING * self.guess
        findings = self._dead(dead)
        # A network that learns may have layers whose weights change fast, or hardly at all.
        if not learning:
            # The weights of the last layer start near zero: their relative update says nothing.
            updates = {layer.name: layer.update / layer.weight for layer in layers[:-1] if layer.weight}
            findings += self._exploding(updates)
            # Later the learning rate is lowered on purpose.
            if epoch <= min(3, self.recipe.epochs / 2):
                findings += self._vanishing(updates)
        if validation is not None:
            fair = learning and epoch * self.steps_per_epoch >= self.fair_steps
            findings += self._never_predicted(validation, fair)
            findings += self._shuffled(validation, train_error, fair)
        return self._new(findings, "dead-units", "exploding-updates", "vanishing-updates", "class-never-predicted")

    def _new(self, findings: list[Finding], *checked: str) -> list[Finding]:
        """The findings that are not reported yet, or had disappeared for a while; `checked`: the kinds tested."""
        new = []
        for kind in dict.fromkeys((*checked, *(finding.kind for finding in findings))):
            held = {finding.where: finding for finding in findings if finding.kind == kind}
            reported = self.history.reported.get(kind, {})
            new += [finding for where, finding in held.items() if where not in reported]
            gone = {where: n + 1 for where, n in reported.items() if where not in held and n < FORGET_AFTER}
            self.history.reported[kind] = {**gone, **dict.fromkeys(held, 0)}
        return new

    def _plateau(self, step: int, mean: float) -> list[Finding]:
        if not _starts_slowly(self.recipe):
            shuffled = self._labels_of_training(
                f"the loss is {mean:.3f} after {step:,} steps, {self.guess:.3f} by chance"
            )
            if shuffled:
                return shuffled
        even = len(set(self.class_counts)) == 1 and not self.recipe.label_smoothing
        guess = f"ln({len(self.classes)}) = {self.guess:.3f}" if even else f"{self.guess:.3f}"
        message = f"the loss is {mean:.3f} after {step:,} steps, no better than guessing by class frequencies ({guess})"
        return [Finding("plateau", "loss", message, self._leave_plateau())]

    def _collapse(self, step: int, mean: float, lowest: float) -> list[Finding]:
        message = f"the loss had fallen to {lowest:.3f} and is {mean:.3f} after {step:,} steps, "
        message += f"no better than guessing ({self.guess:.3f})"
        return [
            Finding("collapse", "loss", message, f"start again with a smaller learning rate, `--lr {self._lower_lr()}`")
        ]

    def _dead(self, dead: dict[str, float]) -> list[Finding]:
        fully_connected = get_variant(self.recipe.variant).fully_connected_layers
        affected = [name for name in dead if dead[name] >= (DEAD_UNITS if name in fully_connected else DEAD_MAPS)]
        if not affected:
            return []
        first, units = affected[0], "units" if affected[0] in fully_connected else "feature maps"
        message = f"{dead[first]:.0%} of the {units} of {first} are dead: they are zero for every image of a "
        message += "batch, and no longer learn"
        message += f" (also in {', '.join(affected[1:])})" if affected[1:] else ""
        return [Finding("dead-units", first, message, self._smaller_steps())]

    def _exploding(self, updates: dict[str, float]) -> list[Finding]:
        fastest = max(updates, key=updates.__getitem__, default="")
        if updates.get(fastest, 0.0) < EXPLODING:
            return []
        message = (
            f"one step changes the weights of {fastest} by {updates[fastest]:.0%} of their size, and the loss is no "
        )
        message += "better than guessing"
        return [Finding("exploding-updates", fastest, message, self._smaller_steps())]

    def _vanishing(self, updates: dict[str, float]) -> list[Finding]:
        update = max(updates.values(), default=math.inf)
        if update * self.total_steps >= VANISHING:
            return []
        message = f"one step changes the weights of every layer by at most {update:.1g} of their size, "
        message += f"which adds up to {update * self.total_steps:.2%} in all {self.total_steps:,} steps"
        remedy = f"start again with a larger learning rate, `--lr {self._higher_lr()}`"
        return [Finding("vanishing-updates", "all layers", message, remedy)]

    def _never_predicted(self, validation: EpochValidation, fair: bool) -> list[Finding]:
        predicted, present, known = validation.predicted_counts, validation.class_counts, self.class_counts
        self.history.never_predicted = {
            name: self.history.never_predicted.get(name, 0) + 1
            for name, times, images in zip(self.classes, predicted, present, strict=True)
            if fair and not times and images >= MIN_CLASS_IMAGES
        }
        in_a_row = max(CHECKS_IN_A_ROW, math.ceil(self.recipe.epochs / 5))
        never = [i for i, name in enumerate(self.classes) if self.history.never_predicted.get(name, 0) >= in_a_row]
        longer = f"`--epochs {2 * self.recipe.epochs}`"
        if len(never) > 3:
            names = ", ".join(self.classes[i] for i in never[:3])
            message = f"{len(never)} of {len(self.classes)} classes are never predicted ({names}, ...)"
            remedy = f"check that they have enough images and correct labels, or train longer: {longer}"
            return [Finding("class-never-predicted", "several classes", message, remedy)]
        findings = []
        for i in never:
            message = f"{self.classes[i]!r} was never predicted in {in_a_row} validations, though "
            message += f"{present[i]:,} of {sum(present):,} images are of that class"
            most = max(range(len(predicted)), key=lambda j: predicted[j] - present[j])
            remedy = f"compare its images with those of {self.classes[most]!r}, predicted for {predicted[most]:,} "
            remedy += f"instead of {present[most]:,}; if the labels are correct, train longer: {longer}"
            if known[i] < 0.5 * sum(known) / len(known):
                remedy = f"only {known[i]:,} of {sum(known):,} training images are of that class: add more"
                remedy += ", or move the threshold with `alexnet evaluate`" if len(known) == 2 else ""
            findings.append(Finding("class-never-predicted", self.classes[i], message, remedy))
        return findings

    def _shuffled(self, validation: EpochValidation, train_error: float, fair: bool) -> list[Finding]:
        count = sum(validation.class_counts)
        correct = round((1 - validation.error) * count)
        match = agreement(validation.predicted_counts, validation.class_counts, correct)
        self.history.at_chance = self.history.at_chance + 1 if match.is_chance(SHOWS_IN_VALIDATION) else 0
        if self.history.at_chance < CHECKS_IN_A_ROW or not fair:
            return []
        message = f"the network learns the training images (error {train_error:.1%}), but its validation accuracy is "
        message += f"{match.share:.1%}, {match.share_by_chance:.1%} by chance"
        return self._labels_of_training(message) or self._labels_of_validation(message)

    def _labels_of_training(self, symptom: str) -> list[Finding]:
        """Whether training similar images have the same label no more often than any two."""
        alike = self._alike_in_training
        if self.train is None or alike is None or not alike.is_chance(SHOWS_IN_NEIGHBORS):
            return []
        message = f"labels look shuffled: {symptom}, and similar images have the same label in "
        message += f"{alike.share:.1%}, {alike.share_by_chance:.1%} by chance"
        return [
            Finding(
                "labels-shuffled", self.train.name, message, f"{_CHECK_LABELS}; if the labels are correct, add images"
            )
        ]

    def _labels_of_validation(self, symptom: str) -> list[Finding]:
        """Whether only the labels of the validation split are unrelated to its images."""
        alike, across = self._alike_in_training, self._alike_across
        if self.validation is None or alike is None or across is None:
            return []
        if alike.score < CERTAIN or not across.is_chance(0.5 * alike.kappa):
            return []
        name = self.validation.name
        message = (
            f"labels of {name} look shuffled: {symptom}, and the most similar training images have the same label "
        )
        message += f"in {across.share:.1%}, {across.share_by_chance:.1%} by chance"
        return [Finding("labels-shuffled", name, message, _CHECK_LABELS)]

    @cached_property
    def _alike_in_training(self) -> Agreement | None:
        return None if self.train is None else neighbors_agree(self.train)

    @cached_property
    def _alike_across(self) -> Agreement | None:
        if self.train is None or self.validation is None:
            return None
        return neighbors_agree(self.validation, self.train)

    def _leave_plateau(self) -> str:
        why = (
            ": weights drawn from N(0, 0.01²) take thousands of steps to leave the plateau"
            if _starts_slowly(self.recipe)
            else ""
        )
        if self._has_wrong_recipe():
            return f"start again with `--recipe small`{why}"
        if self.recipe.normalization != "batch":
            # On raw pixels "he" alone ends in dead feature maps or a divergence.
            return f"start again with `--init he --normalization batch`{why}"
        if self.recipe.lr < 0.3 * self._usual_lr():
            return f"start again with a larger learning rate, `--lr {self._higher_lr()}`"
        return f"start again with a smaller learning rate, `--lr {self._lower_lr()}`"

    def _smaller_steps(self) -> str:
        if self._has_wrong_recipe():
            return "start again with `--recipe small`: the first steps of this one are too large for so few images"
        return f"start again with a smaller learning rate, `--lr {self._lower_lr()}`"

    def _has_wrong_recipe(self) -> bool:
        """Whether few images are trained on by a recipe for many."""
        return sum(self.class_counts) <= SMALL_MAX_IMAGES and self.recipe.name != "small"

    def _usual_lr(self) -> float:
        usual = recipes().get(self.recipe.name, self.recipe)
        return usual.lr if usual.optimizer == self.recipe.optimizer else self.recipe.lr

    def _lower_lr(self) -> str:
        usual = self._usual_lr()
        return f"{usual if usual < 0.9 * self.recipe.lr else self.recipe.lr / 10:.2g}"

    def _higher_lr(self) -> str:
        return f"{max(self._usual_lr(), self.recipe.lr * 10):.2g}"


_CHECK_LABELS = "compare twenty images with their labels: the two lists may be shifted against each other"


def _starts_slowly(recipe: Recipe) -> bool:
    """Whether the weights are drawn from N(0, 0.01²), as in the paper, and no normalization scales their outputs."""
    return recipe.normalization != "batch" and (recipe.init_scheme or get_variant(recipe.variant).init) != "he"


def _block_steps(steps_per_epoch: int, total_steps: int) -> int:
    """Steps over which losses are averaged.

    Whole epochs, so that the classes have their own proportions, of at least 50 steps (a quarter of the run where that
    is less), or 200 steps where an epoch is longer.
    """
    if steps_per_epoch > 200:
        return 200
    return steps_per_epoch * max(1, math.ceil(min(50, total_steps // 4) / steps_per_epoch))
