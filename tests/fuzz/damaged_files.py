"""Image files of every format that the decoder reads, and ways of damaging them."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

SOUND_PER_FORMAT = 6
"""Different sound files of a format; all damaged files are made of them."""


class SoundFile(NamedTuple):
    """A file that is read, with the size that its header declares."""

    format: str
    ending: str
    data: bytes
    height: int
    width: int


class FuzzedFile(NamedTuple):
    """A file to send. `sound` is the position of the sound file that it is a copy of, None for a damaged file."""

    name: str
    format: str
    mutation: str
    data: bytes
    sound: int | None


def sound_files(seed: int) -> list[SoundFile]:
    """`SOUND_PER_FORMAT` files of every format, of 24 to 96 pixels a side."""
    rng = np.random.default_rng(seed)
    files = []
    for name, (ending, encode) in FORMATS.items():
        for _ in range(SOUND_PER_FORMAT):
            height, width = (int(side) for side in rng.choice(np.arange(24, 97), 2, replace=False))
            if name in ("ico", "icns"):
                height = width = 32
            coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            pixels = np.repeat(np.repeat(coarse, 8, 0), 8, 1)[:height, :width]
            files.append(SoundFile(name, ending, encode(np.ascontiguousarray(pixels)), height, width))
    return files


def fuzzed_file(number: int, seed: int, pool: list[SoundFile], sound_every: int) -> FuzzedFile:
    """File `number` of the sequence that the seed determines: every `sound_every`-th is sound, the others damaged."""
    rng = np.random.default_rng((seed, number))
    position = int(rng.integers(len(pool)))
    file = pool[position]
    if number % sound_every == 0:
        while pool[position].format == "tga":  # named as a format that is not read
            position = int(rng.integers(len(pool)))
        file = pool[position]
        return FuzzedFile(f"{number:06}-sound.{file.ending}", file.format, "none", file.data, position)
    mutation = list(MUTATIONS)[int(rng.integers(len(MUTATIONS)))]
    other = pool[int(rng.integers(len(pool)))]
    data = MUTATIONS[mutation](rng, file, other)
    ending = other.ending if mutation == "wrong extension" else file.ending
    return FuzzedFile(f"{number:06}-{mutation.replace(' ', '-')}.{ending}", file.format, mutation, data, None)


def _saved(form: str, mode: str = "RGB", **options: Any) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        image, file = Image.fromarray(pixels), io.BytesIO()
        if mode == "RGBA":
            image.putalpha(Image.fromarray(pixels[:, :, 0]))
        elif mode in ("I;16", "F"):
            image = Image.fromarray(pixels[:, :, 0].astype(np.uint16 if mode == "I;16" else np.float32) * 7)
        else:
            image = image.convert(mode)
        image.save(file, form, **options)
        return file.getvalue()

    return encode


def _animated_gif(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "GIF", save_all=True, append_images=[Image.fromarray(255 - pixels)])
    return file.getvalue()


def _jpeg_with_exif(pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved("JPEG", exif=exif)(pixels)


def _png_of_16_bits(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in (pixels.astype(">u2") * 257))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _tiff(convert: Callable[[np.ndarray], np.ndarray], **options: Any) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, convert(pixels), **options)
        return file.getvalue()

    return encode


def _icns(pixels: np.ndarray) -> bytes:
    content = _saved("PNG")(np.repeat(np.repeat(pixels, 4, 0), 4, 1))
    entry = b"ic07" + struct.pack(">I", len(content) + 8) + content
    return b"icns" + struct.pack(">I", len(entry) + 8) + entry


def _psd(pixels: np.ndarray) -> bytes:
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, *pixels.shape[:2], 8, 3)
    return header + struct.pack(">IIIH", 0, 0, 0, 0) + np.moveaxis(pixels, 2, 0).tobytes()


def _npy(convert: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.save(file, convert(pixels))
        return file.getvalue()

    return encode


def _gzipped(encode: Callable[[np.ndarray], bytes]) -> Callable[[np.ndarray], bytes]:
    return lambda pixels: gzip.compress(encode(pixels), mtime=0)


def _same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def _deep(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


def _floating(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


FORMATS: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    "jpeg": ("jpg", _saved("JPEG")),
    "jpeg gray": ("jpg", _saved("JPEG", "L")),
    "jpeg cmyk": ("jpg", _saved("JPEG", "CMYK")),
    "jpeg progressive": ("jpeg", _saved("JPEG", progressive=True)),
    "jpeg with exif": ("jpg", _jpeg_with_exif),
    "jpeg gzipped": ("jpg", _gzipped(_saved("JPEG"))),
    "png": ("png", _saved("PNG")),
    "png rgba": ("png", _saved("PNG", "RGBA")),
    "png palette": ("png", _saved("PNG", "P")),
    "png bilevel": ("png", _saved("PNG", "1")),
    "png 16-bit gray": ("png", _saved("PNG", "I;16")),
    "png 16-bit": ("png", _png_of_16_bits),
    "gif": ("gif", _saved("GIF", "P")),
    "gif animated": ("gif", _animated_gif),
    "bmp": ("bmp", _saved("BMP")),
    "bmp palette": ("bmp", _saved("BMP", "P")),
    "dib": ("dib", _saved("DIB")),
    "tiff": ("tif", _saved("TIFF")),
    "tiff lzw": ("tif", _saved("TIFF", compression="tiff_lzw")),
    "tiff jpeg": ("tif", _saved("TIFF", compression="jpeg")),
    "tiff deflate": ("tiff", _saved("TIFF", compression="tiff_adobe_deflate")),
    "tiff 16-bit gray": ("tif", _saved("TIFF", "I;16")),
    "tiff 16-bit": ("tif", _tiff(_deep, photometric="rgb")),
    "tiff float": ("tif", _tiff(_floating, photometric="rgb")),
    "tiff bands": ("tif", _tiff(lambda p: np.concatenate([p, p], 2), photometric="minisblack", planarconfig="contig")),
    "webp": ("webp", _saved("WEBP")),
    "webp lossless": ("webp", _saved("WEBP", "RGBA", lossless=True)),
    "avif": ("avif", _saved("AVIF")),
    "jpeg 2000": ("jp2", _saved("JPEG2000")),
    "ppm": ("ppm", _saved("PPM")),
    "pgm": ("pgm", _saved("PPM", "L")),
    "pbm": ("pbm", _saved("PPM", "1")),
    "pfm": ("pfm", _saved("PPM", "F")),
    "ico": ("ico", _saved("ICO", sizes=[(32, 32)])),
    "icns": ("icns", _icns),
    "dds": ("dds", _saved("DDS")),
    "qoi": ("qoi", _saved("QOI")),
    "sgi": ("sgi", _saved("SGI")),
    "pcx": ("pcx", _saved("PCX")),
    "psd": ("psd", _psd),
    "tga": ("tga", _saved("TGA")),
    "npy": ("npy", _npy(_same)),
    "npy uint16": ("npy", _npy(_deep)),
    "npy float32": ("npy", _npy(_floating)),
    "npy int64": ("npy", _npy(lambda pixels: pixels.astype(np.int64))),
    "npy gzipped": ("npy", _gzipped(_npy(_same))),
}
"""Format → file extension and encoder of (H, W, 3) uint8. TGA files are refused by name, damaged or not."""


def _truncated(rng: np.random.Generator, file: SoundFile, _: SoundFile) -> bytes:
    return file.data[: int(rng.integers(len(file.data)))]


def _flipped(rng: np.random.Generator, file: SoundFile, _: SoundFile) -> bytes:
    data = np.frombuffer(file.data, dtype=np.uint8).copy()
    # Half of the time in the header, where a byte decides more.
    end = min(len(data), 128) if rng.random() < 0.5 else len(data)
    places = rng.integers(0, end, int(rng.integers(1, 17)))
    data[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
    return data.tobytes()


def _zeroed(rng: np.random.Generator, file: SoundFile, _: SoundFile) -> bytes:
    start = int(rng.integers(len(file.data)))
    length = int(rng.integers(1, len(file.data) // 2))
    return file.data[:start] + bytes(len(file.data[start : start + length])) + file.data[start + length :]


def _header_of_another(rng: np.random.Generator, file: SoundFile, other: SoundFile) -> bytes:
    length = int(rng.choice([4, 8, 16, 32, 64, 128]))
    return other.data[:length] + file.data[length:]


def _inserted(rng: np.random.Generator, file: SoundFile, _: SoundFile) -> bytes:
    place = int(rng.integers(len(file.data)))
    return file.data[:place] + rng.bytes(int(rng.integers(1, 65))) + file.data[place:]


def _unchanged(_: np.random.Generator, file: SoundFile, __: SoundFile) -> bytes:
    return file.data


def _huge(rng: np.random.Generator, file: SoundFile, _: SoundFile) -> bytes:
    """Replace height, width or both in the header, in whatever form it has them."""
    data = gzip.decompress(file.data) if "gzipped" in file.format else file.data
    side = int(rng.choice([5_000, 15_000, 30_000, 65_535, 1_000_000, 2**31 - 1]))
    header, rest = data[:512], data[512:]
    for number in {file.height, file.width} if rng.random() < 0.5 else {file.width}:
        for form in (">I", "<I", ">H", "<H"):
            new = struct.pack(form, min(side, 256 ** struct.calcsize(form) - 1))
            header = header.replace(struct.pack(form, number), new)
        if file.format.startswith(("p", "npy")):
            header = re.sub(rb"\b%d\b" % number, b"%d" % side, header)
    data = header + rest
    if data.startswith(b"\x89PNG"):  # a false checksum would be found before the size is
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    return gzip.compress(data, mtime=0) if "gzipped" in file.format else data


def _concatenated(rng: np.random.Generator, file: SoundFile, other: SoundFile) -> bytes:
    start = file.data if rng.random() < 0.5 else _truncated(rng, file, other)
    return start + other.data


def _random_bytes(rng: np.random.Generator, file: SoundFile, _: SoundFile) -> bytes:
    return file.data[: int(rng.integers(0, 33))] + rng.bytes(int(rng.integers(1, 2000)))


MUTATIONS: dict[str, Callable[[np.random.Generator, SoundFile, SoundFile], bytes]] = {
    "truncation": _truncated,
    "byte flips": _flipped,
    "zeroed block": _zeroed,
    "header of another format": _header_of_another,
    "inserted bytes": _inserted,
    "wrong extension": _unchanged,
    "huge declared size": _huge,
    "concatenation": _concatenated,
    "random bytes": _random_bytes,
}
