"""A trained network at work: images in, labels with probabilities out."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from alexnet.data.augmentation import Preprocessing
from alexnet.data.decoding import UnreadableImageError, square_image, to_rgb
from alexnet.data.resize import square
from alexnet.evaluation.inference import probabilities
from alexnet.evaluation.views import check_views
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.run import Config, Run
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError

BATCH_SIZE = 64
DECODERS = min(8, os.cpu_count() or 1)

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A file, the bytes of one, a PIL image, or an array (H, W) or (H, W, 3 or 4) of gray, RGB or RGBA."""


class Named(NamedTuple):
    """An image with the name under which its prediction comes back."""

    source: str
    image: ImageInput


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    `source`: its path or name; for an image without, its position, such as "image 3" for the fourth. `top`: the
    most probable classes with their probabilities (0 to 1), falling; `label` and `probability` are the first of them.
    """

    source: str
    top: list[tuple[str, float]]

    @property
    def label(self) -> str:
        return self.top[0][0]

    @property
    def probability(self) -> float:
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON has it."""
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
        }


@dataclass(frozen=True)
class Unread:
    """An image that could not be read, and why."""

    source: str
    reason: str


class Classifier:
    """A trained network, ready for images: `Classifier.load(RUN).predict(["a.jpg", "b.png"])`."""

    def __init__(
        self, network: AlexNet, preprocess: Preprocessing, config: Config, precision: torch.dtype = torch.float32
    ) -> None:
        self.network, self.preprocess, self.config = network, preprocess, config
        self._working = OptimizedNetwork(network, precision)

    @classmethod
    def load(cls, run: str | os.PathLike[str], *, device: str | None = None, precision: str = "float32") -> Classifier:
        """Load a run folder, on the best device there is unless `device` names one.

        `precision`: "float32", "bfloat16" or "auto". Raises `AlexNetError` when the folder is no run or its weights
        can't be read, `UsageError` for a device or precision that does not exist.
        """
        where = choose_device(device)
        opened = Run.open(run)
        return cls(*opened.load(where), opened.config, choose_precision(precision, where))

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the network's outputs."""
        return self.config.classes

    @property
    def labels(self) -> list[str]:
        """What predictions call the classes: in words where the names are identifiers (ImageNet), else the names."""
        return self.config.labels

    def predict(
        self,
        images: ImageInput | Named | Iterable[ImageInput | Named],
        top: int = 5,
        views: int = 1,
        batch_size: int = BATCH_SIZE,
    ) -> list[Prediction]:
        """The `top` most probable classes of each image, in order; for one image a list of one.

        An image is a path, the bytes of a file, a PIL image, or an array (H, W) or (H, W, 3 or 4), uint8 or what
        `alexnet.data.decoding` says of others; an array (N, H, W, 3) is N images. They are decoded, scaled and cut as
        `alexnet prepare` does it. `views`: 1, the center, or 10, the paper's test (section 4.1).

        Raises `AlexNetError` naming the first image that can't be read; `stream` goes on after one.
        """
        results = []
        for result in self.stream(images, top, views, batch_size):
            if isinstance(result, Unread):
                raise AlexNetError(f"{result.source}: {result.reason}")
            results.append(result)
        return results

    def stream(
        self,
        images: ImageInput | Named | Iterable[ImageInput | Named],
        top: int = 5,
        views: int = 1,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Prediction | Unread]:
        """As `predict`, one result after another in the order of the images, `Unread` for one that can't be read.

        Threads decode ahead of the network. Memory is that of a few batches, whatever the number of images.
        """
        if top < 1:
            raise UsageError(f"top is {top}; it must be at least 1")
        check_views(views)
        if batch_size < 1:
            raise UsageError(f"batch size is {batch_size}; it must be at least 1")
        return self._stream(_each(images), top, views, batch_size)

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        """Probability of every class: prepared images (N, size, size, 3) uint8 RGB → (N, classes) float64."""
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        return probabilities(self._working, self.preprocess, tensor, views).numpy()

    def _stream(
        self, images: Iterator[ImageInput | Named], top: int, views: int, batch_size: int
    ) -> Iterator[Prediction | Unread]:
        read = read_ahead(images, self.config.size, batch_size)
        while batch := list(itertools.islice(read, batch_size)):
            readable = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
            shares = iter(self.probabilities(np.stack(readable), views) if readable else ())
            for source, pixels in batch:
                yield (
                    Unread(source, pixels)
                    if isinstance(pixels, str)
                    else Prediction(source, self.top(next(shares), top))
                )

    def top(self, shares: np.ndarray, count: int) -> list[tuple[str, float]]:
        """Of an image's `probabilities` (classes,) the `count` greatest with their labels, falling."""
        best = np.argsort(-shares, kind="stable")[:count]
        return [(self.labels[i], float(shares[i])) for i in best]


