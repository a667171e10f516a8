"""From stored pictures to what the network reads: patches, mirror images, colour, mean; a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.kernels.patches import can_cut, cut
from alexnet.recipe import Recipe


class Drawn(NamedTuple):
    """What is done to each picture of a batch.

    places (N, 2) int64: top and left of its patch. flips (N, 3) bool: mirrored across, down, then transposed. gain (N,)
    and shift (N, 3) float32: what its pixels are multiplied by, after the mean, and what is then added to them.
    """

    places: Tensor
    flips: Tensor
    gain: Tensor
    shift: Tensor


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
        count = len(pictures)
        places = torch.tensor([[top, left]]).expand(count, 2)
        flips = torch.tensor([[mirrored, False, False]]).expand(count, 3)
        drawn = Drawn(places, flips, torch.full((count,), self.scale), torch.zeros(count, 3))
        return self.patches(pictures, drawn, self.side)

    def patches(self, pictures: Tensor, drawn: Drawn, side: int | None, dtype: torch.dtype = torch.float32) -> Tensor:
        """A patch of each picture minus the mean, as drawn: (N, size, size, 3) uint8 → (N, 3, S, S), channels last.

        S is `side`, or `crop` for None. `drawn`: on the CPU, or beside the pictures.
        """
        whole = torch.float32 if dtype == torch.float64 or side not in (None, self.crop) else dtype
        return resized(self._cut(pictures, drawn, whole).permute(0, 3, 1, 2), side).to(dtype)

    def _cut(self, pictures: Tensor, drawn: Drawn, dtype: torch.dtype) -> Tensor:
        """(N, crop, crop, 3)"""
        turn_mean, middle = not self.mean_of_centre, (self.size - self.crop) // 2
        mean, places, flips, gain, shift = (
            tensor.to(pictures.device, non_blocking=pictures.is_cuda) for tensor in (self.mean, *drawn)
        )
        mean_places = places if turn_mean else torch.full_like(places, middle)
        if can_cut(pictures, self.crop, flips, turn_mean):
            how = (pictures, mean, places, mean_places, flips, gain, shift)
            return cut(*how, crop=self.crop, turn_mean=turn_mean, dtype=dtype)
        rows, columns = self._positions(places, flips)
        patch = pictures[torch.arange(len(pictures), device=pictures.device)[:, None, None], rows, columns].float()
        if not turn_mean:
            rows, columns = self._positions(mean_places[:1], torch.zeros_like(flips[:1]))
        patch -= mean[rows, columns]
        return patch.mul_(gain[:, None, None, None]).add_(shift[:, None, None]).to(dtype)

    def _positions(self, places: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column that each pixel of each patch is read from, each (N, crop, crop)."""
        ahead = torch.arange(self.crop, device=places.device)
        across, down, transposed = flips[:, :, None].unbind(1)
        top, left = places[:, :, None].unbind(1)
        rows = (top + torch.where(down, ahead.flip(0), ahead))[:, :, None].expand(-1, -1, self.crop)
        columns = (left + torch.where(across, ahead.flip(0), ahead))[:, None, :].expand(-1, self.crop, -1)
        exchanged = transposed[:, :, None]
        return torch.where(exchanged, rows.mT, rows), torch.where(exchanged, columns.mT, columns)

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
    side: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A training batch: (N, size, size, 3) uint8 → (N, 3, S, S) `dtype` in channels-last memory, S = `side` or `crop`.

    Patches, mirror images and colours are drawn from `generator` (on the CPU). Paper, section 4.1.
    """
    return preprocess.patches(pictures, draw(len(pictures), preprocess, colour, recipe, generator), side, dtype)


def draw(
    count: int,
    preprocess: Preprocess,
    colour: Colour,
    recipe: Recipe,
    generator: torch.Generator,
    colour_std: float | None = None,
    rows: Tensor | None = None,
) -> Drawn:
    """What to do to the pictures of a training batch of `count`, or to `rows` of them, drawn for all.

    Patches and mirror images are drawn once per `recipe.draw_every` pictures, colour once a picture; `colour_std`
    replaces `recipe.colour` where a schedule has changed it.
    """
    size, crop = preprocess.size, preprocess.crop
    std = recipe.colour if colour_std is None else colour_std
    draws = -(-count // recipe.draw_every)
    spread = size - crop + 1
    offsets = torch.randint(spread, (draws, 2), generator=generator)
    flips = torch.randint(2, (draws, 3), generator=generator).bool()
    amounts = torch.randn(count, 3, generator=generator) * std
    light = (torch.rand(count, 2, generator=generator) * 2 - 1) * recipe.light
    if recipe.views == "centre":
        offsets = torch.full_like(offsets, (size - crop) // 2)
    flips &= torch.tensor(_FLIPS[recipe.symmetries])

    of_picture = torch.arange(count) // recipe.draw_every
    contrast, brightness = (1 + light[:, 0]) / colour.divisor(std), light[:, 1] * 127.5
    shift = colour.shifts(amounts) * contrast[:, None] + brightness[:, None]
    drawn = Drawn(offsets[of_picture], flips[of_picture], contrast * preprocess.scale, shift * preprocess.scale)
    return drawn if rows is None else Drawn(*(tensor[rows] for tensor in drawn))


# Which of mirrored across, mirrored down and transposed a kind of symmetry draws.
_FLIPS = {"none": (False, False, False), "mirror": (True, False, False), "square": (True, True, True)}


def resized(batch: Tensor, side: int | None) -> Tensor:
    """Pictures (N, 3, H, H) at another side, antialiased; as they are for None or their own side."""
    if side is None or side == batch.shape[-1]:
        return batch
    small = functional.interpolate(batch, size=(side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)
