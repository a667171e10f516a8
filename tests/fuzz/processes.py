"""Processes under observation: their output with times, and the peak memory of a process and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1


class MemoryWatch:
    """Polls the peak memory of a process and its descendants.

    Attributes
    ----------
    peak : int
        Largest sum of the processes' own peaks (`VmHWM`) among processes that existed at once, in bytes. Pages that
        processes share are counted in each, so it is an upper bound.
    """

    def __init__(self, pid: int) -> None:
        self.peak, self._pid, self._ended = 0, pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the polling."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.peak = max(self.peak, sum(map(_peak_of, _tree(self._pid))))


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path("/proc", entry, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def _peak_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


@dataclass
class Finished:
    """A command that has ended; `code` is None if it was killed at the time limit."""

    code: int | None
    stdout: list[str]
    stderr: list[str]
    seconds: float
    longest_pause: float
    peak_bytes: int


@dataclass
class _Lines:
    """The lines of a stream as they arrive, and the time of each."""

    stream: IO[bytes]
    lines: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def read(self) -> None:
        for line in self.stream:
            self.times.append(time.monotonic())
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))


def alexnet_command(*arguments: object) -> list[str]:
    """The command line of `alexnet` with this interpreter."""
    return [sys.executable, "-m", "alexnet", *map(str, arguments)]


def run_watched(command: Sequence[str], limit: float) -> Finished:
    """Run a command to its end, at most `limit` seconds.

    The longest pause is the longest time between two lines of its output, of either stream.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    memory = MemoryWatch(process.pid)
    streams = _Lines(process.stdout), _Lines(process.stderr)
    threads = [threading.Thread(target=stream.read) for stream in streams]
    for thread in threads:
        thread.start()
    code: int | None
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    seconds = time.monotonic() - started
    for thread in threads:
        thread.join(10)
    memory.stop()
    times = sorted(streams[0].times + streams[1].times)
    pauses = [after - before for before, after in pairwise(times)]
    return Finished(code, streams[0].lines, streams[1].lines, seconds, max(pauses, default=0.0), memory.peak)
