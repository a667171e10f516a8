"""From stored pictures to what the network reads: patches, mirror images, colour, mean; a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.recipe import Recipe


@dataclass(frozen=True)
class Preprocess:
    """What is done to every picture, in training and after: a patch of it, minus the mean, times a scale.

    `mean`: float32 (size, size, 3), RGB 0-255. `crop`: side of the patch. `scale`: 1 for the paper's raw pixels.
    `side`: what the patch is resized to for the network; None for no resizing. The mean of a pixel is subtracted
    wherever the patch lies (paper, section 2); with `mean_of_centre` that of the central patch is subtracted from every
    patch, mirrored or not, as the released code does.
    """

    mean: Tensor
    crop: int
    scale: float
    side: int | None = None
    mean_of_centre: bool = False

    @property
    def size(self) -> int:
        """Side of the stored pictures in pixels."""
        return self.mean.shape[0]

    def patch(self, pictures: Tensor, top: int, left: int, mirrored: bool = False) -> Tensor:
        """The patch at (top, left) of each picture: (N, size, size, 3) uint8 → (N, 3, S, S) float32, channels last.

        S is `side`, or `crop` without one. `mirrored`: its mirror image.
        """
        patch = self.centred(pictures, top, left, (mirrored, False, False), "mirror")
        return resized(patch.mul_(self.scale).permute(0, 3, 1, 2), self.side)

    def centred(self, pictures: Tensor, top: int, left: int, flips: Sequence[bool], symmetries: str) -> Tensor:
        """A patch under one of its symmetries, minus the mean: (N, size, size, 3) uint8 → (N, crop, crop, 3) floats."""
        middle = (self.size - self.crop) // 2
        mean_top, mean_left = (middle, middle) if self.mean_of_centre else (top, left)
        mean = self.mean[mean_top : mean_top + self.crop, mean_left : mean_left + self.crop].to(pictures.device)
        patch = _turned(pictures[:, top : top + self.crop, left : left + self.crop], flips, symmetries)
        return patch - (mean if self.mean_of_centre else _turned(mean[None], flips, symmetries)[0])

    def centre(self, pictures: Tensor) -> Tensor:
        """The central patch of each picture, as `patch` gives it."""
        offset = (self.size - self.crop) // 2
        return self.patch(pictures, offset, offset)


@dataclass(frozen=True)
class Colour:
    """The PCA colour shift (paper, section 4.1): `[p1 p2 p3] · [a1·l1, a2·l2, a3·l3]`, a ~ N(0, std²), once a picture.

    `vectors` holds the eigenvectors of the RGB covariance in its columns, `values` the eigenvalues for pixels 0-255.
    `unit` names l: "eigenvalues" as the paper prints it, for pixels of 0 to 1; "deviations" their square roots;
    "released-2012" the same, the picture then divided by 1 + std, as the released code does.
    """

    vectors: np.ndarray
    values: np.ndarray
    unit: str = "eigenvalues"

    def shifts(self, amounts: Tensor) -> Tensor:
        """The shift of each picture's RGB in units of 0-255: amounts a (N, 3) → (N, 3) float32."""
        values = np.clip(self.values, 0, None)
        # For pixels of 0 to 1 the eigenvalues are 255² times smaller, and the shift 255 times.
        length = values / 255 if self.unit == "eigenvalues" else np.sqrt(values)
        basis = torch.tensor(np.asarray(self.vectors) * length, dtype=torch.float32, device=amounts.device)
        return amounts @ basis.T

    def divisor(self, std: float) -> float:
        """What the released code divides a shifted picture by, to keep its scale that of the test pictures."""
        return 1 + std if self.unit == "released-2012" and std else 1.0


def augment(
    pictures: Tensor,
    preprocess: Preprocess,
    colour: Colour,
    recipe: Recipe,
    generator: torch.Generator,
    colour_std: float | None = None,
    side: int | None = None,
) -> Tensor:
    """A training batch: (N, size, size, 3) uint8 → (N, 3, S, S) float32 in channels-last memory, S = `side` or `crop`.

    Patches and mirror images are drawn from `generator` (on the CPU) once per `recipe.draw_every` pictures, colour
    once a picture; `colour_std` replaces `recipe.colour` where a schedule has changed it. Paper, section 4.1.
    """
    count, size, crop = len(pictures), preprocess.size, preprocess.crop
    std = recipe.colour if colour_std is None else colour_std
    draws = -(-count // recipe.draw_every)
    spread = size - crop + 1
    offsets = torch.randint(spread, (draws, 2), generator=generator)
    flips = torch.randint(2, (draws, 3), generator=generator).bool()
    amounts = torch.randn(count, 3, generator=generator) * std
    light = 1 + (torch.rand(count, 2, generator=generator) * 2 - 1) * recipe.light
    if recipe.views == "centre":
        offsets = torch.full_like(offsets, (size - crop) // 2)

    batch = torch.empty(count, crop, crop, 3, device=pictures.device)
    shifts = colour.shifts(amounts).to(pictures.device)
    for draw in range(draws):
        rows = slice(draw * recipe.draw_every, (draw + 1) * recipe.draw_every)
        top, left = offsets[draw].tolist()
        batch[rows] = preprocess.centred(pictures[rows], top, left, flips[draw].tolist(), recipe.symmetries)
    if std:
        batch += shifts[:, None, None, :]
        batch /= colour.divisor(std)
    if recipe.light:
        contrast, brightness = light.to(pictures.device)[:, :, None, None, None].unbind(1)
        batch.mul_(contrast).add_((brightness - 1) * 127.5)
    return resized(batch.mul_(preprocess.scale).permute(0, 3, 1, 2), side)


def resized(batch: Tensor, side: int | None) -> Tensor:
    """Pictures (N, 3, H, H) at another side, antialiased; as they are for None or their own side."""
    if side is None or side == batch.shape[-1]:
        return batch
    small = functional.interpolate(batch, size=(side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def _turned(patch: Tensor, flips: Sequence[bool], symmetries: str) -> Tensor:
    """The patch (N, S, S, 3) mirrored, or under one of the eight symmetries of a square."""
    if symmetries == "none":
        return patch
    across, down, transposed = flips
    if across:
        patch = patch.flip(2)
    if symmetries == "square":
        if down:
            patch = patch.flip(1)
        if transposed:
            patch = patch.transpose(1, 2)
    return patch
