"""The layout of torchvision's `alexnet`: the names of its state dict, and those of `one-weird-trick`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alexnet.errors import AlexNetError
from alexnet.model import AlexNet

VARIANT = "one-weird-trick"
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


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a torchvision `alexnet` under the names of `AlexNet("one-weird-trick", num_classes)`.

    `state`: its `state_dict()`; the number of classes is that of `classifier.6.bias`. No value is changed: the network
    expects what torchvision's does, pixels of 0 to 1 minus the mean colour, divided by the deviation of each colour.
    Raises `AlexNetError` naming the arrays that are missing, unknown or of the wrong shape.
    """
    names = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in LAYERS.items() for kind in ("weight", "bias")}
    last = state.get("classifier.6.bias")
    with torch.device("meta"):
        expected = AlexNet(
            VARIANT, len(last) if last is not None and last.dim() == 1 and len(last) else 1000
        ).state_dict()
    problems = [
        *(f"{name} is missing" for name in names if name not in state),
        *(f"{name} is unknown" for name in state if name not in names),
        *(
            f"{name} is {_shape(state[name])}, not {_shape(expected[ours])}"
            for name, ours in names.items()
            if name in state and state[name].shape != expected[ours].shape
        ),
    ]
    if problems:
        raise AlexNetError(f"these are not the weights of torchvision's alexnet: {'; '.join(problems)}")
    return {ours: state[name] for name, ours in names.items()}


def _shape(array: Tensor) -> str:
    return "×".join(map(str, array.shape)) or "a single number"
