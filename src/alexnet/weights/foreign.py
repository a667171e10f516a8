"""What a foreign file turns into before it is a run: weights under our names, and what its network expects to read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from alexnet.network.model import AlexNet
from alexnet.network.variants import list_variants
from alexnet.runs.run import FORMAT_VERSION, Config
from alexnet.runtime.errors import AlexNetError
from alexnet.weights.imagenet import CLASSES

SIZE = 256  # side of the stored images that every published AlexNet cuts its crops from
LARGEST = 1 << 28
"""Numbers in one array: 28 times the largest of an AlexNet, and what a file may make us hold."""


@dataclass(frozen=True)
class Foreign:
    """A network that others trained.

    `format`: in words. `weights`: the state dict of `AlexNet(variant, **switches)`. What it reads: `mean` (RGB 0-255),
    (3,) or (size, size, 3), subtracted from a crop of `crop_size` pixels, where it lies or, `mean_of_center`, that of
    the center; times `scale`; at `input_size` pixels. `classes` and `descriptions`: None where the file does not say.
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

    def described_by(self, config: Config) -> Foreign:
        """The same network, given the config.json that traveled with it."""
        what = {name: getattr(config, name) for name in ("crop_size", "scale", "switches", "classes", "descriptions")}
        return replace(self, config=config, **what)

    def reading_bgr(self) -> Foreign:
        """The same network, given that its weights expect blue first: conv1 takes RGB afterwards."""
        return self._with_conv1(self.weights["conv1.weight"].flip(1))

    def reading_deviations(self, deviation: Sequence[float]) -> Foreign:
        """The same network, given that its weights expect each color (RGB) divided by its own deviation.

        The scale becomes one over the mean of the deviations, and what is left of each goes into conv1, so that the
        weights stay of their size.
        """
        values = torch.tensor(deviation, dtype=torch.float64)
        rest = (values.mean() / values)[:, None, None]
        conv1 = (self.weights["conv1.weight"].double() * rest).float()
        return replace(self._with_conv1(conv1), scale=1 / float(values.mean()))

    def _with_conv1(self, weight: Tensor) -> Foreign:
        return replace(self, weights={**self.weights, "conv1.weight": weight.contiguous()})


def require_arrays(
    weights: Mapping[str, Tensor],
    variant: str,
    claim: str,
    names: Mapping[str, str],
    *,
    classes: int | None = None,
    switches: Mapping[str, str] | None = None,
    layers: Collection[str] | None = None,
) -> None:
    """Raise an `AlexNetError` that names the arrays of the wrong shape, unknown and missing, up to three of each.

    `weights`: under our names. `classes`: by default as many as there are biases in the last layer. `claim`: what is
    refuted. `names`: ours → what the file calls them. `layers`: those that there must be, by default all.
    """
    if classes is None:
        last = weights.get("logits.bias")
        classes = len(last) if last is not None and last.dim() == 1 and len(last) else CLASSES
    with torch.device("meta"):  # without memory for them
        expected = AlexNet(variant, classes, **(switches or {})).state_dict()  # type: ignore[arg-type]
    other = [
        f"{names.get(name, name)} is {shape_words(weights[name].shape)}, not {shape_words(array.shape)}"
        for name, array in expected.items()
        if name in weights and weights[name].shape != array.shape
    ]
    unknown = [f"{names.get(name, name)} is unknown" for name in weights if name not in expected]
    missing = [
        f"{names.get(name, name)} is missing"
        for name in expected
        if name not in weights and (layers is None or name.partition(".")[0] in layers)
    ]
    problems = [*other[:3], *unknown[:3], *missing[:3]]
    more = len(other) + len(unknown) + len(missing) - len(problems)
    if problems:
        raise AlexNetError(f"{claim}: {'; '.join(problems)}{f'; and {more} more' if more else ''}")


def require_finite(weights: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise an `AlexNetError` that names an array with values that are no numbers."""
    for name, array in weights.items():
        if array.is_floating_point() and not bool(array.isfinite().all()):
            raise AlexNetError(f"{file}: {name} has values that are not finite")


def shape_words(shape: Sequence[int]) -> str:
    """96×3×11×11."""
    return "×".join(map(str, shape)) or "a single number"


def color_mean(mean: Sequence[float], size: int = SIZE) -> Tensor:
    """A mean color as a mean image, (size, size, 3) float32."""
    return torch.tensor(mean, dtype=torch.float32).expand(size, size, 3).contiguous()


def config_of(text: str | bytes, where: str) -> Config:
    """A config.json that traveled with weights. Raises `AlexNetError` when it is none, or of another format."""
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
            raise ValueError("sizes that make no sense, or no classes")
        config.recipe.override({})
        if config.variant is None and config.recipe.variant not in list_variants():
            raise ValueError(f"no variant {config.recipe.variant!r}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise AlexNetError(f"{where} is no config.json of a run: {error}") from None
    return config
