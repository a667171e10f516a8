"""The layout of torchvision's `alexnet`: the names of its state dict, and those of `one-weird-trick`."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from alexnet.runtime.errors import AlexNetError
from alexnet.weights.foreign import Foreign, color_mean, require_arrays
from alexnet.weights.imagenet import TORCHVISION_DEVIATION, TORCHVISION_MEAN
from alexnet.weights.pickles import check_zip

VARIANT = "one-weird-trick"
CROP = 224
LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "logits",
}
HEAD = "classifier."


def read_torchvision(file: Path) -> Foreign:
    """A `.pth` of torchvision's `alexnet`, or of a training of it (`state_dict` in a dictionary, `module.` in names).

    Read with `weights_only`: no code in it runs. Raises `AlexNetError` when it is none.
    """
    if zipfile.is_zipfile(file):
        check_zip(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("WeightsUnpickler error: ")[-1].split("\n")[0]
        raise AlexNetError(f"{file} can't be read as weights: {reason}") from None
    except Exception as error:  # a damaged file fails in torch in many ways
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise AlexNetError(f"{file} can't be read, it is damaged or no PyTorch file: {reason}") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise AlexNetError(f"{file} holds no state dict, which is arrays by name")
    return torchvision_network({str(name).replace("module.", ""): array for name, array in state.items()}, str(file))


def torchvision_network(state: Mapping[str, Tensor], file: str) -> Foreign:
    """The network of a state dict under torchvision's names, which reads (pixel - mean) / deviation of each color."""
    weights = {name: array.float() for name, array in from_torchvision(state, file).items()}
    network = Foreign("torchvision", VARIANT, weights, color_mean(TORCHVISION_MEAN), CROP)
    return network.reading_deviations(TORCHVISION_DEVIATION)


def from_torchvision(state: Mapping[str, Tensor], file: str = "these") -> dict[str, Tensor]:
    """The weights of a torchvision `alexnet` under the names of `AlexNet("one-weird-trick", num_classes)`.

    `state`: its `state_dict()`; the number of classes is that of `classifier.6.bias`. Without any of `classifier.` its
    convolutions, which is what others' backbones are. No value is changed: the network
    expects what torchvision's does, pixels of 0 to 1 minus the mean color, divided by the deviation of each color.
    Raises `AlexNetError` naming the arrays that are missing, unknown or of the wrong shape.
    """
    whole = any(name.startswith(HEAD) for name in state)
    layers = {theirs: ours for theirs, ours in LAYERS.items() if whole or not theirs.startswith(HEAD)}
    names = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in layers.items() for kind in ("weight", "bias")}
    require_arrays(
        {names.get(name, name): array for name, array in state.items()},
        VARIANT,
        f"{file} are not the weights of torchvision's alexnet",
        {ours: theirs for theirs, ours in names.items()},
        layers=layers.values(),
    )
    return {ours: state[name] for name, ours in names.items()}
