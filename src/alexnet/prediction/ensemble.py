"""Classifiers that are not one network: a baseline, and the averaged members of a cross-validation or an ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from alexnet.baselines.baseline import Baseline
from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.pixel_range import PixelRange
from alexnet.evaluation.ensemble import members_of
from alexnet.evaluation.predictor import BaselinePredictor, Mean, is_baseline, require_same_images
from alexnet.prediction.classifier import Classifier
from alexnet.runs.run import stored_rule
from alexnet.runtime.progress import notify


class BaselineClassifier(Classifier):
    """A baseline.

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

    def checksum(self) -> str:
        return self._predictor.checksum()


class EnsembleClassifier(Mean, Classifier):
    """Several networks and baselines of the same classes and image size, whose probabilities are averaged.

    Parameters
    ----------
    members : sequence of Classifier
        The networks, each with its own preprocessing, and after them the baselines.
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
            require_same_images(first.config, names[0], member.config, name)
        self.members = list(members)
        self.config, self.rule = first.config, None
        if not isinstance(first, BaselineClassifier):
            self.network, self.preprocess = first.network, first.preprocess
        self.pixel_range, self.max_pixels = first.pixel_range, first.max_pixels


def load_classifier(
    run: str | os.PathLike[str],
    *,
    device: str | None = None,
    precision: str = "float32",
    raw: bool = False,
    packed: bool = True,
) -> Classifier:
    """Load a run folder, a baseline, the finished folds of `alexnet crossval`, or the members of `alexnet ensemble`.

    Parameters
    ----------
    run : str or path
        A run folder, a baseline, a cross-validation or an ensemble.
    device, precision, raw, packed
        As in `Classifier.load`. The decision rule is that of the folder, not those of its members.

    Raises
    ------
    AlexNetError
        If it is none of them, no fold is finished, something cannot be read, or the rule belongs to other weights.
    """
    folder = Path(run)
    members = members_of(folder)
    if members == [folder]:
        return _load(folder, device, precision, raw, packed)
    notify(f"{folder}: the mean of {len(members)} members, {members[0].name} to {members[-1].name}")
    loaded = [_load(path, device, precision, True, packed) for path in members]
    ensemble = EnsembleClassifier(loaded, [str(path) for path in members])
    ensemble.rule = None if raw else stored_rule(folder, ensemble.checksum)
    return ensemble


def _load(folder: Path, device: str | None, precision: str, raw: bool, packed: bool) -> Classifier:
    """Load a run folder or a baseline."""
    if is_baseline(folder):
        baseline = BaselineClassifier(Baseline.open(folder))
        baseline.rule = None if raw else stored_rule(folder, baseline.checksum)
        return baseline
    return Classifier.load(folder, device=device, precision=precision, raw=raw, packed=packed)
