"""Where the network looks: the gradient with respect to the image, and Grad-CAM on the last convolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.data.augmentation import Preprocess
from alexnet.network.model import AlexNet
from alexnet.report.mosaic import overlay
from alexnet.report.style import MUTED, Figure, canvas, clipped, drawn, place


def image_gradient(network: AlexNet, inputs: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """How strongly each pixel moves the logit of a class: the largest |gradient| of its three colors.

    `inputs`: (N, 3, S, S) as `AlexNet.forward` takes it, for a network in evaluation mode; `classes`: one an image.
    Returns (N, S, S) float32 (Simonyan, Vedaldi and Zisserman 2014).
    """
    x = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_chosen(network(x), classes), x)
    return gradient.abs().amax(1).float()


def grad_cam(network: AlexNet, inputs: Tensor, classes: Sequence[int] | Tensor, layer: str | None = None) -> Tensor:
    """Where the maps of a layer speak for a class: their sum weighted by their mean gradients, without the negative.

    `inputs` and `classes` as for `image_gradient`; `layer`: a convolution, the last one by default. Returns (N, h, w)
    float32, the size of the layer's maps (Selvaraju et al. 2017).
    """
    layer = layer or last_convolution(network)
    with torch.no_grad():
        maps = network.features(inputs, layer)
    maps = maps.detach().requires_grad_()
    # A copy: what follows may be a non-linearity that works in place.
    logits = network.logits_from(maps.clone(), layer)
    (gradient,) = torch.autograd.grad(_chosen(logits, classes), maps)
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * maps.detach()).sum(1).clamp_min(0).float()


def last_convolution(network: AlexNet) -> str:
    """The name of the last convolution."""
    return [name for name, module in network.named_children() if isinstance(module, nn.Conv2d)][-1]


def seen(preprocess: Preprocess, images: np.ndarray) -> np.ndarray:
    """The central crop of each image, the part that the network reads: (N, crop_size, crop_size, 3) uint8."""
    offset, crop_size = (preprocess.size - preprocess.crop_size) // 2, preprocess.crop_size
    return images[:, offset : offset + crop_size, offset : offset + crop_size]


LOOKS = ("as it is read", "gradient", "Grad-CAM")


def looks(
    network: AlexNet, preprocess: Preprocess, images: np.ndarray, classes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three `LOOKS` of each image: its central crop, and over that `image_gradient` and `grad_cam` of a class.

    `images`: (N, size, size, 3) uint8; `classes`: one for each. Returns three (N, crop_size, crop_size, 3) uint8.
    """
    inputs = preprocess.center(torch.from_numpy(np.ascontiguousarray(images)).to(preprocess.mean.device))
    gradient, cam = image_gradient(network, inputs, classes), grad_cam(network, inputs, classes)
    # A few pixels of extreme gradient would leave all others dark.
    largest = torch.quantile(gradient.flatten(1), 0.995, dim=1)[:, None, None]
    gradient = (gradient / largest.clamp_min(1e-20)).clamp_max(1).pow(0.75)
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-20)
    crops = seen(preprocess, images)
    # Single pixels show on a darker ground only.
    return crops, _laid_over(crops, gradient, brightness=0.45), _laid_over(crops, cam, brightness=1.0)


@drawn
def where_it_looks(views: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """What `looks` gives, one image a row: as it is read, with the gradient, and with Grad-CAM over it.

    `titles`: words for each image.
    """
    side, gap = 1.6, 0.05
    figure, axes = canvas(0.3 + len(titles) * (side + gap), 0.4 + 3 * (side + gap))
    for column, (name, shown) in enumerate(zip(LOOKS, views, strict=True)):
        left = 0.35 + column * (side + gap)
        axes.text(left, 0.2, name, fontsize=8.5, color=MUTED)
        for row in range(len(titles)):
            place(axes, shown[row], left, 0.3 + row * (side + gap), side)
    for row, title in enumerate(titles):
        middle = 0.3 + row * (side + gap) + side / 2
        axes.text(0.2, middle, clipped(title, 28), rotation=90, ha="center", va="center", fontsize=8)
    return figure


def _chosen(logits: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """The sum over images of the logit of each one's class: no image has a part in another's gradient."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, torch.as_tensor(classes, device=logits.device)].sum()


def _laid_over(crops: np.ndarray, heat: Tensor, brightness: float) -> np.ndarray:
    """Heat (N, h, w) from 0 to 1 over crops (N, H, W, 3) uint8."""
    size = crops.shape[1:3]
    enlarged = functional.interpolate(heat[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return np.stack([overlay(p, h, brightness) for p, h in zip(crops, enlarged.cpu().numpy(), strict=True)])
