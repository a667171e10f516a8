"""Items → shards, in worker processes.

A worker is a plain child process that reads jobs on its standard input and answers on its standard output, one JSON
object per line. It is not a `multiprocessing` child, so that a script without a main guard, a notebook and standard
input can all start a preparation; and when the parent dies, however hard, the pipe ends and so does the worker.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from alexnet.data.dataset import SHARD_ROWS, write_shard
from alexnet.data.decoding import MAX_PIXELS, extra_content, square_image
from alexnet.data.near_duplicates import SIDE, thumbnails
from alexnet.data.pixel_range import PixelRange
from alexnet.data.remarks import BLANK, is_blank
from alexnet.data.sources.items import Item, Reader, Sample
from alexnet.data.statistics import pixel_sum
from alexnet.data.unreadable import UnreadableImageError
from alexnet.kernels.rgb_products import rgb_products
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_array, write_atomic

WORK_FOLDER = ".prepare"  # in the folder of the dataset, until that is finished

_REPORT_SECONDS = 0.2


class Job(NamedTuple):
    """A shard to make: its file name and its items."""

    shard: str
    items: list[Item]


class SampleFlags(NamedTuple):
    """Which columns the shards of a dataset have beside image, label and path."""

    weights: bool = False
    soft_labels: bool = False
    groups: bool = False


class Result(NamedTuple):
    """The record of a complete shard.

    Attributes
    ----------
    items
        Digest of the items that it was made of.
    rows
        Number of images.
    sha256
        Checksum of the file (hex).
    class_counts
        Number of images of each class.
    rgb_products
        Sums of products of the channels, (3, 3), see `statistics`.
    left_out
        Position among the shard's items and reason of each image that could not be read.
    checksums
        CRC-32 of the pixels of each image.
    remarks
        Position among the shard's items, and which part of an image was read, or that it is blank.
    """

    items: str
    rows: int
    sha256: str
    class_counts: list[int]
    rgb_products: list[list[int]]
    left_out: list[tuple[int, str]]
    checksums: list[int]
    remarks: list[tuple[int, str]]


class _Read(NamedTuple):
    """Positions of the items that could not be read, and of those with a remark, each with the reason."""

    left_out: list[tuple[int, str]]
    remarks: list[tuple[int, str]]


def read_result(folder: Path, shard: str) -> Result | None:
    """The record of a shard of the unfinished dataset in `folder`; None without one of this version."""
    if not _thumbnails_file(folder, shard).is_file():
        return None
    try:
        return Result(**json.loads((folder / WORK_FOLDER / f"{shard}.json").read_bytes()))
    except (FileNotFoundError, TypeError):  # TypeError: a record of another version has other fields
        return None


def digest(items: list[Item], classes: list[str], flags: SampleFlags) -> str:
    """A checksum (hex) of a shard's items and columns, and of the class names, whose order determines the labels."""
    return hashlib.sha256(json.dumps([items, classes, flags]).encode()).hexdigest()


def forget_result(folder: Path, shard: str) -> None:
    """Remove the record of a shard, so that it is made again."""
    (folder / WORK_FOLDER / f"{shard}.json").unlink()


def read_pixel_sum(folder: Path, shard: str) -> np.ndarray:
    """The sum of the images of a shard, (size, size, 3) uint16."""
    return np.load(folder / WORK_FOLDER / f"{shard}.npy", allow_pickle=False)


def read_thumbnails(folder: Path, rows: Mapping[str, int]) -> np.ndarray:
    """The thumbnails of the images of shards, with their numbers of images; see `alexnet.data.near_duplicates`."""
    found = np.empty((sum(rows.values()), SIDE, SIDE), dtype=np.uint8)  # one array: those of ImageNet have 1.3 GB
    start = 0
    for shard, count in rows.items():
        found[start : start + count] = np.load(_thumbnails_file(folder, shard), allow_pickle=False)
        start += count
    return found


def _thumbnails_file(folder: Path, shard: str) -> Path:
    return folder / WORK_FOLDER / f"{shard}.thumbnails.npy"


