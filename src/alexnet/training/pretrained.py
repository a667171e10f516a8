"""Pretrained weights: which layers of a new network they are loaded into (paper, section 6)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.network.layers import ResidualBlock, Weighted, leaves
from alexnet.network.model import AlexNet
from alexnet.network.variants import INITIALIZATIONS, SWITCHES, get_variant
from alexnet.runs.config import Config
from alexnet.runs.recipe import IMAGENET, STARTER
from alexnet.runs.run import checksum_of
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.weights.foreign import ForeignWeights, shape_text
from alexnet.weights.importing import find_weights


@dataclass(frozen=True)
class PretrainedLayers:
    """The layers of a network whose weights are loaded.

    Attributes
    ----------
    source : str
        Where the weights are from: a name, or a file or folder.
    weights : dict of str to Tensor
        The loaded weights, by the names of the network.
    layers : list of str
        The loaded layers, from the lowest.
    skipped : dict of str to str
        The layers that are initialized instead, each with the reason.
    """

    source: str
    weights: dict[str, Tensor]
    layers: list[str]
    skipped: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The entry of `config.json`, with a checksum in place of the weights."""
        return {"from": self.source, "checksum": self.checksum(), "layers": self.layers, "skipped": self.skipped}

    def checksum(self) -> str:
        """SHA-256 of the loaded weights."""
        return checksum_of(self.weights)

    def summary(self) -> str:
        """One line for people."""
        layers = f"{self.layers[0]} to {self.layers[-1]}" if len(self.layers) > 1 else self.layers[0]
        new = "; ".join(f"{layer} initialized: {reason}" for layer, reason in self.skipped.items())
        return f"pretrained weights from {describe_source(self.source)}: {layers}" + (f"; {new}" if new else "")


def describe_source(name: str) -> str:
    """The meaning of a recipe's `init` for people."""
    known = {STARTER: "the starter features", IMAGENET: "torchvision's ImageNet weights"}
    return known.get(name, name)


