"""From a recipe to its list of augmentations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alexnet.data.augmentation import (
    Augmentation,
    AugmentationPipeline,
    BrightnessContrast,
    CenterCrop,
    Flip,
    PCAColor,
    Preprocessing,
    RandomCrop,
    RandomResizedCrop,
    Scale,
    SubtractMean,
    check_augmentations,
    registered_augmentation,
)
from alexnet.runs.recipe import Recipe
from alexnet.runtime.errors import UsageError


def augmentation_pipeline(
    recipe: Recipe,
    preprocessing: Preprocessing,
    eigenvectors: np.ndarray,
    eigenvalues: np.ndarray,
    color_jitter: float | None = None,
) -> AugmentationPipeline:
    """Build the list of augmentations of a recipe.

    Parameters
    ----------
    recipe : Recipe
        `augmentations` lists the ops; None: the resized crop where `min_crop_area` is below 1, then the mean, crop,
        flip, color, brightness, scale.
    preprocessing : Preprocessing
        Mean, crop size and scale.
    eigenvectors, eigenvalues : numpy.ndarray
        (3, 3) and (3,), of the RGB covariance of the training images, for `PCAColor`.
    color_jitter : float, optional
        Standard deviation of the PCA color augmentation where a schedule has changed it. Default: the recipe's.

    Raises
    ------
    UsageError
        The list has an unknown op, lacks one that every input needs, or subtracts the mean at the wrong place.
    """
    crop = {"random": RandomCrop, "center": CenterCrop}[recipe.crop_position]
    jitter = recipe.color_jitter if color_jitter is None else color_jitter
    # An op that is switched off still draws: runs that differ in one op then see the same crops, flips and colors.
    standard: dict[str, Callable[[], Augmentation]] = {
        "resized-crop": lambda: RandomResizedCrop(recipe.min_crop_area),
        "mean": lambda: SubtractMean(preprocessing.mean),
        "crop": lambda: crop(preprocessing.size, preprocessing.crop_size, recipe.images_per_draw),
        "flip": lambda: Flip(recipe.flip, recipe.images_per_draw),
        "color": lambda: PCAColor(eigenvectors, eigenvalues, jitter, recipe.color_jitter_unit),
        "brightness": lambda: BrightnessContrast(recipe.brightness),
        "scale": lambda: Scale(preprocessing.scale),
    }
    entries = recipe.augmentations
    if entries is None:
        first = ("crop", "flip", "mean") if preprocessing.mean_of_center else ("mean", "crop", "flip")
        entries = (*first, "color", "brightness", "scale")
        if recipe.min_crop_area < 1:
            entries = ("resized-crop", *entries)
    check_augmentations(entries)
    if preprocessing.mean_of_center != (entries.index("crop") < entries.index("mean")):
        place = "behind" if preprocessing.mean_of_center else "before"
        raise UsageError(f"augmentations: with mean={recipe.mean!r}, 'mean' belongs {place} 'crop'")
    return AugmentationPipeline(
        [
            standard[entry]() if isinstance(entry, str) and entry in standard else registered_augmentation(entry)
            for entry in entries
        ]
    )
