"""Progress of long work on stderr: a bar with a rate and the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHOW_AFTER = 1.0
"""Seconds. Work that ends sooner shows nothing."""
LINE_EVERY = 10.0
"""Seconds between two lines without a terminal."""


def notify(line: str) -> None:
    """Print a message on stderr. In a training of several processes only the first process prints."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


class Progress:
    """The object that `progress` yields.

    Attributes
    ----------
    done : int
        Items done, including those done before this process started.
    total : int or None
        Items in all; None if unknown.
    description : str
        What is counted, such as ``"training"``.
    """

    def __init__(self, total: int | None, description: str, start: int) -> None:
        self.done, self.total, self.description = start, total, description
        self._first = start
        self.fields: dict[str, Any] = {}
        self._start = time.monotonic()
        self._warm: tuple[int, float] | None = None  # count and time after the first step, which includes the warm-up

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Count ``n`` more items. ``fields`` replace the values shown after the count, such as ``loss="0.31"``."""
        self.done += n
        self.fields = fields or self.fields
        self._show()
        self._warm = self._warm or (self.done, time.monotonic())

    def note(self, line: str) -> None:
        """Print a message on stderr without breaking the bar."""
        print(line, file=sys.stderr, flush=True)

    def result(self, line: str) -> None:
        """Print a line of the result on stdout without breaking the bar."""
        print(line, flush=True)

    def line(self) -> str:
        """Return the progress as text: count, rate, time left (or elapsed), fields."""
        parts = [self._count(), *self._rate(), self._time(), *self._fields()]
        return " · ".join(part for part in parts if part)

    def _count(self) -> str:
        return f"{self.description}: {self.done:,}" + ("" if self.total is None else f"/{self.total:,}")

    def _rate(self) -> list[str]:
        """The mean rate of this process; nothing if no time has passed or nothing was done."""
        elapsed, count = self._elapsed(), self.done - self._first
        return [format_rate(count / elapsed)] if elapsed > 0 and count > 0 else []

    def _time(self) -> str:
        """The time left, estimated without the first step; the elapsed time at the end or before an estimate exists."""
        if self.total is not None and self.done < self.total and self._warm and self.done > self._warm[0]:
            count, moment = self._warm
            seconds_per_item = (time.monotonic() - moment) / (self.done - count)
            return f"{format_duration((self.total - self.done) * seconds_per_item)} left"
        return format_duration(self._elapsed())

    def _fields(self) -> list[str]:
        return [f"{name} {value}" for name, value in self.fields.items()]

    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _show(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class _Silent(Progress):
    def note(self, line: str) -> None:
        pass

    def _show(self) -> None:
        pass

    def _close(self) -> None:
        pass


class _Lines(Progress):
    def __init__(self, total: int | None, description: str, start: int) -> None:
        super().__init__(total, description, start)
        self._shown_at, self._shown = self._start, -1

    def _show(self) -> None:
        if time.monotonic() - self._shown_at >= LINE_EVERY:
            self._write()

    def _close(self) -> None:
        if self._shown != self.done and self._elapsed() >= SHOW_AFTER:
            self._write()

    def _write(self) -> None:
        self._shown_at, self._shown = time.monotonic(), self.done
        self.note(self.line())


class _Bar(Progress):
    def __init__(self, total: int | None, description: str, start: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        super().__init__(total, description, start)
        self._console = Console(stderr=True)
        names = ("count", "rate", "time", "fields")
        self._rich = RichProgress(
            BarColumn(bar_width=24),
            *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in names),
            console=self._console,
            redirect_stdout=False,  # results may go to a file or a pipe
            redirect_stderr=False,
        )
        self._task = self._rich.add_task(
            description, total=total, completed=start, count="", rate="", time="", fields=""
        )
        self._started = False

    def note(self, line: str) -> None:
        self._console.out(line, highlight=False)

    def result(self, line: str) -> None:
        # If stdout is the same terminal, the line is printed above the bar.
        if sys.stdout.isatty():
            self._console.out(line, highlight=False)
        else:
            super().result(line)

    def _show(self) -> None:
        self._rich.update(
            self._task,
            completed=self.done,
            total=self.total,
            count=self._count(),
            rate=" ".join(self._rate()),
            time=self._time(),
            fields=" · ".join(self._fields()),
        )
        if not self._started and self._elapsed() >= SHOW_AFTER:
            self._rich.start()
            self._started = True

    def _close(self) -> None:
        self._show()
        if self._started:
            self._rich.stop()


@contextmanager
def progress(total: int | None, description: str, start: int = 0, silent: bool = False) -> Iterator[Progress]:
    """Show the progress of the enclosed work on stderr.

    On a terminal it is a bar; elsewhere a line every ten seconds and one at the end. Work shorter than a second shows
    nothing.

    Parameters
    ----------
    total : int or None
        Items in all; None if unknown.
    description : str
        What is counted, such as ``"training"``.
    start : int
        Items that were done before.
    silent : bool
        Show nothing.

    Yields
    ------
    Progress
    """
    kind: type[Progress] = _Silent if silent else _Bar if sys.stderr.isatty() else _Lines
    shown = kind(total, description, start)
    try:
        yield shown
    finally:
        shown._close()


def format_rate(rate: float) -> str:
    """Return a rate in items per second with three significant digits, such as ``"31.6/s"``."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def format_duration(seconds: float) -> str:
    """Return a duration such as ``"8 s"``, ``"3:05 min"`` or ``"2:10:00 h"``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
