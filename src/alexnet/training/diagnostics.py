"""Why a training does not learn: each disease named in one line, with its numbers and the way out, while it trains.

Nothing here prints or changes a weight. The loop hands over what it has measured and says the findings it gets back.
Every finding comes once, and again only when it had been gone for a while.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.data.dataset import Split
from alexnet.network.layers import Weighted
from alexnet.network.model import AlexNet
from alexnet.network.variants import get_variant
from alexnet.runs.recipe import SMALL_UP_TO, Recipe, recipes

BATCH_SIZE = 64  # images looked at at a time
# A mean loss within 2% of guessing is guessing; 10% below it something was learned.
GUESSING = 0.98
LEARNED = 0.9

# A unit of a convolution is a whole map: of those a healthy network has a few dead. In fc6 and fc7, whose units answer
# to few images each, up to three quarters are silent for a batch of two classes.
DEAD_MAPS = 0.5
DEAD_UNITS = 0.95

# Mean |Δw| / mean |w| of one step, where nothing is learned. SGD and AdamW have 1e-4 to 5e-3, Muon 2e-2.
EXPLODING = 0.05
# The same times the steps of the whole run: no network learns from weights that move by 1%.
VANISHING = 0.01

# Labels agree with the network's answers, or with the neighbors' labels, by chance when by no more than so many
# standard deviations, and certainly when by so many. Neighbors among the solar cells: 13, 20 classes of ImageNet: 18.
CHANCE = 2.0
CERTAIN = 4.0
# Cohen's kappa that must be ruled out before labels are suspected: of too few images nothing is said.
SHOWS_IN_VALIDATION = 0.2
SHOWS_IN_NEIGHBORS = 0.15

CHECKS_IN_A_ROW = 3  # validations that must agree before something is said of a class or of the labels
SEEN_OFTEN_ENOUGH = 5  # validation images of a class; with fewer, never predicting it can be chance
FORGET_AFTER = 5  # checks that a finding must have been gone for to be said anew


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: its kind, the place (a layer, a class, a split), what it is, and what to do about it."""

    kind: str
    where: str
    message: str
    remedy: str


@dataclass(frozen=True)
class LayerUpdate:
    """A layer's mean absolute weight and mean absolute update in the last step, as the 2012 code printed them."""

    name: str
    weight: float
    update: float


@dataclass(frozen=True)
class EpochValidation:
    """Loss and error (0 to 1) on the validation split; how often each class was answered, and how often it is right."""

    loss: float
    error: float
    predicted_counts: list[int]
    class_counts: list[int]


# What the weights and the activations show.


@torch.no_grad()
def dead_units(
    network: AlexNet, batch: Tensor, alive_share: Callable[[str, Tensor], float] | None = None
) -> dict[str, float]:
    """For each layer with ReLU the share (0 to 1) of its units that are zero for every image of the batch.

    `batch`: what `forward` takes, (N, 3, S, S). A unit of a convolution is a whole map. Empty for tanh. `alive_share`
    tells of a layer, and of its units that are not zero here, how many are not where several processes look.
    """
    training = network.training
    network.eval()
    shares: dict[str, float] = {}
    x, layer = batch, ""
    for name, module in network.named_children():
        x = module(x)
        if isinstance(module, Weighted):
            layer = name
        elif isinstance(module, nn.ReLU):
            alive = (x > 0).transpose(0, 1).flatten(1).any(1)
            shares[layer] = 1 - (alive.float().mean().item() if alive_share is None else alive_share(layer, alive))
    network.train(training)
    return shares


# What the images and their labels show.


