"""`Classifier`: a trained network that predicts the classes of images."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from alexnet.data.augmentation import Preprocessing
from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.pixel_range import PixelRange
from alexnet.data.sources.items import Item
from alexnet.data.unreadable import UnreadableImageError
from alexnet.evaluation.inference import probabilities, probabilities_and_features
from alexnet.evaluation.views import check_views, rule_views
from alexnet.network.frozen import FrozenNetwork
from alexnet.network.model import AlexNet
from alexnet.prediction.inputs import ImageInput, NamedImage, load_image
from alexnet.runs.config import Config
from alexnet.runs.decision import CLASS, KINDS, DecisionRule
from alexnet.runs.run import Run, checksum_of
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError

BATCH_SIZE = 64
DECODERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Prediction:
    """The class of an image, or the answer *unsure* or *unknown*.

    Without a decision rule the class is the most probable one. With the rule of `alexnet decide` the probabilities are
    calibrated, the class is decided by thresholds or costs, and the decision may be "unsure" or "unknown".

    Attributes
    ----------
    source : str
        Path or name of the image; for one without, its position, such as "image 3" for the fourth.
    label : str
        The class; where the decision is not "class", the one that the rule would decide.
    probability : float
        The probability of `label`, 0 to 1.
    top : list of (str, float)
        The most probable classes with their probabilities (0 to 1), in descending order.
    decision : {"class", "unsure", "unknown"}
        "class" without a decision rule.
    distance : float or None
        Distance from the training images in feature space, where the rule has one.
    """

    source: str
    label: str
    probability: float
    top: list[tuple[str, float]]
    decision: str = CLASS
    distance: float | None = None

    @property
    def answer(self) -> str:
        """The class, "unsure" or "unknown"."""
        return self.label if self.decision == CLASS else self.decision

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction in its JSON form."""
        return {
            "source": self.source,
            "decision": self.decision,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
        } | ({} if self.distance is None else {"distance": self.distance})


@dataclass(frozen=True)
class Answer:
    """The decision on a prepared image, as `Classifier.answers` returns it.

    Attributes
    ----------
    probabilities : ndarray
        (classes,) float64, calibrated if there is a rule.
    label : int
        Index of the class.
    decision : {"class", "unsure", "unknown"}
        As in `Prediction`.
    distance : float or None
        As in `Prediction`.
    """

    probabilities: np.ndarray
    label: int
    decision: str = CLASS
    distance: float | None = None


@dataclass(frozen=True)
class UnreadableImage:
    """An image that could not be read.

    Attributes
    ----------
    source : str
        Path or name of the image.
    reason : str
        Why it could not be read.
    """

    source: str
    reason: str


