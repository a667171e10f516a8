"""Computations of the network on images of requests. Tasks are values: equal ones are computed in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alexnet.network.features import layer_features
from alexnet.prediction.classifier import BATCH_SIZE, Answer, Classifier
from alexnet.report.attribution import attribution_overlays


@dataclass(frozen=True)
class Answers:
    """The `Answer` on each image: by the decision rule, or the most probable class."""

    views: int | None = None
    raw: bool = False
    max_batch = BATCH_SIZE

    def __call__(self, classifier: Classifier, images: np.ndarray) -> list[Answer]:
        return classifier.answers(images, self.views, raw=self.raw)


@dataclass(frozen=True)
class Features:
    """The activations of a layer for the center crop: (C, H, W) or (units,) float32 per image.

    Without a layer those in which similar images are searched, (units,).
    """

    layer: str | None = None
    max_batch = 16

    def __call__(self, classifier: Classifier, images: np.ndarray) -> np.ndarray:
        return next(layer_features(classifier.network, classifier.preprocess, [images], self.layer))


@dataclass(frozen=True)
class Attribution:
    """A class, None for the most probable one, and the `attribution_overlays` of it, per image."""

    label: int | None
    max_batch = 8

    def __call__(self, classifier: Classifier, images: np.ndarray) -> list[tuple[int, tuple[np.ndarray, ...]]]:
        if self.label is None:
            classes = classifier.probabilities(images).argmax(1).tolist()
        else:
            classes = [self.label] * len(images)
        overlays = attribution_overlays(classifier.network, classifier.preprocess, images, classes)
        return list(zip(classes, zip(*overlays, strict=True), strict=True))


def center_inputs(classifier: Classifier, images: np.ndarray) -> torch.Tensor:
    """Return the network inputs for the center crops of prepared images (N, size, size, 3) uint8."""
    device = classifier.preprocess.mean.device
    return classifier.preprocess.center(torch.from_numpy(np.ascontiguousarray(images)).to(device))
