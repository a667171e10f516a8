"""Sources that are not photographs of 500×375 in a folder.

Photographs of a phone, many small files, one zip file, and a prepared dataset in a bucket.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from alexnet.bench.parts import Settings
from alexnet.bench.synthetic import photographs, write_dataset
from alexnet.bench.timing import Comparison, compared, in_turn
from alexnet.data.dataset import PreparedDataset
from alexnet.data.decoding import decode, square_image
from alexnet.data.preparation import prepare
from alexnet.data.resize import square
from alexnet.runtime.cpus import available_cpus

SIZE = 256
LARGE_COUNT = 6
SMALL_COUNT = 20_000
SMALL_SIDE = 32
ZIPPED_COUNT = 2048
REMOTE_COUNT = 2048
"""Prepared images of `SIZE` in the bucket: 403 MB in eight files."""


def sources(settings: Settings) -> list[Comparison]:
    """Compare large photographs, small files, a zip file and a bucket with peers."""
    return [*_large(settings), _small(settings), _zipped(settings), _bucket(settings)]


def _large(settings: Settings) -> list[Comparison]:
    """One thread, from the bytes of the files to squares of 256 pixels."""
    files = photographs(settings.folder / "large", LARGE_COUNT, 4000, 3000, distinct=2)
    contents = [file.read_bytes() for file in files]
    forms: dict[str, Callable[[bytes], np.ndarray]] = {
        "ours": lambda content: square_image(content, SIZE),
        "whole": lambda content: square(decode(content), SIZE),
        "libvips": _libvips(),
        "Pillow": _pillow,
    }
    squares = {name: np.stack([form(content) for content in contents]).astype(int) for name, form in forms.items()}
    difference = np.abs(squares["ours"] - squares["whole"])

    def of_all(form: Callable[[bytes], np.ndarray]) -> Callable[[], object]:
        return lambda: [form(content) for content in contents]

    seconds = in_turn({name: of_all(form) for name, form in forms.items()}, settings.rounds)
    megabytes = statistics.mean(map(len, contents)) / 1e6
    what = f"photographs of 4000×3000 pixels and {megabytes:.1f} MB to {SIZE}×{SIZE}, one thread"
    ours = {"milliseconds": 1e3 * statistics.median(seconds["ours"]) / len(files)}
    return [
        compared(what, "libvips thumbnail", seconds["ours"], seconds["libvips"], 1.0, **ours),
        compared(what, "Pillow, draft mode at twice the size", seconds["ours"], seconds["Pillow"], 1.0),
        compared(
            what,
            "decoding all pixels",
            *(seconds["ours"], seconds["whole"], None),
            mean_difference=float(difference.mean()),
            largest_difference=int(difference.max()),
        ),
    ]


def _libvips() -> Callable[[bytes], np.ndarray]:
    import pyvips

    pyvips.cache_set_max(0)

    def thumbnail(content: bytes) -> np.ndarray:
        in_the_middle = 1  # of VipsInteresting
        return pyvips.Image.thumbnail_buffer(content, SIZE, height=SIZE, crop=in_the_middle).numpy()

    return thumbnail


def _pillow(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (2 * SIZE, 2 * SIZE))
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))


def _small(settings: Settings) -> Comparison:
    folder = settings.folder / "small"
    noise = np.random.default_rng(0).integers(0, 256, (SMALL_COUNT, SMALL_SIDE, SMALL_SIDE, 3), dtype=np.uint8)
    for name in "ab":
        (folder / name).mkdir(parents=True)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number:05}.png", compress_level=1)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(settings.rounds + 1):
        ours = _preparing_seconds(folder, settings.folder / "out", SMALL_SIDE)
        theirs = _decoding_seconds(folder)
        if number:  # the first round reads the files into memory
            seconds["ours"].append(ours)
            seconds["theirs"].append(theirs)
    return compared(
        f"prepare, {SMALL_COUNT:,} PNG files of {SMALL_SIDE}×{SMALL_SIDE} pixels",
        "Pillow decoding them, nothing else",
        *(seconds["ours"], seconds["theirs"], None),
        images_per_second=SMALL_COUNT / statistics.median(seconds["ours"]),
        decoded_per_second=SMALL_COUNT / statistics.median(seconds["theirs"]),
    )


def _zipped(settings: Settings) -> Comparison:
    folder, file = settings.folder / "photographs", settings.folder / "photographs.zip"
    paths = photographs(folder, ZIPPED_COUNT)
    with zipfile.ZipFile(file, "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder))
    out = settings.folder / "out"
    sides = {
        name: lambda source=source: _preparing_seconds(source, out)
        for name, source in (("zip", file), ("folder", folder))
    }
    seconds = in_turn(sides, settings.rounds)
    return compared(
        f"prepare, {len(paths):,} photographs in one zip file",
        "the same photographs in a folder",
        *(seconds["zip"], seconds["folder"], 0.95),
        images_per_second=len(paths) / statistics.median(seconds["zip"]),
    )


def _bucket(settings: Settings) -> Comparison:
    """A dataset that is opened by its address: every file is fetched, compared with its checksum and written."""
    import s3fs

    data = write_dataset(settings.folder / "noise", REMOTE_COUNT, 10, SIZE)
    cache, copy = settings.folder / "cache", settings.folder / "copy"
    environment = {"ALEXNET_CACHE": str(cache), "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "bench")
    with _s3_server() as address, mock.patch.dict(os.environ, {**environment, "AWS_ENDPOINT_URL": address}):
        files = s3fs.S3FileSystem()
        files.mkdir("bench")
        files.put(str(data), "bench/noise", recursive=True)

        def ours() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            PreparedDataset.open("s3://bench/noise")

        def theirs() -> None:
            shutil.rmtree(copy, ignore_errors=True)
            files.get("bench/noise", str(copy), recursive=True)

        seconds = in_turn({"ours": ours, "theirs": theirs}, settings.rounds)
    megabytes = sum(file.stat().st_size for file in data.iterdir()) / 1e6
    return compared(
        f"opening a prepared dataset of {megabytes:.0f} MB at s3://, checksums compared",
        "s3fs copying the same files, nothing else",
        *(seconds["ours"], seconds["theirs"], 0.9),
        megabytes_per_second=megabytes / statistics.median(seconds["ours"]),
    )


@contextmanager
def _s3_server() -> Iterator[str]:
    """A server of S3 on loopback in a process of its own, which ends with its standard input; yields its address."""
    program = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), sep=":", flush=True)
sys.stdin.read()
"""
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield f"http://{server.stdout.readline().strip()}"


def _preparing_seconds(source: Path, out: Path, size: int = SIZE) -> float:
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    prepare(source, out, size=size, progress=False)
    return time.perf_counter() - start


def _decoding_seconds(folder: Path) -> float:
    """Seconds of the slowest of one process per CPU that read and decode all PNG files, without their start."""
    program = """
import sys, time
from pathlib import Path
import numpy as np
from PIL import Image
files = sorted(Path(sys.argv[1]).rglob("*.png"))[int(sys.argv[2]) :: int(sys.argv[3])]
start = time.perf_counter()
for file in files:
    with Image.open(file) as image:
        np.asarray(image.convert("RGB"))
print(time.perf_counter() - start)
"""
    count = available_cpus()
    command = [sys.executable, "-c", program, str(folder)]
    workers = [
        subprocess.Popen([*command, str(number), str(count)], stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    return max(float(worker.communicate()[0]) for worker in workers)
