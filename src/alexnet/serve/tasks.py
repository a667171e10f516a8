"""What the network does to the images of requests. Each is a value: equal ones are done in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alexnet.network.features import layer_features
from alexnet.prediction.classifier import BATCH_SIZE, Classifier
from alexnet.report.attribution import attribution_overlays


@dataclass(frozen=True)
class Probabilities:
    """The probability of every class: (classes,) float64 for each image."""

    views: int = 1
    most = BATCH_SIZE

    def __call__(self, classifier: Classifier, images: np.ndarray) -> np.ndarray:
        return classifier.probabilities(images, self.views)


@dataclass(frozen=True)
class Features:
    """The activations of a layer for the central view: (C, H, W) or (units,) float32 for each image."""

    layer: str
    most = 16

    def __call__(self, classifier: Classifier, images: np.ndarray) -> np.ndarray:
        return next(layer_features(classifier.network, classifier.preprocess, [images], self.layer))


@dataclass(frozen=True)
class Looks:
    """Where the network looks for a class, None for the most probable: that class, and `attribution.looks`."""

    label: int | None
    most = 8

    def __call__(self, classifier: Classifier, images: np.ndarray) -> list[tuple[int, tuple[np.ndarray, ...]]]:
        if self.label is None:
            classes = classifier.probabilities(images).argmax(1).tolist()
        else:
            classes = [self.label] * len(images)
        shown = attribution_overlays(classifier.network, classifier.preprocess, images, classes)
        return list(zip(classes, zip(*shown, strict=True), strict=True))


def central(classifier: Classifier, images: np.ndarray) -> torch.Tensor:
    """The central view of prepared images (N, size, size, 3) uint8, as the network reads it."""
    device = classifier.preprocess.mean.device
    return classifier.preprocess.center(torch.from_numpy(np.ascontiguousarray(images)).to(device))
