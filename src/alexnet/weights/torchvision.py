"""The layouts of torchvision's networks: the names of their state dicts, and those of the variants here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from alexnet.network.rows import BatchNorm, Conv, FullyConnected, all_rows
from alexnet.network.variants import get_variant
from alexnet.runs.run import float32_of
from alexnet.weights.foreign import ForeignWeights, color_mean, require_arrays
from alexnet.weights.imagenet import TORCHVISION_MEAN, TORCHVISION_STD

CROP_SIZE = 224
NETWORKS = {
    "one-weird-trick": "alexnet",
    "vgg11": "vgg11",
    "vgg16": "vgg16",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
}
"""The variants whose weights torchvision publishes, and its names for them."""

# The numbers of the layers with weights in its `features` and `classifier`.
_NUMBERS = {
    "one-weird-trick": ((0, 3, 6, 8, 10), (1, 4, 6)),
    "vgg11": ((0, 3, 6, 8, 11, 13, 16, 18), (0, 3, 6)),
    "vgg16": ((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (0, 3, 6)),
}
_OF_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_HEADS = ("classifier.", "fc.")


def layers_of(variant: str) -> dict[str, str]:
    """Torchvision's name of each layer with arrays, to its path in the variant, from the input up."""
    rows = dict(all_rows(get_variant(variant).layers))
    if variant in _NUMBERS:
        features, classifier = _NUMBERS[variant]
        theirs = [*(f"features.{number}" for number in features), *(f"classifier.{number}" for number in classifier)]
        ours = [path for path, row in rows.items() if isinstance(row, Conv | FullyConnected)]
        return dict(zip(theirs, ours, strict=True))
    return dict(_residual_layers(rows))


def _residual_layers(rows: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The layers of a ResNet: ``layer1.0.conv2`` is ``block2_1.body.conv_b``, ``downsample`` the shortcut."""
    yield from (("conv1", "conv1"), ("bn1", "batch1"))
    for path, row in rows.items():
        block, _, inner = path.partition(".")
        if not inner or not isinstance(row, Conv | BatchNorm):
            continue
        group, number = block.removeprefix("block").split("_")
        part, _, name = inner.partition(".")
        kind, _, letter = name.partition("_")
        theirs = f"layer{int(group) - 1}.{int(number) - 1}"
        if part == "shortcut":
            yield f"{theirs}.downsample.{int(kind == 'batch')}", path
        else:
            yield f"{theirs}.{'bn' if kind == 'batch' else 'conv'}{'abc'.index(letter) + 1}", path
    yield "fc", "logits"


def arrays_of(variant: str, *, head: bool = True) -> dict[str, str]:
    """Torchvision's name of each array, to its name in the variant; without `head`, those of the backbone alone."""
    rows = dict(all_rows(get_variant(variant).layers))
    names: dict[str, str] = {}
    for theirs, ours in layers_of(variant).items():
        row = rows[ours]
        has_bias = not isinstance(row, Conv) or row.bias is not None
        kinds = _OF_BATCH_NORM if isinstance(row, BatchNorm) else ("weight", "bias") if has_bias else ("weight",)
        if head or not theirs.startswith(_HEADS):
            names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in kinds}
    return names


def recognize(names: Mapping[str, object]) -> str | None:
    """The variant that shares most names with a state dict of torchvision; None where none has its first layer."""
    fitting = {}
    for variant in NETWORKS:
        known = arrays_of(variant)
        if next(iter(known)) in names and len(known.keys() & names.keys()) > 2:
            fitting[variant] = len(known.keys() & names.keys()) / len(known.keys() | names.keys())
    return max(fitting, key=lambda variant: fitting[variant]) if fitting else None


def network_from_torchvision(state: Mapping[str, Tensor], file: str) -> ForeignWeights:
    """Read the network of a state dict under torchvision's names.

    Parameters
    ----------
    state : mapping of str to Tensor
        The state dict of one of `NETWORKS`, whose input is (pixel - mean) / std of each channel.
    file : str
        Name for messages.

    Raises
    ------
    AlexNetError
        If arrays are missing, unknown or of the wrong shape.
    """
    variant = recognize(state) or "one-weird-trick"
    weights = {name: float32_of(array) for name, array in from_torchvision(state, file).items()}
    network = ForeignWeights("torchvision", variant, weights, color_mean(TORCHVISION_MEAN), CROP_SIZE)
    return network.from_standardized(TORCHVISION_STD)


def from_torchvision(state: Mapping[str, Tensor], file: str = "the state dict") -> dict[str, Tensor]:
    """Rename the weights of a network of torchvision to those of the variant that is the same network.

    Parameters
    ----------
    state : mapping of str to Tensor
        Its `state_dict()`; the number of classes is the length of its last bias. Without any array of ``classifier.``
        or ``fc.`` the layers below are read, as backbones are saved.
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
    variant = recognize(state) or "one-weird-trick"
    names = arrays_of(variant, head=any(name.startswith(_HEADS) for name in state))
    # Files of torch before 0.4.1 lack the counters of batch normalization, which nothing here reads.
    counters = {name: torch.tensor(0) for name in names if name.endswith("num_batches_tracked")}
    state = {**counters, **state}
    require_arrays(
        {names.get(name, name): array for name, array in state.items()},
        variant,
        f"{file} does not hold the weights of torchvision's {NETWORKS[variant]}",
        {ours: theirs for theirs, ours in names.items()},
        layers={ours.rpartition(".")[0] for ours in names.values()},
    )
    return {ours: state[name] for name, ours in names.items()}
