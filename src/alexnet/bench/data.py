"""Preparation compared with decoding alone, and loading compared with a `DataLoader` over the files."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from alexnet.bench.parts import Settings
from alexnet.bench.peers import common_loader
from alexnet.bench.synthetic import photographs
from alexnet.bench.timing import Comparison, compared
from alexnet.data.augmentation import Preprocessing
from alexnet.data.dataset import SHARD_ROWS, PreparedDataset
from alexnet.data.decoding import decode
from alexnet.data.loading import training_batches
from alexnet.data.preparation import prepare
from alexnet.data.resize import square
from alexnet.data.statistics import pixel_sum
from alexnet.data.unreadable import UnreadableImageError
from alexnet.kernels.rgb_products import rgb_products
from alexnet.runs.recipe import recipes
from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_atomic
from alexnet.training.input_pipeline import augmentation_pipeline

BATCH_SIZE = 128


def preparing(settings: Settings) -> list[Comparison]:
    """Compare `alexnet prepare` with libjpeg-turbo decoding the same photographs, one process per CPU."""
    folder, rounds = settings.folder, settings.rounds
    files = _files(folder, settings.images, 6144)
    source = _write_csv(files, folder / "listed.csv")

    def prepare_all() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        dataset = prepare(source, folder / "out", progress=False)
        if (prepared := sum(dataset.counts.values())) != len(files):
            raise AlexNetError(f"{prepared:,} of {len(files):,} files were prepared: the rate would be wrong")

    seconds: dict[str, list[float]] = {"ours": [], "decode": [], "write": []}
    for number in range(rounds + 1):
        start = time.perf_counter()
        prepare_all()
        ours = time.perf_counter() - start
        decoding = _decode_all(source, available_cpus())
        writing = _decode_all(source, available_cpus(), folder / "written")
        if number:  # the first round reads the files into memory
            for name, value in (("ours", ours), ("decode", decoding), ("write", writing)):
                seconds[name].append(value)
    return [
        compared(
            f"prepare, {len(files):,} photographs of {_size_text(files)}",
            "libjpeg-turbo decoding them, nothing else",
            *(seconds["ours"], seconds["decode"], 0.8),
            images_per_second=len(files) / statistics.median(seconds["ours"]),
            decoded_per_second=len(files) / statistics.median(seconds["decode"]),
            milliseconds_of=_profile(files[:SHARD_ROWS], folder),
        ),
        compared(
            "the same",
            "libjpeg-turbo decoding them, and writing as many bytes to new files",
            *(seconds["ours"], seconds["write"], None),
            decoded_and_written_per_second=len(files) / statistics.median(seconds["write"]),
        ),
    ]


def _profile(files: list[Path], folder: Path) -> dict[str, float]:
    """Milliseconds per image of the steps of preparation, in one process, and of the start, which occurs once.

    `files`: those of one shard.
    """
    images = np.empty((len(files), 256, 256, 3), dtype=np.uint8)
    passes: list[dict[str, float]] = []
    for _ in range(3):
        spent = dict.fromkeys(("decode", "scale", "checksum", "sums", "write"), 0.0)
        for target, file in zip(images, files, strict=True):
            with _timed(spent, "decode"):
                image = decode(file.read_bytes(), 512)
            with _timed(spent, "scale"):
                np.copyto(target, square(image, 256))
        with _timed(spent, "checksum"):
            hashlib.sha256(images.data).digest()
        with _timed(spent, "sums"):
            pixel_sum(images)
            rgb_products(images)
        with _timed(spent, "write"):  # a new file each time: the kernel fetches new pages for it
            write_atomic(folder / f"shard-{len(passes)}", lambda file: file.write(images.data))
        passes.append(spent)
    an_image = {name: min(spent[name] for spent in passes) / len(files) for name in passes[0]}
    once: dict[str, float] = {"starting, once": 0.0}
    source = _write_csv(files[:2], folder / "two.csv")
    with _timed(once, "starting, once"):
        prepare(source, folder / "two", split={"val": 0.0}, progress=False, workers=1)
    return {name: round(1e3 * value, 3) for name, value in {**an_image, **once}.items()}


@contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - start


def _decode_all(listed: Path, cores: int, out: Path | None = None) -> float:
    """Seconds of the slowest of `cores` processes that read and decode all files, without their start.

    With `out`, each process also writes the bytes of a shard there, synchronized, after as many files.
    """
    program = f"""
import os, sys, time, simplejpeg
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()[1:]
files = [line.rsplit(",", 1)[0] for line in lines][int(sys.argv[2]) :: int(sys.argv[3])]
images = memoryview(bytearray({SHARD_ROWS} * 256 * 256 * 3))
start = time.perf_counter()
for number, file in enumerate(files, 1):
    with open(file, "rb") as opened:
        simplejpeg.decode_jpeg(opened.read(), "RGB")
    if sys.argv[4] and (number % {SHARD_ROWS} == 0 or number == len(files)):
        rows = (number - 1) % {SHARD_ROWS} + 1
        with open(f"{{sys.argv[4]}}/{{sys.argv[2]}}-{{number}}", "wb") as shard:
            shard.write(images[: rows * 256 * 256 * 3])
            os.fsync(shard.fileno())
