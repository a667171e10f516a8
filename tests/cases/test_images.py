"""Images as people have them: bit depths, data types, sizes, metadata, and files that are something else."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from file_trees import png_chunk, write_files
from PIL import Image
from random_runs import make_run

import alexnet
from alexnet import AlexNetError, Classifier, PreparedDataset, UsageError
from alexnet.data.decoding import decode, extra_content, square_image
from alexnet.data.pixel_range import Interval, PixelRange, RangeFinder
from alexnet.data.rgb import to_rgb
from alexnet.data.unreadable import NotAnImageError, TooManyPixelsError, UnreadableImageError
from alexnet.prediction.inputs import find_images, load_image
from alexnet.prediction.predict import pad

SIZE = 16


def gradient(greatest: int, dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    """Gray values from 0 to `greatest`, (SIZE, SIZE), in random order."""
    values = np.linspace(0, greatest, SIZE * SIZE).round().astype(dtype)
    return np.random.default_rng(seed).permutation(values).reshape(SIZE, SIZE)


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def png(image: Image.Image | np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "PNG", **options)
    return file.getvalue()


def png_rgb_16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits for each of R, G, B, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def prepared(tmp_path: Path, write: Callable[[np.ndarray], bytes], ending: str, greatest: int, **options) -> tuple:
    """A dataset of gradients of which one image reaches `greatest`, and its images."""
    files = {}
    for number in range(8):
        values = gradient(greatest if number == 5 else greatest // 2, seed=number)
        files[f"train/{'ab'[number % 2]}/{number}.{ending}"] = write(values)
        files[f"val/{'ab'[number % 2]}/{number}.{ending}"] = write(values)
    dataset = alexnet.prepare(write_files(tmp_path / "images", files), tmp_path / "data", size=SIZE, **options)
    split = dataset.split("train")
    return dataset, {split.paths(i): split[i][0] for i in range(len(split))}


# Bit depths: one range for a dataset.


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_bit_depth_in_16_bit_files_is_found_for_the_whole_dataset(tmp_path: Path, bits: int, capsys) -> None:
    white = 2**bits - 1
    dataset, images = prepared(tmp_path, png, "png", white)
    assert dataset.pixel_range == PixelRange(integer=Interval(0, white))
    expected = gradient(white // 2, seed=0) * (255 / white)
    np.testing.assert_allclose(images["train/a/0.png"][:, :, 0], expected, atol=0.51)  # one range, also for a dim image
    assert images["train/b/5.png"].max() == 255
    assert f"values of {bits} bits" in capsys.readouterr().err


@pytest.mark.parametrize("write", [tiff, lambda values: png_rgb_16(np.stack([values] * 3, -1))], ids=["tiff", "rgb"])
def test_color_and_tiff_of_12_bits_keep_all_their_levels(tmp_path: Path, write: Callable[..., bytes]) -> None:
    dataset, images = prepared(tmp_path, write, "tif" if write is tiff else "png", 4095)
    assert dataset.pixel_range == PixelRange(integer=Interval(0, 4095))
    assert len(np.unique(images[f"train/b/5.{'tif' if write is tiff else 'png'}"])) > 200


def noise(least: float, greatest: float, dtype: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(least, greatest, (40, 40)).astype(dtype)


def many(tmp_path: Path, values: list[np.ndarray]) -> Path:
    """A folder of two classes with .npy files 00, 01, ..."""
    files = {}
    for number, array in enumerate(values):
        content = io.BytesIO()
        np.save(content, array)
        files[f"{'ab'[number % 2]}/{number:02}.npy"] = content.getvalue()
    return write_files(tmp_path / "images", files)


@pytest.mark.parametrize(
    ("dtype", "sound", "damaged", "interval"),
    [
        ("uint16", (100, 4095), (0, 65535), (0, 4095)),
        ("int32", (-500, 500), (-2e9, 2e9), (-500, 500)),
        ("float32", (0, 1), (-1e20, 1e20), (0, 1)),
        ("float64", (-3, 5), (0, 1e9), (-3, 5)),
    ],
)
def test_a_damaged_image_does_not_widen_the_range_and_is_named(
    tmp_path: Path, capsys, dtype: str, sound: tuple, damaged: tuple, interval: tuple
) -> None:
    values = [noise(*sound, dtype, seed) for seed in range(20)]
    values[7] = noise(*damaged, dtype, 7)
    dataset = alexnet.prepare(many(tmp_path, values), tmp_path / "data", size=SIZE)
    found = dataset.pixel_range.floating if dtype.startswith("float") else dataset.pixel_range.integer
    np.testing.assert_allclose(found, interval, atol=0.01 * (interval[1] - interval[0]))
    error = capsys.readouterr().err
    assert "1 image lies far outside this range and is clipped: b/07.npy" in error
    remark = dataset.index["remarks"][0]
    assert remark["reason"] == "values far outside the range"
    assert [image["path"] for image in remark["images"]] == ["b/07.npy"]
    split = dataset.split("train")
    sound_images = [split[i][0] for i in range(len(split)) if "07" not in split.paths(i)]
    assert all(100 < image.mean() < 155 for image in sound_images)  # none is nearly black

    # The remedy includes the image.
    black, white = map(float, re.search(r"--black (\S+) --white (\S+) includes it", error).groups())
    again = alexnet.prepare(tmp_path / "images", tmp_path / "again", size=SIZE, black=black, white=white)
    assert again.pixel_range.integer.white >= 0.9 * values[7].max()


def test_images_of_two_cameras_have_one_range_and_the_dark_ones_are_named(tmp_path: Path, capsys) -> None:
    values = [noise(0, 1023 if seed % 2 else 65535, "uint16", seed) for seed in range(20)]
    dataset = alexnet.prepare(many(tmp_path, values), tmp_path / "data", size=SIZE)
    assert dataset.pixel_range == PixelRange(integer=Interval(0, 65535))
    error = capsys.readouterr().err
    assert "10 of 20 images stay below 1/16 of this range and come out nearly black: b/01.npy" in error
    (remark,) = dataset.index["remarks"]
    assert (remark["reason"], remark["count"]) == ("values below 1/16 of the range, nearly black", 10)
    assert remark["images"][0] == {"path": "b/01.npy", "greatest": float(values[1].max())}


@pytest.mark.parametrize("damaged", [2, 3])
def test_at_most_5_percent_of_the_images_lie_outside_the_range(damaged: int) -> None:
    """Two of forty are outliers; three make the range, and the others are then named as nearly black."""
    finder = RangeFinder(40)
    for seed in range(40):
        finder.add(noise(0, 65535 if seed < damaged else 1000, "uint16", seed), name=f"{seed}.png")
    found = finder.result()
    assert found.pixel_range == PixelRange(integer=Interval(0, 1023 if damaged == 2 else 65535))
    (remark,) = found.remarks
    assert remark["count"] == (2 if damaged == 2 else 37)
    assert remark["images"][0]["path"] == f"{0 if damaged == 2 else 3}.png"


def test_images_of_8_bits_have_no_range(tmp_path: Path, capsys) -> None:
    dataset, images = prepared(tmp_path, lambda values: png(values.astype(np.uint8)), "png", 255)
    assert dataset.pixel_range is None
    np.testing.assert_array_equal(images["train/a/0.png"][:, :, 0], gradient(127, "uint8", 0))
    assert "black" not in capsys.readouterr().err


def test_black_and_white_can_be_chosen(tmp_path: Path) -> None:
    dataset, images = prepared(tmp_path, png, "png", 4095, black=100, white=1000)
    assert dataset.pixel_range == PixelRange(Interval(100, 1000), Interval(100, 1000))
    expected = np.clip((gradient(2047, seed=0).astype(float) - 100) / 900, 0, 1) * 255
    np.testing.assert_allclose(images["train/a/0.png"][:, :, 0], expected, atol=0.51)


@pytest.mark.parametrize("wrong", [{"black": 5}, {"black": 10, "white": 10}, {"white": float("nan")}])
def test_a_range_that_makes_no_sense_is_a_usage_error(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UsageError, match="white"):
        alexnet.prepare(tmp_path, tmp_path / "data", **wrong)


def test_the_range_of_the_dataset_is_that_of_predict(tmp_path: Path) -> None:
    values = {name: gradient(4095, seed=number) for number, name in enumerate("abcdefgh")}
    files = {
        f"{split}/{'xy'[i % 2]}/{n}.png": png(v)
        for i, (n, v) in enumerate(values.items())
        for split in ("train", "val")
    }
    data = tmp_path / "data"
    dataset = alexnet.prepare(write_files(tmp_path / "images", files), data, size=72, progress=False)
    run = make_run(tmp_path / "run", data, seed=1, variant="convolutions")
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["pixel_range"]["integer"] == [0, 4095]
    classifier = Classifier.load(run, device="cpu")
    stored = dataset.split("train")[0][0]
    name = Path(dataset.split("train").paths(0)).stem
    for image in (tmp_path / f"images/train/x/{name}.png", values[name], values[name].astype(np.int32)):
        assert classifier.predict(image)[0].top == classifier.predict(stored)[0].top


def test_hot_pixels_do_not_make_the_next_bit_depth() -> None:
    finder = RangeFinder(1)
    values = np.random.default_rng(0).integers(0, 4096, (1000, 1000), dtype=np.uint16)
    values[3, 3] = 65535
    finder.add(values)
    found, notes, _ = finder.result()
    assert found == PixelRange(integer=Interval(0, 4095))
    assert "outside and are clipped" in notes[0]


def test_floats_of_a_dataset_have_one_range_without_outliers_and_missing_values() -> None:
    finder = RangeFinder(2)
    values = np.random.default_rng(0).uniform(-3, 5, (500, 500)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, 1e6
    values[1, :200] = -9999
    finder.add(values)
    finder.add(values / 2)
    found = finder.result().pixel_range
    assert found is not None
    assert found.floating is not None
    assert -3.01 < found.floating.black < -2.9
    assert 4.9 < found.floating.white < 5.01


# Arrays of every data type.


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_within_8_bits_are_8_bit_values_in_any_data_type(dtype: str) -> None:
    greatest = 127 if dtype == "int8" else 255
    values = gradient(greatest, dtype)
    np.testing.assert_array_equal(to_rgb(values)[:, :, 0], values)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("greatest", [1, 255])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_floats_within_0_to_1_and_0_to_255(dtype: str, greatest: int) -> None:
    values = (np.arange(256).reshape(16, 16) / 255 * greatest).astype(dtype)
    np.testing.assert_allclose(to_rgb(values)[:, :, 0], np.arange(256).reshape(16, 16), atol=1)


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U3", "O"])
def test_what_is_no_number_is_refused_with_its_data_type(dtype: str) -> None:
    with pytest.raises(UnreadableImageError, match="made of numbers"):
        to_rgb(np.zeros((4, 4), dtype))


def test_channels_first_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnreadableImageError, match=r"transpose\(1, 2, 0\)"):
        to_rgb(np.zeros((3, 32, 32), np.uint8))


def test_missing_values_are_black_and_stretch_nothing() -> None:
    values = np.linspace(-5, 5, 100, dtype=np.float32).reshape(10, 10)
    values[0, :4] = np.nan, np.inf, -3.4e38, -9999
    pixels = to_rgb(values)[:, :, 0]
    assert (pixels[0, :4] == 0).all()
    assert pixels[9, 9] == 255
    assert 100 < pixels[5, 0] < 156


def test_the_value_without_data_that_a_tiff_names_is_missing() -> None:
    values = np.full((8, 8), 100.0, np.float32)
    values[0], values[7] = 12345.0, 200.0
    data = tiff(values, extratags=[(42113, "s", 0, "12345", True)])
    assert decode(data)[7, 0, 0] == 200
    assert decode(data)[0, 0, 0] == 0


# Bands, pages, inverted gray.


@pytest.mark.parametrize("bands", [5, 8])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_of_many_bands_the_first_three_are_read(bands: int, planes: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, 10, bands), dtype=np.uint8)
    stored = values if planes == "contig" else np.moveaxis(values, -1, 0)
    data = tiff(stored, photometric="minisblack", planarconfig=planes)
    np.testing.assert_array_equal(decode(np.asarray(bytearray(data)).tobytes()), values[:, :, :3])
    assert extra_content(data) == f"{bands} bands, of which the first three are read as red, green and blue"


def test_of_many_pages_the_first_is_read_and_prepare_says_so(tmp_path: Path, capsys) -> None:
    files = {
        f"{c}/{i}.tif": tiff(np.stack([gradient(255, "uint8", i)] * 3), photometric="minisblack")
        for c in "ab"
        for i in range(3)
    }
    alexnet.prepare(write_files(tmp_path / "images", files), tmp_path / "data", size=SIZE)
    assert "3 pages, of which the first is read" in capsys.readouterr().err


def animation(form: str, frames: int, seed: int = 0) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.fromarray(gradient(255, "uint8", seed + number)) for number in range(frames))
    first.convert("RGB").save(file, form, save_all=True, append_images=[other.convert("RGB") for other in others])
    return file.getvalue()


def test_what_was_read_of_animations_and_blank_images_is_said_once_and_stored(tmp_path: Path, capsys) -> None:
    files = {f"{c}/{n}.gif": animation("GIF", n + 1, ord(c)) for c in "ab" for n in range(4)}
    files |= {f"a/{form}": animation(form.upper(), 3) for form in ("webp", "png", "avif", "tiff")}
    blank = Image.new("RGB", (20, 20), (9, 50, 200))
    blank.save(tmp_path / "blank.png")
    files["b/blank.png"] = (tmp_path / "blank.png").read_bytes()
    dataset = alexnet.prepare(write_files(tmp_path / "images", files), tmp_path / "data", size=SIZE)
    assert [(one["reason"], one["count"], one["images"][0]["path"]) for one in dataset.index["remarks"]] == [
        ("2 to 4 frames, of which the first is read", 9, "a/1.gif"),
        ("3 pages, of which the first is read", 1, "a/tiff"),
        ("one color only", 1, "b/blank.png"),
    ]
    error = capsys.readouterr().err
    assert error.count("of which") == 2
    assert "9 of 13 images have 2 to 4 frames, of which the first is read, such as a/1.gif" in error
    assert "1 of 13 images has one color only, such as b/blank.png" in error


@pytest.mark.filterwarnings("error")
def test_blank_images_only_are_prepared_without_a_warning_of_numpy(tmp_path: Path) -> None:
    blank = png(np.zeros((20, 20), np.uint8))
    files = {f"{c}/{n}.png": blank for c in "ab" for n in range(2)}
    dataset = alexnet.prepare(write_files(tmp_path / "images", files), tmp_path / "data", size=SIZE, progress=False)
    assert dataset.index["remarks"][0]["count"] == 4


def test_gray_where_0_is_white_is_inverted() -> None:
    values = gradient(65535)
    np.testing.assert_array_equal(decode(tiff(values, photometric="miniswhite")), 255 - decode(tiff(values)))


def test_color_in_floating_point_is_read() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (9, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(decode(tiff(values, photometric="rgb")), values * 255, atol=0.51)


# Sizes and metadata.


def test_100_megapixels_give_no_warning_and_little_memory(tmp_path: Path) -> None:
    Image.new("L", (10_500, 10_000), 90).save(tmp_path / "large.png", compress_level=1)
    code = (
        "import sys, pathlib; from alexnet.data.decoding import square_image\n"
        "assert square_image(pathlib.Path(sys.argv[1]).read_bytes(), 64).mean() == 90\n"
        # Not ru_maxrss, which begins with the memory of the process that started this one.
        "lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "large.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert int(done.stdout) < 700  # MB; one byte per pixel, and what the libraries take


def test_the_limit_of_pixels_is_named_with_its_option() -> None:
    data = png(np.zeros((40, 50), np.uint8))
    with pytest.raises(TooManyPixelsError, match="2,000 pixels, more than the limit of 1,000") as error:
        decode(data, max_pixels=1000)
    assert "--max-pixels 2000" in error.value.reason
    assert decode(data, max_pixels=2000).shape == (40, 50, 3)


def test_metadata_of_any_size_is_no_obstacle() -> None:
    values = gradient(255, "uint8")
    plain = png(values)
    text = b"Comment\0\0" + zlib.compress(b"x" * 70_000_000)
    profile = b"icc\0\0" + zlib.compress(bytes(30_000_000))
    for extra in (png_chunk(b"zTXt", text), png_chunk(b"iCCP", profile), png_chunk(b"tEXt", b"a\0" + b"y" * 2_000_000)):
        np.testing.assert_array_equal(decode(plain[:33] + extra + plain[33:])[:, :, 0], values)


# Whatever a decoder raises is that file's error.


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'shape': (",
        b"{'descr': '\\",
        b"((((((",
        b"\0\0\0",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
    ],
)
def test_a_damaged_array_is_that_files_error(header: bytes) -> None:
    header = header.ljust(118) + b"\n"
    with pytest.raises(UnreadableImageError):
        decode(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16))


@pytest.mark.parametrize(
    "raised", [RecursionError("deep"), MemoryError(), KeyError("k"), SystemError("codec"), UserWarning("odd")]
)
def test_anything_that_a_decoder_raises_is_that_files_error(monkeypatch, raised: Exception) -> None:
    def failing(*_: object) -> None:
        raise raised

    monkeypatch.setattr("alexnet.data.decoding._decode_any", failing)
    with pytest.raises(UnreadableImageError):
        square_image(b"anything", 8)


def test_prepare_names_a_damaged_array_and_keeps_the_others(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, gradient(255, "uint8"))
    files = {f"{c}/{i}.npy": array.getvalue() for c in "ab" for i in range(3)}
    files["a/damaged.npy"] = array.getvalue().replace(b"False", b"(((((")
    dataset = alexnet.prepare(
        write_files(tmp_path / "images", files), tmp_path / "data", size=8, max_bad=0.5, progress=False
    )
    assert [Path(entry["path"]).name for entry in dataset.left_out] == ["damaged.npy"]
    assert sum(dataset.counts.values()) == 6


# A file that is not an image is named.


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "a Git LFS pointer.*git lfs pull"),
        (b"%PDF-1.7\n", "a PDF document"),
        (bytes(128) + b"DICM" + bytes(64), "a DICOM file"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "a video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a RAW camera file"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(32), "a RAW camera file"),
        (b"FUJIFILMCCD-RAW " + bytes(64), "a RAW camera file"),
        (b"\x1aE\xdf\xa3" + bytes(64), "a video"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(64), "a video"),
        (b"v/1\x01" + bytes(64), "an OpenEXR image"),
        (b"\0\x05\x16\x07" + bytes(64), "an AppleDouble file"),
        (b"PK\x03\x04" + bytes(64), "a zip file"),
        (b'{"message": "not found"}', "a JSON document"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    ],
)
def test_other_file_types_are_named(data: bytes, what: str) -> None:
    with pytest.raises(NotAnImageError, match=what):
        decode(data)


def test_a_camera_raw_file_is_not_read_as_its_preview() -> None:
    maker = (271, "s", 0, "NIKON", True)
    placeholder = (700, "I", 1, 8, True)  # becomes the tag of further images, which tifffile does not write
    preview = tiff(gradient(255, "uint8"), byteorder="<", subfiletype=1, extratags=[maker, placeholder])
    preview = preview.replace(struct.pack("<HH", 700, 4), struct.pack("<HH", 330, 4))
    with pytest.raises(NotAnImageError, match="a RAW camera file"):
        decode(preview)


def test_a_jpeg_of_12_bits_is_named() -> None:
    file = io.BytesIO()
    Image.fromarray(gradient(255, "uint8")).save(file, "JPEG")
    data = bytearray(file.getvalue())
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(NotAnImageError, match="a JPEG of 12 bits"):
        decode(bytes(data))


@pytest.mark.parametrize(("form", "module"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_heic_and_jpeg_xl_are_read_with_their_decoder_and_named_without(monkeypatch, form: str, module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    if form == "HEIF":
        importlib.import_module(module).register_heif_opener()
    else:
        importlib.import_module(module)
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 100, 50)).save(file, form, quality=95)
    assert decode(file.getvalue()).shape == (48, 64, 3)
    assert np.abs(decode(file.getvalue()).astype(int) - (200, 100, 50)).max() < 12
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotAnImageError, match=r"pip install 'alexnet\[formats\]'"):
        decode(file.getvalue())


# The arguments of predict.


def test_predict_reads_archives_and_lists_and_goes_on_after_a_bad_one(tmp_path: Path) -> None:
    folder = write_files(
        tmp_path / "photos", {"b.png": png(gradient(255, "uint8")), "a.png": png(gradient(200, "uint8"))}
    )
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
        archive.writestr("notes.txt", "no image")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "names.txt").write_text("\ufeffphotos/b.png\r\n\r\nmissing.png\r\n", encoding="utf-8")
    found = find_images([tmp_path / "broken.zip", tmp_path / "photos.zip"], [tmp_path / "names.txt"])
    results = []
    for name, image in found:
        try:
            results.append((Path(name).name, load_image(image, 8).shape))
        except UnreadableImageError as error:
            results.append((Path(name).name, str(error)))
    assert [name for name, _ in results] == ["broken.zip", "a.png", "b.png", "b.png", "missing.png"]
    assert "zip" in str(results[0][1])
    assert [shape for _, shape in results[1:4]] == [(8, 8, 3)] * 3
    assert results[4][1] == "no such file"
    assert found.summary() == [
        f"ignored: 1 file, not an image file (.txt), such as {tmp_path / 'photos.zip' / 'notes.txt'}"
    ]


def test_a_list_that_is_missing_or_empty_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"list .*names\.txt cannot be read"):
        find_images([], [tmp_path / "names.txt"])
    (tmp_path / "names.txt").touch()
    with pytest.raises(AlexNetError, match=r"no images in .*names\.txt"):
        find_images([], [tmp_path / "names.txt"])


def test_wide_letters_take_two_columns_of_a_table() -> None:
    assert pad("사과", 6) == "사과  "
    assert pad("apple", 6) == "apple "


def test_a_dataset_of_an_earlier_version_without_a_range_opens(tmp_path: Path) -> None:
    prepared(tmp_path, lambda values: png(values.astype(np.uint8)), "png", 255, progress=False)
    index = tmp_path / "data" / "dataset.json"
    values = json.loads(index.read_text(encoding="utf-8"))
    del values["pixel_range"]
    index.write_text(json.dumps(values), encoding="utf-8")
    assert PreparedDataset.open(tmp_path / "data").pixel_range is None
