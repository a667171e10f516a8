"""What pictures are compared by: the 4096 activations of fc7 (paper, section 6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from alexnet.data.augment import Preprocess
from alexnet.model import AlexNet
from alexnet.training.precision import autocast

BATCH_SIZE = 64


@torch.inference_mode()
def fc7_features(
    network: AlexNet,
    preprocess: Preprocess,
    batches: Iterable[np.ndarray],
    precision: torch.dtype = torch.float32,
) -> Iterator[np.ndarray]:
    """The activations of fc7 for the central view of each batch (N, size, size, 3) uint8: (N, 4096) float32."""
    device = preprocess.mean.device
    # One context around all batches: the weights are rounded to bfloat16 once.
    with autocast(device, precision):
        for pictures in batches:
            tensor = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
            yield network.features(preprocess.centre(tensor), "fc7").float().cpu().numpy()
