"""Any image → upright RGB: the one way that an image goes, when it is prepared and when it is classified.

What becomes of what is not 8-bit RGB:

- EXIF orientation is applied. Of an animation the first frame is taken.
- Transparency is laid over white, the page that a cut-out was made for.
- 16-bit gray: the whole range, 0 to 65535, becomes 0 to 255, the same for every image.
- Floating point: values within 0 to 1 are black to white, values within 0 to 255 are taken as they are. What exceeds
  both, and 32-bit integers beyond 16 bits, have no agreed black and white: least to greatest becomes 0 to 255.
- CMYK becomes RGB by complement (also as Adobe writes it, inverted); color profiles are not applied.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet.data.resize import square
from alexnet.runtime.errors import AlexNetError

MAX_PIXELS = 178_956_970
"""More is taken for a decompression bomb: where Pillow draws the line, half a gigabyte of RGB."""

# Formats that a few first bytes identify; among Pillow's others are some that call programs or take any bytes at all.
FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "ICO", "ICNS", "DDS"),
    *("QOI", "SGI", "PCX", "PSD"),
)
_OTHERS = {
    b"%PDF": "a PDF document, not an image",
    b"<svg": "an SVG drawing, not an image of pixels",
    b"ftyphei": "a HEIC image, which this alexnet can't decode: save it as JPEG or PNG",
    b"ftypmif1": "a HEIF image, which this alexnet can't decode: save it as JPEG or PNG",
}


class UnreadableImageError(AlexNetError):
    """The bytes are no image that can be read; the message is the reason."""


class NotAImageError(UnreadableImageError):
    """The bytes are something else."""


class TooManyPixelsError(UnreadableImageError):
    """The image has more pixels than are decoded."""


def square_image(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The bytes of an image file → (size, size, 3) uint8 RGB: shorter side to `size`, center cut (paper, section 2).

    Raises UnreadableImageError.
    """
    # A JPEG of more than twice the size is decoded at 1/2, 1/4 or 1/8, exact averages of its own frequencies.
    return square(decode(data, 2 * size, max_pixels), size)


