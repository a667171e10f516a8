"""What Ctrl-C does to a training."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet.runtime.progress import say


@contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C interrupts at once. Where signals can't be had, it is never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(*_: object) -> None:
        if stop.is_set() and time.monotonic() - asked[0] < 1:
            return  # the shell tells all processes, and so does torchrun: it is one Ctrl-C
        if stop.is_set():
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt
        asked[0] = time.monotonic()
        say("stopping after this step (Ctrl-C again: at once, losing what came after the last checkpoint)")
        stop.set()

    asked = [0.0]
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