@dataclass(frozen=True)
class Agreement:
    """How often answers equal labels, beside what the same answers and labels give when paired at random.

    `expected` and `deviation`: mean and standard deviation of `matches` over all pairings of the two. `resolution`:
    the standard deviation of `kappa` by chance, for answers as frequent as the labels.
    """

    count: int
    matches: int
    expected: float
    deviation: float
    resolution: float

    @property
    def score(self) -> float:
        """Standard deviations above chance; 0 where only one answer is ever given."""
        return (self.matches - self.expected) / self.deviation if self.deviation else 0.0

    @property
    def share(self) -> float:
        """How often answer and label are the same, 0 to 1."""
        return self.matches / max(self.count, 1)

    @property
    def share_by_chance(self) -> float:
        """The same by chance."""
        return self.expected / max(self.count, 1)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: 0 for chance, 1 when all agree."""
        return (self.matches - self.expected) / max(self.count - self.expected, 1e-12)

    def is_chance(self, kappa: float) -> bool:
        """No better than chance, and on enough images that an agreement of `kappa` would have shown."""
        return self.score < CHANCE and self.kappa + 2 * self.resolution < kappa


def agreement(answered: list[int], labeled: list[int], matches: int) -> Agreement:
    """Compare answers with labels: how often each class is answered, how often it is the label, how often both.

    The cells of a table with given margins are hypergeometric; `matches` is the sum of its diagonal.
    """
    expected, deviation = _by_chance(answered, labeled)
    most, spread = _by_chance(labeled, labeled)
    count = sum(labeled)
    resolution = spread / (count - most) if count > most else math.inf
    return Agreement(count, matches, expected, deviation, resolution)


def _by_chance(answered: list[int], labeled: list[int]) -> tuple[float, float]:
    """Mean and standard deviation of the number of matches over all pairings of answers and labels."""
    a, b = np.asarray(answered, dtype=np.float64), np.asarray(labeled, dtype=np.float64)
    n = b.sum()
    if n < 2:
        return 0.0, 0.0
    both = a * b
    variance = (both * (n - a) * (n - b)).sum() + both.sum() ** 2 - (both**2).sum()
    return float(both.sum() / n), math.sqrt(variance / (n * n * (n - 1)))


def neighbors_agree(split: Split, known: Split | None = None, images: int = 2000) -> Agreement:
    """How often an image has the label of the one most like it, in the split itself or in `known`.

    "Like" is near in the mean color, the contrast and the edges of the sixteen parts of an image. Of more than 20
    classes the 20 most frequent are looked at, of more than `images` images as many, evenly spaced.
    """
    reference = split if known is None else known
    kept = np.argsort(reference.class_counts, kind="stable")[::-1][:20]
    looks, labels = [], []
    for source in (reference,) if known is None else (reference, split):
        chosen = np.flatnonzero(np.isin(source.labels, kept))
        chosen = chosen[_evenly(len(chosen), images)]
        looks.append(_look(source, chosen))
        labels.append(source.labels[chosen])
    if len(labels[0]) < 2:
        return agreement([0], [0], 0)
    middle, spread = looks[0].mean(0), looks[0].std(0) + 1e-6
    stored, asked = ((look - middle) / spread for look in (looks[0], looks[-1]))
    distances = (stored**2).sum(1)[None, :] - 2 * asked @ stored.T
    if known is None:
        np.fill_diagonal(distances, np.inf)
    answers = labels[0][distances.argmin(1)]
    classes = len(reference.class_counts)
    answered, labeled = (np.bincount(values, minlength=classes).tolist() for values in (answers, labels[-1]))
    found = agreement(answered, labeled, int((answers == labels[-1]).sum()))
    # Two images that are each other's nearest are one observation, counted twice.
    return replace(found, deviation=math.sqrt(2) * found.deviation)


def overlap(train: Split, validation: Split, budget: int = 30_000) -> list[Finding]:
    """Images that are in both splits: the same to the last pixel, or nearly (saved anew, or resized and back).

    No more than `budget` images are read, evenly spaced; the finding says so when that is not all of them.
    """
    if not len(train) or not len(validation):
        return []
    fewer = min(len(train), len(validation), budget // 2)
    known = _evenly(len(train), max(fewer, budget - fewer))
    asked = _evenly(len(validation), max(fewer, budget - fewer))
    known_prints, known_thumbnails = _fingerprints(train, known)
    asked_prints, asked_thumbnails = _fingerprints(validation, asked)
    where = {fingerprint: row for row, fingerprint in enumerate(known_prints)}
    copies = {row: where[fingerprint] for row, fingerprint in enumerate(asked_prints) if fingerprint in where}
    nearly = _nearly_equal(asked_thumbnails, known_thumbnails)
    nearly = {row: other for row, other in nearly.items() if row not in copies}
    # A few pairs in a thousand are alike by nature, as blank images are; copies come in numbers.
    if len(nearly) < 0.01 * len(asked):
        nearly = {}
    pairs = {**copies, **nearly}
    if not pairs:
        return []
    first = min(pairs)
    name = validation.name
    words = f"{len(pairs):,} of {len(asked):,} {name} images are in {train.name} too"
    words += f", {len(nearly):,} of them with small differences" if nearly else ""
    words += f" ({validation.paths(int(asked[first]))} is {train.paths(int(known[pairs[first]]))})"
    if len(known) < len(train):
        share = min(1.0, len(pairs) / len(asked) * len(train) / len(known))
        words += f", found among {len(known):,} of {len(train):,}, so about {share:.1%} in all"
    words += f": the {name} error will look better than it is"
    return [Finding("overlap", name, words, "take the copies out of one of them and run `alexnet prepare` again")]


def worse_than_known(known: Mapping[str, Any], error: float, recipe: Recipe) -> list[Finding]:
    """A training that ended with more validation error than what it began from, beyond luck.

    `known`: the record of the linear classifier on the layers taken over, as metrics.jsonl has it (event "probe").
    """
    before, after, images = known["accuracy"], 1 - error, known["measured"]
    mean = (before + after) / 2
    if known["split"] != "val" or before - after <= CHANCE * math.sqrt(2 * mean * (1 - mean) / images):
        return []
    words = f"{after:.1%} of the validation images are right at the end, and {before:.1%} were before the training"
    words += f", by a linear classifier on {known['layer']}"
    remedy = f"train longer, such as `--epochs {3 * recipe.epochs}`"
    if recipe.pretrained_lr_scale:
        remedy += (
            f", or let what was learned before move less: `--pretrained-lr-scale {recipe.pretrained_lr_scale / 10:g}`"
        )
    return [Finding("worse-than-known", known["layer"], words, remedy)]


def _evenly(count: int, limit: int) -> np.ndarray:
    """Up to `limit` of the indices 0 … count - 1, evenly spaced."""
    return np.arange(count) if count <= limit else np.arange(limit) * count // limit


def _look(split: Split, indices: np.ndarray) -> np.ndarray:
    """Color, contrast and edges of the images in a grid of 4 × 4: (n, 128) float32."""
    rows = []
    for _, images in split.batches(indices, BATCH_SIZE):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        x = functional.adaptive_avg_pool2d(x, 64)
        gray = functional.pad(x.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
        edges = [(gray[..., :-1, 1:] - gray[..., :-1, :-1]).abs(), (gray[..., 1:, :-1] - gray[..., :-1, :-1]).abs()]
        mean, square, edge = (functional.adaptive_avg_pool2d(y, 4) for y in (x, x * x, torch.cat(edges, 1)))
        rows.append(torch.cat([mean, (square - mean * mean).clamp_min(0).sqrt(), edge], 1).flatten(1))
    return torch.cat(rows).numpy() if rows else np.zeros((0, 128), dtype=np.float32)


def _fingerprints(split: Split, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """A hash of every image's pixels, and its gray thumbnail of 16 × 16: (n, 256) float32."""
    prints: list[bytes] = []
    thumbnails = []
    for _, images in split.batches(indices, BATCH_SIZE):
        prints += [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().mean(1, keepdim=True)
        thumbnails.append(functional.adaptive_avg_pool2d(x, 16).flatten(1))
    return prints, torch.cat(thumbnails).numpy()


def _nearly_equal(queries: np.ndarray, known: np.ndarray) -> dict[int, int]:
    """For each thumbnail of `queries` the nearest of `known` where they differ by less than 2% of what is usual."""
    middle = known.mean(0)
    usual = float(np.sqrt(((known - middle) ** 2).mean()))
    queries, known = queries - middle, known - middle
    pairs = {}
    norms = (known**2).sum(1)
    for start in range(0, len(queries), 1024):
        block = queries[start : start + 1024]
        nearest = (norms[None, :] - 2 * block @ known.T).argmin(1)
        differences = np.sqrt(((block - known[nearest]) ** 2).mean(1))
        for number in np.flatnonzero(differences < 0.02 * usual):
            pairs[start + int(number)] = int(nearest[number])
    return pairs


# What the course of the training shows.


def guessing_loss(class_counts: list[int], label_smoothing: float = 0.0) -> float:
    """The lowest loss (nats) of a network that never looks at the image: it answers with the class frequencies.

    ln(number of classes) when all are equally frequent, less when they are not.
    """
    p = np.asarray(class_counts, dtype=np.float64) / max(sum(class_counts), 1)
    p = (1 - label_smoothing) * p + label_smoothing / len(p)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


@dataclass
class _Memory:
    """All that a resumed training needs to say the same things; JSON has it as it is."""

    loss_sum: float = 0.0
    steps: int = 0
    block: float | None = None  # mean loss of the last whole block of steps
    best_block: float = math.inf
    said: dict[str, dict[str, int]] = field(default_factory=dict)  # kind → where → checks since it last held
    silent: dict[str, int] = field(default_factory=dict)  # class → validations in a row without it
    at_chance: int = 0  # validations in a row no better than chance


class Health:
    """Watches one training: give it every step's loss and every epoch's measurements, it gives the new findings.

    `class_counts`: training images of each class. With the split `train` (and `validation`) it can look whether the
    images have anything to do with their labels, once, when the training raises the question.
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
    ) -> None:
        self.classes = classes
        self.class_counts = class_counts
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.train = train
        self.validation = validation
        self.total_steps = recipe.epochs * steps_per_epoch
        self.guess = guessing_loss(class_counts, recipe.label_smoothing)
        self.block_steps = _block_steps(steps_per_epoch, self.total_steps)
        # A twentieth of the run; up to 3,000 steps, for N(0, 0.01²) may take thousands to leave its plateau.
        self.fair_steps = min(max(150, self.total_steps // 20), 3000, self.total_steps // 2)
        self.memory = _Memory()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to say the same things, as JSON has it."""
        return asdict(self.memory)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        self.memory = _Memory(**state)

    def after_step(self, step: int, loss: float) -> list[Finding]:
        """Take the loss of a step (counted from 1): does it stay, or fall back, where guessing is?"""
        memory = self.memory
        memory.loss_sum += loss
        memory.steps += 1
        if memory.steps < self.block_steps:
            return []
        before, mean = memory.block, memory.loss_sum / memory.steps
        memory.block, memory.loss_sum, memory.steps = mean, 0.0, 0
        lowest, memory.best_block = memory.best_block, min(memory.best_block, mean)
        # Two blocks, the second no lower: a loss that comes down from far above is on its way.
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
        """Take what was measured after an epoch (from 1): units and updates of the layers, classes, labels."""
        learning = train_loss < GUESSING * self.guess
        findings = self._dead(dead)
        # A network that learns may well have layers that move fast, or stand still.
        if not learning:
            # The weights of the last layer begin near zero: their pace says nothing.
            paces = {layer.name: layer.update / layer.weight for layer in layers[:-1] if layer.weight}
            findings += self._exploding(paces)
            # Later the rate is lowered on purpose.
            if epoch <= min(3, self.recipe.epochs / 2):
                findings += self._vanishing(paces)
        if validation is not None:
            fair = learning and epoch * self.steps_per_epoch >= self.fair_steps
            findings += self._never_predicted(validation, fair)
            findings += self._shuffled(validation, train_error, fair)
        return self._new(findings, "dead-units", "exploding-updates", "vanishing-updates", "class-never-predicted")

    def _new(self, findings: list[Finding], *looked_for: str) -> list[Finding]:
        """The findings that were not said, or were gone for a while; `looked_for`: kinds that could have been found."""
        new = []
        for kind in dict.fromkeys((*looked_for, *(finding.kind for finding in findings))):
            held = {finding.where: finding for finding in findings if finding.kind == kind}
            said = self.memory.said.get(kind, {})
            new += [finding for where, finding in held.items() if where not in said]
            gone = {where: n + 1 for where, n in said.items() if where not in held and n < FORGET_AFTER}
            self.memory.said[kind] = {**gone, **dict.fromkeys(held, 0)}
        return new

    # One method a disease.

    def _plateau(self, step: int, mean: float) -> list[Finding]:
        if not _starts_slowly(self.recipe):
            shuffled = self._labels_of_training(
                f"the loss is {mean:.3f} after {step:,} steps, {self.guess:.3f} by chance"
            )
            if shuffled:
                return shuffled
        even = len(set(self.class_counts)) == 1 and not self.recipe.label_smoothing
        guess = f"ln({len(self.classes)}) = {self.guess:.3f}" if even else f"{self.guess:.3f}"
        words = f"the loss is {mean:.3f} after {step:,} steps, no better than guessing by class frequency ({guess})"
        return [Finding("plateau", "loss", words, self._way_off_the_plateau())]

    def _collapse(self, step: int, mean: float, lowest: float) -> list[Finding]:
        words = f"the loss had come down to {lowest:.3f} and after {step:,} steps is {mean:.3f}, "
        words += f"no better than guessing ({self.guess:.3f})"
        return [Finding("collapse", "loss", words, f"start again with a smaller learning rate, `--lr {self._lower()}`")]

    def _dead(self, dead: dict[str, float]) -> list[Finding]:
        ill = [name for name in dead if dead[name] >= (DEAD_UNITS if name.startswith("fc") else DEAD_MAPS)]
        if not ill:
            return []
        first, units = ill[0], "units" if ill[0].startswith("fc") else "maps"
        words = f"{dead[first]:.0%} of the {units} of {first} are dead: zero for every image of a batch, they pass "
        words += "nothing on and no longer learn"
        words += f" (also in {', '.join(ill[1:])})" if ill[1:] else ""
        return [Finding("dead-units", first, words, self._calmer())]

    def _exploding(self, paces: dict[str, float]) -> list[Finding]:
        fastest = max(paces, key=paces.__getitem__, default="")
        if paces.get(fastest, 0.0) < EXPLODING:
            return []
        words = f"one step changes the weights of {fastest} by {paces[fastest]:.0%} of their size, and the loss is no "
        words += "better than guessing"
        return [Finding("exploding-updates", fastest, words, self._calmer())]

    def _vanishing(self, paces: dict[str, float]) -> list[Finding]:
        pace = max(paces.values(), default=math.inf)
        if pace * self.total_steps >= VANISHING:
            return []
        words = f"one step changes the weights of every layer by at most {pace:.1g} of their size, "
        words += f"which makes {pace * self.total_steps:.2%} in all {self.total_steps:,} steps"
        remedy = f"start again with a greater learning rate, `--lr {self._higher()}`"
        return [Finding("vanishing-updates", "all layers", words, remedy)]

    def _never_predicted(self, validation: EpochValidation, fair: bool) -> list[Finding]:
        answered, present, known = validation.predicted_counts, validation.class_counts, self.class_counts
        self.memory.silent = {
            name: self.memory.silent.get(name, 0) + 1
            for name, times, images in zip(self.classes, answered, present, strict=True)
            if fair and not times and images >= SEEN_OFTEN_ENOUGH
        }
        in_a_row = max(CHECKS_IN_A_ROW, math.ceil(self.recipe.epochs / 5))
        never = [i for i, name in enumerate(self.classes) if self.memory.silent.get(name, 0) >= in_a_row]
        longer = f"`--epochs {2 * self.recipe.epochs}`"
        if len(never) > 3:
            names = ", ".join(self.classes[i] for i in never[:3])
            words = f"{len(never)} of {len(self.classes)} classes are never predicted ({names}, ...)"
            remedy = f"see whether they have enough images and the right labels, or train longer: {longer}"
            return [Finding("class-never-predicted", "several classes", words, remedy)]
        findings = []
        for i in never:
            words = f"{self.classes[i]!r} was not predicted once in {in_a_row} validations, though "
            words += f"{present[i]:,} of {sum(present):,} images are of that class"
            most = max(range(len(answered)), key=lambda j: answered[j] - present[j])
            remedy = f"compare its images with those of {self.classes[most]!r}, predicted for {answered[most]:,} "
            remedy += f"instead of {present[most]:,}; if they are labeled right, train longer: {longer}"
            if known[i] < 0.5 * sum(known) / len(known):
                remedy = f"only {known[i]:,} of {sum(known):,} training images are: add more"
                remedy += ", or move the threshold with `alexnet evaluate`" if len(known) == 2 else ""
            findings.append(Finding("class-never-predicted", self.classes[i], words, remedy))
        return findings

    def _shuffled(self, validation: EpochValidation, train_error: float, fair: bool) -> list[Finding]:
        count = sum(validation.class_counts)
        right = round((1 - validation.error) * count)
        answers = agreement(validation.predicted_counts, validation.class_counts, right)
        self.memory.at_chance = self.memory.at_chance + 1 if answers.is_chance(SHOWS_IN_VALIDATION) else 0
        if self.memory.at_chance < CHECKS_IN_A_ROW or not fair:
            return []
        words = f"the network learns the training images (error {train_error:.1%}), but is right on "
        words += f"{answers.share:.1%} of the others, {answers.share_by_chance:.1%} by chance"
        return self._labels_of_training(words) or self._labels_of_validation(words)

    def _labels_of_training(self, symptom: str) -> list[Finding]:
        """Whether training images that look alike have the same label no more often than any two."""
        alike = self._alike_in_training
        if self.train is None or alike is None or not alike.is_chance(SHOWS_IN_NEIGHBORS):
            return []
        words = f"labels look shuffled: {symptom}, and images that look alike have the same label in "
        words += f"{alike.share:.1%}, {alike.share_by_chance:.1%} by chance"
        return [Finding("labels-shuffled", self.train.name, words, f"{_LOOK}; if they are right, add images")]

    def _labels_of_validation(self, symptom: str) -> list[Finding]:
        """Whether it is only the labels of the validation split that have nothing to do with its images."""
        alike, across = self._alike_in_training, self._alike_across
        if self.validation is None or alike is None or across is None:
            return []
        if alike.score < CERTAIN or not across.is_chance(0.5 * alike.kappa):
            return []
        name = self.validation.name
        words = f"labels of {name} look shuffled: {symptom}, and the training images most like them have their label "
        words += f"in {across.share:.1%}, {across.share_by_chance:.1%} by chance"
        return [Finding("labels-shuffled", name, words, _LOOK)]

    @cached_property
    def _alike_in_training(self) -> Agreement | None:
        return None if self.train is None else neighbors_agree(self.train)

    @cached_property
    def _alike_across(self) -> Agreement | None:
        if self.train is None or self.validation is None:
            return None
        return neighbors_agree(self.validation, self.train)

    # What to do.

    def _way_off_the_plateau(self) -> str:
        why = ": weights of N(0, 0.01²) take thousands of steps to begin" if _starts_slowly(self.recipe) else ""
        if self._is_small_elsewhere():
            return f"start again with `--recipe small`{why}"
        if self.recipe.normalization != "batch":
            # On raw pixels "he" alone ends in dead maps or a loss that is not finite.
            return f"start again with `--init he --normalization batch`{why}"
        if self.recipe.lr < 0.3 * self._usual_rate():
            return f"start again with a greater learning rate, `--lr {self._higher()}`"
        return f"start again with a smaller learning rate, `--lr {self._lower()}`"

    def _calmer(self) -> str:
        if self._is_small_elsewhere():
            return "start again with `--recipe small`: the first steps of this one are too large for so few images"
        return f"start again with a smaller learning rate, `--lr {self._lower()}`"

    def _is_small_elsewhere(self) -> bool:
        """Whether these are few images, and trained by the recipe for many."""
        return sum(self.class_counts) <= SMALL_UP_TO and self.recipe.name != "small"

    def _usual_rate(self) -> float:
        usual = recipes().get(self.recipe.name, self.recipe)
        return usual.lr if usual.optimizer == self.recipe.optimizer else self.recipe.lr

    def _lower(self) -> str:
        usual = self._usual_rate()
        return f"{usual if usual < 0.9 * self.recipe.lr else self.recipe.lr / 10:.2g}"

    def _higher(self) -> str:
        return f"{max(self._usual_rate(), self.recipe.lr * 10):.2g}"


_LOOK = "look at twenty images beside their labels: the list of one may be out of step with the other"


def _starts_slowly(recipe: Recipe) -> bool:
    """Whether the weights are drawn from N(0, 0.01²), as in the paper, and nothing scales their outputs."""
    return recipe.normalization != "batch" and (recipe.scheme or get_variant(recipe.variant).init) != "he"


def _block_steps(steps_per_epoch: int, total_steps: int) -> int:
    """Steps over which losses are averaged: whole epochs, so that the classes come in their own proportion, of at
    least 50 steps (a quarter of the run where that is less), or 200 steps where an epoch is longer."""
    if steps_per_epoch > 200:
        return 200
    return steps_per_epoch * max(1, math.ceil(min(50, total_steps // 4) / steps_per_epoch))
