"""Any image → upright RGB, and the central square of it."""

from __future__ import annotations

import gc
import gzip
import io
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from file_trees import png_chunk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from alexnet.data.decoding import decode, square_image
from alexnet.data.resize import square
from alexnet.data.rgb import to_rgb
from alexnet.data.unreadable import UnreadableImageError
from alexnet.kernels.rgb_products import rgb_products

SAMPLES = Path(__file__).parents[2] / "../shared/data/imagenet-samples.zip"

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """An image that looks different however it is turned: red, green, blue and white quarters."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def file_bytes(image: Image.Image | np.ndarray, form: str, **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def assert_shows_corners(decoded: np.ndarray, tolerance: int) -> None:
    """The quarters of `corners()` where they are; lossy formats blur the seams between them."""
    assert decoded.dtype == np.uint8
    assert decoded.shape == (48, 64, 3)
    inside = np.ix_([4, 12, 20, 28, 36, 44], [4, 16, 28, 36, 48, 60])
    assert np.abs(decoded.astype(int) - corners())[inside].max() <= tolerance


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 20),
        ("JPEG2000", {}, 0),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 20),
        ("JPEG", {"quality": 95, "subsampling": 0}, 20),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}, 20),
        ("GIF", {}, 0),
        ("QOI", {}, 0),
    ],
)
def test_formats_become_the_same_rgb(form: str, options: dict[str, object], tolerance: int) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if form == "QOI" and "QOI" not in Image.SAVE:
        pytest.skip("this Pillow writes no QOI")
    decoded = decode(file_bytes(corners(), form, **options))
    assert_shows_corners(decoded, tolerance)
    assert tolerance or (decoded == corners()).all()


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""EXIF orientation → how a camera that writes it has turned the upright image (EXIF 2.32, 4.6.4 A)."""


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNS[orientation](corners()))
    assert_shows_corners(decode(file_bytes(stored, form, exif=exif)), 30)


def test_damaged_exif_turns_nothing() -> None:
    data = file_bytes(corners(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    assert_shows_corners(decode(data), 20)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_gray_becomes_three_equal_channels(form: str) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = decode(file_bytes(Image.fromarray(gray), form, **({"quality": 100} if form == "JPEG" else {})))
    assert np.abs(decoded.astype(int) - gray[:, :, None]).max() <= (2 if form == "JPEG" else 0)
    assert (decoded == decoded[:, :, :1]).all()


def test_bilevel_becomes_black_and_white() -> None:
    bits = np.eye(9, dtype=bool)
    assert (decode(file_bytes(Image.fromarray(bits), "PNG")) == bits[:, :, None] * 255).all()


def test_palette_becomes_its_colors() -> None:
    assert (decode(file_bytes(Image.fromarray(corners()).quantize(4), "PNG")) == corners()).all()


def test_transparency_is_laid_over_white() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = (200, 100, 0, 255)
    rgba[1] = (200, 100, 0, 51)  # a fifth
    rgba[1, 2, 3] = 0
    expected = np.array([[[200, 100, 0]] * 3, [[244, 224, 204]] * 2 + [[255, 255, 255]]])
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        assert np.abs(decode(file_bytes(Image.fromarray(rgba), form, **options)) - expected).max() <= 1


def test_transparent_palette_and_gray_are_laid_over_white() -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    palette = palette.convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode(file_bytes(palette, "PNG", transparency=1))
    assert decoded.tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [10, 20, 30]]]
    gray = Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8), "LA")
    assert decode(file_bytes(gray, "PNG")).tolist() == [[[0] * 3, [255] * 3]]


