"""A server in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Server:
    """A running server: its address, run, dataset and process."""

    address: str
    run: Path
    data: Path
    process: subprocess.Popen[str]

    def post(self, path: str, *images: bytes, **parameters: object) -> httpx.Response:
        """Send images as files named 0, 1, …"""
        files = [("file", (str(number), image)) for number, image in enumerate(images)]
        return httpx.post(self.address + path, files=files, params=parameters, timeout=60)  # type: ignore[arg-type]

    def get(self, path: str, **parameters: object) -> httpx.Response:
        return httpx.get(self.address + path, params=parameters, timeout=60)  # type: ignore[arg-type]


@contextmanager
def serving(run: Path, data: Path, *options: str) -> Iterator[Server]:
    """Run `alexnet serve` on a free port until the block ends."""
    with printing_address("serve", str(run), *options) as (address, process):
        yield Server(address.rstrip("/"), run, data, process)


@contextmanager
def printing_address(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a command that prints its address on a free port, until the block ends."""
    command = [sys.executable, "-m", "alexnet", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate()[1]
        yield address, process
    finally:
        process.kill()
        process.communicate()