class Classifier:
    """A trained network that predicts the classes of images.

    Parameters
    ----------
    network : AlexNet
        The network, in evaluation mode.
    preprocess : Preprocessing
        Its preprocessing.
    config : Config
        The run's `config.json`.
    precision : torch.dtype
        Data type of the computation.
    rule : DecisionRule, optional
        The decision rule. Default: the most probable class.
    packed : bool
        As for `FrozenNetwork`.

    Examples
    --------
    >>> Classifier.load("run").predict(["a.jpg", "b.png"])  # doctest: +SKIP
    """

    def __init__(
        self,
        network: AlexNet,
        preprocess: Preprocessing,
        config: Config,
        precision: torch.dtype = torch.float32,
        rule: DecisionRule | None = None,
        *,
        packed: bool = True,
    ) -> None:
        self.network, self.preprocess, self.config, self.rule = network, preprocess, config, rule
        self.pixel_range = PixelRange.from_dict(config.pixel_range)
        self.max_pixels = MAX_PIXELS
        self.partly: list[str] = []  # of each image of which only a page or some bands were read, which
        self._optimized = FrozenNetwork(network, precision, packed=packed)

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        device: str | None = None,
        precision: str = "float32",
        raw: bool = False,
        packed: bool = True,
    ) -> Classifier:
        """Load a run folder.

        Parameters
        ----------
        run : str or path
            The run folder.
        device : str, optional
            Such as "cpu" or "cuda:1". Default: the best that is available.
        precision : str
            "float32", "bfloat16" or "auto".
        raw : bool
            Ignore the decision rule of the run: the softmax and its most probable class.
        packed : bool
            Arrange the weights for the CPU at the first image, which takes 0.2 seconds. False suits a few images.

        Raises
        ------
        AlexNetError
            The folder is not a run, its weights cannot be read, or its decision rule belongs to other weights.
        UsageError
            The device or precision does not exist.
        """
        chosen_device = choose_device(device)
        opened = Run.open(run)
        network, preprocess = opened.load(chosen_device)
        rule = None if raw else opened.decision_rule(network)
        dtype = choose_precision(precision, chosen_device)
        return cls(network, preprocess, opened.config, dtype, rule, packed=packed)

    def checksum(self) -> str:
        """SHA-256 of the weights, to which a decision rule belongs."""
        return checksum_of(self.network.state_dict())

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the network's outputs."""
        return self.config.classes

    @property
    def labels(self) -> list[str]:
        """Labels of predictions: the classes' descriptions where their names are identifiers (ImageNet), else names."""
        return self.config.labels

    def predict(
        self,
        images: ImageInput | NamedImage | Iterable[ImageInput | NamedImage],
        top: int = 5,
        views: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[Prediction]:
        """Predict the classes of images.

        Parameters
        ----------
        images : ImageInput, NamedImage, or an iterable of them
            Paths, contents of files, PIL images, or arrays (H, W), (H, W, 3) or (H, W, 4) of uint8 or of the data types
            that `alexnet.data.decoding` describes; an array (N, H, W, 3) is N images. They are decoded, scaled and cut
            as `alexnet prepare` does.
        top : int
            Number of classes per image.
        views : int, optional
            Number of crops per image whose probabilities are averaged: 1, the center, or 10 (paper, section 4.1).
            Default: that of the decision rule, else 1.
        batch_size : int
            Number of images that the network processes at once.

        Returns
        -------
        list of Prediction
            In the order of the images; for one image a list of one.

        Raises
        ------
        AlexNetError
            An image cannot be read; the message names the first. `stream` continues after one.
        """
        results = []
        for result in self.stream(images, top, views, batch_size):
            if isinstance(result, UnreadableImage):
                raise AlexNetError(f"{result.source}: {result.reason}")
            results.append(result)
        return results

    def stream(
        self,
        images: ImageInput | NamedImage | Iterable[ImageInput | NamedImage],
        top: int = 5,
        views: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Prediction | UnreadableImage]:
        """Predict the classes of images one after another.

        Threads decode ahead of the network. Memory is that of a few batches for any number of images.

        Parameters
        ----------
        images, top, views, batch_size
            As for `predict`.

        Yields
        ------
        Prediction or UnreadableImage
            In the order of the images.
        """
        if top < 1:
            raise UsageError(f"top is {top}; it must be at least 1")
        views = self.choose_views(views)
        if batch_size < 1:
            raise UsageError(f"batch size is {batch_size}; it must be at least 1")
        return self._stream(_each(images), top, views, batch_size)

    def choose_views(self, views: int | None = None, *, raw: bool = False) -> int:
        """The number of views: `views`, by default that of the decision rule (unless `raw`), else 1.

        Raises
        ------
        UsageError
            If there is no set of that many views, or the decision rule was found with another number.
        """
        if self.rule is None or raw:
            views = 1 if views is None else views
            check_views(views)
            return views
        return rule_views(self.rule, views)

    def answers(self, images: np.ndarray, views: int | None = None, *, raw: bool = False) -> list[Answer]:
        """Decide on prepared images (N, size, size, 3) uint8, by the decision rule if there is one (unless `raw`)."""
        views = self.choose_views(views, raw=raw)
        if self.rule is None or raw:
            return [Answer(row, int(row.argmax())) for row in self.probabilities(images, views)]
        features = None
        if self.rule.distance is None:
            shares = self.probabilities(images, views)
        else:
            shares, features = self.probabilities_and_features(images, views)
        decided = self.rule.apply(shares, features)
        return [
            Answer(
                decided.probabilities[i],
                int(decided.label[i]),
                KINDS[decided.kind[i]],
                None if decided.distance is None else float(decided.distance[i]),
            )
            for i in range(len(decided))
        ]

    def probabilities_and_features(self, images: np.ndarray, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The softmax (N, classes) and the input of the output layer (N, units) of prepared images."""
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        shares, features = probabilities_and_features(self._optimized, self.preprocess, tensor, views)
        return shares.numpy(), features.numpy()

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        """Return the softmax, without the decision rule: images (N, size, size, 3) uint8 → (N, classes) float64."""
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        return probabilities(self._optimized, self.preprocess, tensor, views).numpy()

    def _stream(
        self, images: Iterator[ImageInput | NamedImage], top: int, views: int, batch_size: int
    ) -> Iterator[Prediction | UnreadableImage]:
        self.partly = []
        notice = self.partly.append
        decoded = decode_ahead(images, self.config.size, batch_size, self.pixel_range, self.max_pixels, notice)
        while batch := list(itertools.islice(decoded, batch_size)):
            readable = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
            answers = iter(self.answers(np.stack(readable), views) if readable else ())
            for source, pixels in batch:
                if isinstance(pixels, str):
                    yield UnreadableImage(source, pixels)
                else:
                    yield self.prediction(source, next(answers), top)

    def prediction(self, source: str, answer: Answer, top: int = 5) -> Prediction:
        """An answer with the names of the classes, of which `top` are listed."""
        probability = float(answer.probabilities[answer.label])
        classes = self.top(answer.probabilities, top)
        return Prediction(source, self.labels[answer.label], probability, classes, answer.decision, answer.distance)

    def top(self, probabilities: np.ndarray, count: int) -> list[tuple[str, float]]:
        """Return the labels and probabilities of the `count` most probable of an image's classes (classes,)."""
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.labels[i], float(probabilities[i])) for i in best]


