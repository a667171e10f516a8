"""The result of reading a foreign file: weights under this package's names, and the input that the network expects."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from alexnet.network.model import AlexNet
from alexnet.network.variants import Variant, get_variant, list_variants
from alexnet.runs.config import FORMAT_VERSION, Config
from alexnet.runtime.errors import AlexNetError
from alexnet.weights.imagenet import NUM_CLASSES

IMAGE_SIZE = 256
"""Side in pixels of the stored images that every published AlexNet cuts its crops from."""
MAX_ARRAY_SIZE = 1 << 28
"""Most elements that an array in a file may have: 7 times the largest array of any variant."""


@dataclass(frozen=True)
class ForeignWeights:
    """A network trained by another tool, or by another run.

    Parameters
    ----------
    format : str
        The format for people, such as ``"torchvision"`` or ``"Caffe"``.
    variant : str
        The variant whose state dict `weights` is.
    weights : dict of str to Tensor
        The state dict of ``AlexNet(variant, **switches)``; possibly without its upper layers.
    mean : Tensor
        Mean image that is subtracted from a stored image, (size, size, 3) float32 RGB, 0 to 255.
    crop_size : int
        Side in pixels of the crop that is cut from a stored image.
    input_size : int, optional
        Side in pixels that the crop is resized to; by default that of the crop.
    scale : float
        Factor for the pixels after the mean was subtracted.
    mean_of_center : bool
        Whether the center of the mean image is subtracted from every crop, wherever it was cut.
    switches : mapping of str to str
        Changes to the variant, as `AlexNet` takes them.
    classes, descriptions : list of str, optional
        Class names in the order of the outputs, and their descriptions; None where the file does not have them.
    config : Config, optional
        The config.json that was stored with the weights.
    notes : tuple of str
        What a person should know about how the file was read, such as which of several state dicts was chosen.
    """

    format: str
    variant: str
    weights: dict[str, Tensor]
    mean: Tensor
    crop_size: int
    input_size: int | None = None
    scale: float = 1.0
    mean_of_center: bool = False
    switches: Mapping[str, str] = field(default_factory=dict)
    classes: list[str] | None = None
    descriptions: list[str] | None = None
    config: Config | None = None
    notes: tuple[str, ...] = ()

    def with_config(self, config: Config) -> ForeignWeights:
        """Return a copy whose input, classes and switches are those of a stored config.json."""
        names = ("crop_size", "scale", "switches", "classes", "descriptions")
        return replace(self, config=config, **{name: getattr(config, name) for name in names})

    def from_bgr(self) -> ForeignWeights:
        """Return a copy for RGB input, given that the weights expect the channels as BGR."""
        return self._with_first(self.weights[self.first].flip(1))

    def from_standardized(self, std: Sequence[float]) -> ForeignWeights:
        """Return a copy for input with one scale, given that the weights expect each channel divided by its own `std`.

        The scale becomes the reciprocal of the mean of `std` (RGB, 0 to 255). The rest of each channel's factor is
        multiplied into the first convolution, so that the weights keep their magnitude.
        """
        values = torch.tensor(std, dtype=torch.float64)
        rest = (values.mean() / values)[:, None, None]
        weight = (self.weights[self.first].double() * rest).float()
        return replace(self._with_first(weight), scale=1 / float(values.mean()))

    @property
    def first(self) -> str:
        """Name of the weights that read the pixels."""
        return f"{get_variant(self.variant).first_convolution}.weight"

    def _with_first(self, weight: Tensor) -> ForeignWeights:
        return replace(self, weights={**self.weights, self.first: weight.contiguous()})


def require_arrays(
    weights: Mapping[str, Tensor],
    variant: str | Variant,
    claim: str,
    names: Mapping[str, str],
    *,
    classes: int | None = None,
    switches: Mapping[str, str] | None = None,
    layers: Collection[str] | None = None,
) -> None:
    """Require that `weights` is a state dict of a variant.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Arrays under this package's names.
    variant : str or Variant
        The variant, or its name.
    claim : str
        Beginning of the error message, such as ``"x.pth does not hold the weights of torchvision's alexnet"``.
    names : mapping of str to str
        This package's names to the names in the file, for the message.
    classes : int, optional
        Number of classes; by default the length of the last layer's bias.
    switches : mapping of str to str, optional
        Changes to the variant.
    layers : collection of str, optional
        Layers that are required; by default all.

    Raises
    ------
    AlexNetError
        If arrays have the wrong shape, are unknown or missing. The message names up to three of each.
    """
    if classes is None:
        last = weights.get("logits.bias")
        classes = len(last) if last is not None and last.dim() == 1 and len(last) else NUM_CLASSES
    with torch.device("meta"):  # allocates no memory
        expected = AlexNet(variant, classes, **(switches or {})).state_dict()  # type: ignore[arg-type]
    mismatched = [
        f"{names.get(name, name)} is {shape_text(weights[name].shape)}, not {shape_text(array.shape)}"
        for name, array in expected.items()
        if name in weights and weights[name].shape != array.shape
    ]
    unknown = [f"{names.get(name, name)} is unknown" for name in weights if name not in expected]
    missing = [
        f"{names.get(name, name)} is missing"
        for name in expected
        if name not in weights and (layers is None or name.rpartition(".")[0] in layers)
    ]
    problems = [*mismatched[:3], *unknown[:3], *missing[:3]]
    more = len(mismatched) + len(unknown) + len(missing) - len(problems)
    if problems:
        raise AlexNetError(f"{claim}: {'; '.join(problems)}{f'; and {more} more' if more else ''}")


def require_finite(weights: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise an `AlexNetError` that names the first array with a NaN or Inf."""
    for name, array in weights.items():
        if array.is_floating_point() and not bool(array.isfinite().all()):
            raise AlexNetError(f"{file}: {name} has NaN or Inf values; save the weights of an earlier epoch")


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for people, such as ``"96×3×11×11"``."""
    return "×".join(map(str, shape)) or "a single number"


def color_mean(mean: Sequence[float]) -> Tensor:
    """Return a mean color (RGB, 0 to 255) as a mean image, (256, 256, 3) float32."""
    return torch.tensor(mean, dtype=torch.float32).expand(IMAGE_SIZE, IMAGE_SIZE, 3).contiguous()


def config_from_json(text: str | bytes, where: str) -> Config:
    """Parse a config.json that was stored with weights.

    Raises
    ------
    AlexNetError
        If the text is not the config.json of a run, or of another format version. The message begins with `where`.
    """
    try:
        values = json.loads(text)
        if values["format_version"] != FORMAT_VERSION:
            raise AlexNetError(
                f"{where} has run format {values['format_version']}; this version reads {FORMAT_VERSION}"
            )
        config = Config.from_dict(values)
        if (
            min(config.crop_size, config.input_size) < 1
            or not config.crop_size <= config.size <= 4096
            or not config.classes
        ):
            raise ValueError("image sizes out of range, or no classes")
        config.recipe.override({})
        if config.variant is None and config.recipe.variant not in list_variants():
            raise ValueError(f"unknown variant {config.recipe.variant!r}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise AlexNetError(f"{where} is not the config.json of a run: {error}") from None
    return config
