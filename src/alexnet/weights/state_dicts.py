"""State dicts as training scripts and frameworks save them: found in a checkpoint, and freed of their prefixes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from alexnet.network.model import AlexNet
from alexnet.network.variants import get_variant, list_variants
from alexnet.runs.run import MEAN, float32_of
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.weights.caffe import caffe_mean
from alexnet.weights.foreign import IMAGE_SIZE, ForeignWeights, config_from_json
from alexnet.weights.formats import ReadOptions
from alexnet.weights.pickles import Inert
from alexnet.weights.torchvision import network_from_torchvision, recognize

CONFIG_FILE = "config.json"
_WRAPPERS = ("module", "_orig_mod")  # of DataParallel and its relatives, and of torch.compile
_ANCHORS = ("features.0.weight", "conv1.weight", "conv1_1.weight")  # first layers, in torchvision's layout and in ours
_COUNTERS = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel
_MAX_DEPTH = 4


class Stored(Protocol):
    """A tensor in a file, not read yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def load(self) -> Tensor: ...


@dataclass(frozen=True)
class StateDict:
    """A state dict that was found in a file.

    Parameters
    ----------
    key : str
        Where it is: the keys of the checkpoint and the prefix of the names, joined by dots; empty for the file itself.
    arrays : dict of str to Stored
        The arrays, by names without prefixes.
    left_out : list of str
        Names of arrays beside it that do not belong to the network.
    notes : tuple of str
        What a person should know about the choice.
    """

    key: str
    arrays: dict[str, Stored]
    left_out: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def is_torchvision(self) -> bool:
        """Whether the names are those of a network of torchvision."""
        return recognize(self.arrays) is not None

    def load(self) -> dict[str, Tensor]:
        """Read all arrays; floating point as float32."""
        tensors = {name: array.load() for name, array in self.arrays.items()}
        return {name: float32_of(tensor) for name, tensor in tensors.items()}


def find_state_dict(checkpoint: Mapping[Any, Any], file: str, key: str | None = None) -> StateDict:
    """Find the state dict of an AlexNet in a checkpoint.

    Parameters
    ----------
    checkpoint : mapping
        Tensors (`Stored`), and mappings that hold some at any key.
    file : str
        Name for messages.
    key : str, optional
        Which one to take where there are several; by default the first that is not an average (``ema``).

    Raises
    ------
    AlexNetError
        If there is none; the message names the keys of the file.
    UsageError
        If none has the given `key`.
    """
    if MEAN in checkpoint:  # of this package; the variant may be one that is not registered here
        return StateDict("", {str(name): array for name, array in checkpoint.items()})
    found = {one.key: one for one in _state_dicts(checkpoint, ())}
    if not found:
        raise AlexNetError(f"{file} holds no state dict of an AlexNet: {_contents(checkpoint)}")
    if key is not None and key not in found:
        raise UsageError(f"{file} has no state dict {key!r}; there are: {', '.join(found)}")
    chosen = found[
        key if key is not None else next((name for name in found if "ema" not in name.lower()), next(iter(found)))
    ]
    notes = []
    if len(found) > 1 and key is None:
        others = [name for name in found if name != chosen.key]
        notes.append(
            f"{file} holds several state dicts: read {chosen.key or 'the outermost'}, not {', '.join(others)}; for "
            f"another: `{shlex.join(['alexnet', 'import', str(file), '--key', others[0], '--out', 'run-2'])}`"
        )
    if chosen.left_out:
        count = len(chosen.left_out)
        listed = ", ".join(chosen.left_out[:3]) + (", …" if count > 3 else "")
        notes.append(f"{file}: {count} array{'s' * (count > 1)} beside the network left out ({listed})")
    return replace(chosen, notes=tuple(notes))


