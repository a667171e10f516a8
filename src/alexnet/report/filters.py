"""First-layer kernels, and the feature maps of any layer for an image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from alexnet.network.model import AlexNet, towers_of
from alexnet.report.mosaic import colored, mosaic
from alexnet.report.style import MUTED, Figure, bare, drawn, new

COLUMNS = 16  # as in the paper's figure 3
KERNEL_PIXELS = 44  # side of an enlarged kernel


@drawn
def first_layer_kernels(network: AlexNet) -> Figure:
    """Draw the first-layer kernels (paper, figure 3), the first tower above the second.

    Gray is zero; each kernel is scaled to its own largest weight.
    """
    tiles, towers = kernel_tiles(network), towers_of(network)
    channels = network.get_parameter(f"{network.first_convolution}.weight").shape[1]
    parts = np.split(tiles, towers)
    enlarge = max(1, KERNEL_PIXELS // tiles.shape[1])
    images = [mosaic(part, COLUMNS, gap=4, enlarge=enlarge) for part in parts]
    height = 5.9 * images[0].shape[0] / images[0].shape[1]
    figure = new(towers * (height + 0.3) + 0.1, width=6)
    for axes, image, number in zip(figure.subplots(towers, squeeze=False)[:, 0], images, range(towers), strict=True):
        bare(axes).imshow(image)
        count = len(tiles) // towers
        name = f"Tower {number + 1}" if towers > 1 else "First layer"
        side = tiles.shape[1]
        axes.set_title(f"{name}: {count} kernels of {side}×{side}×{channels}", fontsize=8)
    return figure


def kernel_tiles(network: AlexNet) -> np.ndarray:
    """Return the first-layer kernels as images: see `tiles_of`."""
    weight = network.get_parameter(f"{network.first_convolution}.weight")
    return tiles_of(weight.detach())


def tiles_of(weight: Tensor) -> np.ndarray:
    """Convert kernels (n, 3 or 1, h, w) to images (n, h, w, 3) uint8: gray is zero, each scaled to its largest."""
    weight = weight.float().cpu().expand(-1, 3, -1, -1)
    scaled = 0.5 + 0.5 * weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return (scaled.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


@drawn
def feature_maps(network: AlexNet, inputs: Tensor, layer: str) -> Figure:
    """Draw all feature maps of a layer for one image, each scaled to its own largest value, one tower per block.

    A fully connected layer is drawn as one square of its units, scaled to the largest.

    Parameters
    ----------
    network
        In evaluation mode.
    inputs
        (1, 3, S, S) float, as `AlexNet.forward` takes it.
    layer
        Name of a layer.

    Raises
    ------
    UsageError
        The network has no such layer.
    """
    with torch.inference_mode():
        maps = network.features(inputs, layer)[0].float().cpu().numpy()
    towers = towers_of(network)
    if maps.ndim == 1:
        side = math.ceil(math.sqrt(len(maps)))
        square = np.zeros(side * side, dtype=np.float32)
        square[: len(maps)] = maps
        return _squares([colored(scaled(square.reshape(1, side, side)))[0]], f"{layer}: {len(maps):,} units", 3.2)
    count, height, width = maps.shape
    tiles = colored(scaled(maps))
    each = count // towers
    columns = COLUMNS if each <= 128 else 24 if each == 192 else 32
    enlarge = max(1, round(640 / columns / width))
    parts = [mosaic(part, columns, gap=max(1, enlarge), enlarge=enlarge) for part in np.split(tiles, towers)]
    return _squares(parts, f"{layer}: {count} feature maps of {height}×{width}", 6)


def _squares(images: list[np.ndarray], title: str, width: float) -> Figure:
    height = width * images[0].shape[0] / images[0].shape[1]
    towers = len(images)
    figure = new(towers * (height + 0.12) + 0.3, width)
    for number, (axes, image) in enumerate(
        zip(figure.subplots(towers, squeeze=False)[:, 0], images, strict=True), start=1
    ):
        bare(axes).imshow(image)
        if number == 1:
            axes.set_title(title, fontsize=8)
        if towers > 1:
            axes.set_ylabel(f"tower {number}", fontsize=7, color=MUTED)
    return figure


def scaled(maps: np.ndarray) -> np.ndarray:
    """Scale each feature map (n, …) from [0, largest] to [0, 1]; with negative values from [smallest, largest]."""
    each = tuple(range(1, maps.ndim))
    low = np.minimum(maps.min(axis=each, keepdims=True), 0)
    span = maps.max(axis=each, keepdims=True) - low
    return (maps - low) / np.maximum(span, 1e-12)
