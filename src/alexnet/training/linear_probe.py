"""Linear probe: the accuracy of a linear classifier on the features of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from alexnet.data.augmentation import Preprocessing
from alexnet.data.dataset import Split
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.network.model import AlexNet
from alexnet.runtime.progress import progress

CELLS = 3
"""Cells a side to which feature maps are averaged; they keep the rough position of a feature."""
INVERSE_REGULARIZATION = 0.03
"""scikit-learn's C of the classifier, on features of unit variance."""
FOLDS = 5
IMAGES = 2_000
"""Images of each split: enough for an estimate in seconds."""


@dataclass(frozen=True)
class Probe:
    """The accuracy of a linear classifier on a layer, on images that it was not fitted on.

    Attributes
    ----------
    layer : str
        The layer.
    accuracy, majority : float
        Of the classifier, and of always predicting the most frequent class, from 0 to 1.
    split : str
        The split measured; "train" for cross-validation on the training images.
    measured : int
        Images that the classifier was measured on.
    """

    layer: str
    accuracy: float
    majority: float
    split: str
    measured: int

    def summary(self) -> str:
        """Such as "84.1% accuracy on 394 val images (majority class: 50.0%; linear probe on conv5)"."""
        images = "cross-validated training" if self.split == "train" else self.split
        return (
            f"{self.accuracy:.1%} accuracy on {self.measured:,} {images} images "
            f"(majority class: {self.majority:.1%}; linear probe on {self.layer})"
        )


def probe(
    network: AlexNet,
    preprocess: Preprocessing,
    training: Split,
    validation: Split | None,
    layer: str,
    precision: torch.dtype = torch.float32,
    *,
    images: int | None = IMAGES,
) -> Probe | None:
    """Fit a linear classifier on the activations of a layer, and measure it.

    Parameters
    ----------
    network : AlexNet
        In evaluation mode, on the device of `preprocess`.
    preprocess : Preprocessing
        The preprocessing of its images.
    training, validation : Split
        What the classifier is fitted and measured on. Without `validation` it is measured on the training images, by
        cross-validation.
    layer : str
        The layer. Feature maps are averaged to 3×3 cells.
    precision : torch.dtype
        Of the forward pass.
    images : int, optional
        Largest number of images of each split, drawn evenly over the classes; None for all.

    Returns
    -------
    Probe or None
        None where there are too few images.
    """
    rows = stratified(training, images)
    labels = training.labels[rows]
    counts = np.bincount(labels)
    if np.count_nonzero(counts) < 2 or counts[counts > 0].min() < 2:
        return None
    measured = validation if validation is not None and len(validation) else training
    measured_rows = stratified(measured, images)
    targets = measured.labels[measured_rows]
    features = _read(network, preprocess, training, rows, layer, precision)
    if measured is training:
        correct = _correct_in_cross_validation(features, labels)
    else:
        others = _read(network, preprocess, measured, measured_rows, layer, precision)
        correct = _correct(features, labels, others, targets)
    majority = float(np.bincount(targets).max()) / len(targets)
    return Probe(layer, correct / len(targets), majority, measured.name, len(targets))


def pooled(activations: np.ndarray) -> np.ndarray:
    """Feature maps (N, C, H, W) averaged to 3×3 cells, (N, 9·C); fully connected units (N, D) unchanged."""
    if activations.ndim == 2:
        return activations
    return functional.adaptive_avg_pool2d(torch.from_numpy(activations), CELLS).flatten(1).numpy()


def _read(
    network: AlexNet, preprocess: Preprocessing, split: Split, rows: np.ndarray, layer: str, precision: torch.dtype
) -> np.ndarray:
    """The features of the images in `rows`, (N, D) float32."""
    batches = (images for _, images in split.batches(rows, BATCH_SIZE))
    parts = []
    with progress(len(rows), f"{layer} of {split.name} images") as bar:
        for activations in layer_features(network, preprocess, batches, layer, precision):
            parts.append(pooled(activations))
            bar.advance(len(activations))
    return np.concatenate(parts)


def _correct_in_cross_validation(features: np.ndarray, labels: np.ndarray) -> int:
    """Correct predictions when each fold is left out in turn."""
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    folds = StratifiedKFold(min(FOLDS, int(counts[counts > 0].min())), shuffle=True, random_state=0)
    return sum(
        _correct(features[fit], labels[fit], features[out], labels[out]) for fit, out in folds.split(features, labels)
    )


def _correct(features: np.ndarray, labels: np.ndarray, measured: np.ndarray, targets: np.ndarray) -> int:
    """Correct predictions on `measured` by a classifier fitted on `features`."""
    weights, biases = fit_logistic_regression(features, labels)
    return int((np.unique(labels)[(measured @ weights.T + biases).argmax(1)] == targets).sum())


def fit_logistic_regression(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and biases (K,), float32, whose logits are those of the K classes that `labels` has, in order.

    The features are standardized for the fit.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=INVERSE_REGULARIZATION, tol=1e-3, max_iter=1000).fit(
        scaler.transform(features), labels
    )
    weights, biases = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # of two classes scikit-learn gives the logit of the second
        weights, biases = np.concatenate([0 * weights, weights]), np.concatenate([0 * biases, biases])
    weights = weights / scaler.scale_
    return weights.astype(np.float32), (biases - weights @ scaler.mean_).astype(np.float32)


def stratified(split: Split, limit: int | None) -> np.ndarray:
    """Up to `limit` positions in a split, with the proportions of the classes."""
    if limit is None or len(split) <= limit:
        return np.arange(len(split))
    by_class = np.argsort(split.labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(split) - 1, limit).astype(np.int64)])