def network_from_state_dict(
    state: StateDict, file: Path, options: ReadOptions, described: str | None = None
) -> ForeignWeights:
    """Read the network of a state dict, in torchvision's layout or in that of this package.

    Parameters
    ----------
    state : StateDict
        The state dict.
    file : Path
        The file it is from. A config.json beside it describes a state dict in this package's layout.
    options : ReadOptions
        `variant` names the network where nothing describes it; `mean` is its mean image where none is stored.
    described : str, optional
        The config.json that the file itself holds.

    Raises
    ------
    AlexNetError
        If arrays are missing, unknown or of the wrong shape, or nothing says which network it is.
    """
    weights = state.load()
    if state.is_torchvision:
        return replace(network_from_torchvision(weights, str(file)), notes=state.notes)
    image = weights.pop(MEAN, None)
    beside = file.with_name(CONFIG_FILE)
    config, variant = None, options.variant
    if variant is None and (described or beside.exists()):
        where = f"{file}: its description" if described else str(beside)
        config = config_from_json(described or beside.read_bytes(), where)
        variant = config.recipe.variant
    if variant is None:
        raise AlexNetError(
            f"{file} does not say which network it is, and has no {CONFIG_FILE} beside it: name it with --variant, "
            f"one of {', '.join(list_variants())}"
        )
    if image is None:
        if config is not None and options.mean is None:
            raise AlexNetError(f"{file} lacks its mean image ({MEAN}): give it with --mean, or read model.safetensors")
        image = caffe_mean(options.mean)
    size = config.size if config else IMAGE_SIZE
    if tuple(image.shape) != (size, size, 3) or image.dtype != torch.float32:
        raise AlexNetError(f"{file}: {MEAN} is {tuple(image.shape)} {image.dtype}, not ({size}, {size}, 3) float32")
    crop_size = get_variant(variant).input_size
    network = ForeignWeights("alexnet", variant, weights, image, crop_size, notes=state.notes)
    return network.with_config(config) if config else network


def _state_dicts(value: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[StateDict]:
    """The state dicts in a mapping and in the mappings that it holds, from the outermost."""
    stored = {str(name): one for name, one in value.items() if hasattr(one, "load") and hasattr(one, "shape")}
    cleaned = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in stored}
    prefixes = {name[: -len(anchor)]: None for name in cleaned.values() for anchor in _ANCHORS if _ends(name, anchor)}
    for prefix in prefixes:
        arrays = {
            short.removeprefix(prefix): stored[name]
            for name, short in cleaned.items()
            if short.startswith(prefix) and short not in _COUNTERS
        }
        # The names of other networks have a conv1, too.
        if recognize(arrays) is None and not arrays.keys() <= _own_names(tuple(list_variants())):
            continue
        others = [name for name, short in cleaned.items() if not short.startswith((*prefixes, *_COUNTERS))]
        yield StateDict(".".join((*path, *prefix.split("."))).strip("."), arrays, others)
    if len(path) < _MAX_DEPTH:
        for name, one in value.items():
            if isinstance(one, Mapping):
                yield from _state_dicts(one, (*path, str(name)))


def _ends(name: str, anchor: str) -> bool:
    return name == anchor or name.endswith(f".{anchor}")


@cache
def _own_names(known: tuple[str, ...]) -> frozenset[str]:
    """The names of all arrays of these variants."""
    names = {MEAN}
    with torch.device("meta"):
        for name in known:
            for normalization in (None, "batch"):
                names |= AlexNet(name, 1, normalization=normalization).state_dict().keys()
    return frozenset(names)


def _contents(checkpoint: Mapping[Any, Any]) -> str:
    """The keys of a checkpoint, for a message, with the remedy where one of them is a whole network."""
    for name, value in checkpoint.items():
        if isinstance(value, Inert) and value.is_network:
            return (
                f"its {name!r} is a whole pickled network ({value.qualified_name}), which only its own code can read; "
                "save its state dict instead, torch.save(model.state_dict(), 'weights.pth')"
            )
    if not checkpoint:
        return "it is empty"
    return "its keys are " + _listed([_described(name, value) for name, value in checkpoint.items()])


def _described(name: Any, value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return str(name)
    return f"{name} (with {_listed([str(inner) for inner in value])})"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")