def pixels_of(image: ImageInput, size: int) -> np.ndarray:
    """Any image as prepared datasets hold it, (size, size, 3) uint8 RGB. Raises `UnreadableImageError`."""
    if isinstance(image, bytes):
        return square_image(image, size)
    if isinstance(image, str | os.PathLike):
        try:
            return square_image(Path(image).read_bytes(), size)
        except IsADirectoryError:
            raise UnreadableImageError("is a folder, not an image") from None
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
    if isinstance(image, Image.Image | np.ndarray):
        try:
            return square(to_rgb(image), size)
        except OSError as error:  # a PIL image that was opened and not yet read
            raise UnreadableImageError(str(error)) from error
    raise UnreadableImageError(f"a {type(image).__name__} is no image: give a path, bytes, a PIL image or an array")


def _each(images: ImageInput | Named | Iterable[ImageInput | Named]) -> Iterator[ImageInput | Named]:
    single = isinstance(images, str | os.PathLike | bytes | Image.Image | Named)
    if single or (isinstance(images, np.ndarray) and images.ndim < 4):
        return iter([images])  # type: ignore[list-item]
    return iter(images)  # type: ignore[arg-type]


def read_ahead(images: Iterator[ImageInput | Named], size: int, count: int) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each image's source and its pixels, or why it has none, read by threads up to `count` images ahead."""

    def read(number: int, image: ImageInput | Named) -> tuple[str, np.ndarray | str]:
        source = f"image {number}"
        if isinstance(image, Named):
            source, image = image.source, image.image
        elif isinstance(image, str | os.PathLike):
            source = os.fspath(image)
        try:
            return source, pixels_of(image, size)
        except UnreadableImageError as error:
            return source, str(error)

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder") as threads:
        ahead: deque[Future[tuple[str, np.ndarray | str]]] = deque()
        try:
            for number, image in enumerate(images):
                ahead.append(threads.submit(read, number, image))
                if len(ahead) > count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def image_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[str], int]:
    """The files named, and the image files in the folders named, recursively and in order of their names.

    In a folder an image is a file whose ending is that of an image format; hidden ones are left alone. Returns the
    paths and how many other files the folders hold. Raises `AlexNetError` when there is no image at all.
    """
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files: list[str] = []
    others = 0
    for path in paths:
        if not os.path.isdir(path):
            files.append(os.fspath(path))
            continue
        for folder, folders, names in os.walk(path, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            visible = sorted(name for name in names if not name.startswith("."))
            found = [name for name in visible if os.path.splitext(name)[1].lower() in endings]
            files += [os.path.join(folder, name) for name in found]
            others += len(visible) - len(found)
    if not files:
        where = ", ".join(os.fspath(path) for path in paths)
        raise AlexNetError(f"no images in {where}: an image is a file with an ending such as .jpg or .png")
    return files, others


def _raise(error: OSError) -> None:
    raise AlexNetError(f"{error.filename} can't be read: {error.strerror}") from error
