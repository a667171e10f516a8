"""From stored images to what the network reads: crops, mirror images, color, mean; a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.kernels.crops import can_cut, cut
from alexnet.runs.recipe import Recipe


class Drawn(NamedTuple):
    """What is done to each image of a batch.

    places (N, 2) int64: top and left of its crop. flips (N, 3) bool: mirrored across, down, then transposed. gain (N,)
    and shift (N, 3) float32: what its pixels are multiplied by, after the mean, and what is then added to them.
    """

    places: Tensor
    flips: Tensor
    gain: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Preprocess:
    """What is done to every image, in training and after: a crop of it, minus the mean, times a scale.

    `mean`: float32 (size, size, 3), RGB 0-255. `crop_size`: side of the crop. `scale`: 1 for raw pixels.
    `input_size`: what the crop is resized to for the network; None for no resizing. The mean of a pixel is subtracted
    wherever the crop lies (paper, section 2); with `mean_of_center` that of the central crop is subtracted from every
    crop, mirrored or not, as the released code does.
    """

    mean: Tensor
    crop_size: int
    scale: float
    input_size: int | None = None
    mean_of_center: bool = False

    @property
    def size(self) -> int:
        """Side of the stored images in pixels."""
        return self.mean.shape[0]

    def crop(self, images: Tensor, top: int, left: int, flipped: bool = False) -> Tensor:
        """The crop at (top, left) of each image: (N, size, size, 3) uint8 → (N, 3, S, S) float32, channels last.

        S is `input_size`, or `crop_size` without one. `mirrored`: its mirror image.
        """
        count = len(images)
        places = torch.tensor([[top, left]]).expand(count, 2)
        flips = torch.tensor([[flipped, False, False]]).expand(count, 3)
        drawn = Drawn(places, flips, torch.full((count,), self.scale), torch.zeros(count, 3))
        return self.crops(images, drawn, self.input_size)

    def crops(self, images: Tensor, drawn: Drawn, input_size: int | None, dtype: torch.dtype = torch.float32) -> Tensor:
        """A crop of each image minus the mean, as drawn: (N, size, size, 3) uint8 → (N, 3, S, S), channels last.

        S is `input_size`, or `crop_size` for None. `drawn`: on the CPU, or beside the images.
        """
        whole = torch.float32 if dtype == torch.float64 or input_size not in (None, self.crop_size) else dtype
        return resized(self._cut(images, drawn, whole).permute(0, 3, 1, 2), input_size).to(dtype)

    def _cut(self, images: Tensor, drawn: Drawn, dtype: torch.dtype) -> Tensor:
        """(N, crop_size, crop_size, 3)"""
        turn_mean, middle = not self.mean_of_center, (self.size - self.crop_size) // 2
        mean, places, flips, gain, shift = (
            tensor.to(images.device, non_blocking=images.is_cuda) for tensor in (self.mean, *drawn)
        )
        mean_places = places if turn_mean else torch.full_like(places, middle)
        if can_cut(images, self.crop_size, flips, turn_mean):
            how = (images, mean, places, mean_places, flips, gain, shift)
            return cut(*how, crop_size=self.crop_size, turn_mean=turn_mean, dtype=dtype)
        rows, columns = self._positions(places, flips)
        crop = images[torch.arange(len(images), device=images.device)[:, None, None], rows, columns].float()
        if not turn_mean:
            rows, columns = self._positions(mean_places[:1], torch.zeros_like(flips[:1]))
        crop -= mean[rows, columns]
        return crop.mul_(gain[:, None, None, None]).add_(shift[:, None, None]).to(dtype)

    def _positions(self, places: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column that each pixel of each crop is read from, each (N, crop_size, crop_size)."""
        ahead = torch.arange(self.crop_size, device=places.device)
        across, down, transposed = flips[:, :, None].unbind(1)
        top, left = places[:, :, None].unbind(1)
        rows = (top + torch.where(down, ahead.flip(0), ahead))[:, :, None].expand(-1, -1, self.crop_size)
        columns = (left + torch.where(across, ahead.flip(0), ahead))[:, None, :].expand(-1, self.crop_size, -1)
        exchanged = transposed[:, :, None]
        return torch.where(exchanged, rows.mT, rows), torch.where(exchanged, columns.mT, columns)

    def center(self, images: Tensor) -> Tensor:
        """The central crop of each image, as `crop` gives it."""
        offset = (self.size - self.crop_size) // 2
        return self.crop(images, offset, offset)