def make_shards(
    folder: Path,
    classes: list[str],
    size: int,
    jobs: Iterable[Job],
    workers: int,
    advance: Callable[[int], None],
    *,
    max_pixels: int = MAX_PIXELS,
    pixel_range: PixelRange | None = None,
    flags: SampleFlags,
) -> None:
    """Make the shards of `jobs` in worker processes.

    Parameters
    ----------
    folder
        The folder of the dataset.
    classes
        Class names.
    size
        Side of the images in pixels.
    jobs
        Shards and their items; taken as workers become free.
    workers
        Number of processes.
    advance
        Called with the number of items read since the last call, from any thread.
    max_pixels, pixel_range
        As in `alexnet.data.decoding.square_image`.
    flags
        Which columns beside image, label and path the shards have.

    Raises
    ------
    AlexNetError
        When a worker fails or dies.
    """
    waiting = _Shared(iter(jobs))
    setup = {
        "folder": str(folder),
        "classes": classes,
        "size": size,
        "max_pixels": max_pixels,
        "pixel_range": pixel_range.to_dict() if pixel_range else None,
        "flags": flags,
    }
    processes: list[subprocess.Popen[str]] = []
    stop = threading.Event()

    def feed() -> None:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log, _start_worker(log) as process:
            processes.append(process)
            try:
                _send(process, setup)
                while not stop.is_set() and (job := waiting.take()) is not None:
                    _send(process, {"shard": job.shard, "items": job.items})
                    _listen(process, advance, until="read")
                _listen(process, advance, until="end")
            except (BrokenPipeError, EOFError):
                if not stop.is_set():
                    raise _death(process, log) from None

    with ThreadPoolExecutor(workers, thread_name_prefix="feeder") as threads:
        feeding = [threads.submit(feed) for _ in range(workers)]
        try:
            wait(feeding, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() and not future.exception() for future in feeding):
                stop.set()
                for process in processes:
                    process.kill()
    for future in feeding:
        future.result()


