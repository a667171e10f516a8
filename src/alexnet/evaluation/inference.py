"""Class probabilities of images: the softmax of a network's logits, averaged over test views."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.shared_views import can_share, shared_logits
from alexnet.evaluation.views import HORIZONTAL, VIEWS, check_views
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runtime.errors import AlexNetError


def crops(images: Tensor, preprocess: Preprocessing, views: int) -> Iterator[Tensor]:
    """The views of each image, one view of the whole batch at a time (paper, section 4.1).

    Parameters
    ----------
    images : Tensor
        (N, size, size, 3) uint8
    preprocess : Preprocessing
        Cuts and scales the crops.
    views : int
        Number of views, a key of `alexnet.evaluation.views.VIEWS`.

    Yields
    ------
    Tensor
        (N, 3, S, S) floating point: the network's input, as `Preprocessing.crop` returns it. The flips of a crop follow
        it.

    Raises
    ------
    UsageError
        If there is no set of that many views.
    """
    check_views(views)
    chosen = VIEWS[views]
    for top, left in chosen.offsets(preprocess.size, preprocess.crop_size):
        for flips in chosen.flips:
            yield preprocess.crop(images, top, left, flips)


@torch.inference_mode()
def probabilities(network: nn.Module, preprocess: Preprocessing, images: Tensor, views: int = 10) -> Tensor:
    """The probability of each class: the softmax averaged over the views (paper, section 4.1).

    Memory is that of two views of the batch.

    Parameters
    ----------
    network : Module
        In evaluation mode, on the device of `preprocess.mean`. The views of an `OptimizedNetwork` share what they can
        of the first layers.
    preprocess : Preprocessing
        Cuts and scales the crops.
    images : Tensor
        (N, size, size, 3) uint8, on any device.
    views : int
        Number of views, a key of `alexnet.evaluation.views.VIEWS`.

    Returns
    -------
    Tensor
        (N, classes) float64, on the CPU.

    Raises
    ------
    AlexNetError
        If the network's outputs contain NaN or Inf.
    UsageError
        If there is no set of that many views.
    """
    check_views(views)
    images = images.to(preprocess.mean.device, non_blocking=True)
    if VIEWS[views].flips == HORIZONTAL and isinstance(network, OptimizedNetwork) and can_share(network, preprocess):
        offsets = VIEWS[views].offsets(preprocess.size, preprocess.crop_size)
        each = shared_logits(network, preprocess, images, offsets)
    else:
        each = (network(crop) for crop in crops(images, preprocess, views))
    return _checked_softmax(torch.stack([view.float() for view in each]).cpu())


@torch.inference_mode()
def probabilities_and_features(
    network: OptimizedNetwork, preprocess: Preprocessing, images: Tensor, views: int
) -> tuple[Tensor, Tensor]:
    """The probabilities, and the features by which unknown images are recognized.

    Parameters
    ----------
    network, preprocess, images, views
        As for `probabilities`.

    Returns
    -------
    probabilities : Tensor
        (N, classes) float64, on the CPU; bitwise identical to those of `probabilities`.
    features : Tensor
        (N, units) float32, on the CPU: the input of the output layer for the center crop.
    """
    images = images.to(preprocess.mean.device, non_blocking=True)
    features = network.penultimate(preprocess.center(images)).flatten(1)
    if views == 1:
        shares = _checked_softmax(network.output_of(features).float().cpu()[None])
    else:
        shares = probabilities(network, preprocess, images, views)
    return shares, features.float().cpu()


def _checked_softmax(logits: Tensor) -> Tensor:
    """The softmax averaged over views: (views, N, classes) float32 → (N, classes) float64."""
    if not logits.isfinite().all():
        raise AlexNetError("the network's outputs contain NaN or Inf: its weights are damaged or its training diverged")
    # In float64 a probability of 1e-300 is still above 0, and the log loss of a very wrong network finite.
    return logits.double().softmax(-1).mean(0)
