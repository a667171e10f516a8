"""A predictor classifies prepared images: a trained network, or a baseline. The rest asks for no more than this."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alexnet.baselines.baseline import Baseline, BaselineConfig
from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.inference import probabilities, probabilities_and_features
from alexnet.evaluation.views import UNFLIPPED, VIEWS, Flips, check_views
from alexnet.network.frozen import FrozenNetwork
from alexnet.network.model import AlexNet
from alexnet.runs.config import Config
from alexnet.runs.run import BASELINE, Run, checksum_of
from alexnet.runtime.errors import AlexNetError


class Predictor(Protocol):
    """Gives the classes of prepared images probabilities."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def config(self) -> Config | BaselineConfig:
        """Its classes, image size, range of pixel values and dataset."""

    def probabilities(self, images: Tensor, views: int) -> np.ndarray:
        """The mean over test views: (N, size, size, 3) uint8 → (N, classes) float64."""

    def probabilities_and_features(self, images: Tensor, views: int) -> tuple[np.ndarray, np.ndarray]:
        """The same, and the numbers (N, length) float32 that decide between the classes."""

    def checksum(self) -> str:
        """SHA-256 of the weights, to which a rule of `alexnet decide` belongs."""


@dataclass(frozen=True)
class Member:
    """A trained network.

    Parameters
    ----------
    run : Run
        Its run folder.
    network : AlexNet
        The network, in evaluation mode.
    preprocess : Preprocessing
        The preprocessing of its images.
    """

    run: Run
    network: AlexNet
    preprocess: Preprocessing


class NetworkPredictor:
    """A trained network, in the form in which it runs.

    Parameters
    ----------
    member : Member
        The network.
    precision : torch.dtype
        Arithmetic of the forward pass.
    """

    def __init__(self, member: Member, precision: torch.dtype) -> None:
        self.member, self.path, self.config = member, member.run.path, member.run.config
        self._network = FrozenNetwork(member.network, precision)

    def probabilities(self, images: Tensor, views: int) -> np.ndarray:
        try:
            return probabilities(self._network, self.member.preprocess, images, views).numpy()
        except AlexNetError as error:
            raise AlexNetError(f"{self.path}: {error}") from error

    def probabilities_and_features(self, images: Tensor, views: int) -> tuple[np.ndarray, np.ndarray]:
        shares, features = probabilities_and_features(self._network, self.member.preprocess, images, views)
        return shares.numpy(), features.numpy()

    def checksum(self) -> str:
        return checksum_of(self.member.network.state_dict())


class BaselinePredictor:
    """A baseline. It reads the whole image, so that all crops are one; a view is flipped as its crop would be.

    Parameters
    ----------
    baseline : Baseline
        The baseline.
    """

    def __init__(self, baseline: Baseline) -> None:
        self.baseline, self.path, self.config = baseline, baseline.path, baseline.config

    def probabilities(self, images: Tensor, views: int) -> np.ndarray:
        return self.probabilities_and_features(images, views)[0]

    def probabilities_and_features(self, images: Tensor, views: int) -> tuple[np.ndarray, np.ndarray]:
        check_views(views)
        pixels = images.cpu().numpy()
        vectors = self.baseline.vectors(pixels)
        upright = self.baseline.svm.probabilities(vectors)
        shares = [
            upright if flips == UNFLIPPED else self.baseline.probabilities(_flipped(pixels, flips))
            for flips in VIEWS[views].flips
        ]
        return np.mean(shares, axis=0), vectors

    def checksum(self) -> str:
        return checksum_of(self.baseline.tensors())