def decode(data: bytes, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The bytes of an image file → (H, W, 3) uint8 RGB, upright.

    at_least: pixels of the shorter side that are enough; a larger JPEG may then be decoded at 1/2, 1/4 or 1/8 of its
    sides. Raises UnreadableImageError with the reason: truncated, empty, damaged, …; `NotAImageError` where it is
    something else, `TooManyPixelsError` for one of more than `max_pixels`, which is not decoded.
    """
    if not data:
        raise UnreadableImageError("empty file")
    if data.startswith(b"\x1f\x8b"):  # some photographs of ILSVRC-2010 are gzipped, under the name of a JPEG
        data = _gunzip(data, max_pixels)
    if data.startswith(b"\x93NUMPY"):
        return to_rgb(_load_array(data, max_pixels))
    if data.startswith(b"\xff\xd8\xff"):
        image = _decode_jpeg(data, at_least, max_pixels)
        if image is not None:
            return image
    return _decode_any(data, at_least, max_pixels)


def to_rgb(image: Image.Image | np.ndarray) -> np.ndarray:
    """A PIL image or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) → (H, W, 3) uint8 RGB, upright.

    An array is gray, RGB or RGBA of bool, uint8, or what the module says of 16 bits and floating point. Raises
    UnreadableImageError.
    """
    if isinstance(image, np.ndarray):
        return _array_to_rgb(image)
    with suppress(Exception):  # EXIF that can't be read turns nothing
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _array_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        image = page
    return np.asarray(image.convert("RGB"))


def _decode_jpeg(data: bytes, at_least: int | None, max_pixels: int) -> np.ndarray | None:
    """A sound JPEG of gray or color, decoded by libjpeg-turbo; None where Pillow is to judge."""
    header = _jpeg_header(data)
    if header is None or header.components not in (1, 3) or header.height * header.width > max_pixels:
        return None
    factor = _reduction(min(header.height, header.width), at_least)
    try:
        image = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-header.height // factor), min_width=-(-header.width // factor), min_factor=factor
        )
    except ValueError:
        return None
    return _upright(image, data) if header.exif else image


class _JpegHeader(NamedTuple):
    height: int
    width: int
    components: int
    exif: bool


def _jpeg_header(data: bytes) -> _JpegHeader | None:
    """What a JPEG says of itself before its first scan; None when that is not what the standard prescribes."""
    position, exif = 2, False
    while data[position : position + 1] == b"\xff" and position + 9 < len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, position + 5)
            return _JpegHeader(height, width, components, exif) if height and width else None
        exif |= marker == 0xE1 and data.startswith(b"Exif\0\0", position + 4)
        position += 2 + length
    return None


def _decode_any(data: bytes, at_least: int | None, max_pixels: int) -> np.ndarray:
    Image.init()  # all formats; Pillow itself only loads them when the common ones fail
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_many(width * height, max_pixels)
            factor = _reduction(min(width, height), at_least)
            if factor > 1 and image.format in ("JPEG", "MPO"):
                image.draft(None, (width // factor, height // factor))
            image.load()
            return to_rgb(image)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly everything
        raise _unreadable(error, data) from error


def _reduction(side: int, at_least: int | None) -> int:
    """How far a JPEG may be reduced while decoding: 1, 2, 4 or 8."""
    return 1 if at_least is None else next((n for n in (8, 4, 2) if side // n >= at_least), 1)


def _upright(image: np.ndarray, data: bytes) -> np.ndarray:
    with suppress(Exception), Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
        orientation = header.getexif().get(0x0112, 1)
        if orientation in range(2, 9):
            stored = Image.fromarray(image)
            stored.getexif()[0x0112] = orientation
            return np.asarray(ImageOps.exif_transpose(stored))
    return image


def _array_to_rgb(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UnreadableImageError(f"an array of shape {array.shape}: an image is (H, W), (H, W, 3) or (H, W, 4)")
    array = _to_8_bits(array)
    if array.shape[2] == 4:
        return to_rgb(Image.fromarray(np.ascontiguousarray(array)))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise UnreadableImageError(f"an array of {values.dtype}: an image is made of numbers")
    finite = np.isfinite(values)
    if not finite.any():
        raise UnreadableImageError("no finite value")
    least, greatest = float(values[finite].min()), float(values[finite].max())
    if values.dtype.kind in "ui" and least >= 0 and greatest <= 65535:
        black, white = 0.0, 65535.0
    elif values.dtype.kind == "f" and least >= 0 and greatest <= 1:
        black, white = 0.0, 1.0
    elif values.dtype.kind == "f" and least >= 0 and greatest <= 255:
        black, white = 0.0, 255.0
    else:
        black, white = least, greatest
    shares = (np.where(finite, values, least).astype(np.float64) - black) / max(white - black, 1e-300)
    return np.floor(shares * 255 + 0.5).astype(np.uint8)


def _load_array(data: bytes, max_pixels: int) -> np.ndarray:
    try:
        # The header is read before the values: one that promises more than there is would be given memory.
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if math.prod(shape) * dtype.itemsize > len(data):
            raise UnreadableImageError("truncated")
        if math.prod(shape[:2]) > max_pixels:
            raise _too_many(math.prod(shape[:2]), max_pixels)
        array: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableImageError(f"a damaged array: {error}") from error
    return array


def _gunzip(data: bytes, max_pixels: int) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = file.read(max_pixels)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableImageError(f"a damaged gzip file: {error}") from error
    return unpacked


def _too_many(pixels: int, most: int = MAX_PIXELS) -> TooManyPixelsError:
    bomb = pixels > MAX_PIXELS
    return TooManyPixelsError(
        f"{'a decompression bomb: ' * bomb}{pixels:,} pixels{f', more than {most:,}' * (not bomb)}"
    )


def _unreadable(error: Exception, data: bytes) -> UnreadableImageError:
    """What a decoder's error comes down to."""
    words = str(error).strip() or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        start = data[:256].lower()
        return NotAImageError(next((what for mark, what in _OTHERS.items() if mark.lower() in start), "not an image"))
    if isinstance(error, Image.DecompressionBombError):
        return _too_many(int(re.findall("[0-9]+", words)[0]))
    if isinstance(error, MemoryError):
        return UnreadableImageError("too large for the memory")
    if "truncated" in words.lower() or isinstance(error, EOFError):
        return UnreadableImageError("truncated")
    return UnreadableImageError(f"damaged: {words}")
