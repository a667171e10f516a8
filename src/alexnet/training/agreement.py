"""The agreement of labels with predictions, or with the labels of similar images, compared with that by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from alexnet.data.dataset import Split

BATCH_SIZE = 64  # images read at a time

# Standard deviations above chance by which labels agree with predictions or with the labels of neighbors: up to CHANCE
# it is chance, from CERTAIN it is not. Neighbors among the solar cells: 13, 20 classes of ImageNet: 18.
CHANCE = 2.0
CERTAIN = 4.0


@dataclass(frozen=True)
class Agreement:
    """The agreement of predictions and labels, compared with that of the same two in random pairing.

    Attributes
    ----------
    count, matches : int
        Pairs, and those in which prediction and label are equal.
    expected, deviation : float
        Mean and standard deviation of `matches` over all pairings.
    resolution : float
        The standard deviation of `kappa` by chance, for predictions as frequent as the labels.
    """

    count: int
    matches: int
    expected: float
    deviation: float
    resolution: float

    @property
    def score(self) -> float:
        """Standard deviations above chance; 0 where there is only one prediction."""
        return (self.matches - self.expected) / self.deviation if self.deviation else 0.0

    @property
    def share(self) -> float:
        """The share of matches, 0 to 1."""
        return self.matches / max(self.count, 1)

    @property
    def share_by_chance(self) -> float:
        """The share of matches by chance."""
        return self.expected / max(self.count, 1)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: 0 for chance, 1 when all agree."""
        return (self.matches - self.expected) / max(self.count - self.expected, 1e-12)

    def is_chance(self, kappa: float) -> bool:
        """Whether it is no better than chance, on enough images to rule out an agreement of `kappa`."""
        return self.score < CHANCE and self.kappa + 2 * self.resolution < kappa


def agreement(predicted: list[int], labeled: list[int], matches: int) -> Agreement:
    """The agreement of predictions and labels from their counts for each class, and the number of matches.

    The cells of a confusion matrix with given margins are hypergeometric; `matches` is the sum of its diagonal.
    """
    expected, deviation = _by_chance(predicted, labeled)
    most, spread = _by_chance(labeled, labeled)
    count = sum(labeled)
    resolution = spread / (count - most) if count > most else math.inf
    return Agreement(count, matches, expected, deviation, resolution)


def _by_chance(predicted: list[int], labeled: list[int]) -> tuple[float, float]:
    """Mean and standard deviation of the number of matches over all pairings of predictions and labels."""
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(labeled, dtype=np.float64)
    n = b.sum()
    if n < 2:
        return 0.0, 0.0
    both = a * b
    variance = (both * (n - a) * (n - b)).sum() + both.sum() ** 2 - (both**2).sum()
    return float(both.sum() / n), math.sqrt(variance / (n * n * (n - 1)))


def neighbors_agree(split: Split, reference: Split | None = None, images: int = 2000) -> Agreement:
    """How often an image has the label of its nearest neighbor in the split, or in `reference`.

    Near in the mean color, the contrast and the edges of the sixteen parts of an image. Of more than 20 classes the 20
    most frequent are used, of more than `images` images as many, evenly spaced.
    """
    known = split if reference is None else reference
    kept = np.argsort(known.class_counts, kind="stable")[::-1][:20]
    descriptors, labels = [], []
    for source in (known,) if reference is None else (known, split):
        chosen = np.flatnonzero(np.isin(source.labels, kept))
        chosen = chosen[evenly(len(chosen), images)]
        descriptors.append(_descriptors(source, chosen))
        labels.append(source.labels[chosen])
    if len(labels[0]) < 2:
        return agreement([0], [0], 0)
    middle, spread = descriptors[0].mean(0), descriptors[0].std(0) + 1e-6
    stored, queries = ((values - middle) / spread for values in (descriptors[0], descriptors[-1]))
    distances = (stored**2).sum(1)[None, :] - 2 * queries @ stored.T
    if reference is None:
        np.fill_diagonal(distances, np.inf)
    nearest = labels[0][distances.argmin(1)]
    classes = len(known.class_counts)
    predicted, labeled = (np.bincount(values, minlength=classes).tolist() for values in (nearest, labels[-1]))
    found = agreement(predicted, labeled, int((nearest == labels[-1]).sum()))
    # Two images that are each other's nearest are one observation, counted twice.
    return replace(found, deviation=math.sqrt(2) * found.deviation)


def _descriptors(split: Split, indices: np.ndarray) -> np.ndarray:
    """Color, contrast and edges of images in a grid of 4 × 4: (n, 128) float32."""
    rows = []
    for _, images in split.batches(indices, BATCH_SIZE):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        x = functional.adaptive_avg_pool2d(x, 64)
        gray = functional.pad(x.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
        edges = [(gray[..., :-1, 1:] - gray[..., :-1, :-1]).abs(), (gray[..., 1:, :-1] - gray[..., :-1, :-1]).abs()]
        mean, square, edge = (functional.adaptive_avg_pool2d(y, 4) for y in (x, x * x, torch.cat(edges, 1)))
        rows.append(torch.cat([mean, (square - mean * mean).clamp_min(0).sqrt(), edge], 1).flatten(1))
    return torch.cat(rows).numpy() if rows else np.zeros((0, 128), dtype=np.float32)


def evenly(count: int, limit: int) -> np.ndarray:
    """Up to `limit` of the indices 0 … count - 1, evenly spaced."""
    return np.arange(count) if count <= limit else np.arange(limit) * count // limit
