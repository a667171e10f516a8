"""Images to classify or to search for: paths, folders, archives, lists of names and standard input."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from alexnet.data.decoding import MAX_PIXELS, extra_content, square_image
from alexnet.data.pixel_range import PixelRange
from alexnet.data.remarks import merge_reasons
from alexnet.data.resize import square
from alexnet.data.rgb import to_rgb
from alexnet.data.sources.items import Ignored, Item, read_item
from alexnet.data.sources.names import guess_encoding
from alexnet.data.sources.walking import ImageFiles, image_files
from alexnet.data.unreadable import UnreadableImageError
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import notify

STDIN = "-"

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Item | UnreadableImageError
"""A file, its content, a PIL image, an array (H, W) or (H, W, 3 or 4) of gray, RGB or RGBA, a file in a folder or
an archive (`Item`), or the error of an image that could not be had."""


class NamedImage(NamedTuple):
    """An image and the name under which its result is returned.

    Attributes
    ----------
    source : str
        Name of the image.
    image : ImageInput
        The image.
    """

    source: str
    image: ImageInput


@dataclass
class Inputs:
    """The images found in what the command line names.

    Attributes
    ----------
    images : list of NamedImage
        In order; a place that could not be read is one whose image is the error.
    ignored : list of Ignored
        Files in folders and archives that are not images.
    """

    images: list[NamedImage] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    _walks: list[ImageFiles] = field(default_factory=list)  # keep uncompressed copies of archives in existence

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[NamedImage]:
        """Yield the images; standard input is read when its turn comes, a second time to its end, which is empty."""
        for image in self.images:
            yield NamedImage(STDIN, sys.stdin.buffer.read()) if image.source == image.image == STDIN else image

    def add(self, path: str | os.PathLike[str]) -> None:
        """Add the images of a file, a folder or an archive."""
        walk = image_files(path)
        try:
            self.images += [NamedImage(item.name, item) for item in walk]
        except AlexNetError as error:
            self.images.append(NamedImage(os.fspath(path), UnreadableImageError(_without(str(error), path))))
        self.ignored += walk.ignored
        self._walks.append(walk)

    def summary(self) -> list[str]:
        """Return a line for each reason for which files were ignored."""
        counts: dict[str, tuple[int, str]] = {}
        for reason, files, first in self.ignored:
            before, name = counts.get(reason, (0, first))
            counts[reason] = (before + files, name)
        return [
            f"ignored: {files:,} {'file' if files == 1 else 'files'}, {reason}, such as {first}"
            for reason, (files, first) in counts.items()
        ]


def find_images(paths: Sequence[str | os.PathLike[str]], lists: Sequence[str | os.PathLike[str]] = ()) -> Inputs:
    """Find the images to classify.

    Parameters
    ----------
    paths : sequence of str or path
        Files, folders (searched recursively), zip or tar files, and "-" for an image on standard input.
    lists : sequence of str or path
        Text files with one such path per line, relative to the working folder or to the folder of the list; "-" reads
        the list from standard input.

    Returns
    -------
    Inputs
        All images, in order.

    Raises
    ------
    AlexNetError
        There is no image at all, or a list cannot be read.
    """
    found = Inputs()
    for path in paths:
        if os.fspath(path) == STDIN:
            found.images.append(NamedImage(STDIN, STDIN))
        else:
            found.add(path)
    for names in lists:
        for line in _lines(names):
            found.add(_listed(line, os.path.dirname(os.fspath(names))))
    if not found.images:
        places = ", ".join(os.fspath(path) for path in (*paths, *lists)) or "an empty list"
        raise AlexNetError(f"no images in {places}: an image is a file with an ending such as .jpg or .png")
    return found


def load_image(
    image: ImageInput,
    size: int,
    pixel_range: PixelRange | None = None,
    max_pixels: int = MAX_PIXELS,
    notice: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Decode, scale and cut an image as a prepared dataset stores it.

    Parameters
    ----------
    image : ImageInput
        The image.
    size : int
        Side of the result in pixels.
    pixel_range : PixelRange, optional
        Black and white of images with more than 8 bits.
    max_pixels : int
        Limit of the pixels of an image file.
    notice : callable, optional
        Called with which part is read of a file of several pages, frames or many bands.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8 RGB.

    Raises
    ------
    UnreadableImageError
        It cannot be read, with the reason.
    """
    if isinstance(image, UnreadableImageError):
        raise image
    if isinstance(image, Image.Image | np.ndarray):
        try:
            return square(to_rgb(image, pixel_range), size)
        except UnreadableImageError:
            raise
        except Exception as error:  # a PIL image that was opened and not yet read raises what its decoder raises
            raise UnreadableImageError(f"damaged: {error}") from error
    data = _content(image)
    pixels = square_image(data, size, max_pixels, pixel_range)
    if notice is not None and (part := extra_content(data)):
        notice(part)
    return pixels


def partly_read(parts: Iterable[str], total: int) -> list[str]:
    """Return a line for each kind of file of which only a part was read, as `load_image` notices them."""
    parts = list(parts)
    merged = merge_reasons(parts)
    counts = Counter(merged[part] for part in parts)
    of = f"{total:,} {'image' if total == 1 else 'images'}"
    return [f"{count:,} of {of} {'has' if count == 1 else 'have'} {part}" for part, count in sorted(counts.items())]


def print_unread(unreadable: int, parts: Iterable[str], total: int) -> None:
    """Print how many of `total` images were read only in part, and how many not at all."""
    for line in partly_read(parts, total):
        notify(line)
    if unreadable:
        notify(f"alexnet: {unreadable:,} of {total:,} {'image' if total == 1 else 'images'} unreadable")


def _content(image: ImageInput) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Item):
        return read_item(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except IsADirectoryError:
            raise UnreadableImageError("is a folder, not an image") from None
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from None
        except ValueError as error:  # a NUL in the path
            raise UnreadableImageError(str(error)) from None
    raise UnreadableImageError(f"a {type(image).__name__} is no image: give a path, bytes, a PIL image or an array")


def _lines(names: str | os.PathLike[str]) -> Iterable[str]:
    """The paths of a list, without blank lines."""
    try:
        content = sys.stdin.buffer.read() if os.fspath(names) == STDIN else Path(names).read_bytes()
    except OSError as error:
        raise AlexNetError(f"the list {os.fspath(names)} cannot be read: {error.strerror or error}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:  # a name on disk need not be UTF-8
        text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    return [line for line in re.split(r"\r\n|[\r\n]", text) if line.strip()]


def _listed(line: str, folder: str) -> str:
    """The path that a line of a list names: as it is, without quotation marks around it, or in Korean of Windows."""
    plain = line.strip()
    unquoted = plain[1:-1] if len(plain) > 2 and plain[0] == plain[-1] and plain[0] in "\"'" else plain
    forms = [line, plain, unquoted]
    if (encoding := guess_encoding(os.fsencode(unquoted))) is not None:
        forms.append(os.fsencode(unquoted).decode(encoding))
    places = [place for form in forms for place in (form, os.path.join(folder, form))]
    return next((place for place in places if os.path.lexists(place)), line)


def _without(message: str, path: str | os.PathLike[str]) -> str:
    """An error without the path that it begins with, which is the name of the result."""
    return message.removeprefix(os.fspath(path)).lstrip(": ").removeprefix("is ")
