"""The activations of a layer for many images."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from alexnet.data.augmentation import Preprocessing
from alexnet.network.frozen import FrozenNetwork
from alexnet.network.model import AlexNet
from alexnet.runtime.devices import autocast

BATCH_SIZE = 64
"""Images of a batch, where the caller has no reason for another size."""


@torch.inference_mode()
def layer_features(
    network: AlexNet,
    preprocess: Preprocessing,
    batches: Iterable[np.ndarray],
    layer: str | None = None,
    precision: torch.dtype = torch.float32,
) -> Iterator[np.ndarray]:
    """The activations of a layer for the center crop of images.

    Those of the default layer are computed by a `FrozenNetwork` where there are several batches, and are the same up to
    rounding.

    Parameters
    ----------
    network : AlexNet
        In evaluation mode, on the device of `preprocess.mean`.
    preprocess : Preprocessing
        Cuts and scales the center crop.
    batches : iterable of ndarray
        (N, size, size, 3) uint8
    layer : str or None
        A name of `network.layer_names()`; by default `network.feature_layer`, flattened: fc7 of the paper's network,
        whose 4096 activations section 6.1 compares.
    precision : torch.dtype
        float32 or bfloat16.

    Yields
    ------
    ndarray
        (N, units) or (N, C, H, W) float32 of each batch, as `AlexNet.features` returns it; (N, units) by default.
    """
    device = preprocess.mean.device
    cut = (preprocess.center(torch.from_numpy(np.ascontiguousarray(images)).to(device)) for images in batches)
    first = list(itertools.islice(cut, 2))
    crops = itertools.chain(first, cut)
    several = layer is None and len(first) > 1
    # The network of a server that computes for another thread is no AlexNet, and computes in small steps.
    if several and isinstance(network, AlexNet) and network.feature_layer != network.output_layer:
        frozen = FrozenNetwork(network, precision)
        for crop in crops:
            yield frozen.penultimate(crop).flatten(1).float().cpu().numpy()
        return
    # One context around all batches: the weights are rounded to bfloat16 once.
    with autocast(device, precision):
        for crop in crops:
            activations = network.features(crop, layer or network.feature_layer).float()
            yield (activations if layer else activations.flatten(1)).cpu().numpy()
