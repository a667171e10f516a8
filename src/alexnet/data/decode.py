"""File bytes → one square RGB picture."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet.errors import AlexNetError


class UnreadablePictureError(AlexNetError):
    """The bytes are no picture that can be read; the message is the reason."""


def decode(data: bytes) -> Image.Image:
    """Decode the bytes of a picture file to an upright RGB picture. Raises UnreadablePictureError."""
    if not data:
        raise UnreadablePictureError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            picture.load()
        return ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError:
        raise UnreadablePictureError("not a picture") from None
    except Exception as error:
        raise UnreadablePictureError(f"{type(error).__name__}: {error}") from error


def square(picture: Image.Image, size: int) -> np.ndarray:
    """Scale the shorter side to `size` and cut the centre (paper, section 2). Returns (size, size, 3) uint8 RGB."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))
