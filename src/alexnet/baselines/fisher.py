"""Fisher vectors: what a set of descriptors says of a mixture of Gaussians.

Perronnin, Sánchez and Mensink, "Improving the Fisher kernel for large-scale image classification" (ECCV 2010): the
gradient of the log likelihood with respect to means and standard deviations, its signed square root (power
normalization), and unit length (L2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

COMPONENTS = 64
GAUSSIANS = 256
KMEANS_ITERATIONS, ITERATIONS = 10, 25
"""Iterations of k-means, which gives the first Gaussians, and of expectation maximization."""
ROWS = 16_384
"""Descriptors of a matrix product."""


@dataclass(frozen=True)
class Mixture:
    """Principal components of the descriptors, and a mixture of Gaussians with diagonal covariance in their space.

    Parameters
    ----------
    center : Tensor
        (D,) float32, the mean descriptor.
    components : Tensor
        (D, P), the principal components, one per column.
    shares : Tensor
        (K,), the weights of the Gaussians.
    means, deviations : Tensor
        (K, P), of the Gaussians.
    """

    center: Tensor
    components: Tensor
    shares: Tensor
    means: Tensor
    deviations: Tensor

    @classmethod
    def fit(cls, descriptors: np.ndarray, gaussians: int = GAUSSIANS, seed: int = 0) -> Mixture:
        """Fit to a sample of descriptors (n, D); fewer than 32 descriptors for a Gaussian mean fewer Gaussians."""
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        pca = PCA(min(COMPONENTS, *descriptors.shape), random_state=seed).fit(descriptors)
        reduced = pca.transform(descriptors).astype(np.float32)
        count = max(1, min(gaussians, len(reduced) // 32))
        clusters = KMeans(count, n_init=1, max_iter=KMEANS_ITERATIONS, tol=0, random_state=seed).fit_predict(reduced)
        center, components = (torch.from_numpy(a.astype(np.float32)) for a in (pca.mean_, pca.components_.T))
        x, floor = torch.from_numpy(reduced), 1e-4 * float(reduced.var())

        def maximized(sums: Tensor) -> Mixture:
            zeroth, first, second = sums.split([1, *[x.shape[1]] * 2], 1)
            zeroth = zeroth.clamp_min(1e-6)
            means = first / zeroth
            deviations = ((second / zeroth - means**2).clamp_min(0) + floor).sqrt()
            return cls(center, components.contiguous(), (zeroth / zeroth.sum()).flatten(), means, deviations)

        one_hot = torch.nn.functional.one_hot(torch.from_numpy(clusters).long(), count).float()
        mixture = maximized(_sums(one_hot, x))
        for _ in range(ITERATIONS):
            parts = x.split(ROWS)
            mixture = maximized(torch.stack([_sums(mixture.posterior(part), part) for part in parts]).sum(0))
        return mixture

    @property
    def length(self) -> int:
        """Numbers of a Fisher vector: two for each component of each Gaussian."""
        return 2 * self.means.numel()

    def tensors(self) -> dict[str, Tensor]:
        """All arrays by name; `Mixture(**tensors)` is the reverse."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def statistics(self, descriptors: Tensor) -> Tensor:
        """The sums over descriptors (n, D) from which `vector` is made: (K, 1 + 2 P); sums of parts can be added."""
        x = (descriptors - self.center) @ self.components
        return _sums(self.posterior(x), x)

    def posterior(self, x: Tensor) -> Tensor:
        """The probability of each Gaussian for each row of principal components (n, P), (n, K)."""
        precision = self.deviations**-2
        # log N(x; mean, deviation) without its constant, as two matrix products
        log = x @ (self.means * precision).T - 0.5 * (x * x) @ precision.T
        log += self.shares.log() - self.deviations.log().sum(1) - 0.5 * (self.means**2 * precision).sum(1)
        return log.softmax(1)

    def gradient(self, statistics: Tensor, count: int) -> Tensor:
        """The gradient of the mean log likelihood of `count` descriptors, by the Fisher information, (2 K P,)."""
        parts = self.means.shape[1]
        zeroth, first, second = statistics.split([1, parts, parts], 1)
        mean, deviation, share = self.means, self.deviations, self.shares[:, None]
        by_mean = (first - zeroth * mean) / (deviation * share.sqrt())
        by_deviation = second - 2 * mean * first + (mean**2 - deviation**2) * zeroth
        by_deviation = by_deviation / (deviation**2 * (2 * share).sqrt())
        return torch.cat([by_mean, by_deviation]).flatten() / max(1, count)

    def vector(self, statistics: Tensor, count: int) -> Tensor:
        """The Fisher vector: the gradient with power and L2 normalization, (2 K P,) float32."""
        gradient = self.gradient(statistics, count)
        powered = gradient.sign() * gradient.abs().sqrt()
        return powered / max(float(powered.norm()), 1e-12)


def _sums(posterior: Tensor, x: Tensor) -> Tensor:
    """Of each Gaussian the sums of its posterior probability, and of x and x² weighted by it: (K, 1 + 2 P)."""
    return posterior.T @ torch.cat([torch.ones(len(x), 1), x, x * x], 1)


def pyramid(mixture: Mixture, descriptors: Tensor, heights: Tensor, strips: int) -> Tensor:
    """Fisher vectors of the whole image and of its horizontal strips, one after another and together of unit length.

    Parameters
    ----------
    mixture : Mixture
        The mixture.
    descriptors : Tensor
        (n, D) float32
    heights : Tensor
        (n,), where each descriptor lies, from 0 at the top to below 1.
    strips : int
        Number of strips.
    """
    strip = (heights * strips).long()
    counts = [int((strip == number).sum()) for number in range(strips)]
    sums = [mixture.statistics(descriptors[strip == number]) for number in range(strips)]
    whole = mixture.vector(torch.stack(sums).sum(0), sum(counts))
    parts = [mixture.vector(one, count) for one, count in zip(sums, counts, strict=True)]
    return torch.cat([whole, *parts]) / math.sqrt(1 + strips)
