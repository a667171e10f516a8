"""From stored pictures to what the network reads: patches, mirror images, colour, mean; a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.kernels.patches import can_cut, cut
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
        count = len(pictures)
        places = torch.tensor([[top, left]]).expand(count, 2)
        flips = torch.tensor([[mirrored, False, False]]).expand(count, 3)
        patches = self.patches(pictures, places, flips, torch.full((count,), self.scale), torch.zeros(count, 3))
        return resized(patches, self.side)

    def patches(
        self,
        pictures: Tensor,
        places: Tensor,
        flips: Tensor,
        gain: Tensor,
        shift: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """A patch of each picture, minus the mean, times `gain`, plus `shift`: (N, 3, crop, crop), channels last.

        pictures: (N, size, size, 3) uint8. The rest on the CPU: places (N, 2) int64, top and left; flips (N, 3) bool:
        mirrored across, down, then transposed; gain (N,) and shift (N, 3) float32.
        """
        middle = (self.size - self.crop) // 2
        mean_places = torch.full_like(places, middle) if self.mean_of_centre else places
        transposed = flips[:, 2]
        if can_cut(pictures, self.crop) and not (self.mean_of_centre and transposed.any()):
            values = cut(
                *(pictures, self.mean, places, mean_places, flips[:, :2], gain, shift),
                crop=self.crop,
                turn_mean=not self.mean_of_centre,
                dtype=dtype,
            )
            if transposed.any():
                values[transposed] = values[transposed].transpose(1, 2)
        else:
            device = pictures.device
            rows, columns = self._positions(places, flips, device)
            patch = pictures[torch.arange(len(pictures), device=device)[:, None, None], rows, columns].float()
            if self.mean_of_centre:
                rows, columns = self._positions(mean_places[:1], torch.zeros_like(flips[:1]), device)
            patch -= self.mean.to(device)[rows, columns]
            values = patch.mul_(gain.to(device)[:, None, None, None]).add_(shift.to(device)[:, None, None]).to(dtype)
        return values.permute(0, 3, 1, 2)

    def _positions(self, places: Tensor, flips: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row and column that each pixel of each patch is read from, each (N, crop, crop)."""
        ahead = torch.arange(self.crop, device=device)
        across, down, transposed = flips.to(device)[:, :, None].unbind(1)
        top, left = places.to(device)[:, :, None].unbind(1)
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
    colour_std: float | None = None,
    side: int | None = None,
    dtype: torch.dtype = torch.float32,
    rows: Tensor | None = None,
    count: int | None = None,
) -> Tensor:
    """A training batch: (N, size, size, 3) uint8 → (N, 3, S, S) `dtype` in channels-last memory, S = `side` or `crop`.

    Patches and mirror images are drawn from `generator` (on the CPU) once per `recipe.draw_every` pictures, colour
    once a picture; `colour_std` replaces `recipe.colour` where a schedule has changed it. Paper, section 4.1.
    Where `pictures` are `rows` of a batch of `count`, it is drawn for all, and they get what is theirs.
    """
    size, crop = preprocess.size, preprocess.crop
    count = len(pictures) if count is None else count
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
    gain, shift = contrast * preprocess.scale, shift * preprocess.scale
    places, flips = offsets[of_picture], flips[of_picture]
    if rows is not None:
        places, flips, gain, shift = places[rows], flips[rows], gain[rows], shift[rows]
    resizes = side is not None and side != crop
    whole = torch.float32 if resizes or dtype == torch.float64 else dtype
    batch = preprocess.patches(pictures, places, flips, gain, shift, whole)
    return resized(batch, side).to(dtype)


# Which of mirrored across, mirrored down and transposed a kind of symmetry draws.
_FLIPS = {"none": (False, False, False), "mirror": (True, False, False), "square": (True, True, True)}


def resized(batch: Tensor, side: int | None) -> Tensor:
    """Pictures (N, 3, H, H) at another side, antialiased; as they are for None or their own side."""
    if side is None or side == batch.shape[-1]:
        return batch
    small = functional.interpolate(batch, size=(side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)
