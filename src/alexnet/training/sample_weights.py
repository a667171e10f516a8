"""Weighted training targets: how much each image counts, and the probabilities of its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Split
from alexnet.runs.recipe import Recipe
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice

Targets = Callable[[np.ndarray], Tensor]
"""Maps indices of images (n,) to weighted targets (n, classes) float64: a weight times the probabilities."""


def training_targets(split: Split, recipe: Recipe, classes: Sequence[str]) -> Targets | None:
    """The weighted targets of training images; None where all count alike and have certain labels.

    The weight of an image is that of the dataset times that of its class, divided by the mean over the images that an
    epoch is expected to have: the mean loss of an epoch is the weighted mean, and that of a batch is not biased.

    Raises
    ------
    AlexNetError
        When no image has a weight above 0.
    """
    if split.weights is None and split.targets is None and recipe.class_weights == "none":
        return None
    weights = np.ones(len(split)) if split.weights is None else split.weights
    counts = np.array(split.class_counts, dtype=np.float64)
    if recipe.class_weights == "balanced":
        of_class = np.bincount(split.labels, weights, len(counts))
        weights = weights / np.where(of_class > 0, of_class, 1.0)[split.labels]
    elif not isinstance(recipe.class_weights, str):
        of_name = dict(recipe.class_weights)
        weights = weights * np.array([of_name[name] for name in classes])[split.labels]
    share = np.full(len(split), 1 / len(split))  # of an image in an epoch
    if recipe.sampler == "balanced":
        share = 1 / (np.count_nonzero(counts) * counts[split.labels])
    mean = float((weights * share).sum())
    if not mean > 0:
        raise AlexNetError(f"every image of split {split.name!r} has the weight 0: give some of them a weight above 0")
    return weighted_targets(split, weights / mean, recipe.label_smoothing)


def check_class_weights(recipe: Recipe, classes: Sequence[str]) -> None:
    """Raise `UsageError` unless given class weights are those of the classes of a dataset."""
    if isinstance(recipe.class_weights, str):
        return
    given = [name for name, _ in recipe.class_weights]
    for name in classes:
        if name not in given:
            raise UsageError(f"class_weights has no weight for class {name!r}; give one for each class")
    for name in given:
        check_choice(name, classes, "class of class_weights:")


def class_masses(split: Split, recipe: Recipe, targets: Targets | None) -> list[float]:
    """How much each class counts in the loss of an epoch: its number of images, where nothing is weighted."""
    if targets is None and recipe.sampler == "random":
        return list(map(float, split.class_counts))
    counts = np.array(split.class_counts, dtype=np.float64)
    share = np.ones(len(split)) if recipe.sampler == "random" else 1 / counts[split.labels]
    if targets is None:
        return np.bincount(split.labels, share, len(counts)).tolist()
    masses = np.zeros(len(counts))
    for start in range(0, len(split), 4096):
        indices = np.arange(start, min(start + 4096, len(split)))
        masses += share[indices] @ targets(indices).numpy()
    return masses.tolist()


def described(split: Split) -> str:
    """A line about the weights and soft labels that a training uses; empty where the dataset has none."""
    known = {"weights": split.weights, "soft labels": split.targets}
    found = " and ".join(name for name, values in known.items() if values is not None)
    return f"the loss uses the {found} of the images; error rates and validation do not" if found else ""


def weighted_targets(split: Split, weights: np.ndarray, label_smoothing: float = 0.0) -> Targets:
    """Targets with the given weights (len(split),), and the soft labels of the split where it has them."""
    classes = len(split.class_counts)
    labels, soft = split.labels, split.targets

    def targets(indices: np.ndarray) -> Tensor:
        if soft is None:
            probabilities = np.zeros((len(indices), classes))
            probabilities[np.arange(len(indices)), labels[indices]] = 1.0
        else:
            probabilities = soft[indices].astype(np.float64)
        probabilities = (1 - label_smoothing) * probabilities + label_smoothing / classes
        return torch.from_numpy(weights[indices, None] * probabilities)

    return targets
