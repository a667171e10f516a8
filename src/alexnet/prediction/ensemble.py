"""Classifiers that are not one network: a baseline, and the averaged networks of a cross-validation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from alexnet.baselines.baseline import Baseline
from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.pixel_range import PixelRange
from alexnet.evaluation.ensemble import fold_runs
from alexnet.evaluation.predictor import BaselinePredictor, is_baseline, require_same_classes
from alexnet.prediction.classifier import Classifier
from alexnet.runs.run import CROSS_VALIDATION, check_has_networks
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import notify


class BaselineClassifier(Classifier):
    """A baseline, which has no decision rule.

    Parameters
    ----------
    baseline : Baseline
        The baseline.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._predictor = BaselinePredictor(baseline)
        self.config = baseline.config  # type: ignore[assignment]
        self.rule = None
        self.pixel_range, self.max_pixels = PixelRange.from_dict(baseline.config.pixel_range), MAX_PIXELS

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        """Return the probability of every class: (N, size, size, 3) uint8 → (N, classes) float64."""
        return self._predictor.probabilities(torch.from_numpy(np.ascontiguousarray(images)), views)


class EnsembleClassifier(Classifier):
    """Several networks of the same classes and image size, whose probabilities are averaged.

    Parameters
    ----------
    members : sequence of Classifier
        The networks, each with its own preprocessing.
    names : sequence of str
        Their names in messages.

    Raises
    ------
    AlexNetError
        If they differ in classes, image size or range of pixel values.
    """

    def __init__(self, members: Sequence[Classifier], names: Sequence[str]) -> None:
        first = members[0]
        for member, name in zip(members[1:], names[1:], strict=True):
            require_same_classes(first.classes, names[0], member.classes, name, "they can't be averaged")
            for value in ("size", "pixel_range"):
                if getattr(member.config, value) != getattr(first.config, value):
                    raise AlexNetError(f"{names[0]} and {name} have another {value}: they can't be averaged")
        self.members = list(members)
        self.network, self.preprocess, self.config = first.network, first.preprocess, first.config
        self.rule = None
        self.pixel_range, self.max_pixels = first.pixel_range, first.max_pixels

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        """Return the mean probability of every class: (N, size, size, 3) uint8 → (N, classes) float64."""
        mean: np.ndarray = np.mean([member.probabilities(images, views) for member in self.members], axis=0)
        return mean


def load_classifier(
    run: str | os.PathLike[str],
    *,
    device: str | None = None,
    precision: str = "float32",
    raw: bool = False,
    packed: bool = True,
) -> Classifier:
    """Load a run folder, a baseline, or the finished folds of a folder of `alexnet crossval` as an ensemble.

    Parameters
    ----------
    run : str or path
        A run folder, the folder of a baseline, or a cross-validation.
    device, precision, raw, packed
        As in `Classifier.load`; baselines and ensembles have no decision rule.

    Raises
    ------
    AlexNetError
        If it is neither, no fold is finished, or something cannot be read.
    """
    folder = Path(run)
    check_has_networks(folder)
    if is_baseline(folder):
        return BaselineClassifier(Baseline.open(folder))
    if not (folder / CROSS_VALIDATION).is_file():
        return Classifier.load(run, device=device, precision=precision, raw=raw, packed=packed)
    runs = fold_runs(folder)
    notify(f"{folder}: the mean of {len(runs)} networks, {runs[0].name} to {runs[-1].name}")
    members = [Classifier.load(path, device=device, precision=precision, raw=True, packed=packed) for path in runs]
    return EnsembleClassifier(members, [str(path) for path in runs])