@dataclass(frozen=True)
class Color:
    """The PCA color shift (paper, section 4.1): `[p1 p2 p3] · [a1·l1, a2·l2, a3·l3]`, a ~ N(0, std²), once an image.

    `vectors` holds the eigenvectors of the RGB covariance in its columns, `values` the eigenvalues for pixels 0-255.
    `unit` names l: "eigenvalues" as the paper prints it, for pixels of 0 to 1; "std" their square roots;
    "released-2012" the same, the image then divided by 1 + std, as the released code does.
    """

    vectors: np.ndarray
    values: np.ndarray
    unit: str = "eigenvalues"

    def shifts(self, amounts: Tensor) -> Tensor:
        """The shift of each image's RGB in units of 0-255: amounts a (N, 3) → (N, 3) float32."""
        values = np.clip(self.values, 0, None)
        # For pixels of 0 to 1 the eigenvalues are 255² times smaller, and the shift 255 times.
        length = values / 255 if self.unit == "eigenvalues" else np.sqrt(values)
        basis = torch.tensor(np.asarray(self.vectors) * length, dtype=torch.float32, device=amounts.device)
        return amounts @ basis.T

    def divisor(self, std: float) -> float:
        """What the released code divides a shifted image by, to keep its scale that of the test images."""
        return 1 + std if self.unit == "released-2012" and std else 1.0


def augment(
    images: Tensor,
    preprocess: Preprocess,
    color: Color,
    recipe: Recipe,
    generator: torch.Generator,
    input_size: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A training batch: (N, size, size, 3) uint8 → (N, 3, S, S) `dtype`, S = `input_size` or `crop_size`.

    Crops, mirror images and colors are drawn from `generator` (on the CPU). Paper, section 4.1.
    """
    return preprocess.crops(images, draw(len(images), preprocess, color, recipe, generator), input_size, dtype)


def draw(
    count: int,
    preprocess: Preprocess,
    color: Color,
    recipe: Recipe,
    generator: torch.Generator,
    color_std: float | None = None,
    rows: Tensor | None = None,
) -> Drawn:
    """What to do to the images of a training batch of `count`, or to `rows` of them, drawn for all.

    Crops and mirror images are drawn once per `recipe.images_per_draw` images, color once an image; `color_std`
    replaces `recipe.color_jitter` where a schedule has changed it.
    """
    size, crop_size = preprocess.size, preprocess.crop_size
    std = recipe.color_jitter if color_std is None else color_std
    draws = -(-count // recipe.images_per_draw)
    spread = size - crop_size + 1
    offsets = torch.randint(spread, (draws, 2), generator=generator)
    flips = torch.randint(2, (draws, 3), generator=generator).bool()
    amounts = torch.randn(count, 3, generator=generator) * std
    light = (torch.rand(count, 2, generator=generator) * 2 - 1) * recipe.brightness
    if recipe.crop_position == "center":
        offsets = torch.full_like(offsets, (size - crop_size) // 2)
    flips &= torch.tensor(_FLIPS[recipe.flip])

    of_image = torch.arange(count) // recipe.images_per_draw
    contrast, brightness = (1 + light[:, 0]) / color.divisor(std), light[:, 1] * 127.5
    shift = color.shifts(amounts) * contrast[:, None] + brightness[:, None]
    drawn = Drawn(offsets[of_image], flips[of_image], contrast * preprocess.scale, shift * preprocess.scale)
    return drawn if rows is None else Drawn(*(tensor[rows] for tensor in drawn))


# Which of mirrored across, mirrored down and transposed a kind of symmetry draws.
_FLIPS = {"none": (False, False, False), "horizontal": (True, False, False), "square": (True, True, True)}


def resized(batch: Tensor, input_size: int | None) -> Tensor:
    """Images (N, 3, H, H) at another input_size, antialiased; as they are for None or their own side."""
    if input_size is None or input_size == batch.shape[-1]:
        return batch
    small = functional.interpolate(batch, size=(input_size, input_size), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)