def test_cmyk_becomes_rgb_also_as_adobe_inverts_it() -> None:
    rgb = corners()
    cmyk = Image.fromarray(rgb).convert("CMYK")
    plain = decode(file_bytes(cmyk, "TIFF"))
    assert (plain == rgb).all()
    data = file_bytes(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data  # Pillow writes four colors inverted and says so, as Photoshop does
    assert_shows_corners(decode(data), 20)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bit_gray_is_scaled_by_its_whole_range(form: str) -> None:
    values = np.array([[0, 128, 129, 256, 257], [1000, 32768, 65000, 65407, 65535]], np.uint16)
    decoded = decode(file_bytes(Image.fromarray(values), form))
    assert (decoded[:, :, 0] == np.floor(values / 65535 * 255 + 0.5)).all()


def test_16_bit_color_keeps_its_high_bits() -> None:
    values = np.array([[[0, 32768, 65535], [65280, 4096, 255]]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    png += png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    assert np.abs(decode(png).astype(int) - values.astype(int) / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([-100.0, 0.0, 100.0], [0, 128, 255]),
        ([0.0, np.nan, 1.0], [0, 0, 255]),
    ],
)
def test_floating_point_tiff(values: list[float], expected: list[int]) -> None:
    data = file_bytes(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert decode(data)[0, :, 0].tolist() == expected


def test_32_bit_integers_span_black_to_white() -> None:
    data = file_bytes(Image.fromarray(np.array([[-1000, 0, 1_000_000]], np.int32)), "TIFF")
    assert decode(data)[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = file_bytes(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options)
    assert (decode(data) == RED).all()


def test_a_gzipped_jpeg_is_read() -> None:
    data = file_bytes(corners(), "JPEG", quality=95)
    assert (decode(gzip.compress(data)) == decode(data)).all()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((2, 2), 7, np.uint8), 7),
        (np.full((2, 2, 1), 7, np.uint8), 7),
        (np.full((2, 2, 3), 65535, np.uint16), 255),
        (np.full((2, 2, 3), 0.5, np.float64), 128),
        (np.ones((2, 2), bool), 255),
        (np.full((2, 2, 4), 0, np.uint8), 255),
    ],
)
def test_arrays_become_rgb(array: np.ndarray, expected: int) -> None:
    rgb = to_rgb(array)
    assert rgb.shape == (2, 2, 3)
    assert rgb.dtype == np.uint8
    assert (rgb == expected).all()


@pytest.mark.parametrize("array", [np.zeros((2, 2, 2)), np.zeros(5), np.zeros((0, 3, 3)), np.full((2, 2), 1j)])
def test_arrays_that_are_no_images(array: np.ndarray) -> None:
    with pytest.raises(UnreadableImageError):
        to_rgb(array)


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 40,000 × 40,000 pixels."""
    data = bytearray(file_bytes(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 40_000, 40_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is text", "not an image"),
        (b"\0" * 1000, "not an image"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (file_bytes(noise(64, 64), "JPEG")[:1500], "truncated"),
        (file_bytes(noise(64, 64), "PNG")[:3000], "truncated"),
        (file_bytes(noise(64, 64), "BMP")[:3000], "truncated"),
        (file_bytes(noise(64, 64), "GIF")[:3000], "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x1f\x8b\x08broken", "gzip"),
        (bomb(), "a decompression bomb: 1,600,000,000 pixels"),
    ],
)
def test_what_can_not_be_read_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode(data)


def test_a_jpeg_bomb_is_not_decoded() -> None:
    data = bytearray(file_bytes(noise(64, 64), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(UnreadableImageError, match="a decompression bomb: 3,600,000,000 pixels"):
        decode(bytes(data))


def test_postscript_is_not_run() -> None:
    with pytest.raises(UnreadableImageError, match="not an image"):
        decode(file_bytes(corners(), "EPS"))


@settings(max_examples=80, deadline=None)
@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_damage_ends_in_a_image_or_a_reason(form: str, cut: float, flips: list[tuple[float, int]]) -> None:
    data = bytearray(file_bytes(noise(24, 17), form))
    for place, value in flips:
        data[int(place * len(data))] = value
    data = data[: int(cut * len(data)) + 1]
    with suppress(UnreadableImageError):
        assert square_image(bytes(data), 16).shape == (16, 16, 3)


def pillow_square(image: np.ndarray, size: int) -> np.ndarray:
    """The same by Pillow: down the columns, then along the rows."""
    height, width, _ = image.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    bilinear = Image.Resampling.BILINEAR
    tall = Image.fromarray(image).resize((width, size), bilinear, box=(0, top, width, top + side))
    return np.asarray(tall.resize((size, size), bilinear, box=(left, 0, left + side, size)))


@settings(max_examples=80, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 120), seed=st.integers(0, 9))
def test_square_equals_pillow_bitwise(height: int, width: int, size: int, seed: int) -> None:
    image = noise(height, width, seed)
    if seed % 3 == 0:
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    assert (square(image, size) == pillow_square(image, size)).all()


def float64_square(image: np.ndarray, size: int) -> np.ndarray:
    """The same by the definition, in float64: a triangle as wide as the reduction around each new pixel's center."""

    def matrix(length: int, start: float, side: int) -> np.ndarray:
        scale = side / size
        centers = start + (np.arange(size)[:, None] + 0.5) * scale
        distance = np.abs(np.arange(length)[None] + 0.5 - centers) / max(scale, 1)
        weights = np.maximum(1 - distance, 0)
        return weights / weights.sum(axis=1, keepdims=True)

    height, width, _ = image.shape
    side = min(height, width)
    down, across = matrix(height, (height - side) / 2, side), matrix(width, (width - side) / 2, side)
    return np.einsum("yh,hwc,xw->yxc", down, image.astype(np.float64), across, optimize=True)


@pytest.mark.parametrize(("height", "width", "size"), [(375, 500, 256), (500, 333, 256), (40, 30, 64), (97, 801, 50)])
def test_square_equals_the_definition(height: int, width: int, size: int) -> None:
    image = noise(height, width)
    assert np.abs(square(image, size) - float64_square(image, size)).max() <= 1.001  # two roundings


@given(height=st.integers(1, 64), width=st.integers(1, 64), size=st.integers(1, 64), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_uniform_image_stays_uniform(height: int, width: int, size: int, value: int) -> None:
    assert (square(np.full((height, width, 3), value, np.uint8), size) == value).all()


def test_square_is_the_center() -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, 50:100] = 200
    assert (square(wide, 25)[:, 1:-1] == 200).all()
    assert (square(wide.transpose(1, 0, 2), 25)[1:-1] == 200).all()


def test_products_are_exact() -> None:
    images = np.concatenate([np.full((1, 33, 31, 3), 255, np.uint8), noise(33, 31)[None]])
    pixels = images.reshape(-1, 3).astype(object)
    assert (rgb_products(images) == pixels.T @ pixels).all()


def test_a_large_jpeg_reduced_while_decoding_looks_the_same() -> None:
    smooth = np.asarray(Image.fromarray(noise(40, 60)).resize((1800, 1200), Image.Resampling.BICUBIC))
    data = file_bytes(smooth, "JPEG", quality=92)
    assert decode(data, at_least=512).shape == (600, 900, 3)
    difference = np.abs(square_image(data, 256).astype(int) - square(decode(data), 256))
    assert difference.mean() < 0.5
    assert difference.max() <= 6


@pytest.mark.skipif(not SAMPLES.exists(), reason="no ../shared/data/imagenet-samples.zip")
def test_imagenet_photographs_decode_as_pillow_decodes_them() -> None:
    with zipfile.ZipFile(SAMPLES) as samples:
        for name in samples.namelist()[::5]:
            data = samples.read(name)
            pillow = Image.open(io.BytesIO(data)).convert("RGB")
            assert (decode(data) == np.asarray(pillow)).all(), name


def test_decoding_needs_neither_torch_nor_numba() -> None:
    code = "import sys, alexnet.data.shards; assert not {'torch', 'numba', 'pandas'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_decoders_of_damaged_tiff_files_write_nothing_on_stderr(tmp_path: Path) -> None:
    """Lines of libtiff and tifffile name no file, and break lines that do."""
    lzw = bytearray(file_bytes(corners(), "TIFF", compression="tiff_lzw"))
    (tmp_path / "lzw.tif").write_bytes(lzw.replace(struct.pack("<H", 64), struct.pack("<H", 9000), 1))
    plain = file_bytes(corners(), "TIFF")
    (tmp_path / "tags.tif").write_bytes(plain[:8] + bytes([0x10, 0, *[0x77] * 30]) + plain[40:])
    samples = struct.pack("<HHIHH", 277, 3, 1, 3, 0)
    assert samples in plain
    (tmp_path / "samples.tif").write_bytes(plain.replace(samples, struct.pack("<HHIHH", 277, 3, 1, 69, 0)))
    code = """if True:
        import sys
        from pathlib import Path
        from alexnet.data.decoding import decode
        from alexnet.data.unreadable import UnreadableImageError
        for name in sys.argv[1:]:
            try:
                decode(Path(name).read_bytes())
            except UnreadableImageError as error:
                print(error)
    """
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *files], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""


def test_threads_read_arrays_while_garbage_is_collected() -> None:
    """CPython's parser of literals fails when another thread parses during a collection within it."""

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            time.sleep(0)  # switches to another thread

    file = io.BytesIO()
    np.save(file, corners())
    data = file.getvalue()

    def read(_: int) -> bool:
        Cycle()
        return bool(np.array_equal(decode(data), corners()))

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(3)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(read, range(4000)))
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
