"""A trained network at work: pictures in, labels with probabilities out."""

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

from alexnet.data.augment import Preprocess
from alexnet.data.decode import UnreadablePictureError, square_picture, to_rgb
from alexnet.data.resize import square
from alexnet.errors import AlexNetError, UsageError
from alexnet.evaluation.views import check_views, probabilities
from alexnet.model import AlexNet
from alexnet.run import Config, Run
from alexnet.training.precision import choose_device, choose_precision
from alexnet.working import WorkingNetwork

BATCH_SIZE = 64
DECODERS = min(8, os.cpu_count() or 1)

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A file, the bytes of one, a PIL image, or an array (H, W) or (H, W, 3 or 4) of grey, RGB or RGBA."""


class Named(NamedTuple):
    """A picture with the name under which its prediction comes back."""

    source: str
    picture: Picture


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture.

    `source`: its path or name; for a picture without, its position, such as "picture 3" for the fourth. `top`: the
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
    """A picture that could not be read, and why."""

    source: str
    reason: str


class Classifier:
    """A trained network, ready for pictures: `Classifier.load(RUN).predict(["a.jpg", "b.png"])`."""

    def __init__(
        self, network: AlexNet, preprocess: Preprocess, config: Config, precision: torch.dtype = torch.float32
    ) -> None:
        self.network, self.preprocess, self.config = network, preprocess, config
        self._working = WorkingNetwork(network, precision)

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
        pictures: Picture | Named | Iterable[Picture | Named],
        top: int = 5,
        views: int = 1,
        batch_size: int = BATCH_SIZE,
    ) -> list[Prediction]:
        """The `top` most probable classes of each picture, in order; for one picture a list of one.

        A picture is a path, the bytes of a file, a PIL image, or an array (H, W) or (H, W, 3 or 4), uint8 or what
        `alexnet.data.decode` says of others; an array (N, H, W, 3) is N pictures. They are decoded, scaled and cut as
        `alexnet prepare` does it. `views`: 1, the centre, or 10, the paper's test (section 4.1).

        Raises `AlexNetError` naming the first picture that can't be read; `stream` goes on after one.
        """
        results = []
        for result in self.stream(pictures, top, views, batch_size):
            if isinstance(result, Unread):
                raise AlexNetError(f"{result.source}: {result.reason}")
            results.append(result)
        return results

    def stream(
        self,
        pictures: Picture | Named | Iterable[Picture | Named],
        top: int = 5,
        views: int = 1,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Prediction | Unread]:
        """As `predict`, one result after another in the order of the pictures, `Unread` for one that can't be read.

        Threads decode ahead of the network. Memory is that of a few batches, whatever the number of pictures.
        """
        if top < 1:
            raise UsageError(f"top is {top}; it must be at least 1")
        check_views(views)
        if batch_size < 1:
            raise UsageError(f"batch size is {batch_size}; it must be at least 1")
        return self._stream(_each(pictures), top, views, batch_size)

    def probabilities(self, pictures: np.ndarray, views: int = 1) -> np.ndarray:
        """Probability of every class: prepared pictures (N, size, size, 3) uint8 RGB → (N, classes) float64."""
        tensor = torch.from_numpy(np.ascontiguousarray(pictures))
        return probabilities(self._working, self.preprocess, tensor, views).numpy()

    def _stream(
        self, pictures: Iterator[Picture | Named], top: int, views: int, batch_size: int
    ) -> Iterator[Prediction | Unread]:
        read = read_ahead(pictures, self.config.size, batch_size)
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
        """Of a picture's `probabilities` (classes,) the `count` greatest with their labels, falling."""
        best = np.argsort(-shares, kind="stable")[:count]
        return [(self.labels[i], float(shares[i])) for i in best]


def pixels_of(picture: Picture, size: int) -> np.ndarray:
    """Any picture as prepared datasets hold it, (size, size, 3) uint8 RGB. Raises `UnreadablePictureError`."""
    if isinstance(picture, bytes):
        return square_picture(picture, size)
    if isinstance(picture, str | os.PathLike):
        try:
            return square_picture(Path(picture).read_bytes(), size)
        except IsADirectoryError:
            raise UnreadablePictureError("is a folder, not a picture") from None
        except OSError as error:
            raise UnreadablePictureError(error.strerror or str(error)) from None
    if isinstance(picture, Image.Image | np.ndarray):
        try:
            return square(to_rgb(picture), size)
        except OSError as error:  # a PIL image that was opened and not yet read
            raise UnreadablePictureError(str(error)) from error
    raise UnreadablePictureError(
        f"a {type(picture).__name__} is no picture: give a path, bytes, a PIL image or an array"
    )


def _each(pictures: Picture | Named | Iterable[Picture | Named]) -> Iterator[Picture | Named]:
    single = isinstance(pictures, str | os.PathLike | bytes | Image.Image | Named)
    if single or (isinstance(pictures, np.ndarray) and pictures.ndim < 4):
        return iter([pictures])  # type: ignore[list-item]
    return iter(pictures)  # type: ignore[arg-type]


def read_ahead(pictures: Iterator[Picture | Named], size: int, count: int) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each picture's source and its pixels, or why it has none, read by threads up to `count` pictures ahead."""

    def read(number: int, picture: Picture | Named) -> tuple[str, np.ndarray | str]:
        source = f"picture {number}"
        if isinstance(picture, Named):
            source, picture = picture.source, picture.picture
        elif isinstance(picture, str | os.PathLike):
            source = os.fspath(picture)
        try:
            return source, pixels_of(picture, size)
        except UnreadablePictureError as error:
            return source, str(error)

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder") as threads:
        ahead: deque[Future[tuple[str, np.ndarray | str]]] = deque()
        try:
            for number, picture in enumerate(pictures):
                ahead.append(threads.submit(read, number, picture))
                if len(ahead) > count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def picture_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[str], int]:
    """The files named, and the picture files in the folders named, recursively and in order of their names.

    In a folder a picture is a file whose ending is that of a picture format; hidden ones are left alone. Returns the
    paths and how many other files the folders hold. Raises `AlexNetError` when there is no picture at all.
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
        raise AlexNetError(f"no pictures in {where}: a picture is a file with an ending such as .jpg or .png")
    return files, others


def _raise(error: OSError) -> None:
    raise AlexNetError(f"{error.filename} can't be read: {error.strerror}") from error
