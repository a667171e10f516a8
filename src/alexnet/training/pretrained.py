"""Weights that were learned before: which of them a new network starts from (paper, section 6: pre-training)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.network.layers import Weighted
from alexnet.network.model import AlexNet
from alexnet.network.variants import INITIALIZATIONS, SWITCHES
from alexnet.runs.recipe import IMAGENET, STARTER
from alexnet.runs.run import Config, checksum_of
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.weights.foreign import ForeignWeights, shape_text
from alexnet.weights.importing import find_weights

LAST = "logits"


@dataclass(frozen=True)
class Start:
    """What a network takes over: `weights` by its own names; `layers`, from the lowest; and why not the rest."""

    source: str
    weights: dict[str, Tensor]
    layers: list[str]
    left: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` keeps it, with a checksum of the weights in their place."""
        return {"from": self.source, "checksum": self.checksum(), "layers": self.layers, "left": self.left}

    def checksum(self) -> str:
        """SHA-256 of the weights taken over."""
        return checksum_of(self.weights)

    def words(self) -> str:
        """One line for people."""
        layers = f"{self.layers[0]} to {self.layers[-1]}" if len(self.layers) > 1 else self.layers[0]
        new = "; ".join(f"{layer} new: {why}" for layer, why in self.left.items())
        return f"from {source_words(self.source)}: {layers}" + (f"; {new}" if new else "")


def source_words(name: str) -> str:
    """What a recipe's `init` means, for people."""
    known = {STARTER: "the starter features", IMAGENET: "torchvision's ImageNet weights"}
    return known.get(name, name)


def with_network_of_start(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to a recipe, and the network of the weights that they name, where they name no other.

    The starter is there for the network of the recipe. Raises `UsageError` where nothing is called so.
    """
    name = changes.get("init")
    if name is None or name in (STARTER, *INITIALIZATIONS):
        return dict(changes)
    if name != IMAGENET and not os.path.exists(name) and ":" not in name:
        raise UsageError(
            f"no init {name!r}: neither a file or folder nor one of {', '.join((*INITIALIZATIONS, STARTER, IMAGENET))}"
        )
    source = find_weights(name)
    network = {switch: source.switches.get(switch) for switch in SWITCHES}
    where = os.path.abspath(name) if os.path.exists(name) else name
    return {"variant": source.variant, **network, **changes, "init": where}


def with_start(config: Config, asked: bool) -> tuple[Config, str]:
    """The config that also says what is taken over, and that in words; from scratch where nothing fits.

    Raises `AlexNetError` when nothing fits and it was asked for.
    """
    start = find_start(config)
    if start.layers:
        return replace(config, start=start.to_dict()), start.words()
    reasons = "; ".join(f"{layer}: {why}" for layer, why in list(start.left.items())[:2])
    words = f"nothing of {source_words(start.source)} fits this network ({reasons})"
    if asked:
        raise AlexNetError(words)
    return replace(config, recipe=config.recipe.override({"init": config.recipe.scheme})), f"{words}: from scratch"


def find_start(config: Config) -> Start:
    """What the network of `config` takes over from where its recipe says.

    From the lowest layer on, up to the first whose arrays are not there or have another shape: what lies above a new
    layer has nothing to go on. The last layer is taken where the classes are the same. Batch normalization that only
    the source has goes into its convolutions; where pixels are scaled otherwise, conv1 makes up for it.

    Raises `AlexNetError` when the weights can't be read; takes nothing where nothing fits.
    """
    assert config.recipe.start is not None
    return take_over(find_weights(config.recipe.start), config, config.recipe.start)


def take_over(source: ForeignWeights, config: Config, name: str) -> Start:
    """`find_start` for weights that were read already; `name`: where they are from."""
    with torch.device("meta"):
        network = config.network()
    found = _as_read_by(source, config, network)
    taken: dict[str, Tensor] = {}
    layers: list[str] = []
    left: dict[str, str] = {}
    for layer, parts in _layers(network):
        expected = {
            f"{part}.{key}": array for part in parts for key, array in network.get_submodule(part).state_dict().items()
        }
        why = _why_not(expected, found)
        if layer == LAST and source.classes != config.classes:
            why = "other classes"
        if why is None and left:
            why = f"above {next(iter(left))}"
        if why is None:
            layers.append(layer)
            taken |= {key: found[key] for key in expected if key in found}
        else:
            left[layer] = why
    return Start(name, taken, layers, left)


def start_from(network: AlexNet, config: Config) -> None:
    """Give a fresh network what `config.start` says it takes over.

    Raises `AlexNetError` when the weights are gone, or are not those any more that the run began with.
    """
    assert config.start is not None
    start = find_start(config)
    if start.checksum() != config.start["checksum"]:
        raise AlexNetError(f"the weights of {source_words(start.source)} have changed since this run began with them")
    network.load_state_dict(start.weights, strict=False)


def layers_above(config: Config) -> dict[str, int]:
    """The modules that were taken over, each with how many layers that were taken over lie above it."""
    if config.start is None:
        return {}
    with torch.device("meta"):
        parts = dict(_layers(config.network()))
    order = config.start["layers"]
    return {part: len(order) - 1 - place for place, layer in enumerate(order) for part in parts[layer]}


def _layers(network: AlexNet) -> Iterator[tuple[str, list[str]]]:
    """Each layer with weights, and its modules: itself, and the batch normalization that follows it."""
    modules = list(network.named_children())
    for number, (name, module) in enumerate(modules):
        if isinstance(module, Weighted):
            following = modules[number + 1 : number + 2]
            yield name, [name, *(after for after, other in following if isinstance(other, nn.BatchNorm2d))]


def _why_not(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Why a layer can't be taken over; None when it can. Batch normalization that the source lacks starts fresh."""
    for key, array in expected.items():
        if key not in found:
            if key.startswith("batch"):
                continue
            return "not there"
        if found[key].shape != array.shape:
            return f"{shape_text(found[key].shape)} there, {shape_text(array.shape)} here"
    return None


def _as_read_by(source: ForeignWeights, config: Config, network: AlexNet) -> dict[str, Tensor]:
    """The source's weights as the network of `config` would have them, for the images that it reads."""
    weights = dict(source.weights)
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.children()):
        weights = folded(weights)
    own_unit = source.config is not None and source.config.recipe.pixel_scaling == "std"
    if "conv1.weight" in weights and not (own_unit and config.recipe.pixel_scaling == "std"):
        weights["conv1.weight"] = weights["conv1.weight"] * (source.scale / config.scale)
    return weights


def folded(weights: Mapping[str, Tensor], epsilon: float = 1e-5) -> dict[str, Tensor]:
    """A state dict whose batch normalization, as it is in evaluation, went into the convolutions below it."""
    result = {name: array for name, array in weights.items() if not name.startswith("batch")}
    for name in weights:
        if not (name.startswith("batch") and name.endswith(".running_var")):
            continue
        batch = name.partition(".")[0]
        layer = f"conv{batch.removeprefix('batch')}"
        gain = weights[f"{batch}.weight"] / (weights[name] + epsilon).sqrt()
        result[f"{layer}.weight"] = weights[f"{layer}.weight"] * gain[:, None, None, None]
        result[f"{layer}.bias"] = weights[f"{batch}.bias"] - weights[f"{batch}.running_mean"] * gain
    return result