class Mean:
    """The mean of the probabilities of several members, which are predictors or classifiers.

    Attributes
    ----------
    members : sequence
        Those that are averaged. The features are those of the first.
    """

    members: Sequence[Any]

    def probabilities(self, images: Any, views: int = 1) -> np.ndarray:
        """The mean over the members: (N, size, size, 3) uint8 → (N, classes) float64."""
        mean: np.ndarray = np.mean([member.probabilities(images, views) for member in self.members], axis=0)
        return mean

    def probabilities_and_features(self, images: Any, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The same, and the features (N, units) of the first member."""
        first, features = self.members[0].probabilities_and_features(images, views)
        others = [member.probabilities(images, views) for member in self.members[1:]]
        return np.mean([first, *others], axis=0), features

    def checksum(self) -> str:
        """SHA-256 (hexadecimal) of the checksums of the members, in their order."""
        return hashlib.sha256("".join(member.checksum() for member in self.members).encode()).hexdigest()


class MeanPredictor(Mean):
    """The mean of several predictors.

    Parameters
    ----------
    path : Path
        The folder that they are members of.
    members : sequence of Predictor
        Those that are averaged.
    """

    def __init__(self, path: Path, members: Sequence[Predictor]) -> None:
        self.path, self.members, self.config = path, members, members[0].config


def _flipped(pixels: np.ndarray, flips: Flips) -> np.ndarray:
    """Images (N, side, side, 3), flipped horizontally, vertically, then transposed."""
    across, down, transposed = flips
    pixels = pixels[:, :: -1 if down else 1, :: -1 if across else 1]
    return pixels.swapaxes(1, 2) if transposed else pixels


Source = str | os.PathLike[str] | Member
"""A run folder, the folder of a baseline, or a network that is already loaded."""


def load_predictor(source: Source, device: torch.device, precision: torch.dtype) -> Predictor:
    """Load a trained network or a baseline.

    Parameters
    ----------
    source : path or Member
        A run folder, or the folder of a baseline; a member is used as it is.
    device : torch.device
        Device of a network that is loaded.
    precision : torch.dtype
        Arithmetic of a network.

    Raises
    ------
    AlexNetError
        If it can't be read.
    """
    if isinstance(source, Member):
        return NetworkPredictor(source, precision)
    if is_baseline(source):
        return BaselinePredictor(Baseline.open(source))
    run = Run.open(source)
    return NetworkPredictor(Member(run, *run.load(device)), precision)


def is_baseline(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a baseline."""
    return (Path(path) / BASELINE).is_file()


def load_predictors(sources: Sequence[Source], device: torch.device, precision: torch.dtype) -> list[Predictor]:
    """Load the members of an ensemble.

    Parameters
    ----------
    sources, device, precision
        As for `load_predictor`.

    Raises
    ------
    AlexNetError
        If one can't be read, or they differ in their classes or image sizes.
    """
    predictors = [load_predictor(source, device, precision) for source in sources]
    first = predictors[0]
    for other in predictors[1:]:
        require_same_classes(
            first.config.classes, str(first.path), other.config.classes, str(other.path), "they can't be averaged"
        )
        if other.config.size != first.config.size:
            raise AlexNetError(
                f"{first.path} takes images of {first.config.size} pixels, {other.path} of {other.config.size}: "
                "they can't be averaged on one dataset"
            )
    return predictors


def require_same_images(
    one: Config | BaselineConfig, name: str, other: Config | BaselineConfig, other_name: str
) -> None:
    """Check that what is averaged reads the same images: classes, image size and range of pixel values.

    Raises
    ------
    AlexNetError
        If they differ; the message says in what.
    """
    require_same_classes(one.classes, name, other.classes, other_name, "they can't be averaged")
    for value, term in (("size", "image size"), ("pixel_range", "range of pixel values")):
        if getattr(one, value) != getattr(other, value):
            raise AlexNetError(f"{name} and {other_name} have another {term}: they can't be averaged")


def require_same_classes(
    classes: list[str], name: str, other_classes: list[str], other_name: str, purpose: str
) -> None:
    """Check that two lists of classes are the same, in the same order.

    Parameters
    ----------
    classes, other_classes : list of str
        The classes.
    name, other_name : str
        Where they are from, for the message.
    purpose : str
        End of the message: what is not possible.

    Raises
    ------
    AlexNetError
        If they differ; the message says in which classes.
    """
    if classes == other_classes:
        return
    if sorted(classes) == sorted(other_classes):
        difference = "the same classes in another order"
    else:
        extra = [
            (name, sorted(set(classes) - set(other_classes))),
            (other_name, sorted(set(other_classes) - set(classes))),
        ]
        difference = ", ".join(f"only {where} has {_listed(names)}" for where, names in extra if names)
    raise AlexNetError(f"{name} and {other_name} have different classes ({difference}): {purpose}")


def _listed(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