def work() -> None:
    """Run a worker process: jobs from standard input until it ends, answers on standard output.

    One shard is written and synchronized while the next is read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # Pillow's, of what it can read all the same
    jobs = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    setup = json.loads(jobs.readline())
    folder, classes, size = Path(setup["folder"]), setup["classes"], setup["size"]
    flags = SampleFlags(*setup["flags"])
    decoded_as = {"max_pixels": setup["max_pixels"], "pixel_range": PixelRange.from_dict(setup["pixel_range"])}

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    reader = Reader()
    images, written = (np.empty((SHARD_ROWS, size, size, 3), dtype=np.uint8) for _ in range(2))
    writing: Future[None] | None = None
    try:
        with ThreadPoolExecutor(1) as writer:
            for line in jobs:
                job = json.loads(line)
                if "end" in job:
                    break
                items = [_item(*fields) for fields in job["items"]]
                read = _read_images(items, reader, images, lambda n: answer(advance=n), decoded_as)
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, folder, job["shard"], items, read, images, classes, flags)
                images, written = written, images
                answer(reached="read")
            if writing is not None:
                writing.result()
        answer(reached="end")
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except AlexNetError as error:
        answer(error=str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        answer(error=f"the disk of {folder} is full: free some space and run the same command again, it continues")


def _item(*fields: Any) -> Item:
    """An item as JSON has it."""
    *place, sample = fields
    return Item(*place)._replace(sample=Sample(*sample))


def _read_images(
    items: list[Item],
    reader: Reader,
    images: np.ndarray,
    advance: Callable[[int], None],
    decoded_as: dict[str, Any],
) -> _Read:
    """Fill the first rows of `images` with the items that can be read."""
    size = images.shape[1]
    left_out: list[tuple[int, str]] = []
    remarks: list[tuple[int, str]] = []
    told, told_at = 0, time.monotonic()
    for position, item in enumerate(items):
        try:
            data = reader.read(item)
            image = images[position - len(left_out)] = square_image(data, size, **decoded_as)
            remarks += [(position, part)] if (part := extra_content(data)) else []
            remarks += [(position, BLANK)] if is_blank(image) else []
        except UnreadableImageError as error:
            left_out.append((position, error.reason))
        if time.monotonic() - told_at > _REPORT_SECONDS or position + 1 == len(items):
            advance(position + 1 - told)
            told, told_at = position + 1, time.monotonic()
    return _Read(left_out, remarks)


def _write(
    folder: Path,
    shard: str,
    items: list[Item],
    read: _Read,
    images: np.ndarray,
    classes: list[str],
    flags: SampleFlags,
) -> None:
    """Write the shard, then the sum of its images, and last its record."""
    bad = {position for position, _ in read.left_out}
    kept = [item for position, item in enumerate(items) if position not in bad]
    images = images[: len(kept)]
    label_of = {name: label for label, name in enumerate(classes)}
    labels = [label_of[item.label] for item in kept]
    samples = [item.sample for item in kept]
    sha256 = write_shard(
        *(folder / shard, images, labels, [item.name for item in kept], classes),
        weights=[1.0 if sample.weight is None else sample.weight for sample in samples] if flags.weights else None,
        targets=soft_targets(samples, labels, classes) if flags.soft_labels else None,
        groups=[sample.group for sample in samples] if flags.groups else None,
    )
    write_array(folder / WORK_FOLDER / f"{shard}.npy", pixel_sum(images))
    write_array(_thumbnails_file(folder, shard), thumbnails(images))
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    products = rgb_products(images).tolist()
    # Every eighth row tells images apart; those with the same checksum are compared pixel by pixel.
    checksums = [zlib.crc32(image[::8].tobytes()) for image in images]
    result = Result(
        digest(items, classes, flags), len(kept), sha256, counts, products, read.left_out, checksums, read.remarks
    )
    write_atomic(folder / WORK_FOLDER / f"{shard}.json", json.dumps(result._asdict()).encode())


def soft_targets(samples: list[Sample], labels: list[int], classes: list[str]) -> np.ndarray:
    """Probabilities of the classes, (n, classes) float32; what a confidence leaves is shared by the other classes."""
    targets = np.zeros((len(samples), len(classes)))
    for target, sample, label in zip(targets, samples, labels, strict=True):
        if sample.probabilities is not None:
            target[:] = [sample.probabilities.get(name, 0.0) for name in classes]
        else:
            confidence = 1.0 if sample.confidence is None else sample.confidence
            target[:] = (1 - confidence) / (len(classes) - 1)
            target[label] = confidence
    return targets.astype(np.float32)


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, jobs: Any) -> None:
        self._jobs, self._lock = jobs, threading.Lock()

    def take(self) -> Job | None:
        with self._lock:
            return next(self._jobs, None)


def _start_worker(log: IO[str]) -> subprocess.Popen[str]:
    package_folder = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [package_folder, os.environ.get("PYTHONPATH")])),
        # An image's buffers are given back and taken again for the next one. By default glibc returns them to the
        # kernel, which has to clear them anew: a tenth of the time of decoding a JPEG.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
        # Each worker has one core.
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "ARROW_IO")},
    }
    return subprocess.Popen(
        [sys.executable, "-c", "from alexnet.data.shards import work; work()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C is for the parent, which ends the workers itself
    )


def _send(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _listen(process: subprocess.Popen[str], advance: Callable[[int], None], until: str) -> None:
    """Hear a worker until it has reached what it is to do. Raises EOFError when it ends before that."""
    assert process.stdout is not None
    if until == "end":
        _send(process, {"end": True})
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            raise AlexNetError(message["error"])
        if message.get("reached") == until:
            return
        advance(message.get("advance", 0))
    raise EOFError


def _death(process: subprocess.Popen[str], log: IO[str]) -> AlexNetError:
    code = process.wait()
    log.seek(0)
    last_line = " ".join(log.read().strip().splitlines()[-1:])
    if code == -9:
        return AlexNetError(
            "a worker was killed, most likely for want of memory: run the same command again with fewer --workers, "
            "it continues"
        )
    return AlexNetError(f"a worker died (code {code}): {last_line or 'it left no message'}")