print(time.perf_counter() - start)
"""
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
    command = [sys.executable, "-c", program, str(listed)]
    workers = [
        subprocess.Popen([*command, str(number), str(cores), str(out or "")], stdout=subprocess.PIPE, text=True)
        for number in range(cores)
    ]
    return max(float(worker.communicate()[0]) for worker in workers)


def loading(settings: Settings) -> list[Comparison]:
    """Compare float32 batches of the paper's crops from a prepared dataset with a `DataLoader` over the files."""
    folder, rounds = settings.folder, settings.rounds
    count = settings.batch_size or BATCH_SIZE
    files = _files(folder, settings.images, max(1024, 4 * count), count)
    source = _write_csv(files, folder / "loaded.csv")
    dataset = prepare(source, folder / "loaded", split={"val": 0.0}, progress=False)
    loader = common_loader(files, count, available_cpus())

    def theirs() -> Iterator[Any]:
        while True:
            yield from loader

    streams = {"ours": paper_batches(dataset, count, torch.device("cpu"), torch.float32), "theirs": theirs()}
    per_round = {"ours": 16, "theirs": 4}
    seconds: dict[str, list[float]] = {name: [] for name in streams}
    for number in range(rounds + 1):
        for name, stream in streams.items():
            start = time.perf_counter()
            for _ in range(per_round[name]):
                next(stream)
            if number:  # the first round fills the read-ahead queues
                seconds[name].append((time.perf_counter() - start) / per_round[name])
    return [
        compared(
            "loader, 256×256 prepared images, crops and color",
            f"Image.open, resize, crop, flip in a DataLoader of {loader.num_workers} workers, from {_size_text(files)}",
            *(seconds["ours"], seconds["theirs"], 10.0),
            images_per_second=count / statistics.median(seconds["ours"]),
            common_images_per_second=count / statistics.median(seconds["theirs"]),
        )
    ]


def paper_batches(
    dataset: PreparedDataset, count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of `count` images with the paper's augmentation, and their labels, without end.

    Parameters
    ----------
    dataset : PreparedDataset
        The source; its split "train" is shuffled in each epoch.
    count : int
        Images per batch.
    device : torch.device
        The device of the batches.
    dtype : torch.dtype
        The type of the crops.

    Yields
    ------
    (Tensor, Tensor)
        Crops (N, 3, 224, 224) and labels (N,).
    """
    recipe = recipes()["paper"]
    preprocess = Preprocessing(torch.from_numpy(dataset.mean_image.copy()).to(device), 224, 1.0)
    augment = augmentation_pipeline(recipe, preprocess, dataset.pca_eigenvectors, dataset.pca_eigenvalues)
    generator = torch.Generator().manual_seed(0)
    split = dataset.split("train")
    for epoch in itertools.count(1):
        for batch in training_batches(split, count, 0, epoch, device=device):
            labels = batch.labels.to(device)
            yield augment(batch.images, generator, dtype=dtype), labels


def photograph_batches(
    folder: Path, count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of `paper_batches` for synthetic photographs, which are prepared in a folder first."""
    files = photographs(folder / "photographs", max(512, 2 * count))
    dataset = prepare(files[0].parents[1], folder / "data", split={"val": 0.0}, progress=False)
    return paper_batches(dataset, count, device, dtype)


def _write_csv(files: list[Path], source: Path) -> Path:
    """Write a table of the files, with the classes a and b in turn."""
    rows = [f"{file.resolve()},{'ab'[number % 2]}\n" for number, file in enumerate(files)]
    source.write_text("path,label\n" + "".join(rows), encoding="utf-8")
    return source


def _files(folder: Path, images: Path | None, count: int, least: int = 2) -> list[Path]:
    """`count` synthetic JPEG files, or at most as many, and at least `least`, of a folder."""
    if images is None:
        return photographs(folder / "made", count)
    found = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    if len(found) < least:
        raise UsageError(f"{len(found) or 'no'} JPEG files in {images}: this needs at least {least}")
    for file in found:
        try:
            decode(file.read_bytes())
        except UnreadableImageError as error:
            raise UsageError(f"{file} cannot be read: {error}; remove it from {images}") from None
    return found


def _size_text(files: list[Path]) -> str:
    """Median height and width and mean size of some files, as text."""
    heads = [simplejpeg.decode_jpeg_header(file.read_bytes()) for file in files[:50]]
    height, width = (round(statistics.median(head[i] for head in heads)) for i in (0, 1))
    size = statistics.mean(file.stat().st_size for file in files)
    return f"{width}×{height} pixels and {size / 1e3:.0f} kB"
