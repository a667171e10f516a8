"""Recipes: every value of a training as data, and the choice between them.

This module does not import torch: the command line reads its options from the fields of `Recipe`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.network.rows import ACTIVATIONS
from alexnet.network.variants import INITIALIZATIONS, NORMALIZATIONS, POOLINGS
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice

STARTER, IMAGENET = "starter", "imagenet"
"""Pretrained weights that `init` knows by name: those shipped in this package, and torchvision's, downloaded."""

CLASS_WEIGHTS = ("none", "balanced")
"""Class weights that have a name."""

WEIGHTS_DTYPES = ("auto", "float32", "float16", "bfloat16")
"""Data types in which a finished run stores its weights."""


@dataclass(frozen=True)
class Event:
    """A change by hand of a learning rate or of the color augmentation.

    Parameters
    ----------
    epoch : int
        The epoch of the change, counted from 1.
    lr : float or None
        The new learning rate; None for no change.
    layer : str or None
        The layer whose learning rate changes; None for all.
    color_jitter : float or None
        The new `color_jitter`; None for no change.
    batch : int
        Batches of the epoch before the change.
    """

    epoch: int
    lr: float | None = None
    layer: str | None = None
    color_jitter: float | None = None
    batch: int = 0


def _option(default: Any, text: str, choices: tuple[str, ...] = (), none: str = "", metavar: str | None = None) -> Any:
    """A field that the command line offers; `none`: the meaning of None as the default."""
    if isinstance(default, bool):
        shown = "yes" if default else "no"
    else:
        shown = none if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    return field(default=default, metadata={"help": f"{text} (paper: {shown})", "choices": choices, "metavar": metavar})


_OF_VARIANT = "as the variant has it"


