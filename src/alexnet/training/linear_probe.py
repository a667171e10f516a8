"""How far features go without training them: a linear classifier on what a layer says of the images."""

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
"""Maps are averaged to so many cells a side: what is where, roughly."""
STRENGTH = 0.03
"""Of the classifier, on features of unit variance (scikit-learn's C)."""
FOLDS = 5
IMAGES = 2_000
"""Images that are enough for a first answer in seconds."""


@dataclass(frozen=True)
class Probe:
    """What a linear classifier on `layer` gets right, of images that it was not fitted on.

    `fitted` on so many; measured on the `measured` images of `split`, or where that is "train" on each fifth of them
    in turn. `accuracy` and `majority` (that of always answering with the most frequent class) are from 0 to 1.
    """

    layer: str
    accuracy: float
    majority: float
    split: str
    fitted: int
    measured: int

    def words(self) -> str:
        """84.1% of 394 val images right (always the same answer: 50.0%), with a linear classifier on conv5."""
        images = "left-out training" if self.split == "train" else self.split
        return (
            f"{self.accuracy:.1%} of {self.measured:,} {images} images right (one answer for all: "
            f"{self.majority:.1%}), by a linear classifier on {self.layer}"
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
    """Fit a linear classifier on a layer's activations and say how good it is; None where the images are too few.

    `network`: in evaluation mode, on the device of `preprocess`. Up to so many `images` of each split are read, drawn
    evenly; None for all. Maps are averaged to 3×3 cells. Without `validation` the training images are left out a
    fifth at a time.
    """
    rows = _drawn(training, images)
    labels = training.labels[rows]
    counts = np.bincount(labels)
    if np.count_nonzero(counts) < 2 or counts[counts > 0].min() < 2:
        return None
    measured = validation if validation is not None and len(validation) else training
    others = _drawn(measured, images)
    answers = measured.labels[others]
    known = _read(network, preprocess, training, rows, layer, precision)
    if measured is training:
        right = _right_left_out(known, labels)
    else:
        right = _right(known, labels, _read(network, preprocess, measured, others, layer, precision), answers)
    majority = float(np.bincount(answers).max()) / len(answers)
    return Probe(layer, right / len(answers), majority, measured.name, len(rows), len(answers))


def pooled(activations: np.ndarray) -> np.ndarray:
    """Maps (N, C, H, W) averaged to 3×3 cells, (N, 9·C); the units of a fully connected layer (N, D) as they are."""
    if activations.ndim == 2:
        return activations
    return functional.adaptive_avg_pool2d(torch.from_numpy(activations), CELLS).flatten(1).numpy()


def _read(
    network: AlexNet, preprocess: Preprocessing, split: Split, rows: np.ndarray, layer: str, precision: torch.dtype
) -> np.ndarray:
    """What the layer says of the images in `rows`, (N, D) float32."""
    batches = (images for _, images in split.batches(rows, BATCH_SIZE))
    parts = []
    with progress(len(rows), f"{layer} of {split.name} images") as bar:
        for activations in layer_features(network, preprocess, batches, layer, precision):
            parts.append(pooled(activations))
            bar.advance(len(activations))
    return np.concatenate(parts)


def _right_left_out(known: np.ndarray, labels: np.ndarray) -> int:
    """How many are answered rightly when each fifth of them is left out in turn."""
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    folds = StratifiedKFold(min(FOLDS, int(counts[counts > 0].min())), shuffle=True, random_state=0)
    return sum(_right(known[fit], labels[fit], known[out], labels[out]) for fit, out in folds.split(known, labels))


def _right(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, answers: np.ndarray) -> int:
    """How many of `asked` a classifier fitted on `known` answers rightly."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, tol=1e-3, max_iter=1000))
    return int((classifier.fit(known, labels).predict(asked) == answers).sum())


def _drawn(split: Split, most: int | None) -> np.ndarray:
    """Up to so many positions in a split, the classes in their shares."""
    if most is None or len(split) <= most:
        return np.arange(len(split))
    by_class = np.argsort(split.labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(split) - 1, most).astype(np.int64)])
