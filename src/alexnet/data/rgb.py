"""Conversion of images and arrays to upright 8-bit RGB.

- EXIF orientation is applied.
- Transparency is composited over white, the page that a cut-out was made for.
- Integers of more than 8 bits and floating point: black and white are those of the dataset (`PixelRange`), where it has
  such images. Without a range, integers within 0 to 255 are 8-bit values of whatever data type; other integers within
  16 bits have 0 as black and 65535 as white; floating point within 0 to 1 has 1 as white, within 0 to 255 has 255; and
  of anything else the least value of the image is black and the greatest white. Pixels without data are black.
- CMYK becomes RGB by complement (also as Adobe writes it, inverted); color profiles are not applied.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from alexnet.data.pixel_range import Interval, PixelRange, missing
from alexnet.data.unreadable import UnreadableImageError


def to_rgb(image: Image.Image | np.ndarray, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Convert a PIL image or an array to RGB.

    Parameters
    ----------
    image : PIL.Image.Image or numpy.ndarray
        An array is gray (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), of bool, integers or floating point.
    pixel_range : PixelRange, optional
        Black and white of images with more than 8 bits. Default: as the module's text says.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8 RGB, upright.

    Raises
    ------
    UnreadableImageError
        The array has another shape, or values that are no numbers.
    """
    found = Stored(image) if isinstance(image, np.ndarray) else converted(image)
    return found if isinstance(found, np.ndarray) else stored_to_rgb(found, pixel_range)


class Stored(NamedTuple):
    """Pixel values as a file or an array stores them; `inverted`: 0 is white."""

    values: np.ndarray
    inverted: bool = False
    no_data: float | None = None


def upright(image: Image.Image) -> Image.Image:
    with suppress(Exception):  # EXIF that can't be read turns nothing
        return ImageOps.exif_transpose(image)
    return image


def converted(image: Image.Image) -> np.ndarray | Stored:
    """A PIL image as RGB, or its values where they have more than 8 bits."""
    image = upright(image)
    if image.mode.startswith(("I", "F")):
        return Stored(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        image = page
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def stored_to_rgb(stored: Stored, pixel_range: PixelRange | None) -> np.ndarray:
    values = stored.values
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        hint = ""
        if values.ndim == 3 and values.shape[0] in (1, 3, 4) and 0 not in values.shape:
            hint = "; transpose(1, 2, 0) puts its channels last"
        raise UnreadableImageError(
            f"an array of shape {stored.values.shape}: an image is (H, W), (H, W, 3) or (H, W, 4){hint}"
        )
    if values.dtype == np.uint8 and not stored.inverted:
        pixels = values
    else:
        pixels = _to_8_bits(values[:, :, :3], pixel_range, stored.no_data)
        pixels = 255 - pixels if stored.inverted else pixels
        if values.shape[2] == 4:
            pixels = np.concatenate([pixels, _alpha(values[:, :, 3:], pixel_range)], 2)
    if pixels.shape[2] == 4:
        found = converted(Image.fromarray(np.ascontiguousarray(pixels)))
        assert isinstance(found, np.ndarray)
        return found
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _alpha(values: np.ndarray, pixel_range: PixelRange | None) -> np.ndarray:
    """Opacity, which is full at the greatest value of the range, or of the data type where the range is exceeded."""
    interval = None if pixel_range is None else pixel_range.of(values)
    if interval is not None and float(values.max()) > interval.white:
        pixel_range = None
    return _to_8_bits(values, pixel_range, None)


def _to_8_bits(values: np.ndarray, pixel_range: PixelRange | None, no_data: float | None) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise UnreadableImageError(f"an array of {values.dtype}: an image is made of numbers")
    absent = missing(values, no_data)
    present = values if absent is None else values[~absent]
    if not present.size:
        raise UnreadableImageError("no finite value" if values.dtype.kind == "f" else "no pixel has data")
    interval = None if pixel_range is None else pixel_range.of(values)
    least, greatest = float(present.min()), float(present.max())
    black, white = interval or _own_range(values.dtype, least, greatest)
    if values.dtype == np.uint16 and absent is None:
        return _scaled(np.arange(65536), black, white)[values]
    if absent is not None:
        values = np.where(absent, values.dtype.type(least), values)
    pixels = _scaled(values, black, white)
    if absent is not None:
        pixels[absent] = 0
    return pixels


def _scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    shares = (values.astype(np.float64) - black) / max(white - black, 1e-300)
    return np.floor(np.clip(shares, 0, 1) * 255 + 0.5).astype(np.uint8)


def _own_range(dtype: np.dtype, least: float, greatest: float) -> Interval:
    """Black and white of one image alone, where there is no range of a dataset."""
    if least >= 0:
        steps: tuple[float, ...] = (1.0, 255.0) if dtype.kind == "f" else (255.0, 65535.0)
        for white in steps:
            if greatest <= white:
                return Interval(0.0, white)
    return Interval(least, greatest)
