"""Ctrl-C during training: finish the step, save, then stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet.runtime.progress import notify


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets. A second Ctrl-C raises `KeyboardInterrupt` at once.

    Outside the main thread Python does not deliver signals; the event is never set there.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(*_: object) -> None:
        if stop.is_set() and time.monotonic() - requested[0] < 1:
            return  # the terminal and torchrun both forward one Ctrl-C to every process
        if stop.is_set():
            signal.signal(signal.SIGINT, previous)
            raise KeyboardInterrupt
        requested[0] = time.monotonic()
        notify("stopping after this step (press Ctrl-C again to stop now and lose the work since the last checkpoint)")
        stop.set()

    requested = [0.0]
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
