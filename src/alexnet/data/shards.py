"""Items → shards, in worker processes.

A worker is a plain child process that reads one job a line on its standard input and answers on its standard output,
both JSON. It is no `multiprocessing` child, so that a script without a main guard, a notebook and standard input can
all start a preparation; and when the parent dies, however hard, the pipe ends and so does the worker.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

import numpy as np

from alexnet.data.dataset import write_shard, write_whole
from alexnet.data.decode import UnreadablePictureError, decode, square
from alexnet.data.sources import Item, read_item
from alexnet.errors import AlexNetError

WORK_FOLDER = ".prepare"
REPORT_EVERY = 16  # pictures


def result_path(folder: Path, shard: str) -> Path:
    """Where the facts about a finished shard stand until the dataset is finished."""
    return folder / WORK_FOLDER / f"{shard}.json"


def sums_path(folder: Path, shard: str) -> Path:
    """Where the sum of a shard's pictures, (size, size, 3) uint16, stands until the dataset is finished."""
    return folder / WORK_FOLDER / f"{shard}.npy"


def make_shard(
    folder: Path, shard: str, items: list[Item], classes: list[str], size: int, advance: Callable[[int], None]
) -> None:
    """Read `items`, and write those that are pictures as `shard` in `folder`, then the facts about it."""
    images = np.empty((len(items), size, size, 3), dtype=np.uint8)
    kept: list[Item] = []
    left_out: list[dict[str, str]] = []
    for item in items:
        try:
            images[len(kept)] = square(decode(read_item(item)), size)
            kept.append(item)
        except UnreadablePictureError as error:
            left_out.append({"path": item.name, "reason": str(error)})
        advance(1)
    images = images[: len(kept)]
    label_of = {name: label for label, name in enumerate(classes)}
    labels = [label_of[item.label] for item in kept]
    checksum = write_shard(folder / shard, images, labels, [item.name for item in kept], classes)
    # 256 pictures of at most 255: the sum fits uint16 exactly.
    total = images.sum(axis=0, dtype=np.uint16)
    with tempfile.SpooledTemporaryFile() as buffer:
        np.save(buffer, total)
        buffer.seek(0)
        write_whole(sums_path(folder, shard), buffer.read())
    result = {
        "rows": len(kept),
        "sha256": checksum,
        "class_counts": np.bincount(labels, minlength=len(classes)).tolist(),
        "rgb_products": rgb_products(images).tolist(),
        "left_out": left_out,
    }
    write_whole(result_path(folder, shard), json.dumps(result).encode())


def rgb_products(images: np.ndarray) -> np.ndarray:
    """Sum over all pixels of the outer product of RGB, (3, 3) int64, exact, of images (n, size, size, 3) uint8."""
    total = np.zeros((3, 3), dtype=np.int64)
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float64)
        total += (pixels.T @ pixels).astype(np.int64)  # whole numbers below 2^53: exact
    return total


def make_shards(
    setup: dict[str, Any], jobs: Iterable[dict[str, Any]], workers: int, advance: Callable[[int], None]
) -> None:
    """Have `workers` processes make the shards of `jobs`. Raises AlexNetError when a worker fails or is killed."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    processes: list[subprocess.Popen[str]] = []
    stop = threading.Event()

    def feed() -> None:
        with tempfile.TemporaryFile("w+") as log:
            process = _start_worker(log)
            processes.append(process)
            try:
                _send(process, setup)
                while not stop.is_set():
                    try:
                        job = waiting.get_nowait()
                    except queue.Empty:
                        break
                    _send(process, job)
                    _await_shard(process, job["shard"], advance)
            except (BrokenPipeError, EOFError):
                if not stop.is_set():
                    raise _worker_died(process, log) from None
            finally:
                _end(process)

    with ThreadPoolExecutor(workers) as threads:
        try:
            feeding = [threads.submit(feed) for _ in range(workers)]
            wait(feeding, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            failed = any(future.done() and future.exception() for future in feeding)
            if failed or sys.exc_info()[0]:
                for process in processes:
                    process.kill()
    for future in feeding:
        future.result()


def work() -> None:
    """What a worker process runs: jobs from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    jobs = os.fdopen(0, encoding="utf-8")
    setup = json.loads(jobs.readline())
    folder, classes, size = Path(setup["folder"]), setup["classes"], setup["size"]
    for line in jobs:
        job = json.loads(line)
        try:
            items = [Item(*fields) for fields in job["items"]]
            make_shard(folder, job["shard"], items, classes, size, lambda n: answer({"advance": n}))
            answer({"finished": job["shard"]})
        except AlexNetError as error:
            answer({"error": str(error)})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            answer({"error": f"the disk of {folder} is full: free some space and run the same command again"})


def _start_worker(log: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from alexnet.data.shards import work; work()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the parent, which ends the workers itself
    )


def _send(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _await_shard(process: subprocess.Popen[str], shard: str, advance: Callable[[int], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            raise AlexNetError(message["error"])
        if message.get("finished") == shard:
            return
        advance(message["advance"])
    raise EOFError


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.communicate()
    except (BrokenPipeError, ValueError):
        process.wait()


def _worker_died(process: subprocess.Popen[str], log: IO[str]) -> AlexNetError:
    code = process.wait()
    log.seek(0)
    last_words = log.read().strip().splitlines()[-1:]
    if code == -signal.SIGKILL:
        return AlexNetError("a worker was killed, most likely for want of memory: run again with fewer --workers")
    return AlexNetError(f"a worker ended with code {code}: {' '.join(last_words) or 'no message'}")
