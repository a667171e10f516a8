"""The results of a sort as JSON to an HTTP server.

A thread sends one result after another, so that a server that is down or slow never delays the sorting. The journal of
the sort is the queue: a small file beside it has the number of the last result that the server received, and what
follows is sent again after a kill. A result may therefore arrive twice; `journal` and `id` identify it.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexnet import __version__
from alexnet.inspection.journal import Journal, Placement
from alexnet.inspection.result_log import local_time
from alexnet.runtime.errors import UsageError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import notify

POSTED = "sort.posted"
TIMEOUT = 10.0
"""Seconds that the server has for an answer."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts, doubled after each."""
_LATER = {408, 425, 429}
"""Answers of the kind "your mistake" that mean: again, later."""


def check_address(address: str) -> str:
    """Return the address of a server.

    Raises
    ------
    UsageError
        If it is not one of HTTP.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{address} is no address of a server; it begins with http:// or https://")
    return address


def message_of(placement: Placement, journal: str) -> dict[str, Any]:
    """The JSON form of a result, as it is sent."""
    return {
        "time": local_time(placement.time),
        "source": placement.source,
        "target": placement.target,
        "decision": placement.decision,
        "label": placement.label,
        "probability": placement.probability,
        **({} if placement.distance is None else {"distance": placement.distance}),
        "journal": journal,
        "id": placement.id,
    }


class ResultPost:
    """Sends results to a server. A context manager: `send` in it, and `finish` at its end.

    Parameters
    ----------
    address : str
        As returned by `check_address`.
    folder : Path
        Where the number of the last received result is kept.
    journal : Journal
        Its placements that were not received are sent first. Where results are sent for the first time, those that are
        in the journal already are not.
    """

    def __init__(self, address: str, folder: Path, journal: Journal) -> None:
        self._address, self._name = address, journal.name
        self._file = folder / POSTED
        self._queue: queue.SimpleQueue[Placement | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._given = self._delivered = 0
        self._thread = threading.Thread(target=self._run, name="post", daemon=True)
        received = self._received()
        if received is None:
            self._write(max(journal.placements, default=-1))
        else:
            for number, placement in journal.placements.items():
                if number > received:
                    self.send(placement)

    def __enter__(self) -> ResultPost:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(0)

    def send(self, placement: Placement) -> None:
        """Send a result as soon as the server receives it; returns at once."""
        self._given += 1
        self._queue.put(placement)

    def finish(self, seconds: float) -> int:
        """Wait for the thread for at most some seconds; returns the number of results that were not received."""
        self._queue.put(None)
        self._thread.join(seconds)
        self._stop.set()
        self._thread.join(0.1)
        return self._given - self._delivered

    def _received(self) -> int | None:
        try:
            values = json.loads(self._file.read_text(encoding="utf-8"))
            return int(values["id"]) if values["journal"] == self._name else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, number: int) -> None:
        with suppress(OSError):  # the result is sent again after the next start
            write_atomic(self._file, json.dumps({"journal": self._name, "id": number}).encode())

    def _run(self) -> None:
        while (placement := self._queue.get()) is not None:
            if not self._deliver(placement):
                return
            self._write(placement.id)
            self._delivered += 1

    def _deliver(self, placement: Placement) -> bool:
        """Try until the server has received or refused the result; False if the command ends before."""
        content = json.dumps(message_of(placement, self._name), ensure_ascii=False)
        request = urllib.request.Request(
            self._address,
            content.encode("utf-8", "backslashreplace"),
            {"Content-Type": "application/json", "User-Agent": f"alexnet/{__version__}"},
        )
        pause, began = FIRST_PAUSE, time.monotonic()
        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT):
                    pass
            except (OSError, ValueError, urllib.error.URLError) as error:
                if isinstance(error, urllib.error.HTTPError) and 300 <= error.code < 500 and error.code not in _LATER:
                    notify(f"alexnet: {self._address} refuses result {placement.id}: {error.code} {error.reason}")
                    return True
                if pause == FIRST_PAUSE:
                    notify(f"alexnet: {self._address} does not receive results ({_reason(error)}); they are sent again")
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if pause > FIRST_PAUSE:
                    notify(f"{self._address} receives results again, after {time.monotonic() - began:.0f} s")
                return True
        return False


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason)
