"""The overhead of HTTP: `alexnet serve` compared with the same network in this process.

Both sides read the same JPEG files, and their labels are compared first. Latency: one image after the other, by
`Classifier.predict` and by POST /v1/predict. Throughput: 32 clients, each of which sends its next image when it has the
response to its last, and `Classifier.predict` of as many files in batches of 64, decoded ahead by threads. The clients
run on the same machine as the server. The network is the paper's with random weights and 1,000 classes.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from alexnet.bench.parts import Settings
from alexnet.bench.synthetic import photographs, random_run
from alexnet.bench.timing import in_turn
from alexnet.prediction.classifier import Classifier

BATCH_SIZE = 64
LATENCY_IMAGES = 20
LOADS = ((1, 100), (8, 800), (32, 1600), (128, 2560))
"""Clients, and the images that they send together."""


def serve(
    settings: Settings,
    *,
    clients: int = 32,
    images_per_client: int = 8,
    variant: str = "paper",
    loads: Sequence[tuple[int, int]] = LOADS,
    requests: int = 100_000,
) -> dict[str, Any]:
    """Compare latency and throughput of the server with those of `Classifier.predict`.

    Parameters
    ----------
    settings : Settings
        `rounds` times three timings of each side; `images` instead of synthetic photographs.
    clients : int
        Clients that send images at the same time.
    images_per_client : int
        Images that each of them sends in a round.
    variant : str
        The network.
    loads : sequence of (int, int)
        Clients, and the images that they send together, for the rate and the times of answers.
    requests : int
        Requests over which the memory of a server is read five times.
    """
    rounds = 3 * settings.rounds
    run = random_run(settings.folder / "run", variant)
    paths = sorted(settings.images.rglob("*.jp*g")) if settings.images else photographs(settings.folder / "images", 64)
    files = [path.read_bytes() for path in paths[: clients * images_per_client]]
    classifier = Classifier.load(run)
    with _server(run) as (address, process):
        for file in files[:3]:
            (body,) = asyncio.run(_predict(address, [file]))
            served = [entry["label"] for entry in json.loads(body)["predictions"][0]["top"]]
            expected = [label for label, _ in classifier.predict(file)[0].top]
            assert served == expected, f"the server predicts {served}, this process {expected}"
        return {
            "latency": _latency(classifier, address, files[:LATENCY_IMAGES], rounds),
            "throughput": _throughput(classifier, address, files, rounds, clients, images_per_client),
            "clients": clients,
            "load": _loads(settings, address, files, process, loads),
            "memory": _memory(settings, requests),
        }


def _latency(classifier: Classifier, address: str, files: list[bytes], rounds: int) -> dict[str, Any]:
    def own() -> None:
        for file in files:
            classifier.predict(file)

    seconds = in_turn({"own": own, "served": lambda: asyncio.run(_predict(address, files))}, rounds)
    return {
        "description": "one image over HTTP, times the seconds of Classifier.predict",
        **_ratio([served / own for own, served in zip(seconds["own"], seconds["served"], strict=True)]),
        "at_most": 1.15,
        "own_ms": 1000 * statistics.median(seconds["own"]) / len(files),
        "served_ms": 1000 * statistics.median(seconds["served"]) / len(files),
    }


def _throughput(
    classifier: Classifier, address: str, files: list[bytes], rounds: int, clients: int, images_per_client: int
) -> dict[str, Any]:
    many = [files[number % len(files)] for number in range(clients * images_per_client)]

    async def all_clients() -> None:
        await asyncio.gather(*(_predict(address, many[number::clients]) for number in range(clients)))

    sides = {
        "own": lambda: classifier.predict(many, batch_size=BATCH_SIZE),
        "served": lambda: asyncio.run(all_clients()),
    }
    seconds = in_turn(sides, rounds)
    return {
        "description": f"{clients} clients, times the images per second of Classifier.predict in batches of 64",
        **_ratio([own / served for own, served in zip(seconds["own"], seconds["served"], strict=True)]),
        "at_least": 0.9,
        "own_per_second": len(many) / statistics.median(seconds["own"]),
        "served_per_second": len(many) / statistics.median(seconds["served"]),
    }


def _ratio(ratios: list[float]) -> dict[str, Any]:
    return {"ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}


async def _predict(address: str, files: list[bytes]) -> list[bytes]:
    """Send one request after the other over one connection; return the bodies."""
    answers = await _answers(address, files)
    assert all(answer.status == 200 for answer in answers), answers[0]
    return [answer.body for answer in answers]


class _Answer(NamedTuple):
    status: int
    body: bytes
    seconds: float


async def _answers(address: str, files: list[bytes]) -> list[_Answer]:
    """Send one request after the other over one connection, with as little work as possible."""
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    answers = []
    for file in files:
        started = time.perf_counter()
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(file)}"
        writer.write(head.encode() + b"\r\n\r\n" + file)
        response = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", response.lower())
        assert length is not None, response
        body = await reader.readexactly(int(length[1]))
        answers.append(_Answer(int(response.split(b" ", 2)[1]), body, time.perf_counter() - started))
    writer.close()
    return answers


def _load(address: str, files: list[bytes], clients: int, requests: int) -> dict[str, Any]:
    """Rate and times of answers for a number of clients that send `requests` images together."""
    each = max(1, requests // clients)

    async def all_clients() -> list[list[_Answer]]:
        turns = ([files[(client + number) % len(files)] for number in range(each)] for client in range(clients))
        return await asyncio.gather(*(_answers(address, turn) for turn in turns))

    started = time.perf_counter()
    answers = [answer for of_client in asyncio.run(all_clients()) for answer in of_client]
    seconds = time.perf_counter() - started
    times = sorted(answer.seconds for answer in answers if answer.status == 200)
    return {
        "clients": clients,
        "requests": len(answers),
        "refused": sum(answer.status != 200 for answer in answers),
        "images_per_second": round(len(times) / seconds, 1),
        "p50_ms": round(1e3 * times[len(times) // 2], 1),
        "p99_ms": round(1e3 * times[min(len(times) - 1, int(0.99 * len(times)))], 1),
    }


def _loads(
    settings: Settings, address: str, files: list[bytes], process: int, loads: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Small photographs from 1 to 128 clients, those of 12 megapixels from 8, and the memory before and after."""
    large = [path.read_bytes() for path in photographs(settings.folder / "large", 4, 4000, 3000, distinct=1)]
    _load(address, files, max(clients for clients, _ in loads), 256)
    _load(address, large, 8, 8)
    before = _resident_megabytes(process)
    rows = [_load(address, files, clients, requests) for clients, requests in loads]
    after = _resident_megabytes(process)
    return {
        "photographs": rows,
        "photographs_of_4000x3000": _load(address, large, 8, 160),
        "megabytes_before_and_after": [before, after],
        "requests_between": sum(row["requests"] for row in rows),
    }


def _memory(settings: Settings, requests: int) -> dict[str, Any]:
    """The memory of a server over many requests, by LeNet-5, so small that the server itself is what grows."""
    run = random_run(settings.folder / "small-run", "lenet5", classes=10, size=32, input_size=28)
    files = [path.read_bytes() for path in photographs(settings.folder / "small", 64, 64, 64)]
    with _server(run) as (address, process):
        _load(address, files, 32, max(32, requests // 20))
        megabytes, parts = [_resident_megabytes(process)], []
        for _ in range(5):
            parts.append(_load(address, files, 32, requests // 5))
            megabytes.append(_resident_megabytes(process))
    return {
        "requests": sum(part["requests"] for part in parts),
        "refused": sum(part["refused"] for part in parts),
        "images_per_second": parts[-1]["images_per_second"],
        "megabytes": megabytes,
    }


def _resident_megabytes(process: int) -> float | None:
    """The memory of a process, where the system says it."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


@contextmanager
def _server(run: Path) -> Iterator[tuple[str, int]]:
    """`alexnet serve` in its own process, without a dataset, which it would index; its URL and process id."""
    command = [sys.executable, "-m", "alexnet", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()