def with_pretrained_network(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to a recipe, completed by the network of the pretrained weights that they name.

    The network is taken where the changes name no other; the starter is for the network of the recipe.

    Raises
    ------
    UsageError
        If `init` is neither a known name nor a file or folder.
    """
    name = changes.get("init")
    if name is None or name in (STARTER, *INITIALIZATIONS):
        return dict(changes)
    if name != IMAGENET and not os.path.exists(name) and ":" not in name:
        raise UsageError(
            f"no init {name!r}: neither a file or folder nor one of {', '.join((*INITIALIZATIONS, STARTER, IMAGENET))}"
        )
    source = find_weights(name)
    for note in source.notes:
        print(note, file=sys.stderr)
    network = {switch: source.switches.get(switch) for switch in SWITCHES}
    where = os.path.abspath(name) if os.path.exists(name) else name
    return {"variant": source.variant, **network, **changes, "init": where}


def with_pretrained_layers(config: Config, required: bool) -> tuple[Config, str]:
    """A config completed by the layers that are loaded, and a line about them.

    Where no layer fits the config is one of a training from scratch.

    Raises
    ------
    AlexNetError
        If no layer fits although pretrained weights are `required`.
    """
    pretrained = find_pretrained(config)
    if pretrained.layers:
        return replace(config, start=pretrained.to_dict()), pretrained.summary()
    reasons = "; ".join(f"{layer}: {reason}" for layer, reason in list(pretrained.skipped.items())[:2])
    message = f"no layer of {describe_source(pretrained.source)} fits this network ({reasons})"
    if required:
        raise AlexNetError(message)
    recipe = config.recipe.override({"init": config.recipe.init_scheme})
    return replace(config, recipe=recipe), f"{message}: training from scratch"


def find_pretrained(config: Config) -> PretrainedLayers:
    """The layers that a network loads from where its recipe says.

    Loaded are all layers from the lowest to the first whose arrays are missing or have another shape: what lies above
    a new layer would get other inputs. The last layer is loaded where the classes are the same. Batch normalization
    that only the source has is folded into its convolutions; a different pixel scaling is compensated in conv1.

    Raises
    ------
    AlexNetError
        If the weights can't be read.
    """
    assert config.recipe.pretrained_from is not None
    return match_layers(find_weights(config.recipe.pretrained_from), config, config.recipe.pretrained_from)


def match_layers(source: ForeignWeights, config: Config, name: str) -> PretrainedLayers:
    """`find_pretrained` for weights that were read already; `name` says where they are from."""
    with torch.device("meta"):
        network = config.network()
    found = _converted(source, config, network)
    weights: dict[str, Tensor] = {}
    layers: list[str] = []
    skipped: dict[str, str] = {}
    for layer, modules in _layers(network):
        expected = {
            f"{name}.{key}": array
            for name in modules
            for key, array in network.get_submodule(name).state_dict().items()
        }
        optional = {
            key for key in expected if isinstance(network.get_submodule(key.rpartition(".")[0]), nn.BatchNorm2d)
        }
        reason = _mismatch(expected, found, optional)
        if layer == network.output_layer and source.classes != config.classes:
            reason = "other classes"
        if reason is None and skipped:
            reason = f"above {next(iter(skipped))}"
        if reason is None:
            layers.append(layer)
            weights |= {key: found[key] for key in expected if key in found}
        else:
            skipped[layer] = reason
    return PretrainedLayers(name, weights, layers, skipped)


def load_pretrained(network: AlexNet, config: Config) -> None:
    """Load the pretrained weights that `config.start` names into a fresh network.

    Raises
    ------
    AlexNetError
        If the weights can't be read, or have changed since the run began.
    """
    assert config.start is not None
    pretrained = find_pretrained(config)
    if pretrained.checksum() != config.start["checksum"]:
        source = describe_source(pretrained.source)
        raise AlexNetError(f"the weights of {source} have changed since this run began with them")
    network.load_state_dict(pretrained.weights, strict=False)


def pretrained_depths(config: Config) -> dict[str, int]:
    """The paths of the modules with loaded weights, each with the number of loaded layers above it."""
    if config.start is None:
        return {}
    with torch.device("meta"):
        network = config.network()
    modules = dict(_layers(network))
    order = config.start["layers"]
    depths = {name: len(order) - 1 - place for place, layer in enumerate(order) for name in modules[layer]}
    return {path: depths[path.split(".")[0]] for path, _ in leaves(network) if path.split(".")[0] in depths}


def _layers(network: AlexNet) -> Iterator[tuple[str, list[str]]]:
    """Each layer with weights or residual block, and its modules: itself, and those with arrays before the next one.

    Those are batch normalization and averages with coefficients.
    """
    layer, modules = "", list[str]()
    for name, module in network.named_children():
        if isinstance(module, Weighted | ResidualBlock):
            if layer:
                yield layer, modules
            layer, modules = name, [name]
        elif module.state_dict():
            modules.append(name)
    yield layer, modules


def _mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], optional: set[str]) -> str | None:
    """The reason why a layer can't be loaded; None when it can. `optional` arrays may be missing."""
    for key, array in expected.items():
        if key not in found:
            if key in optional:
                continue
            return "not there"
        if found[key].shape != array.shape:
            return f"{shape_text(found[key].shape)} there, {shape_text(array.shape)} here"
    return None


def _converted(source: ForeignWeights, config: Config, network: AlexNet) -> dict[str, Tensor]:
    """The source's weights for the normalization and the pixel scaling of `config`."""
    weights = dict(source.weights)
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        variant = source.config.network_variant if source.config else get_variant(source.variant)
        weights = fold_batch_norm(weights, variant.batch_norms())
    standardized = source.config is not None and source.config.recipe.pixel_scaling == "std"
    first = f"{network.first_convolution}.weight"
    if first in weights and not (standardized and config.recipe.pixel_scaling == "std"):
        weights[first] = weights[first] * (source.scale / config.scale)
    return weights


def fold_batch_norm(
    weights: Mapping[str, Tensor], batch_norms: Mapping[str, str], epsilon: float = 1e-5
) -> dict[str, Tensor]:
    """Fold batch normalization, as in evaluation, into the convolutions below it.

    Parameters
    ----------
    weights : mapping
        A state dict.
    batch_norms : mapping
        The batch normalization of each convolution, as `Variant.batch_norms` names them; it may be absent in `weights`.
    epsilon : float
        That of the batch normalization.

    Returns
    -------
    dict
        A state dict without batch normalization.
    """
    result = {name: array for name, array in weights.items() if name.rpartition(".")[0] not in batch_norms.values()}
    for layer, batch in batch_norms.items():
        if f"{batch}.running_var" not in weights:
            continue
        gain = weights[f"{batch}.weight"] / (weights[f"{batch}.running_var"] + epsilon).sqrt()
        result[f"{layer}.weight"] = weights[f"{layer}.weight"] * gain[:, None, None, None]
        result[f"{layer}.bias"] = weights[f"{batch}.bias"] - weights[f"{batch}.running_mean"] * gain
    return result
