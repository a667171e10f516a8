"""The crops of an image that a trained network sees, and the average of what it says about them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.shared_views import can_share, shared_logits
from alexnet.network.optimized import WorkingNetwork
from alexnet.runtime.errors import AlexNetError, UsageError

VIEWS = {1: "the center", 9: "three by three", 10: "corners, center and mirror images"}


def check_views(views: int) -> None:
    """Raise `UsageError` for a number of views that there is not."""
    if views not in VIEWS:
        there = ", ".join(f"{number} ({words})" for number, words in VIEWS.items())
        raise UsageError(f"views is {views}; there are: {there}")


def offsets(size: int, crop_size: int, views: int) -> list[tuple[int, int]]:
    """Top-left corners of the crops of side `crop_size` in an image of side `size`.

    The center for 1 view; three by three for 9; corners and center for 10.
    """
    last = size - crop_size
    center = last // 2
    # Without a margin all crops are one, and so is their average.
    if views == 1 or last == 0:
        return [(center, center)]
    if views == 9:
        return [(top, left) for top in (0, center, last) for left in (0, center, last)]
    return [(0, 0), (0, last), (last, 0), (last, last), (center, center)]


def crops(images: Tensor, preprocess: Preprocessing, views: int) -> Iterator[Tensor]:
    """The views of each image, one view of the whole batch at a time (paper, section 4.1).

    `images`: (N, size, size, 3) uint8. Yields what `Preprocessing.crop` gives: with `views` 1 the center, with 10 the
    four corners and the center, each followed by its mirror image, with 9 three by three places, as cuda-convnet tests
    on CIFAR-10. Raises `UsageError` for another number.
    """
    check_views(views)
    for top, left in offsets(preprocess.size, preprocess.crop_size, views):
        yield preprocess.crop(images, top, left)
        if views == 10:
            yield preprocess.crop(images, top, left, flipped=True)


@torch.inference_mode()
def probabilities(network: nn.Module, preprocess: Preprocessing, images: Tensor, views: int = 10) -> Tensor:
    """Probability of each class, the softmax averaged over the views (paper, section 4.1).

    `network`: in evaluation mode, on the device of `preprocess.mean`; of a `WorkingNetwork` the views share what they
    can. `images`: (N, size, size, 3) uint8, on any device. Returns (N, classes) float64 on the CPU. Memory is that of
    two views of the batch. Raises `AlexNetError` when the network's outputs are not finite.
    """
    images = images.to(preprocess.mean.device, non_blocking=True)
    if views == 10 and isinstance(network, WorkingNetwork) and can_share(network, preprocess):
        corners = offsets(preprocess.size, preprocess.crop_size, views)
        each = shared_logits(network, preprocess, images, corners)
    else:
        each = (network(crop) for crop in crops(images, preprocess, views))
    logits = torch.stack([view.float() for view in each]).cpu()
    if not logits.isfinite().all():
        raise AlexNetError("the network's outputs are not finite: its weights are not those of a sound training")
    # In float64 a probability of 1e-300 is still one, and the log-loss of a very wrong network finite.
    return logits.double().softmax(-1).mean(0)