@dataclass(frozen=True)
class Recipe:
    """Every value of a training: the network, the augmentation of the images, and the optimization.

    Each field is an option of ``alexnet train``, whose help describes it, and a keyword argument of `alexnet.train`.
    """

    name: str
    purpose: str

    # The network.
    variant: str = _option("paper", "network variant, a name from `alexnet variants`")
    activation: str | None = _option(None, "non-linearity", ACTIVATIONS, none=_OF_VARIANT)
    normalization: str | None = _option(
        None,
        "normalization layers: local response normalization, none, or batch normalization after every convolution",
        NORMALIZATIONS,
        none=_OF_VARIANT,
    )
    pooling: str | None = _option(
        None, "pooling windows with stride 2: 3×3 overlap, 2×2 do not", POOLINGS, none=_OF_VARIANT
    )
    drop_layer: str | None = _option(
        None, "convolution to leave out, any but the first, for example conv4", none="no layer"
    )
    dropout: float | None = _option(
        None, "probability of dropping a unit, from 0 (no dropout) up to, not including, 1", none="0.5"
    )
    init: str | None = _option(
        None,
        "initial weights: an initialization scheme (paper, released-2012, cuda-convnet, he), or pretrained weights: "
        "starter (shipped with this package), imagenet (torchvision's, downloaded), or a run folder or file that "
        "`alexnet import` reads",
        none="the scheme of the variant",
    )
    whiten: bool = _option(
        False, "initialize the first convolution with the whitened principal components of the training images"
    )

    # The images (paper, sections 2 and 4.1).
    crop_size: int | None = _option(
        None, "height and width of the crops, in pixels of the prepared images", none="the variant's input size; 224"
    )
    input_size: int | None = _option(
        None, "height and width in pixels to which crops are resized for the network", none="the crop size"
    )
    early_input_size: int | None = _option(
        None, "input size in the first part of the training, in pixels; a smaller one is faster", none="the input size"
    )
    early_share: float = _option(
        0.75, "share of the training with the early input size, from 0 up to, not including, 1"
    )
    min_crop_area: float = _option(
        1.0,
        "smallest share of an image's area that a training image shows, above 0 up to 1; below 1, a random rectangle "
        "is resized to the size of the image before it is cropped",
    )
    crop_position: str = _option("random", "position of the training crops", ("random", "center"))
    flip: str = _option(
        "horizontal",
        "training flips: none, horizontal, or the eight symmetries of a square (flips and rotations by 90 degrees)",
        ("none", "horizontal", "square"),
    )
    images_per_draw: int = _option(1, "consecutive images of a batch that share one crop and flip, at least 1")
    color_jitter: float = _option(
        0.1, "standard deviation of the PCA color augmentation, at least 0; 0 for no augmentation"
    )
    color_jitter_unit: str = _option(
        "eigenvalues",
        "unit of the PCA color augmentation: the eigenvalues as in the paper, their square roots, or the square roots "
        "and the image divided by 1.1 as in the released code",
        ("eigenvalues", "std", "released-2012"),
    )
    brightness: float = _option(
        0.0, "largest relative change of brightness and contrast, at least 0; 0 for no augmentation"
    )
    # The list of augmentations, by name or (name, keyword arguments); None: resized-crop, mean, crop, flip, color,
    # brightness, scale.
    augmentations: tuple[Any, ...] | None = None
    mean: str = _option(
        "image",
        "mean that is subtracted: of the mean image the part under the crop, its center for every crop, or its color",
        ("image", "center", "color"),
    )
    pixel_scaling: str = _option(
        "raw", "scale of the input: pixels 0 to 255, or divided by their standard deviation", ("raw", "std")
    )

    # The optimization (paper, section 5).
    optimizer: str = _option(
        "paper",
        "update rule: the paper's SGD, AdamW, or Muon for the convolutions with AdamW for the rest",
        ("paper", "adamw", "muon"),
    )
    epochs: int = _option(90, "number of epochs, at least 1")
    budget: str | float | None = _option(
        None,
        "wall time of the training, such as 90s, 5m or 8h: epochs, input size and method are chosen to suit it, and "
        "the training is kept to it",
        none="no limit",
        metavar="TIME",
    )
    batch_size: int = _option(128, "images of a batch, at least 1")
    fc_batch_size: int | None = _option(
        None,
        "images of an update of the fully connected layers, from 1 to the batch size; they are updated more often than "
        "the convolutions",
        none="the batch size",
    )
    lr: float = _option(0.01, "initial learning rate, above 0")
    momentum: float = _option(0.9, "momentum of the paper's SGD and of Muon, from 0 to 1")
    lr_reference_fan_in: float | None = _option(
        None,
        "fan-in above which the learning rate of a weight is reduced in proportion to its fan-in",
        none="no reduction",
    )
    muon_lr_scale: float = _option(20.0, "learning rate of Muon, as a multiple of the other learning rate")
    weight_decay: float = _option(0.0005, "weight decay, at least 0")
    layer_weight_decay: tuple[tuple[str, float], ...] = ()  # (layer, weight decay) of layers that have their own
    bias_lr_scale: float = _option(1.0, "learning rate of the biases, as a multiple of the weights'")
    bias_weight_decay: bool = _option(True, "apply weight decay to the biases too")
    pretrained_lr_scale: float = _option(
        1.0, "learning rate of layers with pretrained weights, as a multiple of the new layers', at least 0"
    )
    layer_lr_decay: float = _option(
        1.0, "learning rate of a layer with pretrained weights, as a multiple of the next one above it, at least 0"
    )
    frozen_share: float = _option(
        0.0, "share of the training, at its start, with frozen pretrained weights, from 0 up to, not including, 1"
    )
    schedule: str = _option(
        "plateau",
        "learning rate schedule: drops when the validation error stops improving, drops of the recipe at given epochs, "
        "or cosine decay to 0",
        ("plateau", "by-hand", "cosine"),
    )
    lr_drops: int = _option(3, "plateau: number of divisions of the learning rate by 10, at least 0")
    patience: int = _option(5, "plateau: epochs without a lower validation error before a drop")
    warmup: float = _option(0.0, "cosine: share of the training with linear warm-up, from 0 up to, not including, 1")
    events: tuple[Event, ...] = ()
    label_smoothing: float = _option(
        0.0, "probability mass moved from the label to all classes, from 0 up to, not including, 1"
    )
    class_weights: str | tuple[tuple[str, float], ...] = _option(
        "none",
        "weights of the classes in the loss: none; balanced, in inverse proportion to the images of a class (to the "
        "sum of their weights); or a CSV file with the columns class and weight",
    )
    sampler: str = _option(
        "random",
        "images of an epoch: random, each image once, or balanced, as many of each class, those of rare ones repeated",
        ("random", "balanced"),
    )
    weight_averaging: float = _option(
        0.0, "share of the training, at its end, over which the weights are averaged, from 0 (none) to below 1"
    )
    keep: str = _option(
        "best",
        "weights saved as model.safetensors: those of the epoch with the lowest validation error, or the last ones",
        ("best", "last"),
    )

    precision: str = _option(
        "auto",
        "precision of the forward and backward pass: auto is the faster one on this device; float64 is for numerical "
        "comparisons",
        ("auto", "float32", "bfloat16", "float64"),
    )
    weights_dtype: str = _option(
        "auto",
        "data type of the weights of a finished run: auto is float16 for files of more than 32 MB where no probability "
        "of the measured images changes by more than 0.005 and no predicted class does, else float32",
        WEIGHTS_DTYPES,
    )
    seed: int = _option(0, "seed of everything random: initial weights, order, augmentation, dropout")

    @property
    def pretrained_from(self) -> str | None:
        """The source of pretrained weights; None where all weights are drawn."""
        return None if self.init in (None, *INITIALIZATIONS) else self.init

    @property
    def init_scheme(self) -> str | None:
        """The initialization scheme of the weights that are not pretrained; None for the variant's."""
        return "he" if self.pretrained_from else self.init

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with some values changed.

        Parameters
        ----------
        changes : mapping
            New values by field name.

        Raises
        ------
        UsageError
            For an unknown name or choice, or a value out of range.
        """
        for name, value in changes.items():
            fields = {f.name: f for f in dataclasses.fields(self)}
            choices = fields[check_choice(name, fields, "recipe value")].metadata.get("choices", ())
            if choices and value is not None and value not in choices:
                raise UsageError(f"{name} is {value!r}; choose from: {', '.join(choices)}")
        if changes.get("augmentations") is not None:
            from alexnet.data.augmentation import check_augmentations  # here, since it imports torch

            check_augmentations(_entries(changes["augmentations"]))
        changes = _stored(changes)
        recipe = dataclasses.replace(self, **changes)
        recipe._check_ranges()
        return recipe

    def _check_ranges(self) -> None:
        """Raise `UsageError` for a value out of range."""
        for name in ("epochs", "batch_size", "images_per_draw"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.fc_batch_size is not None and not 1 <= self.fc_batch_size <= self.batch_size:
            raise UsageError(
                f"fc_batch_size is {self.fc_batch_size}; it must be from 1 to batch_size, {self.batch_size}"
            )
        if not self.lr > 0:
            raise UsageError(f"lr is {self.lr}; it must be above 0")
        if not 0 < self.min_crop_area <= 1:
            raise UsageError(f"min_crop_area is {self.min_crop_area}; it must be above 0 and at most 1")
        for name in ("pretrained_lr_scale", "layer_lr_decay"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("warmup", "weight_averaging", "label_smoothing", "early_share", "frozen_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be from 0 up to, not including, 1")
        if self.class_weights == self.sampler == "balanced":
            raise UsageError("class_weights and sampler are both balanced: rare classes would count twice; choose one")

    def differing(self, values: Mapping[str, Any]) -> list[str]:
        """The names in `values` whose values differ from the recipe's, or that it does not have."""
        values = _stored(values)
        return [name for name, value in values.items() if getattr(self, name, self) != value]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able values; `from_dict` reads them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` described."""
        events = tuple(Event(**event) for event in values.get("events", ()))
        decays = tuple((layer, decay) for layer, decay in values.get("layer_weight_decay", ()))
        listed = values.get("augmentations")
        return cls(
            **{
                **values,
                "events": events,
                "layer_weight_decay": decays,
                "class_weights": as_class_weights(values.get("class_weights", "none")),
                "augmentations": None if listed is None else _entries(listed),
            }
        )


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a recipe holds them."""
    stored = dict(values)
    if stored.get("augmentations") is not None:
        stored["augmentations"] = _entries(stored["augmentations"])
    if "class_weights" in stored:
        stored["class_weights"] = as_class_weights(stored["class_weights"])
    if stored.get("budget") is not None:
        stored["budget"] = as_seconds(stored["budget"])
        if "epochs" in stored:
            raise UsageError("budget and epochs are both given, and a budget chooses the epochs; leave out one of them")
    return stored


def as_seconds(budget: str | float) -> float:
    """A budget in seconds, as a recipe holds it.

    Parameters
    ----------
    budget : str or float
        A number and its unit, such as "90s", "5m" or "1.5h"; or seconds.

    Raises
    ------
    UsageError
        If it is no duration above 0.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh])", budget.strip()) if isinstance(budget, str) else None
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else math.nan
    if not isinstance(budget, str):
        seconds = float(budget)
    if not 0 < seconds < math.inf:
        raise UsageError(f"budget is {budget!r}; give a number above 0 with its unit, such as 90s, 5m or 8h")
    return seconds


def as_class_weights(value: Any) -> str | tuple[tuple[str, float], ...]:
    """Class weights as a recipe holds them.

    Parameters
    ----------
    value : str, path, mapping or pairs
        "none", "balanced", a CSV file with the columns class and weight, or the weights by class.

    Raises
    ------
    UsageError
        If a weight is not above 0, or a class has two.
    AlexNetError
        If the file can't be read or has other columns.
    """
    if value in CLASS_WEIGHTS:
        return str(value)
    if isinstance(value, str | os.PathLike):
        pairs, where = _read_class_weights(Path(value)), f"{value}: "
    else:
        pairs, where = list(value.items() if isinstance(value, Mapping) else value), ""
    found: dict[str, float] = {}
    for name, weight in pairs:
        try:
            number = float(weight)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            raise UsageError(f"{where}the weight of class {name!r} is {weight!r}; it must be a number above 0")
        if name in found:
            raise UsageError(f"{where}class {name!r} has two weights; keep one")
        found[str(name)] = number
    return tuple(sorted(found.items()))


def _read_class_weights(file: Path) -> list[tuple[str, str]]:
    from alexnet.data.sources.table_files import read_spreadsheet  # here, since only a file of weights needs it

    if not file.exists():
        raise UsageError(
            f"class_weights is {str(file)!r}, and there is no such file; choose from: {', '.join(CLASS_WEIGHTS)}, or a "
            "CSV file"
        )
    separator, lines = read_spreadsheet(file)
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    if not {"class", "weight"} <= set(header):
        raise AlexNetError(f"{file} has the columns {', '.join(header)}; it must have class and weight")
    rows = [dict(zip(header, [cell.strip() for cell in cells], strict=False)) for _, cells in lines[1:]]
    decimal_comma = separator != ","
    weights = [row.get("weight", "").replace(",", ".") if decimal_comma else row.get("weight", "") for row in rows]
    return [(row["class"], weight) for row, weight in zip(rows, weights, strict=True)]


def _entries(augmentations: Iterable[Any]) -> tuple[Any, ...]:
    """A list of augmentations as a recipe holds it, whether from Python or from JSON."""
    return tuple(entry if isinstance(entry, str) else (entry[0], dict(entry[1])) for entry in augmentations)


_PAPER = Recipe(
    name="paper",
    purpose="ImageNet as in the paper: SGD with momentum; the learning rate drops when the error stops improving.",
    crop_size=224,
)

_RELEASED = Recipe(
    name="released-2012",
    purpose="ImageNet as configuration #145: learning rates and color augmentation change at given epochs.",
    variant="released-2012",
    images_per_draw=32,
    mean="center",
    color_jitter_unit="released-2012",
    epochs=91,
    bias_lr_scale=2.0,
    bias_weight_decay=False,
    schedule="by-hand",
    events=(
        Event(25, lr=0.001),
        Event(51, lr=0.0001),
        Event(67, lr=0.00001, layer="conv1", color_jitter=0.0),
        Event(72, lr=0.0, layer="conv1"),
        Event(79, lr=0.00001),
        Event(79, lr=0.0, layer="conv1"),
    ),
    keep="last",
)

_PRETRAINED = dataclasses.replace(
    _RELEASED,
    name="released-2012-pretrained",
    purpose="ImageNet from pretrained weights (--init RUN): starts as configuration #146, later drops as #145.",
    variant="released-2012-six-conv",
    events=(
        Event(1, lr=0.001),
        Event(1, lr=0.0001, layer="conv1"),
        Event(1, lr=0.01, layer="logits", batch=300),
        Event(51, lr=0.0001),
        Event(51, lr=0.00001, layer="conv1"),
        Event(79, lr=0.00001),
    ),
)

# Chosen on a validation part of the solar cells' training images; the reason for each value is beside it.
_SMALL = Recipe(
    name="small",
    purpose="A dozen to some thousands of images, balanced or not: fine-tunes the starter weights in minutes.",
    variant="paper",
    normalization="batch",  # allows high learning rates from the first step
    init=STARTER,
    whiten=True,  # from scratch: conv1 responds to edges, not to brightness, from the first step
    pixel_scaling="std",
    mean="color",
    crop_size=244,  # keeps a defect at the edge of the image
    input_size=195,
    early_input_size=131,  # three of five epochs take half the time
    early_share=0.6,
    color_jitter_unit="std",
    brightness=0.05,
    optimizer="muon",  # hundreds of steps instead of thousands
    epochs=25,
    batch_size=64,
    lr=1e-3,
    muon_lr_scale=30.0,
    lr_reference_fan_in=400,  # otherwise updates of fc6, with a fan-in of 9,216, are too large
    weight_decay=0.05,
    bias_weight_decay=False,
    pretrained_lr_scale=0.1,  # few images would otherwise destroy the pretrained features
    schedule="cosine",
    warmup=0.05,
    weight_averaging=0.15,
    keep="last",
)

# CIFAR-10 with the example configurations of cuda-convnet: pixels minus the mean image, drops at given epochs.
_CIFAR_18PCT = Recipe(
    name="cifar-18pct",
    purpose="CIFAR-10 as cuda-convnet's 18pct: whole images, no augmentation.",
    variant="cifar-18pct",
    crop_position="center",
    flip="none",
    color_jitter=0.0,
    epochs=140,
    lr=0.001,
    weight_decay=0.004,
    layer_weight_decay=(("logits", 1.0),),
    bias_lr_scale=2.0,
    bias_weight_decay=False,
    schedule="by-hand",
    events=(Event(121, lr=0.0001), Event(131, lr=0.00001)),
    keep="last",
)

# The original was trained until the error on a held-out fifth stopped improving, and then on all images.
_CIFAR_13PCT = dataclasses.replace(
    _CIFAR_18PCT,
    name="cifar-13pct",
    purpose="CIFAR-10 as cuda-convnet's conv-local-13pct: crops of 24×24 and horizontal flips; tested with nine views.",
    variant="cifar-13pct",
    crop_position="random",
    flip="horizontal",
    mean="center",
    epochs=520,
    weight_decay=0.0,
    layer_weight_decay=(("local3", 0.004), ("local4", 0.004), ("logits", 0.004)),
    events=(Event(501, lr=0.0001), Event(511, lr=0.00001)),
)

_CIFAR_11PCT = dataclasses.replace(
    _CIFAR_13PCT,
    name="cifar-11pct",
    purpose="CIFAR-10 as cuda-convnet's conv-local-11pct: wider, with response normalization.",
    variant="cifar-11pct",
    layer_weight_decay=(("local3", 0.004), ("local4", 0.004), ("logits", 0.01)),
)

SMALL_MAX_IMAGES = 20_000
"""Training images up to which "auto" chooses the recipe `small`."""
SMALL_STEPS = 400
"""Smallest number of steps of the recipe `small`: a dozen images need many epochs."""


_RECIPES = (_PAPER, _RELEASED, _PRETRAINED, _SMALL, _CIFAR_18PCT, _CIFAR_13PCT, _CIFAR_11PCT)


def recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    return {recipe.name: recipe for recipe in _RECIPES}


def choose_recipe(name: str, training_images: int) -> tuple[Recipe, str]:
    """Find a recipe, and the reason for the choice.

    Parameters
    ----------
    name : str
        Name of a recipe, or "auto" for the one that suits the number of training images.
    training_images : int
        Number of training images.

    Returns
    -------
    recipe : Recipe
        The recipe; of `small`, batch size and epochs suit the number of images.
    reason : str
        The reason, for people.

    Raises
    ------
    UsageError
        If no recipe has the name.
    """
    table = recipes()
    check_choice(name, ("auto", *table), "recipe")
    reason = "given"
    images = f"{training_images:,} training image{'s' * (training_images != 1)}"
    if name == "auto" and training_images <= SMALL_MAX_IMAGES:
        name, reason = "small", f"suits {images} (up to {SMALL_MAX_IMAGES:,})"
    elif name == "auto":
        name, reason = "paper", f"suits {images} (more than {SMALL_MAX_IMAGES:,})"
    recipe = table[name]
    return (_for_images(recipe, training_images) if name == "small" else recipe), reason


def _for_images(recipe: Recipe, images: int) -> Recipe:
    """The recipe `small` for a number of images: at least four steps per epoch, and at least `SMALL_STEPS` steps."""
    batch_size = min(recipe.batch_size, max(4, images // 4))
    steps_per_epoch = max(1, -(-images // batch_size))
    return recipe.override({"batch_size": batch_size, "epochs": max(recipe.epochs, -(-SMALL_STEPS // steps_per_epoch))})
