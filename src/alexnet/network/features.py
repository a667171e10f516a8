"""What a layer says of many images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from alexnet.data.augmentation import Preprocessing
from alexnet.network.model import AlexNet
from alexnet.runtime.devices import autocast

BATCH_SIZE = 64


@torch.inference_mode()
def layer_features(
    network: AlexNet,
    preprocess: Preprocessing,
    batches: Iterable[np.ndarray],
    layer: str = "fc7",
    precision: torch.dtype = torch.float32,
) -> Iterator[np.ndarray]:
    """The activations of a layer for the central view of each batch (N, size, size, 3) uint8.

    Yields what `AlexNet.features` gives, (N, units) or (N, C, H, W) float32; of fc7 these are the 4096 numbers of the
    paper's section 6.1. `network` is in evaluation mode, on the device of `preprocess.mean`.
    """
    device = preprocess.mean.device
    # One context around all batches: the weights are rounded to bfloat16 once.
    with autocast(device, precision):
        for images in batches:
            tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            yield network.features(preprocess.center(tensor), layer).float().cpu().numpy()
