"""Every number of a training, as data: the recipes, and the choice between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alexnet.network.variants import ACTIVATIONS, INITIALIZATIONS, NORMALIZATIONS, POOLINGS
from alexnet.runtime.errors import UsageError, check_choice

STARTER, IMAGENET = "starter", "imagenet"
"""Weights that `init` knows by name: the features in this package; torchvision's, which are fetched."""


@dataclass(frozen=True)
class Event:
    """What is set by hand in an epoch (from 1), after some batches of it: a rate, of a layer or all; color noise."""

    epoch: int
    lr: float | None = None
    layer: str | None = None
    color_jitter: float | None = None
    batch: int = 0


def _option(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Recipe:
    """A training, whole: the network, what is done to the images, and the rule that moves the weights."""

    name: str
    purpose: str

    # The network (None: as the variant has it).
    variant: str = _option("paper", "the network, a name of `alexnet variants`")
    activation: str | None = _option(None, "the non-linearity", ACTIVATIONS)
    normalization: str | None = _option(None, "response normalization or another", NORMALIZATIONS)
    pooling: str | None = _option(None, "3×3 or 2×2 windows, stride 2", POOLINGS)
    drop_layer: str | None = _option(None, "a convolution to leave out, any but the first, as conv4")
    dropout: float | None = _option(None, "probability of dropping a unit; 0 for none")
    init: str | None = _option(
        None,
        "the first weights: drawn as paper, released-2012, cuda-convnet or he; or taken over from starter (features in "
        "this package), imagenet (torchvision's, fetched), or a run folder or file that `alexnet import` reads",
    )
    whiten: bool = _option(False, "start conv1 as the whitened principal components of the training images")

    # The images (paper, sections 2 and 4.1).
    crop_size: int | None = _option(None, "side of the crop cut from an image (default: the network's input)")
    input_size: int | None = _option(None, "what crops are resized to for the network (default: as cut)")
    early_input_size: int | None = _option(None, "another side for the first part of the run: coarse images are cheap")
    early_share: float = _option(0.75, "how much of the run that part is")
    crop_position: str = _option("random", "crops while training: anywhere, or the middle", ("random", "center"))
    flip: str = _option(
        "horizontal", "none, horizontal flips, or the eight symmetries of a square", ("none", "horizontal", "square")
    )
    images_per_draw: int = _option(1, "images that share one draw of crop and mirror image")
    color_jitter: float = _option(0.1, "standard deviation of the PCA color shift; 0 for none")
    color_jitter_unit: str = _option(
        "eigenvalues", "what the color shift is a multiple of", ("eigenvalues", "std", "released-2012")
    )
    brightness: float = _option(0.0, "largest relative change of brightness and of contrast")
    # The list of augmentations, by name or (name, keyword arguments); None: mean, crop, flip, color, brightness, scale.
    augmentations: tuple[Any, ...] | None = None
    mean: str = _option(
        "image",
        "what is subtracted: the mean image where the crop lies, its center from every crop, or the mean color",
        ("image", "center", "color"),
    )
    pixel_scaling: str = _option("raw", "pixels as they are, or divided by their standard deviation", ("raw", "std"))

    # The rule (paper, section 5).
    optimizer: str = _option("paper", "the paper's update rule, AdamW, or Muon with it", ("paper", "adamw", "muon"))
    epochs: int = _option(90, "passes over the training images")
    batch_size: int = _option(128, "images a step")
    fc_batch_size: int | None = _option(
        None, "images a step of the fully connected layers, which then move more often than the convolutions"
    )
    lr: float = _option(0.01, "learning rate at the start")
    momentum: float = _option(0.9, "momentum of the paper's rule, and of Muon")
    lr_reference_fan_in: float | None = _option(
        None, "weights of more inputs than this have a rate that falls with their number"
    )
    muon_lr_scale: float = _option(20.0, "learning rate of Muon's convolutions, as a multiple of the others'")
    weight_decay: float = _option(0.0005, "weight decay")
    layer_weight_decay: tuple[tuple[str, float], ...] = ()  # weight decay of layers that have another, by name
    bias_lr_scale: float = _option(1.0, "learning rate of the biases, as a multiple of the weights'")
    bias_weight_decay: bool = _option(True, "whether biases decay too")
    pretrained_lr_scale: float = _option(
        1.0, "learning rate of layers taken over (--init), as a multiple of the new ones'"
    )
    layer_lr_decay: float = _option(1.0, "learning rate of a layer taken over, as a multiple of that above it")
    frozen_share: float = _option(0.0, "share of the run, at its start, in which layers taken over stand still")
    schedule: str = _option("plateau", "how the learning rate falls", ("plateau", "by-hand", "cosine"))
    lr_drops: int = _option(3, "plateau: how often the rate is divided by ten")
    patience: int = _option(5, "plateau: epochs without a better validation error before a drop")
    warmup: float = _option(0.0, "cosine: share of the run in which the rate rises from 0")
    events: tuple[Event, ...] = ()
    label_smoothing: float = _option(0.0, "probability taken from the right class and spread over all")
    weight_averaging: float = _option(0.0, "share of the run, at its end, whose weights are averaged; 0 for none")
    keep: str = _option("best", "which weights become model.safetensors", ("best", "last"))

    precision: str = _option(
        "auto",
        "arithmetic of the forward and backward pass; float64 for comparisons",
        ("auto", "float32", "bfloat16", "float64"),
    )
    seed: int = _option(0, "the number that everything random comes from")

    @property
    def start(self) -> str | None:
        """What weights are taken over from; None where all are drawn."""
        return None if self.init in (None, *INITIALIZATIONS) else self.init

    @property
    def scheme(self) -> str | None:
        """How the weights that are not taken over are drawn; None: as the variant has it."""
        return "he" if self.start else self.init

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with some values changed; `UsageError` for a name, a choice or a value that makes no sense."""
        for name, value in changes.items():
            known = {f.name: f for f in dataclasses.fields(self)}
            choices = known[check_choice(name, known, "recipe value")].metadata.get("choices", ())
            if choices and value is not None and value not in choices:
                raise UsageError(f"{name} is {value!r}; there are: {', '.join(choices)}")
        if changes.get("augmentations") is not None:
            from alexnet.data.augmentation import check_augmentations  # here, for it takes torch

            changes = {**changes, "augmentations": _entries(changes["augmentations"])}
            check_augmentations(changes["augmentations"])
        recipe = dataclasses.replace(self, **changes)
        for name in ("epochs", "batch_size", "images_per_draw"):
            if getattr(recipe, name) < 1:
                raise UsageError(f"{name} is {getattr(recipe, name)}; it must be at least 1")
        if recipe.fc_batch_size is not None and not 1 <= recipe.fc_batch_size <= recipe.batch_size:
            raise UsageError(
                f"fc_batch_size is {recipe.fc_batch_size}; it must be from 1 to batch_size, {recipe.batch_size}"
            )
        if not recipe.lr > 0:
            raise UsageError(f"lr is {recipe.lr}; it must be above 0")
        for name in ("pretrained_lr_scale", "layer_lr_decay"):
            if not getattr(recipe, name) >= 0:
                raise UsageError(f"{name} is {getattr(recipe, name)}; it must be at least 0")
        for name in ("warmup", "weight_averaging", "label_smoothing", "early_share", "frozen_share"):
            if not 0 <= getattr(recipe, name) < 1:
                raise UsageError(f"{name} is {getattr(recipe, name)}; it must be from 0 up to, not including, 1")
        return recipe

    def differing(self, values: Mapping[str, Any]) -> list[str]:
        """The names of `values` that the recipe has otherwise, or not at all."""
        if values.get("augmentations") is not None:
            values = {**values, "augmentations": _entries(values["augmentations"])}
        return [name for name, value in values.items() if getattr(self, name, self) != value]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The reverse of `to_dict`."""
        events = tuple(Event(**event) for event in values.get("events", ()))
        decays = tuple((layer, decay) for layer, decay in values.get("layer_weight_decay", ()))
        listed = values.get("augmentations")
        return cls(
            **{
                **values,
                "events": events,
                "layer_weight_decay": decays,
                "augmentations": None if listed is None else _entries(listed),
            }
        )


def _entries(augmentations: Iterable[Any]) -> tuple[Any, ...]:
    """A list of augmentations as a recipe holds it, whether from Python or from JSON."""
    return tuple(entry if isinstance(entry, str) else (entry[0], dict(entry[1])) for entry in augmentations)


_PAPER = Recipe(
    name="paper",
    purpose="ImageNet, as the paper trains it: momentum, the rate divided by ten when validation error stalls.",
    crop_size=224,
)

_RELEASED = Recipe(
    name="released-2012",
    purpose="ImageNet, as configuration #145 was trained: the rates of each layer and the color noise by hand.",
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
    purpose="ImageNet from weights of more images (--init RUN), as configuration #146 began; later drops as #145.",
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

# Found on a validation part of the solar cells' training images; what each choice is for stands beside it.
_SMALL = Recipe(
    name="small",
    purpose="A dozen to some thousands of images, balanced or not: learns from the first epoch.",
    variant="paper",
    normalization="batch",  # large rates from the first step
    init=STARTER,
    whiten=True,  # from scratch: conv1 sees edges, not brightness, from the first step
    pixel_scaling="std",
    mean="color",
    crop_size=244,  # a defect at the edge stays in the image
    input_size=195,
    early_input_size=131,  # three of five epochs at half the cost
    early_share=0.6,
    color_jitter_unit="std",
    brightness=0.05,
    optimizer="muon",  # hundreds of steps instead of thousands
    epochs=25,
    batch_size=64,
    lr=1e-3,
    muon_lr_scale=30.0,
    lr_reference_fan_in=400,  # the 9,216 inputs of a unit in fc6 would otherwise throw it about
    weight_decay=0.05,
    bias_weight_decay=False,
    pretrained_lr_scale=0.1,  # what was learned from many images is not unlearned from few
    schedule="cosine",
    warmup=0.05,
    weight_averaging=0.15,
    keep="last",
)

# CIFAR-10 by the same author's code (cuda-convnet, its example layers): pixels minus the mean image, by hand.
_CIFAR_18PCT = Recipe(
    name="cifar-18pct",
    purpose="CIFAR-10 as cuda-convnet's 18pct: whole images as they are, no crops, no mirror images.",
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

# There training went on by hand until a fifth of the images, kept back, stopped improving, and then with them.
_CIFAR_13PCT = dataclasses.replace(
    _CIFAR_18PCT,
    name="cifar-13pct",
    purpose="CIFAR-10 as cuda-convnet's conv-local-13pct: crops of 24×24 and mirror images; nine views to test.",
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

SMALL_UP_TO = 20_000
SMALL_STEPS = 400  # the fewest steps of the recipe `small`: with a dozen images many epochs, each cheap


_RECIPES = (_PAPER, _RELEASED, _PRETRAINED, _SMALL, _CIFAR_18PCT, _CIFAR_13PCT, _CIFAR_11PCT)


def recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    return {recipe.name: recipe for recipe in _RECIPES}


def choose(name: str, training_images: int) -> tuple[Recipe, str]:
    """The recipe of that name, "auto" for the one that fits the number of training images, and the reason in words.

    Raises `UsageError` for a name that does not exist.
    """
    known = recipes()
    check_choice(name, ("auto", *known), "recipe")
    reason = "as asked"
    if name == "auto" and training_images <= SMALL_UP_TO:
        name, reason = "small", f"{training_images:,} training images are few (up to {SMALL_UP_TO:,})"
    elif name == "auto":
        name, reason = "paper", f"{training_images:,} training images are enough for the paper's own"
    recipe = known[name]
    return (_sized(recipe, training_images) if name == "small" else recipe), reason


def _sized(recipe: Recipe, images: int) -> Recipe:
    """The recipe `small` for so many images: four steps an epoch or more, and enough of them in all."""
    batch_size = min(recipe.batch_size, max(4, images // 4))
    steps_per_epoch = max(1, -(-images // batch_size))
    return recipe.override({"batch_size": batch_size, "epochs": max(recipe.epochs, -(-SMALL_STEPS // steps_per_epoch))})
