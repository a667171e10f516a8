"""How far long work is: a bar with rate and time left on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHOW_AFTER = 1.0
"""Seconds: work that ends sooner shows nothing."""
LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


def say(line: str) -> None:
    """A line for people, on stderr; of several processes that train one network the first says it."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


class Progress:
    """What `progress` yields. `advance` counts; `note` and `result` write a line without breaking the bar."""

    def __init__(self, total: int | None, what: str, start: int) -> None:
        self.done, self.total, self.what = start, total, what
        self._first = start
        self.fields: dict[str, Any] = {}
        self._start = time.monotonic()
        self._warm: tuple[int, float] | None = None  # how far the first step went, which is slow, and when

    def advance(self, n: int = 1, **fields: Any) -> None:
        """`n` more are done; `fields` replace what is shown behind the count (`loss="0.31"`)."""
        self.done += n
        self.fields = fields or self.fields
        self._show()
        self._warm = self._warm or (self.done, time.monotonic())

    def note(self, line: str) -> None:
        """A line for people, on stderr."""
        print(line, file=sys.stderr, flush=True)

    def result(self, line: str) -> None:
        """A line of the result, on stdout."""
        print(line, flush=True)

    def line(self) -> str:
        """The state in words: count, share, rate, time left, fields."""
        since = self._warm if self._warm and self.done > self._warm[0] else None
        done, moment = since or (self._first, self._start)
        running = time.monotonic() - moment
        rate = (self.done - done) / running if running > 0 else 0.0
        words = [f"{self.what}: {self.done:,}" if self.total is None else f"{self.what}: {self.done:,}/{self.total:,}"]
        words.append(rate_words(rate))
        if self.total is not None and self.done < self.total and rate and since:
            words.append(f"{time_words((self.total - self.done) / rate)} left")
        else:
            words.append(time_words(self._elapsed()))
        return " · ".join(words + [f"{name} {value}" for name, value in self.fields.items()])

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
    def __init__(self, total: int | None, what: str, start: int) -> None:
        super().__init__(total, what, start)
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
    def __init__(self, total: int | None, what: str, start: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        super().__init__(total, what, start)
        self._console = Console(stderr=True)
        # Rich would send the stdout of a redirected command to the terminal; `result` does what is needed.
        self._rich = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._rich.add_task(self.line(), total=total, completed=start)
        self._shown = False

    def note(self, line: str) -> None:
        self._console.out(line, highlight=False)

    def result(self, line: str) -> None:
        # Bar and results on one terminal: the line goes above the bar. Otherwise stdout is a file or a pipe.
        if sys.stdout.isatty():
            self._console.out(line, highlight=False)
        else:
            super().result(line)

    def _show(self) -> None:
        self._rich.update(self._task, completed=self.done, description=self.line())
        if not self._shown and self._elapsed() >= SHOW_AFTER:
            self._rich.start()
            self._shown = True

    def _close(self) -> None:
        self._show()
        if self._shown:
            self._rich.stop()


@contextmanager
def progress(total: int | None, what: str, start: int = 0, silent: bool = False) -> Iterator[Progress]:
    """Show how far the work is on stderr, with rate and time left, until the block ends.

    `total` is None where it is not known; `start` were done before. A bar on a terminal; elsewhere a line every ten
    seconds and one at the end; `silent` where another process shows it.
    """
    kind: type[Progress] = _Silent if silent else _Bar if sys.stderr.isatty() else _Lines
    shown = kind(total, what, start)
    try:
        yield shown
    finally:
        shown._close()


def rate_words(rate: float) -> str:
    """Things a second, in three digits."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def time_words(seconds: float) -> str:
    """A duration as people write it: 8 s, 3:05 min, 2:10:00 h."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
