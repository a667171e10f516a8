"""A baseline: hand-made features with a linear SVM, fitted to a prepared dataset, and its folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from alexnet import __version__
from alexnet.baselines.features import FEATURES, Features, fit_features, restore_features
from alexnet.baselines.svm import LinearSvm, fit_svm
from alexnet.runs.config import labels_of
from alexnet.runs.run import BASELINE, dataset_record
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.memory import peak_memory
from alexnet.runtime.progress import notify, progress

if TYPE_CHECKING:
    from alexnet.data.dataset import PreparedDataset, Split

FORMAT_VERSION = 1
ARRAYS = "baseline.safetensors"


@dataclass(frozen=True)
class BaselineConfig:
    """The content of `baseline.json`.

    Parameters
    ----------
    features : str
        A name in `FEATURES`.
    classes : list of str
        Names of the classes.
    size : int
        Height and width of the prepared images, in pixels.
    dataset : dict
        The prepared dataset, as in a run's `config.json`.
    class_weights : {"none", "balanced"}
        The weights of the classes.
    seed : int
        Seed of the samples and folds.
    cost, scale : float
        C of the SVM, and the factor of the scores under the softmax.
    validation_accuracy : float or None
        Accuracy in cross-validation with this C.
    length : int
        Numbers of a feature vector.
    seconds : dict
        Seconds of each part of the fit.
    peak_bytes : int
        Peak memory of the process.
    descriptions, pixel_range, alexnet, format_version
        As in a run's `config.json`.
    """

    features: str
    classes: list[str]
    size: int
    dataset: dict[str, Any]
    class_weights: str
    seed: int
    cost: float
    scale: float
    validation_accuracy: float | None
    length: int
    seconds: dict[str, float]
    peak_bytes: int
    descriptions: list[str] | None = None
    pixel_range: dict[str, Any] | None = None
    alexnet: str = __version__
    format_version: int = FORMAT_VERSION

    @cached_property
    def labels(self) -> list[str]:
        """Names of the classes for people."""
        return labels_of(self.classes, self.descriptions)


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Parameters
    ----------
    path : Path
        Its folder.
    config : BaselineConfig
        The content of its `baseline.json`.
    features : Features
        The features.
    svm : LinearSvm
        The classifier.
    """

    path: Path
    config: BaselineConfig
    features: Features
    svm: LinearSvm

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Baseline:
        """Open the folder of a baseline.

        Raises
        ------
        AlexNetError
            If it is not one, is damaged, or has another format.
        """
        folder = Path(path)
        try:
            values = json.loads((folder / BASELINE).read_text(encoding="utf-8"))
            if values["format_version"] != FORMAT_VERSION:
                raise AlexNetError(
                    f"{folder} has baseline format {values['format_version']}; this version reads {FORMAT_VERSION}"
                )
            config = BaselineConfig(**values)
            with safe_open(folder / ARRAYS, framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            weights, biases = (tensors.pop(name).numpy() for name in ("svm.weights", "svm.biases"))
            features = restore_features(
                check_choice(config.features, FEATURES, "features"),
                config.size,
                {name.removeprefix("features."): tensor for name, tensor in tensors.items()},
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise AlexNetError(f"{folder} can't be read as a baseline: {error}") from error
        if weights.shape != (len(config.classes), features.length):
            raise AlexNetError(f"{folder / ARRAYS} does not fit {BASELINE}: weights of shape {weights.shape}")
        return cls(folder, config, features, LinearSvm(weights, biases, config.scale, config.cost, None))

    def tensors(self) -> dict[str, Tensor]:
        """All arrays by name, as they are stored."""
        tensors = {f"features.{name}": tensor.contiguous() for name, tensor in self.features.tensors().items()}
        return tensors | {
            "svm.weights": torch.from_numpy(self.svm.weights),
            "svm.biases": torch.from_numpy(self.svm.biases),
        }

    def save(self) -> None:
        """Write the files, `baseline.json` last."""
        write_atomic(self.path / ARRAYS, to_safetensors(self.tensors()))
        write_atomic(self.path / BASELINE, json.dumps(asdict(self.config), indent=1, ensure_ascii=False).encode())

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The probability of each class: images (N, size, size, 3) uint8 → (N, classes) float64."""
        return self.svm.probabilities(self.vectors(images))

    def vectors(self, images: np.ndarray) -> np.ndarray:
        """The features: images (N, size, size, 3) uint8 → (N, length) float32."""
        return np.stack([self.features.of(image) for image in images])


def fit_baseline(
    data: str | os.PathLike[str] | PreparedDataset,
    out: str | os.PathLike[str],
    *,
    features: str = "sift-fisher",
    class_weights: str = "none",
    cost: float | None = None,
    seed: int = 0,
) -> Baseline:
    """Fit hand-made features and a linear SVM to the training images of a dataset (paper, tables 1 and 2).

    Memory does not grow with the number of images beyond 5,000: features are written to a file of 16-bit numbers in
    the folder, which is removed at the end, and the SVM reads parts of it.

    Parameters
    ----------
    data : path or PreparedDataset
        The prepared dataset.
    out : path
        The folder of the baseline; it must not exist, or be empty.
    features : {"sift-fisher", "hog"}
        The features.
    class_weights : {"none", "balanced"}
        Weights of the classes in the SVM.
    cost : float, optional
        C of the SVM. Default: chosen by cross-validation.
    seed : int
        Seed of the sampled descriptors, the mixture of Gaussians and the folds.

    Returns
    -------
    Baseline

    Raises
    ------
    UsageError
        For an unknown name or a value out of range.
    AlexNetError
        If the dataset has no training images, the folder is not free, or the disk is too small.
    """
    from alexnet.data.dataset import PreparedDataset  # as in `alexnet.runs.run`

    check_choice(features, FEATURES, "features")
    check_choice(class_weights, ("none", "balanced"), "class weights")
    if cost is not None and not cost > 0:
        raise UsageError(f"C is {cost:g}; it must be above 0")
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    split = dataset.split("train")
    if not len(split):
        raise AlexNetError(f"{dataset.path} has no training images")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlexNetError(f"{folder} exists already: choose another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    try:
        with _timed(seconds, "fit of the features"):
            fitted = fit_features(features, split, seed)
        with tempfile.TemporaryDirectory(prefix=".features-", dir=folder) as temporary:
            with _timed(seconds, "features"):
                order = np.random.default_rng(seed).permutation(len(split))
                vectors = _vectors(fitted, split, order, Path(temporary) / "vectors")
            with _timed(seconds, "support vector machine"):
                svm = fit_svm(
                    vectors,
                    split.labels[order],
                    len(dataset.classes),
                    cost=cost,
                    balanced=class_weights == "balanced",
                    weights=None if split.weights is None else split.weights[order],
                    groups=None if split.groups is None else split.groups[order],
                    seed=seed,
                )
            del vectors
        config = BaselineConfig(
            features=features,
            classes=dataset.classes,
            size=dataset.size,
            dataset=dataset_record(dataset),
            class_weights=class_weights,
            seed=seed,
            cost=svm.cost,
            scale=svm.scale,
            validation_accuracy=svm.validation_accuracy,
            length=fitted.length,
            seconds={name: round(value, 2) for name, value in seconds.items()},
            peak_bytes=peak_memory(),
            descriptions=dataset.descriptions,
            pixel_range=None if dataset.pixel_range is None else dataset.pixel_range.to_dict(),
        )
        baseline = Baseline(folder, config, fitted, svm)
        baseline.save()
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    for line in summary(config):
        notify(line)
    return baseline


def summary(config: BaselineConfig) -> Iterator[str]:
    """Yield features, classifier, time and memory, one sentence each."""
    yield f"{FEATURES[config.features]}: {config.length:,} numbers for each image"
    accuracy = config.validation_accuracy
    chosen = "" if accuracy is None else f", accuracy {accuracy:.2%} on held-out training images"
    yield f"linear SVM, C = {config.cost:g}{chosen}"
    times = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in config.seconds.items())
    yield f"time: {times}; peak memory: {config.peak_bytes / 2**30:.2f} GiB"


def _vectors(features: Features, split: Split, order: np.ndarray, file: Path) -> np.ndarray:
    """The features of all images in this order, as a memory map of float16."""
    needed, free = 2 * features.length * len(split), shutil.disk_usage(file.parent).free
    if needed > free:
        raise AlexNetError(
            f"the features of {len(split):,} images need {needed / 2**30:.1f} GiB beside {file.parent.parent}, where "
            f"{free / 2**30:.1f} GiB are free: choose another disk with --out, or --features hog"
        )
    vectors = np.memmap(file, dtype=np.float16, mode="w+", shape=(len(split), features.length))
    with progress(len(split), "features") as bar:
        for place, index in enumerate(order):
            vectors[place] = features.of(split[int(index)][0])
            bar.advance()
    return vectors


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start


def describe(config: BaselineConfig) -> Mapping[str, str]:
    """The values of a baseline by their names, for people."""
    return {
        "features": FEATURES[config.features],
        "numbers for each image": f"{config.length:,}",
        "classifier": "linear SVM, one class against the others",
        "C": f"{config.cost:g}",
        "class weights": config.class_weights,
        "seed": str(config.seed),
    }
