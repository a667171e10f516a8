"""A linear classifier on the convolutions of pretrained weights, as a network of the variant `convolutions`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.data.augmentation import Preprocessing
from alexnet.data.dataset import Split
from alexnet.network.features import BATCH_SIZE
from alexnet.network.model import FIT, AlexNet
from alexnet.network.variants import get_variant
from alexnet.runs.config import Config
from alexnet.runtime.devices import autocast
from alexnet.runtime.progress import progress
from alexnet.training.linear_probe import CELLS, IMAGES, fit_logistic_regression, pooled, stratified

VARIANT = "convolutions"
LAST = "pool5"
ABSENT = -30.0
"""Logit of a class without a training image."""


def can_fit(config: Config, training: Split) -> bool:
    """Whether the network begins with the layers of `VARIANT`, and has pretrained weights for its convolutions.

    The classifier counts every image once, by its label: weights, soft labels and balancing rule it out.
    """
    below = get_variant(VARIANT).layers[:-1]
    loaded = (config.start or {}).get("layers", ())
    return (
        config.network_variant.layers[: len(below)] == below
        and config.recipe.drop_layer is None
        and training.weights is None
        and training.targets is None
        and (config.recipe.class_weights, config.recipe.sampler) == ("none", "random")
        and all(f"conv{number}" in loaded for number in range(1, 6))
    )


def linear_config(config: Config) -> Config:
    """The config of the network whose output layer is the classifier."""
    return replace(config, recipe=config.recipe.override({"variant": VARIANT}))


@dataclass(frozen=True)
class LinearClassifier:
    """A classifier that was fitted.

    Attributes
    ----------
    network : AlexNet
        The variant `convolutions` in evaluation mode; its output layer is the classifier.
    images : int
        Images that it was fitted on.
    loss, error : float
        Its mean cross-entropy in nats on their crops, and the share that it classifies wrongly.
    """

    network: AlexNet
    images: int
    loss: float
    error: float


@torch.no_grad()
def fit_linear_classifier(
    pretrained: AlexNet,
    config: Config,
    preprocess: Preprocessing,
    augment: Callable[[Tensor], Tensor],
    training: Split,
    precision: torch.dtype,
) -> LinearClassifier:
    """Fit a linear classifier on the pooled feature maps of conv5, averaged to 3×3 cells.

    It reads two crops of every image: the central one, and a random one, without which it would know the images at one
    place only, and be wrong on the corner crops of ten views.

    Parameters
    ----------
    pretrained : AlexNet
        The network with the pretrained weights, which are copied.
    config : Config
        Its config, for which `can_fit` is true.
    preprocess : Preprocessing
        The preprocessing of the images.
    augment : callable
        The random crops of a batch of images, as the network reads them.
    training : Split
        What it is fitted on: up to `IMAGES` images, with the proportions of the classes.
    precision : torch.dtype
        Of the forward pass.

    Returns
    -------
    LinearClassifier
    """
    device = preprocess.mean.device
    network = linear_config(config).network().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    output = network.get_submodule(network.output_layer)
    known, own = pretrained.state_dict(), network.state_dict()
    network.load_state_dict(own | {name: known[name] for name in own if not name.startswith(network.output_layer)})
    network.eval()
    rows = stratified(training, IMAGES)
    features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    with progress(len(rows), f"{LAST} of {training.name} images") as bar, autocast(device, precision):
        for _, images in training.batches(rows, BATCH_SIZE):
            tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            for found, crops in zip(features, (preprocess.center(tensor), augment(tensor)), strict=True):
                maps = network.get_submodule(FIT)(network.features(crops, LAST))
                found.append(pooled(maps.float().cpu().numpy()))
            bar.advance(len(images))
    labels = np.tile(training.labels[rows], len(features))
    values = np.concatenate([*features[0], *features[1]])
    weights, biases = fit_logistic_regression(values, labels)
    output.weight.zero_()
    output.bias.fill_(ABSENT)
    # A cell is the mean of some of the values that the output layer reads: each has an equal part of its weight.
    channels = values.shape[1] // CELLS**2
    repeats = round((output.weight.shape[1] / channels) ** 0.5) // CELLS
    cells = torch.from_numpy(weights / repeats**2).reshape(-1, channels, CELLS, CELLS)
    spread = cells.repeat_interleave(repeats, 2).repeat_interleave(repeats, 3).flatten(1)
    present, targets = np.unique(labels, return_inverse=True)
    output.weight[torch.from_numpy(present)] = spread.to(output.weight)
    output.bias[torch.from_numpy(present)] = torch.from_numpy(biases).to(output.bias)
    logits, of_label = torch.from_numpy(values @ weights.T + biases), torch.from_numpy(targets)
    loss, error = functional.cross_entropy(logits, of_label), (logits.argmax(1) != of_label).float().mean()
    return LinearClassifier(network, len(rows), loss.item(), error.item())
