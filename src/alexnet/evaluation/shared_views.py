"""Ten views of an image without ten times the work: what they share of the first layers is computed once.

A view whose corner lies at a multiple of 8 pixels reads, of the whole image's first pooled maps, the part that begins
at an eighth of that: conv1 has stride 4, the pooling stride 2. So conv1, the normalization and the first pooling run
once on the whole image and once on its mirror image. Only where conv1's last window hangs over the edge of a view,
which is no edge of the image, the view reads zeros where the image goes on; that last row and column are its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from alexnet.data.augmentation import Preprocessing
from alexnet.network.layers import LocalResponseNorm, output_size
from alexnet.network.optimized import OptimizedNetwork

_PLACE_BY_PLACE = (nn.ReLU, nn.Tanh, nn.BatchNorm2d, LocalResponseNorm)


def can_share(network: OptimizedNetwork, preprocess: Preprocessing) -> bool:
    """Whether the corners and the center of these images share the network's first maps exactly."""
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
        and all(isinstance(layer, _PLACE_BY_PLACE) for layer in between[:-1])
        and isinstance(between[-1], nn.MaxPool2d)
        and (between[-1].kernel_size, between[-1].stride, between[-1].ceil_mode) == (3, 2, False)
        and margin > 0
        and margin % 16 == 0  # the center lies at half of it
        and preprocess.input_size in (None, preprocess.crop_size)
        and not preprocess.mean_of_center
    )


def shared_logits(
    network: OptimizedNetwork, preprocess: Preprocessing, images: Tensor, corners: Sequence[tuple[int, int]]
) -> Iterator[Tensor]:
    """The logits (N, classes) of the views with these corners, each followed by those of its mirror image.

    images: (N, size, size, 3) uint8. For what `can_share` says.
    """
    whole = dataclasses.replace(preprocess, crop_size=preprocess.size, input_size=None)
    forms = [_Whole(network, whole.crop(images, 0, 0, flipped), preprocess.crop_size) for flipped in (False, True)]
    for top, left in corners:
        for form, column in zip(forms, (left, preprocess.size - preprocess.crop_size - left), strict=True):
            yield network.above(form.view(top, column))


class _Whole:
    """The first maps of whole images, (N, 3, size, size), to be cut into views of side `crop_size`."""

    def __init__(self, network: OptimizedNetwork, images: Tensor, crop_size: int) -> None:
        self.network, self.images, self.crop_size = network, images, crop_size
        first = network.layers[0]
        assert isinstance(first, nn.Conv2d)  # for what `can_share` says
        self.windows = output_size(first, crop_size)
        self.pooled_side = (self.windows - 3) // 2 + 1
        self.last = 4 * (self.windows - 1)  # where the last window begins
        pooling_reads_it = 2 * (self.pooled_side - 1) + 2 == self.windows - 1
        self.hangs = self.last + 11 > crop_size and pooling_reads_it
        self.maps = network.first_maps(images)
        self.pooled = network.pool(self.maps)

    def view(self, top: int, left: int) -> Tensor:
        """The first pooled maps of the view at (top, left)."""
        side, pooled_top, pooled_left = self.pooled_side, top // 8, left // 8
        part = self.pooled[:, :, pooled_top : pooled_top + side, pooled_left : pooled_left + side]
        size = self.images.shape[-1]
        below, beside = (self.hangs and corner + self.crop_size < size for corner in (top, left))
        if not below and not beside:
            return part.contiguous(memory_format=torch.channels_last)
        part = part.clone(memory_format=torch.channels_last)
        crop = self.images[:, :, top : top + self.crop_size, left : left + self.crop_size]
        maps = self.maps[:, :, top // 4 : top // 4 + self.windows, left // 4 : left // 4 + self.windows]
        row, column = maps[:, :, -1:], maps[:, :, :, -1:]
        if below:
            row = self._first_maps(crop[:, :, self.last :])
        if beside:
            column = self._first_maps(crop[:, :, :, self.last :])
        # The last pooled row reads three rows of maps, the last column three columns.
        if below:
            two_rows = torch.cat([maps[:, :, -3:-1, :-1], column[:, :, -3:-1]], 3)
            part[:, :, -1:] = self._pool(torch.cat([two_rows, row], 2))
        if beside:
            two_columns = torch.cat([maps[:, :, :-1, -3:-1], row[:, :, :, -3:-1]], 2)
            part[:, :, :, -1:] = self._pool(torch.cat([two_columns, column], 3))
        return part

    def _first_maps(self, strip: Tensor) -> Tensor:
        return self.network.first_maps(strip.contiguous(memory_format=torch.channels_last))

    def _pool(self, maps: Tensor) -> Tensor:
        return self.network.pool(maps.contiguous(memory_format=torch.channels_last))
