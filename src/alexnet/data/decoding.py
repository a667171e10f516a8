"""Decoding: any image file or array to upright 8-bit RGB, the same for `prepare`, `predict`, `search` and `serve`.

Of an animation or a file of several pages the first is read; of a TIFF file of more than four bands the first three.
`alexnet.data.rgb` converts what is not 8-bit RGB.
"""

from __future__ import annotations

import ctypes
import functools
import gzip
import io
import logging
import math
import re
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet.data.file_types import describe_raw_tiff
from alexnet.data.pixel_range import PixelRange
from alexnet.data.resize import square
from alexnet.data.rgb import Stored, converted, stored_to_rgb, upright
from alexnet.data.unreadable import BOMB, NotAnImageError, TooManyPixelsError, UnreadableImageError, unreadable

MAX_PIXELS = 250_000_000
"""Default limit of the pixels of an image: its decoded form takes a gigabyte."""
LARGE_PIXELS = 50_000_000
"""Images of more pixels are decoded one at a time in a process, and reduced before they are converted."""

# Formats that a few first bytes identify; among Pillow's others are some that call programs or take any bytes at all.
FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "ICO", "ICNS", "DDS"),
    *("QOI", "SGI", "PCX", "PSD"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")
_large = threading.Lock()
# The header of an array is a Python literal. Until Python 3.11.8 and 3.12.2, threads that parse at once fail now and
# then with "AST constructor recursion depth mismatch" (python/cpython issue 106905).
_array_parser = threading.Lock()
# Decoders log the oddities of a damaged file, without its name. Without a handler, Python prints them on stderr.
for _decoder in ("PIL", "tifffile"):
    logging.getLogger(_decoder).addHandler(logging.NullHandler())


def square_image(
    data: bytes, size: int, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> np.ndarray:
    """Decode an image file and scale and cut it to a square: shorter side to `size`, center cut (paper, section 2).

    Parameters
    ----------
    data : bytes
        Content of the file.
    size : int
        Side of the result in pixels.
    max_pixels : int
        Limit of the pixels of the image.
    pixel_range : PixelRange, optional
        Black and white of images with more than 8 bits.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8 RGB.

    Raises
    ------
    UnreadableImageError
        As `decode`.
    """
    # A JPEG of more than twice the size is decoded at 1/2, 1/4 or 1/8, exact averages of its own frequencies.
    return square(decode(data, 2 * size, max_pixels, pixel_range), size)


def decode(
    data: bytes, at_least: int | None = None, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> np.ndarray:
    """Decode an image file.

    Parameters
    ----------
    data : bytes
        Content of the file.
    at_least : int, optional
        Pixels of the shorter side that are enough: a larger JPEG may be decoded at 1/2, 1/4 or 1/8 of its sides, and
        an image of more than `LARGE_PIXELS` be reduced. Default: full size.
    max_pixels : int
        Limit of the pixels of the image; one with more is not decoded.
    pixel_range : PixelRange, optional
        Black and white of images with more than 8 bits. Default: as `alexnet.data.rgb` says.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8 RGB, upright.

    Raises
    ------
    UnreadableImageError
        Whatever the decoder raised, with the reason: truncated, empty, damaged, …; `NotAnImageError` for another type
        of file, `TooManyPixelsError` for one of more than `max_pixels`.
    """
    try:
        found = _read(data, at_least, max_pixels)
        return found if isinstance(found, np.ndarray) else stored_to_rgb(found, pixel_range)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly everything
        raise unreadable(error, data, max_pixels) from error


def deep_values(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, float | None] | None:
    """Read the stored pixel values of an image file with more than 8 bits, for `RangeFinder`.

    Returns
    -------
    tuple or None
        Integer or floating point array and the value that marks missing data, if the file names one. None for a
        file of 8 bits, and for one that cannot be read.
    """
    if not may_be_deep(data):
        return None
    with suppress(Exception):  # the file is named when it is prepared
        if not data.startswith((b"\x93NUMPY", b"\x1f\x8b")) and not _has_deep_header(data):
            return None
        found = _read(data, None, max_pixels)
        if isinstance(found, Stored) and found.values.dtype not in (np.bool_, np.uint8):
            return found.values[..., :3] if found.values.ndim == 3 else found.values, found.no_data
    return None


def _has_deep_header(data: bytes) -> bool:
    try:
        with _opened(data) as image:
            arguments = image.tile[0].args if image.tile else ""
            mode = arguments if isinstance(arguments, str) else arguments[0]
            return image.mode.startswith(("I", "F")) or ";16" in str(mode)
    except UnidentifiedImageError:
        return data.startswith((b"II", b"MM"))


def may_be_deep(data: bytes) -> bool:
    """Whether an image may have more than 8 bits, by the first bytes of its file."""
    if data.startswith(b"\x89PNG"):
        return data[24:25] == b"\x10"
    return not data.startswith((b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"qoif"))


def extra_content(data: bytes) -> str | None:
    """Say which part of a file is read, where it has several pages or bands; None where it is read whole."""
    with suppress(Exception):
        if data.startswith((b"\xff\xd8\xff", b"BM", b"qoif")):
            return None
        if data.startswith(b"\x89PNG") and data.find(b"acTL", 0, data.find(b"IDAT")) < 0:  # not animated
            return None
        if data[:4] in (b"II*\0", b"MM\0*"):
            bands = _tiff_bands(data)
            if bands > 4:
                return f"{bands} bands, of which the first three are read as red, green and blue"
        with _opened(data) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and image.format != "MPO":
                return f"{pages} {'pages' if image.format == 'TIFF' else 'frames'}, of which the first is read"
    return None


def _read(data: bytes, at_least: int | None, max_pixels: int) -> np.ndarray | Stored:
    """(H, W, 3) uint8 RGB, or what has more than 8 bits as it is stored."""
    if not data:
        raise UnreadableImageError("empty file")
    if data.startswith(b"\x1f\x8b"):  # some photographs of ILSVRC-2010 are gzipped, under the name of a JPEG
        data = _gunzip(data, max_pixels)
    if data.startswith(b"\x93NUMPY"):
        return Stored(_load_array(data, max_pixels))
    if data.startswith(b"\xff\xd8\xff"):
        image = _decode_jpeg(data, at_least, max_pixels)
        if image is not None:
            return image
    return _decode_any(data, at_least, max_pixels)


def _decode_jpeg(data: bytes, at_least: int | None, max_pixels: int) -> np.ndarray | None:
    """A sound JPEG of gray or color, decoded by libjpeg-turbo; None where Pillow is to judge."""
    header = _jpeg_header(data)
    if header is None or header.components not in (1, 3) or header.height * header.width > max_pixels:
        return None
    if header.bits != 8:
        raise NotAnImageError(
            f"a JPEG of {header.bits} bits, which is not supported: convert it to PNG, TIFF or a JPEG of 8 bits"
        )
    factor = _reduction(min(header.height, header.width), at_least)
    try:
        image = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-header.height // factor), min_width=-(-header.width // factor), min_factor=factor
        )
    except ValueError:
        return None
    return _upright_jpeg(image, data) if header.exif else image


class _JpegHeader(NamedTuple):
    height: int
    width: int
    components: int
    bits: int
    exif: bool


def _jpeg_header(data: bytes) -> _JpegHeader | None:
    """Return the header of a JPEG before its first scan; None if it does not follow the standard."""
    position, exif = 2, False
    while data[position : position + 1] == b"\xff" and position + 9 < len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            return _JpegHeader(height, width, components, bits, exif) if height and width else None
        exif |= marker == 0xE1 and data.startswith(b"Exif\0\0", position + 4)
        position += 2 + length
    return None


def _decode_any(data: bytes, at_least: int | None, max_pixels: int) -> np.ndarray | Stored:
    if raw := describe_raw_tiff(data):
        raise NotAnImageError(raw)
    try:
        image = _opened(data)
    except UnidentifiedImageError:
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _decode_tiff(data, max_pixels)
        raise
    except ValueError:
        if (smaller := _png_without_metadata(data)) is None:
            raise
        data, image = smaller, _opened(smaller)
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise TooManyPixelsError(width * height, max_pixels, len(data))
        with _large if width * height > LARGE_PIXELS else nullcontext():
            return _load(image, data, at_least)


def _load(image: Any, data: bytes, at_least: int | None) -> np.ndarray | Stored:
    """The pixels of an image that was opened."""
    factor = _reduction(min(image.size), at_least)
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (image.size[0] // factor, image.size[1] // factor))
    if image.format == "TIFF":
        _silence_libtiff()
    if halves := _color_of_16_bits(image, data):
        return halves
    inverted = image.format == "TIFF" and image.mode.startswith(("I", "F")) and image.tag_v2.get(262) == 0
    try:
        image.load()
    except ValueError:
        if (smaller := _png_without_metadata(data)) is None:
            raise
        image = _opened(smaller)
        image.load()
    if image.size[0] * image.size[1] > LARGE_PIXELS and not image.mode.startswith(("I", "F")):
        times = 1 if at_least is None else min(image.size) // at_least
        if times > 1:
            image = (image if image.mode in ("L", "RGB", "RGBA", "CMYK") else image.convert("RGB")).reduce(times)
    found = converted(image)
    if isinstance(found, Stored):
        no_data = _tiff_no_data(image) if image.format == "TIFF" else None
        return found._replace(inverted=inverted, no_data=no_data)
    return found


def _opened(data: bytes) -> Any:
    """`Image.open` for the formats that are read, without its check of the size, which warns on standard error."""
    Image.init()  # all formats; Pillow itself only loads them when the common ones fail
    file, start = io.BytesIO(data), data[:16]
    for name in (*FORMATS, *_optional_format(data)):
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = not accept or accept(start)
        if isinstance(accepted, str) or not accepted:
            continue
        file.seek(0)
        with suppress(SyntaxError, IndexError, TypeError, struct.error):
            return factory(file, "")
    raise UnidentifiedImageError("no decoder recognizes the file")


def _optional_format(data: bytes) -> tuple[str, ...]:
    """The format of a file whose decoder is an optional package; loads the decoder."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
            return ("HEIF",)
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        with suppress(ImportError):
            import pillow_jxl  # noqa: F401 (registers itself)

            return ("JXL",)
    return ()


@functools.cache
def _silence_libtiff() -> None:
    """Keep Pillow's copy of libtiff from writing to stderr, past Python; the error that Pillow raises remains."""
    folder = Path(Image.__file__).parent
    for file in (*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(str(file)).TIFFSetErrorHandler(None)


def _color_of_16_bits(image: Any, data: bytes) -> Stored | None:
    """The values of a PNG or TIFF of 16 bits for each of R, G, B (and alpha), of which Pillow keeps the upper 8.

    Decoded twice, once for the upper and once for the lower byte of each value.
    """
    if image.format not in ("PNG", "TIFF") or not image.tile:
        return None
    arguments = image.tile[0].args
    mode = arguments if isinstance(arguments, str) else arguments[0]
    match = re.fullmatch(r"(RGBX?|RGBA);16([BLN])", mode)
    if match is None:
        return None
    color, order = match.groups()
    big = order == "B" or (order == "N" and np.little_endian is False)
    halves = []
    for byte in ("B", "L") if big else ("L", "B"):
        half = _opened(data)
        new = f"{color};16{byte}"
        half.tile = [
            tile._replace(args=new if isinstance(tile.args, str) else (new, *tile.args[1:])) for tile in half.tile
        ]
        half.load()
        halves.append(np.asarray(upright(half)).astype(np.uint16))
    return Stored(halves[0] << 8 | halves[1])


def _decode_tiff(data: bytes, max_pixels: int) -> np.ndarray | Stored:
    """A TIFF file whose kind Pillow does not know: many bands, planes, color in floating point."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        pixels = page.imagelength * page.imagewidth
        if pixels > max_pixels:
            raise TooManyPixelsError(pixels, max_pixels, len(data))
        if math.prod(page.shape) * page.dtype.itemsize > BOMB * 8 * len(data):
            raise UnreadableImageError("truncated")
        try:
            values = page.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise NotAnImageError(
                    f"a TIFF file of {page.samplesperpixel} bands with {page.compression.name} compression: "
                    "install its decoder with `pip install imagecodecs`, or save it without compression"
                ) from error
            raise
        if page.planarconfig == 2 and values.ndim == 3:
            values = np.moveaxis(values, 0, -1)
        inverted = page.photometric == 0
    if values.ndim == 3 and values.shape[2] == 2:
        values = values[:, :, :1]
    if values.ndim == 3 and values.shape[2] > 4:
        values = values[:, :, :3]
    return Stored(values, inverted)


def _tiff_bands(data: bytes) -> int:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return int(file.pages[0].samplesperpixel)


def _tiff_no_data(image: Any) -> float | None:
    """The value that GDAL's tag names."""
    with suppress(TypeError, ValueError, AttributeError):
        return float(str(image.tag_v2.get(42113)).strip("\0 "))
    return None


def _png_without_metadata(data: bytes) -> bytes | None:
    """A PNG without its text, profiles and other metadata, of which Pillow takes a limited size; None for another."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    position, kept = 8, [data[:8]]
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and length < 1 << 16):
            kept.append(data[position : position + 12 + length])
        position += 12 + length
    smaller = b"".join(kept)
    return smaller if len(smaller) < len(data) else None


def _reduction(side: int, at_least: int | None) -> int:
    """How far a JPEG may be reduced while decoding: 1, 2, 4 or 8."""
    return 1 if at_least is None else next((n for n in (8, 4, 2) if side // n >= at_least), 1)


def _upright_jpeg(image: np.ndarray, data: bytes) -> np.ndarray:
    Image.preinit()
    with suppress(Exception):
        header = Image.OPEN["JPEG"][0](io.BytesIO(data), "")
        orientation = header.getexif().get(0x0112, 1)
        if orientation in range(2, 9):
            stored = Image.fromarray(image)
            stored.getexif()[0x0112] = orientation
            return np.asarray(ImageOps.exif_transpose(stored))
    return image


def _load_array(data: bytes, max_pixels: int) -> np.ndarray:
    try:
        # The header is read before the values: one that promises more than there is would be given memory.
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        readers: dict[Any, Callable[..., Any]] = {(1, 0): np.lib.format.read_array_header_1_0}
        with _array_parser:
            shape, _, dtype = readers.get(version, np.lib.format.read_array_header_2_0)(file)
        if dtype.hasobject:
            raise UnreadableImageError("an array of Python objects: an image is made of numbers")
        if math.prod(shape) * dtype.itemsize > len(data):
            raise UnreadableImageError("truncated")
        if math.prod(shape[:2]) > max_pixels:
            raise TooManyPixelsError(math.prod(shape[:2]), max_pixels, len(data))
        with _array_parser:
            array: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except UnreadableImageError:
        raise
    except Exception as error:  # the header is Python text: of a damaged one the parser raises what it likes
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImageError(f"a damaged array: {message}") from error
    return array


def _gunzip(data: bytes, max_pixels: int) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = file.read(max_pixels)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableImageError(f"a damaged gzip file: {error}") from error
    return unpacked
