"""From stored images to the network's input: augmentations as a list of small ops, and its fused form.

An augmentation is one class: `Augmentation.draw` draws its parameters for a batch from a generator on the CPU, and
`Augmentation.apply` applies them to the batch on the device. `AugmentationPipeline` is a list of them. Where the list
holds only crops, flips, the mean and per-image changes of color, as that of every recipe does, the whole list is one
pass over the pixels (`alexnet.kernels.crops`); any other list is applied op by op, which is the definition of both.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.kernels.antialias import can_scale, scaled
from alexnet.kernels.crops import can_cut, cut
from alexnet.runtime.errors import UsageError


class AugmentationParameters(NamedTuple):
    """Parameters of the fused form for a batch of N images.

    Attributes
    ----------
    corners : Tensor
        (N, 2) int64, top and left of each crop.
    flips : Tensor
        (N, 3) bool: flipped horizontally, vertically, then transposed.
    gain : Tensor
        (N,) float32, factor of the pixels after the mean is subtracted.
    shift : Tensor
        (N, 3) float32, added to the scaled pixels, for each of R, G and B.
    """

    corners: Tensor
    flips: Tensor
    gain: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Preprocessing:
    """The part that training and inference share: a crop, minus the mean, times a scale, resized to the input size.

    Attributes
    ----------
    mean : Tensor
        (size, size, 3) float32, RGB 0-255.
    crop_size : int
        Side of the crop in pixels.
    scale : float
        Factor of the pixels after the mean is subtracted; 1 for raw pixels.
    input_size : int or None
        Side that the crop is resized to for the network; None: the crop is not resized.
    mean_of_center : bool
        False: the mean is subtracted pixel by pixel where the crop lies (paper, section 2). True: the central crop of
        the mean is subtracted from every crop, flipped or not, as the released code does.
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

    def crop(
        self, images: Tensor, top: int, left: int, flips: tuple[bool, bool, bool] = (False, False, False)
    ) -> Tensor:
        """Cut the same crop from each image.

        Parameters
        ----------
        images : Tensor
            (N, size, size, 3) uint8.
        top, left : int
            Corner of the crop.
        flips : tuple of bool
            Flip the crop horizontally, vertically, then transpose it.

        Returns
        -------
        Tensor
            (N, 3, S, S) float32, channels last; S is `input_size`, or `crop_size` without one.
        """
        count = len(images)
        corners = torch.tensor([[top, left]]).expand(count, 2)
        parameters = AugmentationParameters(
            corners, torch.tensor([flips]).expand(count, 3), torch.full((count,), self.scale), torch.zeros(count, 3)
        )
        return self.crops(images, parameters, self.input_size)

    def center(self, images: Tensor) -> Tensor:
        """Cut the central crop of each image; shapes as in `crop`."""
        offset = (self.size - self.crop_size) // 2
        return self.crop(images, offset, offset)

    def crops(
        self,
        images: Tensor,
        parameters: AugmentationParameters,
        input_size: int | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Cut a crop of its own from each image: the fused form of an augmentation pipeline.

        Parameters
        ----------
        images : Tensor
            (N, size, size, 3) uint8.
        parameters : AugmentationParameters
            On the CPU or on the device of the images.
        input_size : int or None
            Side that the crops are resized to; None: `crop_size`.
        dtype : torch.dtype
            Data type of the result.

        Returns
        -------
        Tensor
            (N, 3, S, S) `dtype`, channels last.
        """
        resizes = input_size not in (None, self.crop_size)
        computed_in = torch.float32 if dtype == torch.float64 or resizes else dtype
        return resize_batch(self._cut(images, parameters, computed_in).permute(0, 3, 1, 2), input_size).to(dtype)

    def _cut(self, images: Tensor, parameters: AugmentationParameters, dtype: torch.dtype) -> Tensor:
        """(N, crop_size, crop_size, 3)"""
        turn_mean, middle = not self.mean_of_center, (self.size - self.crop_size) // 2
        mean, corners, flips, gain, shift = (
            tensor.to(images.device, non_blocking=images.is_cuda) for tensor in (self.mean, *parameters)
        )
        mean_corners = corners if turn_mean else torch.full_like(corners, middle)
        if can_cut(images, self.crop_size, flips, turn_mean):
            arguments = (images, mean, corners, mean_corners, flips, gain, shift)
            return cut(*arguments, crop_size=self.crop_size, turn_mean=turn_mean, dtype=dtype)
        rows, columns = self._positions(corners, flips)
        crop = images[torch.arange(len(images), device=images.device)[:, None, None], rows, columns].float()
        if not turn_mean:
            rows, columns = self._positions(mean_corners[:1], torch.zeros_like(flips[:1]))
        crop -= mean[rows, columns]
        return crop.mul_(gain[:, None, None, None]).add_(shift[:, None, None]).to(dtype)

    def _positions(self, corners: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column that each pixel of each crop is read from, each (N, crop_size, crop_size)."""
        ahead = torch.arange(self.crop_size, device=corners.device)
        across, down, transposed = flips[:, :, None].unbind(1)
        top, left = corners[:, :, None].unbind(1)
        rows = (top + torch.where(down, ahead.flip(0), ahead))[:, :, None].expand(-1, -1, self.crop_size)
        columns = (left + torch.where(across, ahead.flip(0), ahead))[:, None, :].expand(-1, self.crop_size, -1)
        exchanged = transposed[:, :, None]
        return torch.where(exchanged, rows.mT, rows), torch.where(exchanged, columns.mT, columns)


class Augmentation(ABC):
    """One op of an augmentation pipeline.

    Subclass it, register the class under a name (`register_augmentation`) and put the name into a recipe's
    `augmentations`. `draw` must take all its random numbers from the generator that it is given, on the CPU, so that a
    run is reproducible and a resumed run draws the same.
    """

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the parameters of a batch.

        Parameters
        ----------
        count : int
            Number of images in the batch, N.
        generator : torch.Generator
            Source of random numbers, on the CPU.

        Returns
        -------
        tuple of Tensor
            Always the same number of tensors, each with N as its first dimension; empty for an op without parameters.
        """

    @abstractmethod
    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Apply the op to a batch.

        Parameters
        ----------
        images : Tensor
            (N, H, W, 3): uint8 RGB until an op returns another data type. Must not be changed in place.
        *parameters : Tensor
            The tensors that `draw` returned, on the device of the images.

        Returns
        -------
        Tensor
            (N, H', W', 3), uint8 or float32.
        """


class ColorAugmentation(Augmentation):
    """An op that maps each pixel of an image to gain · pixel + shift; consecutive ones fuse."""

    @abstractmethod
    def coefficients(self, count: int, *parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn the parameters of a batch of `count` images into gain (N,) and shift (N, 3); None: no shift."""

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        gain, shift = self.coefficients(len(images), *parameters)
        scaled = images.float() * gain.to(images.device)[:, None, None, None]
        return scaled if shift is None else scaled + shift.to(images.device)[:, None, None]


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """A square crop at a uniformly drawn place (paper, section 4.1).

    Attributes
    ----------
    size : int
        Side of the images in pixels.
    crop_size : int
        Side of the crop in pixels.
    images_per_draw : int
        Number of consecutive images that share one place; the released code has 32.
    """

    size: int
    crop_size: int
    images_per_draw: int = 1

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        draws = -(-count // self.images_per_draw)
        corners = torch.randint(self.size - self.crop_size + 1, (draws, 2), generator=generator)
        return (_shared(corners, count, self.images_per_draw),)

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        (corners,) = parameters
        ahead = torch.arange(self.crop_size, device=images.device)
        rows, columns = (corners[:, i, None] + ahead for i in (0, 1))
        image = torch.arange(len(images), device=images.device)[:, None, None]
        return images[image, rows[:, :, None], columns[:, None, :]]


@dataclass(frozen=True)
class RandomResizedCrop(Augmentation):
    """A random rectangle of each image, resized to the size of the image (Szegedy et al. 2015, arXiv 1409.4842).

    Attributes
    ----------
    min_area : float
        Smallest share of the image's area, above 0 and at most 1; the share is uniform between it and 1.
    max_ratio : float
        Largest ratio of the two sides, at least 1; its logarithm is uniform where a rectangle of the area fits.
    """

    min_area: float
    max_ratio: float = 4 / 3

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        area, ratio, top, left = torch.rand(4, count, generator=generator, dtype=torch.float64)
        area = self.min_area + (1 - self.min_area) * area
        ratio = (self.max_ratio ** (2 * ratio - 1)).clamp(area, 1 / area)  # a rectangle that fits into the image
        height, width = (area * ratio).sqrt(), (area / ratio).sqrt()
        return (torch.stack((top * (1 - height), left * (1 - width), height, width), 1),)

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        sides = torch.tensor([*images.shape[1:3]] * 2)
        places = (parameters[0].cpu() * sides).round().long()
        starts = places[:, :2].minimum(sides[:2] - 1)  # a rectangle has at least one pixel
        rectangles = torch.cat((starts, starts + places[:, 2:].clamp(min=1)), 1).tolist()
        resized = torch.empty_like(images)
        for image, target, (top, left, bottom, right) in zip(images, resized, rectangles, strict=True):
            rectangle = image[top:bottom, left:right].permute(2, 0, 1)[None]
            if images.device.type != "cpu":
                rectangle = rectangle.float()  # PyTorch resizes uint8 on the CPU only
            whole = functional.interpolate(rectangle, size=target.shape[:2], mode="bilinear", antialias=True)[0]
            target.copy_((whole.round() if whole.is_floating_point() else whole).permute(1, 2, 0))
        return resized


@dataclass(frozen=True)
class CenterCrop(RandomCrop):
    """The central square of an image.

    It draws what `RandomCrop` draws and ignores it: the ops behind it then draw the same numbers for either crop.
    """

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        (corners,) = super().draw(count, generator)
        return (torch.full_like(corners, (self.size - self.crop_size) // 2),)


FLIPS = {"none": (False, False, False), "horizontal": (True, False, False), "square": (True, True, True)}
"""For each kind of `Flip` whether it flips horizontally, flips vertically and transposes at random."""


@dataclass(frozen=True)
class Flip(Augmentation):
    """A horizontal flip, or one of the eight symmetries of a square, each with equal probability.

    Attributes
    ----------
    kind : str
        "none", "horizontal" or "square".
    images_per_draw : int
        Number of consecutive images that share one flip.
    """

    kind: str = "horizontal"
    images_per_draw: int = 1

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        draws = -(-count // self.images_per_draw)
        flips = torch.randint(2, (draws, 3), generator=generator).bool() & torch.tensor(FLIPS[self.kind])
        return (_shared(flips, count, self.images_per_draw),)

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        across, down, transposed = parameters[0][:, :, None, None, None].unbind(1)
        images = torch.where(across, images.flip(2), images)
        images = torch.where(down, images.flip(1), images)
        return torch.where(transposed, images.transpose(1, 2), images)


@dataclass(frozen=True)
class SubtractMean(Augmentation):
    """Subtract the mean image: before a crop the mean of each pixel, behind it the central crop of the mean.

    Attributes
    ----------
    mean : Tensor
        (size, size, 3) float32, RGB 0-255.
    """

    mean: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        top, left = ((side - part) // 2 for side, part in zip(self.mean.shape[:2], (height, width), strict=True))
        return images.float() - self.mean[top : top + height, left : left + width].to(images.device)


@dataclass(frozen=True)
class PCAColor(ColorAugmentation):
    """PCA color augmentation (paper, section 4.1).

    Every pixel of an image gets `[p1 p2 p3] · [a1·l1, a2·l2, a3·l3]` added, with a ~ N(0, std²) drawn once per image.

    Attributes
    ----------
    eigenvectors : numpy.ndarray
        (3, 3), the eigenvectors p of the RGB covariance in its columns.
    eigenvalues : numpy.ndarray
        (3,), for pixels of 0 to 255.
    std : float
        Standard deviation of a; 0 switches the op off.
    unit : str
        l: "eigenvalues", as the paper prints it, for pixels of 0 to 1; "std", their square roots; "released-2012", the
        same with the image then divided by 1 + std, as the released code does.
    """

    eigenvectors: np.ndarray
    eigenvalues: np.ndarray
    std: float = 0.1
    unit: str = "eigenvalues"

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(count, 3, generator=generator) * self.std,)

    def coefficients(self, count: int, *parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        shift = self.shifts(parameters[0])
        # The released code divides, so that training images keep the scale of the test images.
        divisor = 1 + self.std if self.unit == "released-2012" and self.std else 1.0
        gain = torch.ones(count, device=shift.device) / divisor
        return gain, shift * gain[:, None]

    def shifts(self, amounts: Tensor) -> Tensor:
        """Return the shift of each image's RGB in units of 0-255 (N, 3) float32 for the drawn a (N, 3)."""
        values = np.clip(self.eigenvalues, 0, None)
        # For pixels of 0 to 1 the eigenvalues are 255² times smaller, and the shift 255 times.
        length = values / 255 if self.unit == "eigenvalues" else np.sqrt(values)
        basis = torch.tensor(np.asarray(self.eigenvectors) * length, dtype=torch.float32, device=amounts.device)
        return amounts @ basis.T


@dataclass(frozen=True)
class BrightnessContrast(ColorAugmentation):
    """Brightness and contrast jitter, drawn once per image.

    Attributes
    ----------
    amount : float
        Largest relative change: contrast is multiplied by 1 ± amount, brightness shifted by ± amount of half the range
        of a pixel. 0 switches the op off.
    """

    amount: float = 0.05

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ((torch.rand(count, 2, generator=generator) * 2 - 1) * self.amount,)

    def coefficients(self, count: int, *parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        contrast, brightness = parameters[0].unbind(1)
        return 1 + contrast, (brightness * 127.5)[:, None].expand(count, 3)


@dataclass(frozen=True)
class Scale(ColorAugmentation):
    """Multiply all pixels by `factor`."""

    factor: float

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def coefficients(self, count: int, *parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.full((count,), self.factor), None


def _shared(draws: Tensor, count: int, images_per_draw: int) -> Tensor:
    """One row of `draws` for each of `count` images."""
    return draws if images_per_draw == 1 else draws[torch.arange(count) // images_per_draw]


class AugmentationPipeline:
    """A list of augmentations, applied to whole batches.

    Parameters
    ----------
    augmentations : sequence of Augmentation
        In the order in which they draw and are applied.
    fuse : bool
        Use the fused form where the list allows it; False applies the ops one by one.
    """

    def __init__(self, augmentations: Sequence[Augmentation], *, fuse: bool = True) -> None:
        self.augmentations = tuple(augmentations)
        # A resized crop at the start is an op of its own; the others are fused behind it.
        start = 1 if self.augmentations and type(self.augmentations[0]) is RandomResizedCrop else 0
        self._fused = _fused_form(self.augmentations[start:]) if fuse else None
        self._alone = self.augmentations if self._fused is None else self.augmentations[:start]
        self._sizes = [len(op.draw(1, torch.Generator())) for op in self._alone]

    @property
    def is_fused(self) -> bool:
        """Whether the list, except for a resized crop at its start, is applied as one pass over the pixels."""
        return self._fused is not None

    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        input_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw parameters and apply them: `draw`, then `apply`."""
        return self.apply(images, self.draw(len(images), generator), input_size, dtype)

    def draw(self, count: int, generator: torch.Generator, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Draw the parameters of a batch.

        Parameters
        ----------
        count : int
            Number of images in the whole batch.
        generator : torch.Generator
            Source of random numbers, on the CPU.
        rows : Tensor, optional
            Indices of the images whose parameters are returned; they are drawn for all. Default: all.

        Returns
        -------
        tuple of Tensor
            On the CPU, a fixed number of tensors, for `apply`: those of the ops that are applied one by one, then
            `AugmentationParameters` of the fused ones.
        """
        drawn = [op.draw(count, generator) for op in self.augmentations]
        alone = len(self._alone)
        tensors = tuple(itertools.chain.from_iterable(drawn[:alone]))
        if self._fused is not None:
            tensors += _fused_parameters(self.augmentations[alone:], drawn[alone:], count)
        return tensors if rows is None else tuple(tensor[rows] for tensor in tensors)

    def apply(
        self,
        images: Tensor,
        parameters: Sequence[Tensor],
        input_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Apply drawn parameters.

        Parameters
        ----------
        images : Tensor
            (N, size, size, 3) uint8.
        parameters : sequence of Tensor
            The result of `draw`, on the CPU or on the device of the images.
        input_size : int, optional
            Side that the result is resized to. Default: as the ops leave it.
        dtype : torch.dtype
            Data type of the result.

        Returns
        -------
        Tensor
            (N, 3, S, S) `dtype`, channels last.
        """
        rest = iter(parameters)
        for op, size in zip(self._alone, self._sizes, strict=True):
            own = (tensor.to(images.device, non_blocking=images.is_cuda) for tensor in itertools.islice(rest, size))
            images = op.apply(images, *own)
        if self._fused is not None:
            return self._fused.crops(images, AugmentationParameters(*rest), input_size, dtype)
        return resize_batch(images.float().contiguous().permute(0, 3, 1, 2), input_size).to(dtype)


def _fused_form(augmentations: tuple[Augmentation, ...]) -> Preprocessing | None:
    """The preprocessing whose `crops` has the effect of the list; None where there is none.

    The list must be the mean and a crop, or a crop and the central crop of the mean; then or between them at most one
    flip; then changes of color.
    """
    exact = [type(op) for op in augmentations]  # a subclass may do anything
    geometry = [kind for kind in exact if kind in (RandomCrop, CenterCrop, Flip, SubtractMean)]
    rest = augmentations[len(geometry) :]
    if exact[: len(geometry)] != geometry or not all(isinstance(op, ColorAugmentation) for op in rest):
        return None
    if any(type(op).apply is not ColorAugmentation.apply for op in rest):
        return None
    order = ["crop" if kind in (RandomCrop, CenterCrop) else kind.__name__ for kind in geometry]
    mean_first = order in (["SubtractMean", "crop"], ["SubtractMean", "crop", "Flip"])
    if not mean_first and order not in (["crop", "SubtractMean"], ["crop", "Flip", "SubtractMean"]):
        return None
    crop = next(op for op in augmentations if isinstance(op, RandomCrop))
    mean = next(op.mean for op in augmentations if isinstance(op, SubtractMean))
    return Preprocessing(mean, crop.crop_size, 1.0, mean_of_center=not mean_first)


def _fused_parameters(
    augmentations: tuple[Augmentation, ...], drawn: list[tuple[Tensor, ...]], count: int
) -> AugmentationParameters:
    corners, flips = torch.zeros(count, 2, dtype=torch.int64), torch.zeros(count, 3, dtype=torch.bool)
    gain: Tensor | None = None
    shift: Tensor | None = None
    for op, parameters in zip(augmentations, drawn, strict=True):
        if isinstance(op, RandomCrop):
            (corners,) = parameters
        elif isinstance(op, Flip):
            (flips,) = parameters
        elif isinstance(op, ColorAugmentation):
            factor, offset = op.coefficients(count, *parameters)
            gain = factor if gain is None else gain * factor
            before = None if shift is None else shift * factor[:, None]
            shift = offset if before is None else before if offset is None else before + offset
    gain = torch.ones(count) if gain is None else gain
    shift = torch.zeros(count, 3) if shift is None else shift
    return AugmentationParameters(corners, flips, gain, shift)


AugmentationEntry = str | tuple[str, Mapping[str, Any]]
"""An op in a recipe's list: a name, or a name with the keyword arguments of the registered class."""

STANDARD_AUGMENTATIONS = ("resized-crop", "mean", "crop", "flip", "color", "brightness", "scale")
"""Ops that a recipe knows by name, with parameters of its own: `alexnet.training.input_pipeline` builds them."""

_registered: dict[str, Callable[..., Augmentation]] = {}


def register_augmentation(name: str, augmentation: Callable[..., Augmentation]) -> None:
    """Make an augmentation available to recipes by name.

    Parameters
    ----------
    name : str
        Name for a recipe's `augmentations`, recorded in `config.json`.
    augmentation : callable
        Class, or function, that returns the op; it is called with the keyword arguments of the recipe's entry.

    Raises
    ------
    UsageError
        The name belongs to another augmentation.
    """
    if name in STANDARD_AUGMENTATIONS or _registered.get(name, augmentation) is not augmentation:
        raise UsageError(f"an augmentation {name!r} exists already; register yours under another name")
    _registered[name] = augmentation


def registered_augmentation(entry: AugmentationEntry) -> Augmentation:
    """Build a registered augmentation from its entry in a recipe.

    Raises
    ------
    UsageError
        The name is not registered, or the keyword arguments are not those of the class.
    """
    name, options = (entry, {}) if isinstance(entry, str) else entry
    if name not in _registered:
        known = (*STANDARD_AUGMENTATIONS, *_registered)
        raise UsageError(
            f"no augmentation {name!r}; there are: {', '.join(known)}; "
            "one of your own is registered first: alexnet.register_augmentation(name, class)"
        )
    try:
        return _registered[name](**options)
    except TypeError as error:
        raise UsageError(f"augmentation {name!r} can't be made with {dict(options)}: {error}") from error


def check_augmentations(entries: Sequence[AugmentationEntry]) -> None:
    """Check a recipe's list of augmentations.

    Raises
    ------
    UsageError
        A name is unknown, or "crop", "mean" or "scale", which every network's input needs, is not there exactly once.
    """
    for entry in entries:
        if entry not in STANDARD_AUGMENTATIONS:
            registered_augmentation(entry)
    for name in ("mean", "crop", "scale"):
        if (times := list(entries).count(name)) != 1:
            raise UsageError(f"augmentations have {name!r} {times} times; every input needs it exactly once")


def resize_batch(batch: Tensor, input_size: int | None) -> Tensor:
    """Resize images (N, 3, H, H) to (N, 3, input_size, input_size), bilinear and antialiased; None keeps their size."""
    if input_size is None or input_size == batch.shape[-1]:
        return batch
    if can_scale(batch):
        return scaled(batch, input_size)
    small = functional.interpolate(batch, size=(input_size, input_size), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)
