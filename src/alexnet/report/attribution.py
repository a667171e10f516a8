"""Attribution: the input gradient of a class, and Grad-CAM on the last convolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.data.augmentation import Preprocessing
from alexnet.network.layers import Convolution, ResidualBlock
from alexnet.network.model import AlexNet
from alexnet.report.mosaic import overlay
from alexnet.report.style import MUTED, Figure, canvas, drawn, fit, place

OVERLAYS = ("network input", "gradient", "Grad-CAM")


def image_gradient(network: AlexNet, inputs: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """Compute the magnitude of the gradient of a class's logit with respect to each pixel.

    Simonyan, Vedaldi and Zisserman (2014).

    Parameters
    ----------
    network
        In evaluation mode.
    inputs
        (N, 3, S, S) float, as `AlexNet.forward` takes it.
    classes
        The index of one class per image.

    Returns
    -------
    Tensor
        (N, S, S) float32: the largest absolute gradient of the three color channels.
    """
    x = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_class_logits(network(x), classes), x)
    return gradient.abs().amax(1).float()


def grad_cam(network: AlexNet, inputs: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """Compute Grad-CAM (Selvaraju et al. 2017) in the last convolution.

    Its feature maps, weighted by the mean gradient of the logit of a class, are summed; negative sums are set to 0.

    Parameters
    ----------
    network, inputs, classes
        As for `image_gradient`.

    Returns
    -------
    Tensor
        (N, h, w) float32, of the size of the layer's feature maps.
    """
    layer = last_convolution(network)
    with torch.no_grad():
        maps = network.features(inputs, layer)
    maps = maps.detach().requires_grad_()
    # A copy: the next module may be a non-linearity that works in place.
    logits = network.logits_from(maps.clone(), layer)
    (gradient,) = torch.autograd.grad(_class_logits(logits, classes), maps)
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * maps.detach()).sum(1).clamp_min(0).float()


def last_convolution(network: AlexNet) -> str:
    """Return the name of the last convolution or residual block."""
    kinds = Convolution | ResidualBlock
    return [name for name, module in network.named_children() if isinstance(module, kinds)][-1]


def center_crops(preprocess: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Return the center crop of each image, the part that the network reads: (N, crop_size, crop_size, 3) uint8."""
    offset, crop_size = (preprocess.size - preprocess.crop_size) // 2, preprocess.crop_size
    return images[:, offset : offset + crop_size, offset : offset + crop_size]


def attribution_overlays(
    network: AlexNet, preprocess: Preprocessing, images: np.ndarray, classes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the three `OVERLAYS` of each image: its center crop, and `image_gradient` and `grad_cam` over it.

    Parameters
    ----------
    network
        In evaluation mode, on the device of `preprocess.mean`.
    preprocess
        The preprocessing of the network.
    images
        (N, size, size, 3) uint8.
    classes
        The index of one class per image.

    Returns
    -------
    tuple of np.ndarray
        Three arrays (N, crop_size, crop_size, 3) uint8.
    """
    inputs = preprocess.center(torch.from_numpy(np.ascontiguousarray(images)).to(preprocess.mean.device))
    gradient, cam = image_gradient(network, inputs, classes), grad_cam(network, inputs, classes)
    # A few pixels of extreme gradient would leave all others dark.
    largest = torch.quantile(gradient.flatten(1), 0.995, dim=1)[:, None, None]
    gradient = (gradient / largest.clamp_min(1e-20)).clamp_max(1).pow(0.75)
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-20)
    crops = center_crops(preprocess, images)
    # Single pixels are only visible on a darker background.
    return crops, _overlaid(crops, gradient, brightness=0.45), _overlaid(crops, cam, brightness=1.0)


@drawn
def attribution_maps(overlays: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Draw the result of `attribution_overlays`, one row per image.

    Parameters
    ----------
    overlays
        Three arrays (N, H, W, 3) uint8: `OVERLAYS`.
    titles
        One title per image.
    """
    side, gap = 1.6, 0.05
    figure, axes = canvas(0.3 + len(titles) * (side + gap), 0.4 + 3 * (side + gap))
    for column, (name, images) in enumerate(zip(OVERLAYS, overlays, strict=True)):
        left = 0.35 + column * (side + gap)
        axes.text(left, 0.2, name, fontsize=8.5, color=MUTED)
        for row in range(len(titles)):
            place(axes, images[row], left, 0.3 + row * (side + gap), side)
    for row, title in enumerate(titles):
        middle = 0.3 + row * (side + gap) + side / 2
        axes.text(0.2, middle, fit(title, side, 8), rotation=90, ha="center", va="center", fontsize=8)
    return figure


def _class_logits(logits: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    """The sum over images of the logit of each image's class; no image contributes to another's gradient."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, torch.as_tensor(classes, device=logits.device)].sum()


def _overlaid(crops: np.ndarray, heat: Tensor, brightness: float) -> np.ndarray:
    """Heat maps (N, h, w), 0 to 1, over crops (N, H, W, 3) uint8."""
    size = crops.shape[1:3]
    enlarged = functional.interpolate(heat[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    pairs = zip(crops, enlarged.cpu().numpy(), strict=True)
    return np.stack([overlay(crop, heat_map, brightness) for crop, heat_map in pairs])
