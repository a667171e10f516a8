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
from alexnet.data.decoding import MAX_PIXELS, UnreadableImageError
from alexnet.data.pixel_range import PixelRange
from alexnet.data.sources.items import Item
from alexnet.evaluation.inference import probabilities
from alexnet.evaluation.views import check_views
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.prediction.inputs import ImageInput, NamedImage, load_image
from alexnet.runs.run import Config, Run
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError

BATCH_SIZE = 64
DECODERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    Attributes
    ----------
    source : str
        Path or name of the image; for one without, its position, such as "image 3" for the fourth.
    top : list of (str, float)
        The most probable classes with their probabilities (0 to 1), in descending order.
    """

    source: str
    top: list[tuple[str, float]]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Its probability, 0 to 1."""
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction in its JSON form."""
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
        }


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

    Examples
    --------
    >>> Classifier.load("run").predict(["a.jpg", "b.png"])  # doctest: +SKIP
    """

    def __init__(
        self, network: AlexNet, preprocess: Preprocessing, config: Config, precision: torch.dtype = torch.float32
    ) -> None:
        self.network, self.preprocess, self.config = network, preprocess, config
        self.pixel_range = PixelRange.from_dict(config.pixel_range)
        self.max_pixels = MAX_PIXELS
        self.partly: list[str] = []  # of each image of which only a page or some bands were read, which
        self._optimized = OptimizedNetwork(network, precision)

    @classmethod
    def load(cls, run: str | os.PathLike[str], *, device: str | None = None, precision: str = "float32") -> Classifier:
        """Load a run folder.

        Parameters
        ----------
        run : str or path
            The run folder.
        device : str, optional
            Such as "cpu" or "cuda:1". Default: the best that is available.
        precision : str
            "float32", "bfloat16" or "auto".

        Raises
        ------
        AlexNetError
            The folder is not a run, or its weights cannot be read.
        UsageError
            The device or precision does not exist.
        """
        chosen_device = choose_device(device)
        opened = Run.open(run)
        return cls(*opened.load(chosen_device), opened.config, choose_precision(precision, chosen_device))

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
        views: int = 1,
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
        views : int
            Number of crops per image whose probabilities are averaged: 1, the center, or 10 (paper, section 4.1).
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
        views: int = 1,
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
        check_views(views)
        if batch_size < 1:
            raise UsageError(f"batch size is {batch_size}; it must be at least 1")
        return self._stream(_each(images), top, views, batch_size)

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        """Return the probability of every class: prepared images (N, size, size, 3) uint8 → (N, classes) float64."""
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
            rows = iter(self.probabilities(np.stack(readable), views) if readable else ())
            for source, pixels in batch:
                if isinstance(pixels, str):
                    yield UnreadableImage(source, pixels)
                else:
                    yield Prediction(source, self.top(next(rows), top))

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

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder") as threads:
        ahead: deque[Future[tuple[str, np.ndarray | str]]] = deque()
        try:
            for position, image in enumerate(images):
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
