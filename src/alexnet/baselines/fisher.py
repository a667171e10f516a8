"""Fisher vectors: what a set of descriptors says of a mixture of Gaussians.

Perronnin, Sánchez and Mensink, "Improving the Fisher kernel for large-scale image classification" (ECCV 2010): the
gradient of the log likelihood with respect to means and standard deviations, its signed square root (power
normalization), and unit length (L2).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

COMPONENTS = 64
GAUSSIANS = 256
ITERATIONS = 25
"""Most iterations of expectation maximization."""


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
        from sklearn.decomposition import PCA
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        pca = PCA(min(COMPONENTS, *descriptors.shape), random_state=seed).fit(descriptors)
        reduced = pca.transform(descriptors)
        mixture = GaussianMixture(
            max(1, min(gaussians, len(reduced) // 32)),
            covariance_type="diag",
            max_iter=ITERATIONS,
            reg_covar=1e-4 * float(reduced.var()),
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the vectors need no maximum of the likelihood
            mixture.fit(reduced)
        arrays = pca.mean_, pca.components_.T, mixture.weights_, mixture.means_, np.sqrt(mixture.covariances_)
        return cls(*(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for array in arrays))

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
        precision = self.deviations**-2
        # log N(x; mean, deviation) without its constant, as two matrix products
        log = x @ (self.means * precision).T - 0.5 * (x * x) @ precision.T
        log += self.shares.log() - self.deviations.log().sum(1) - 0.5 * (self.means**2 * precision).sum(1)
        posterior = log.softmax(1)
        ones = torch.ones(len(x), 1)
        return posterior.T @ torch.cat([ones, x, x * x], 1)

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
