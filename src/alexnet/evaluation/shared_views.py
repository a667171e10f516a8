"""Ten views of an image that share the first layers.

A view whose corner lies at a multiple of 8 pixels equals, after the first pooling, a part of the whole image's feature
maps that begins at an eighth of that offset: conv1 has stride 4, the pooling stride 2. So conv1, the normalization and
the first pooling run once on the whole image and once on its horizontal flip. One thing is not shared: where conv1's
last window hangs over the edge of a view that is not an edge of the image, the view reads zeros and the image has
pixels. The last row and column of such a view are computed separately.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.views import HORIZONTAL
from alexnet.network.layers import LocalResponseNorm, output_size
from alexnet.network.optimized import OptimizedNetwork

_POINTWISE_IN_SPACE = (nn.ReLU, nn.Tanh, nn.BatchNorm2d, nn.Identity, LocalResponseNorm)


def can_share(network: OptimizedNetwork, preprocess: Preprocessing) -> bool:
    """Whether the corners and the center of an image share the first feature maps exactly.

    Parameters
    ----------
    network : OptimizedNetwork
        Its first convolution must be 11×11 with stride 4 and no padding, its first pooling 3×3 with stride 2, and the
        layers between them must act on each position alone.
    preprocess : Preprocessing
        The margin must be a multiple of 16 pixels, the crops must not be resized, and the mean must not be that of the
        center for every crop.
    """
    first, *others = network.layers
    between = []
    for layer in others:
        between.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            break
    margin = preprocess.size - preprocess.crop_size
    return (
        isinstance(first, nn.Conv2d)
        and (first.stride, first.kernel_size, first.padding) == ((4, 4), (11, 11), (0, 0))
        and all(isinstance(layer, _POINTWISE_IN_SPACE) for layer in between[:-1])
        and isinstance(between[-1], nn.MaxPool2d)
        and (between[-1].kernel_size, between[-1].stride, between[-1].ceil_mode) == (3, 2, False)
        and margin > 0
        and margin % 16 == 0  # the center lies at half the margin
        and preprocess.input_size in (None, preprocess.crop_size)
        and not preprocess.mean_of_center
    )


def shared_logits(
    network: OptimizedNetwork, preprocess: Preprocessing, images: Tensor, offsets: Sequence[tuple[int, int]]
) -> Iterator[Tensor]:
    """The logits of views at `offsets`, each followed by those of its horizontal flip.

    Parameters
    ----------
    network, preprocess
        For which `can_share` is true.
    images : Tensor
        (N, size, size, 3) uint8
    offsets : sequence of (int, int)
        Top-left corners of the views in pixels, multiples of 8.

    Yields
    ------
    Tensor
        (N, classes)
    """
    whole = dataclasses.replace(preprocess, crop_size=preprocess.size, input_size=None)
    upright, flipped = (
        _SharedMaps(network, whole.crop(images, 0, 0, flips), preprocess.crop_size) for flips in HORIZONTAL
    )
    margin = preprocess.size - preprocess.crop_size
    for top, left in offsets:
        yield network.after_first_pool(upright.pooled_view(top, left))
        yield network.after_first_pool(flipped.pooled_view(top, margin - left))


class _SharedMaps:
    """The first feature maps of whole images, (N, 3, size, size), from which views of side `crop_size` are cut."""

    def __init__(self, network: OptimizedNetwork, images: Tensor, crop_size: int) -> None:
        self.network, self.images, self.crop_size = network, images, crop_size
        first = network.layers[0]
        assert isinstance(first, nn.Conv2d)  # `can_share` has checked it
        self.map_side = output_size(first, crop_size)
        self.pooled_side = (self.map_side - 3) // 2 + 1
        self.last_window = 4 * (self.map_side - 1)  # first pixel of a view's last window
        pooled = 2 * (self.pooled_side - 1) + 2 == self.map_side - 1  # whether the pooling reads the last row at all
        self.hangs_over = self.last_window + 11 > crop_size and pooled
        self.maps = network.before_first_pool(images)
        self.pooled = network.first_pool(self.maps)

    def pooled_view(self, top: int, left: int) -> Tensor:
        """The first pooled maps of the view at (top, left) pixels."""
        side, pooled_top, pooled_left = self.pooled_side, top // 8, left // 8
        part = self.pooled[:, :, pooled_top : pooled_top + side, pooled_left : pooled_left + side]
        size = self.images.shape[-1]
        below, beside = (self.hangs_over and corner + self.crop_size < size for corner in (top, left))
        if not below and not beside:
            return part.contiguous(memory_format=torch.channels_last)
        part = part.clone(memory_format=torch.channels_last)
        crop = self.images[:, :, top : top + self.crop_size, left : left + self.crop_size]
        maps = self.maps[:, :, top // 4 : top // 4 + self.map_side, left // 4 : left // 4 + self.map_side]
        row, column = maps[:, :, -1:], maps[:, :, :, -1:]
        if below:
            row = self._maps_of(crop[:, :, self.last_window :])
        if beside:
            column = self._maps_of(crop[:, :, :, self.last_window :])
        # The last pooled row reads three rows of the feature maps, the last column three columns.
        if below:
            two_rows = torch.cat([maps[:, :, -3:-1, :-1], column[:, :, -3:-1]], 3)
            part[:, :, -1:] = self._pool(torch.cat([two_rows, row], 2))
        if beside:
            two_columns = torch.cat([maps[:, :, :-1, -3:-1], row[:, :, :, -3:-1]], 2)
            part[:, :, :, -1:] = self._pool(torch.cat([two_columns, column], 3))
        return part

    def _maps_of(self, strip: Tensor) -> Tensor:
        return self.network.before_first_pool(strip.contiguous(memory_format=torch.channels_last))

    def _pool(self, maps: Tensor) -> Tensor:
        return self.network.first_pool(maps.contiguous(memory_format=torch.channels_last))
