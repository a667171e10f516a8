"""Hand-made features of prepared images: HOG, and Fisher vectors of dense SIFT descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alexnet.baselines.fisher import Mixture, pyramid
from alexnet.data.dataset import Split
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import progress

SAMPLED_IMAGES, SAMPLED_DESCRIPTORS = 500, 200
"""Training images, and descriptors of each, to which principal components and Gaussians are fitted."""
STRIPS = 3


class Features(Protocol):
    """Turns an image into a vector of unit length."""

    @property
    def length(self) -> int:
        """Numbers of a vector."""

    def of(self, image: np.ndarray) -> np.ndarray:
        """The vector (length,) float32 of an image (size, size, 3) uint8."""

    def tensors(self) -> dict[str, Tensor]:
        """The fitted arrays by name; `restore_features` reads them."""


def fit_features(kind: str, split: Split, seed: int) -> Features:
    """The features of a name in `FEATURES`, fitted to the images of a split where there is something to fit."""
    return SiftFisher.fit(split, seed) if kind == "sift-fisher" else Hog(split.size)


def restore_features(kind: str, size: int, tensors: Mapping[str, Tensor]) -> Features:
    """The reverse of `Features.tensors`."""
    return SiftFisher(size, Mixture(**tensors)) if kind == "sift-fisher" else Hog(size)


class Hog:
    """Histograms of oriented gradients (Dalal and Triggs 2005): 16 × 16 cells of 9 orientations, blocks of 2 × 2 cells.

    Parameters
    ----------
    size : int
        Side of the images in pixels.
    """

    def __init__(self, size: int) -> None:
        cell = max(4, size // 16)
        self.side = size // cell * cell
        if self.side < 2 * cell:
            raise AlexNetError(f"HOG needs images of at least 8 pixels; these have {size}")
        self.geometry = (self.side,) * 2, (2 * cell,) * 2, (cell,) * 2, (cell,) * 2, 9

    @cached_property
    def _descriptor(self) -> Any:
        return opencv().HOGDescriptor(*self.geometry)

    @property
    def length(self) -> int:
        return int(self._descriptor.getDescriptorSize())

    def of(self, image: np.ndarray) -> np.ndarray:
        blocks = self._descriptor.compute(np.ascontiguousarray(image[: self.side, : self.side])).ravel()
        return blocks / max(float(np.linalg.norm(blocks)), 1e-12)

    def tensors(self) -> dict[str, Tensor]:
        return {}


class SiftFisher:
    """Fisher vectors of dense SIFT descriptors, of the whole image and of three horizontal strips.

    Parameters
    ----------
    size : int
        Side of the images in pixels.
    mixture : Mixture
        Principal components and Gaussians.
    """

    def __init__(self, size: int, mixture: Mixture) -> None:
        self.mixture, self._sift = mixture, DenseSift(size)

    @classmethod
    def fit(cls, split: Split, seed: int) -> SiftFisher:
        """Fit principal components and Gaussians to descriptors of a sample of the images."""
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(split))[:SAMPLED_IMAGES]
        sift, sample = DenseSift(split.size), []
        with progress(len(chosen), "sample descriptors") as bar:
            for index in chosen:
                descriptors = sift.descriptors(split[int(index)][0])
                sample.append(descriptors[rng.permutation(len(descriptors))[:SAMPLED_DESCRIPTORS]])
                bar.advance()
        return cls(split.size, Mixture.fit(np.concatenate(sample), seed=seed))

    @property
    def length(self) -> int:
        return (1 + STRIPS) * self.mixture.length

    def of(self, image: np.ndarray) -> np.ndarray:
        descriptors = torch.from_numpy(self._sift.descriptors(image))
        return pyramid(self.mixture, descriptors, self._sift.heights, STRIPS).numpy()

    def tensors(self) -> dict[str, Tensor]:
        return self.mixture.tensors()


class DenseSift:
    """SIFT descriptors (Lowe 2004) on a grid, of squares of 16, 24, 32 and 40 pixels.

    Parameters
    ----------
    size : int
        Side of the images in pixels.
    """

    def __init__(self, size: int) -> None:
        self._points = list(_grid(size))
        if not self._points:
            raise AlexNetError(f"SIFT needs images of at least {SQUARES[0]} pixels; these have {size}")
        self.heights = torch.tensor([y / size for _, y, _ in self._points])

    @cached_property
    def _keypoints(self) -> Any:
        # OpenCV's square has four bins of 1.5 times the keypoint's size on a side.
        return [opencv().KeyPoint(x, y, square / 6, 0.0) for x, y, square in self._points]

    @cached_property
    def _sift(self) -> Any:
        return opencv().SIFT_create()

    def descriptors(self, image: np.ndarray) -> np.ndarray:
        """The descriptors (n, 128) float32 of an image (size, size, 3) uint8, each the square root of its shares."""
        gray = opencv().cvtColor(np.ascontiguousarray(image), opencv().COLOR_RGB2GRAY)
        _, found = self._sift.compute(gray, self._keypoints)
        # Square roots make Euclidean distances Hellinger distances (Arandjelović and Zisserman 2012).
        return np.sqrt(found / np.maximum(found.sum(1, keepdims=True), 1e-12))


SQUARES = (16, 24, 32, 40)


def _grid(size: int) -> Iterator[tuple[float, float, int]]:
    """Center (x, y) and side of each square: a thirty-second of the image apart, at least 2 and at most 8 pixels."""
    step = min(8, max(2, size // 32))
    for square in SQUARES:
        centers = np.arange(square / 2, size - square / 2 + 1e-6, step).tolist()
        yield from ((x, y, square) for y in centers for x in centers)


def opencv() -> Any:
    """The package cv2; `AlexNetError` with the command that installs it."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise AlexNetError("baselines require OpenCV: pip install 'alexnet[baseline]'") from None
    cv2.setNumThreads(torch.get_num_threads())
    return cv2


FEATURES = {
    "sift-fisher": "dense SIFT descriptors as Fisher vectors (64 components, 256 Gaussians, spatial pyramid)",
    "hog": "histograms of oriented gradients",
}
"""The kinds of features and what each is."""