def decode_ahead(
    images: Iterator[ImageInput | NamedImage],
    size: int,
    count: int,
    pixel_range: PixelRange | None = None,
    max_pixels: int = MAX_PIXELS,
    notice: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Decode images by threads.

    Parameters
    ----------
    images : iterator
        The images.
    size : int
        Side of the decoded images in pixels.
    count : int
        Number of images that are decoded ahead of the consumer.
    pixel_range : PixelRange, optional
        Black and white of images with more than 8 bits.
    max_pixels : int
        Limit of the pixels of an image file.
    notice : callable, optional
        As for `load_image`; called by the threads.

    Yields
    ------
    tuple of (str, numpy.ndarray or str)
        Source and pixels (size, size, 3) uint8 of each image in order; instead of pixels the reason where it cannot be
        read.
    """

    def decode(position: int, image: ImageInput | NamedImage) -> tuple[str, np.ndarray | str]:
        source = f"image {position}"
        if isinstance(image, NamedImage):
            source, image = image
        elif isinstance(image, Item):
            source = image.name
        elif isinstance(image, str | os.PathLike):
            source = os.fspath(image)
        try:
            return source, load_image(image, size, pixel_range, max_pixels, notice)
        except UnreadableImageError as error:
            return source, error.reason

    first = list(itertools.islice(images, 2))
    if len(first) < 2:  # without threads, whose start would take longer than some decoders
        yield from (decode(0, image) for image in first)
        return
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder") as threads:
        ahead: deque[Future[tuple[str, np.ndarray | str]]] = deque()
        try:
            for position, image in enumerate(itertools.chain(first, images)):
                ahead.append(threads.submit(decode, position, image))
                if len(ahead) > count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _each(images: ImageInput | NamedImage | Iterable[ImageInput | NamedImage]) -> Iterator[ImageInput | NamedImage]:
    single = isinstance(images, str | os.PathLike | bytes | Image.Image | NamedImage | Item)
    if single or (isinstance(images, np.ndarray) and images.ndim < 4):
        return iter([images])  # type: ignore[list-item]
    return iter(images)  # type: ignore[arg-type]
