"""The layout of torchvision's `alexnet`: the names of its state dict, and those of `one-weird-trick`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from alexnet.weights.foreign import ForeignWeights, color_mean, require_arrays
from alexnet.weights.imagenet import TORCHVISION_MEAN, TORCHVISION_STD

VARIANT = "one-weird-trick"
CROP_SIZE = 224
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


def network_from_torchvision(state: Mapping[str, Tensor], file: str) -> ForeignWeights:
    """Read the network of a state dict under torchvision's names.

    Parameters
    ----------
    state : mapping of str to Tensor
        The state dict of a torchvision `alexnet`, whose input is (pixel - mean) / std of each channel.
    file : str
        Name for messages.

    Raises
    ------
    AlexNetError
        If arrays are missing, unknown or of the wrong shape.
    """
    weights = {name: array.float() for name, array in from_torchvision(state, file).items()}
    network = ForeignWeights("torchvision", VARIANT, weights, color_mean(TORCHVISION_MEAN), CROP_SIZE)
    return network.from_standardized(TORCHVISION_STD)


def from_torchvision(state: Mapping[str, Tensor], file: str = "the state dict") -> dict[str, Tensor]:
    """Rename the weights of a torchvision `alexnet` to those of ``AlexNet("one-weird-trick", num_classes)``.

    Parameters
    ----------
    state : mapping of str to Tensor
        Its `state_dict()`; the number of classes is the length of ``classifier.6.bias``. Without any array of
        ``classifier.`` the convolutions alone are read, as backbones are saved.
    file : str
        Name for messages.

    Returns
    -------
    dict of str to Tensor
        The same arrays. No value is changed: the network expects the input that torchvision's does, pixels of 0 to 1
        minus the mean color, divided by the standard deviation of each channel.

    Raises
    ------
    AlexNetError
        If arrays are missing, unknown or of the wrong shape.
    """
    has_head = any(name.startswith(HEAD) for name in state)
    layers = {theirs: ours for theirs, ours in LAYERS.items() if has_head or not theirs.startswith(HEAD)}
    names = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in layers.items() for kind in ("weight", "bias")}
    require_arrays(
        {names.get(name, name): array for name, array in state.items()},
        VARIANT,
        f"{file} does not hold the weights of torchvision's alexnet",
        {ours: theirs for theirs, ours in names.items()},
        layers=layers.values(),
    )
    return {ours: state[name] for name, ours in names.items()}
