"""Sort the images of a folder as they arrive."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from alexnet.inspection.drift import day_of, describe_day, read_days
from alexnet.inspection.hot_folder import Arrivals, Signature, signature_of
from alexnet.inspection.journal import Placement
from alexnet.inspection.sort_session import LINKED, SortResult, SortSession, SortSettings, is_linked, open_session
from alexnet.prediction.classifier import Classifier, Prediction
from alexnet.runtime.errors import UsageError
from alexnet.runtime.progress import notify

SETTLE = 2.0
"""Seconds without a change after which a file that arrives is whole."""
WATCHED_BATCH = 64


def watch_folder(
    run: str | os.PathLike[str] | Classifier,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    stop: threading.Event,
    settle: float = SETTLE,
    placed: Callable[[Placement], object] = lambda _: None,
    note: Callable[[str], object] = notify,
    mode: str = "copy",
    unsure: str | os.PathLike[str] | None = None,
    unsure_below: float | None = None,
    views: int | None = None,
    raw: bool = False,
    precision: str = "float32",
    device: str | None = None,
    log: str | os.PathLike[str] | None = None,
    post: str | None = None,
) -> SortResult:
    """Sort the images of a folder, and those that arrive in it, until `stop` is set.

    The folder is listed again and again, which works on every file system, network drives included. A file is whole
    when neither its size nor its time of modification has changed for `settle` seconds. A file that cannot be read
    stays where it is, and is tried again when it changes. A folder that cannot be listed, such as a network drive that
    is away, is tried again too.

    Parameters
    ----------
    run, folder, out, mode, unsure, unsure_below, views, raw, precision, device, log, post
        As in `sort_images`.
    stop : threading.Event
        The call returns soon after another thread, or a signal handler, has set it.
    settle : float
        Seconds, above 0.
    placed : callable
        Called with each `Placement`.
    note : callable
        Called with messages for people: unreadable files, and at the end of a day its summary.

    Returns
    -------
    SortResult

    Raises
    ------
    AlexNetError, UsageError
        As in `sort_images`.
    """
    if not 0 < settle < float("inf"):
        raise UsageError(f"settle is {settle:g}; it is a number of seconds above 0")
    settings = SortSettings(run, folder, out, mode, unsure, unsure_below, views, raw, precision, device, log, post)
    with open_session(settings, write=True, arriving=True) as session:
        _Watch(session, stop, settle, placed, note).run()
    return session.result


class _Watch:
    """The loop of `watch_folder`."""

    def __init__(
        self,
        session: SortSession,
        stop: threading.Event,
        settle: float,
        placed: Callable[[Placement], object],
        note: Callable[[str], object],
    ) -> None:
        self.session, self.stop, self.placed, self.note = session, stop, placed, note
        self.arrivals = Arrivals(session.source, session.leave, settle, note)
        self.pause = max(0.05, min(1.0, settle / 4))
        self.links: set[str] = set()
        for p in session.journal.placements.values():
            if p.mode != "move":
                self.arrivals.finish(p.source, p.size, p.modified)
        self.day = day_of(time.time())

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            ready = self.arrivals.look()
            took = time.monotonic() - began
            if ready:
                self._sort(ready[:WATCHED_BATCH])
            if len(ready) <= WATCHED_BATCH:
                self.stop.wait(max(self.pause, took))  # at most half of the time is spent on listing the folder
            self._end_day()
        self._end_day(at_the_end=True)

    def _sort(self, ready: list[tuple[str, Signature]]) -> None:
        session = self.session
        if session.mode == "move":
            ready = [found for found in ready if not self._is_left(*found)]
        for (path, signature), prediction in zip(ready, session.classify([path for path, _ in ready]), strict=True):
            if self.stop.is_set():
                return
            if signature_of(path) != signature:
                continue  # it has changed while it was read: it is looked at again
            if not isinstance(prediction, Prediction):
                self.arrivals.fail(path, signature)
                self.note(f"alexnet: {path}: {prediction.reason}; it stays there, and is tried again when it changes")
                continue
            placement = session.place(path, prediction, wait_for_others=True)
            if placement is not None:
                if session.mode != "move":
                    self.arrivals.finish(path, placement.size, placement.modified)
                self.placed(placement)

    def _is_left(self, path: str, signature: Signature) -> bool:
        parts = Path(path).relative_to(self.session.source).parts
        if not is_linked(self.session.source, parts):
            return False
        self.arrivals.fail(path, signature)
        self.note(f"alexnet: {path}: {LINKED}")
        return True

    def _end_day(self, at_the_end: bool = False) -> None:
        """Tell how the day was, when it is over or the sorting ends."""
        today = day_of(time.time())
        if today == self.day and not at_the_end:
            return
        validation, days = read_days(self.session.journal)
        for day in days:
            if day.day == self.day:
                self.note(describe_day(day, validation))
        self.day = today
