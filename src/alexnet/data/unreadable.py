"""Why the bytes of a file are not an image that can be decoded."""

from __future__ import annotations

import re
import struct

from PIL import Image, UnidentifiedImageError

from alexnet.data.file_types import describe_file_type
from alexnet.runtime.errors import AlexNetError

BOMB = 1000  # pixels for each byte of the file: a larger ratio is called a decompression bomb


class UnreadableImageError(AlexNetError):
    """The bytes are not an image that can be decoded; the message is the reason."""

    @property
    def reason(self) -> str:
        """The message, with the option of the command line that helps, where there is one."""
        return str(self)


class NotAnImageError(UnreadableImageError):
    """The bytes are another type of file."""


class TooManyPixelsError(UnreadableImageError):
    """The image has more pixels than the limit and was not decoded.

    Attributes
    ----------
    pixels, limit : int
        Pixels of the image and the limit.
    """

    def __init__(self, pixels: int, limit: int, file_bytes: int) -> None:
        self.pixels, self.limit = pixels, limit
        bomb = "a decompression bomb: " if pixels > BOMB * file_bytes else ""
        super().__init__(f"{bomb}{pixels:,} pixels, more than the limit of {limit:,}")

    @property
    def reason(self) -> str:
        return f"{self}; --max-pixels {self.pixels} would decode it"


def unreadable(error: Exception, data: bytes, max_pixels: int) -> UnreadableImageError:
    """The error of an image file that a decoder's error amounts to."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        return NotAnImageError(describe_file_type(data[:4096]) or "not an image")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return TooManyPixelsError(int(re.findall("[0-9]+", message)[0]), max_pixels, len(data))
    if isinstance(error, MemoryError):
        return UnreadableImageError("too large for the memory")
    if "truncated" in message.lower() or isinstance(error, EOFError | struct.error):
        return UnreadableImageError("truncated")
    return UnreadableImageError(f"damaged: {message}")
