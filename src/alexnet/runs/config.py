"""The configuration of a run: its recipe, classes and images, and the network that they describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from alexnet import __version__
from alexnet.data.augmentation import Preprocessing
from alexnet.network.model import AlexNet
from alexnet.network.variants import SWITCHES, Variant, get_variant, is_built_in, list_variants
from alexnet.runs.recipe import Recipe

FORMAT_VERSION = 1
"""Format of the run folder."""


@dataclass(frozen=True)
class Config:
    """The content of `config.json`.

    Parameters
    ----------
    recipe : Recipe
        The recipe, with all overrides.
    classes : list of str
        Names of the classes, in the order of the network's outputs.
    size : int
        Height and width of the prepared images, in pixels.
    crop_size : int
        Height and width of the crops, in pixels of the prepared images.
    input_size : int
        Height and width of the network's input, to which crops are resized.
    scale : float
        Factor of the pixels minus the mean.
    dataset : dict
        The prepared dataset: its `path` as given, its `absolute_path`, its `checksum` and the `counts` of its splits;
        or the origin of imported weights.
    descriptions : list of str or None
        A description of each class where the names are identifiers, as for ImageNet.
    start : dict or None
        The layers that started with pretrained weights, and their source (`alexnet.training.pretrained`).
    pixel_range : dict or None
        Black and white of images with more than 8 bits, as `alexnet.data.pixel_range.PixelRange.to_dict` has them.
    plan : dict or None
        What a training with a budget was planned to be: its `method`, the estimated `seconds`, the `longest` training
        in epochs, and the measured `cost` of a step and of an image (`alexnet.training.budget`).
    variant : Variant or None
        The table of a variant that was registered; None for a built-in one.
    alexnet : str
        The version that wrote the file.
    format_version : int
        Format of the run folder.
    """

    recipe: Recipe
    classes: list[str]
    size: int
    crop_size: int
    input_size: int
    scale: float
    dataset: dict[str, Any]
    descriptions: list[str] | None = None
    start: dict[str, Any] | None = None
    pixel_range: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    variant: Variant | None = None
    alexnet: str = __version__
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.variant is not None and self.variant.name != self.recipe.variant:
            object.__setattr__(self, "variant", None)
        if self.variant is None and self.recipe.variant in list_variants() and not is_built_in(self.recipe.variant):
            object.__setattr__(self, "variant", get_variant(self.recipe.variant))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The reverse of `to_dict`."""
        variant = values.get("variant")
        return cls(
            **{
                **values,
                "recipe": Recipe.from_dict(values["recipe"]),
                "variant": None if variant is None else Variant.from_dict(variant),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The values of `config.json`."""
        return {**asdict(self), "variant": None if self.variant is None else self.variant.to_dict()}

    @property
    def network_variant(self) -> Variant:
        """The recipe's variant: the table in `config.json`, or the built-in one.

        Raises
        ------
        UsageError
            If the variant is neither built in nor registered, and the config holds no table.
        """
        return self.variant or get_variant(self.recipe.variant)

    @property
    def switches(self) -> dict[str, str]:
        """The values of the recipe that change the layers of its variant."""
        return {name: value for name in SWITCHES if (value := getattr(self.recipe, name)) is not None}

    @cached_property
    def labels(self) -> list[str]:
        """Names of the classes for people, as `labels_of` makes them."""
        return labels_of(self.classes, self.descriptions)

    def network(self) -> AlexNet:
        """The recipe's network with newly drawn weights."""
        recipe = self.recipe
        return AlexNet(
            self.network_variant,
            len(self.classes),
            **self.switches,
            dropout=recipe.dropout,
            init=recipe.init_scheme,
        )

    def preprocess(self, mean: Tensor) -> Preprocessing:
        """The preprocessing of prepared images; `mean`: (size, size, 3) float32, 0 to 255."""
        return Preprocessing(
            mean, self.crop_size, self.scale, self.input_size, mean_of_center=self.recipe.mean == "center"
        )


def labels_of(classes: list[str], descriptions: list[str] | None) -> list[str]:
    """Names of classes for people: their descriptions where there are some, as for ImageNet.

    A description that two classes share (ImageNet has two cranes) is followed by the name.
    """
    texts = descriptions or classes
    count = Counter(texts)
    return [text if count[text] == 1 else f"{text} ({name})" for text, name in zip(texts, classes, strict=True)]
