"""Ctrl-C: while modules are loaded, in the work of a verb, and in a training, which finishes the step and saves."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet.runtime.progress import notify

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
_AGAIN_AFTER = 0.05
"""Seconds after which an interrupt that was lost is raised again."""


def leave_on_interrupt() -> None:
    """End the process at once on Ctrl-C, where there is nothing to save or remove yet, or no longer.

    An exception could be turned into another one by the module that is being loaded, or lost in a destructor. Where
    Ctrl-C is ignored, as in a background process of a shell, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
        # Python removes handlers when it ends: Ctrl-C would end a command as killed whose work is done.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _leave(*_: object) -> None:
    if os.environ.get("RANK", "0") == "0":
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"alexnet: interrupted\n")
    os._exit(INTERRUPTED)


@contextmanager
def interrupts_raised() -> Iterator[threading.Event]:
    """Raise `KeyboardInterrupt` on Ctrl-C in the block; yield an event that is set then.

    Python loses an exception in a destructor or in a callback of the garbage collector: it is raised again shortly
    after. A module in machine code that is being loaded may turn it into an `ImportError`: the event tells.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before not in (signal.default_int_handler, _leave):
        yield interrupted
        return

    def handle(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def hear_of_lost(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
            return
        again = threading.Timer(_AGAIN_AFTER, _interrupt_main_thread)
        again.daemon = True
        again.start()

    hook, sys.unraisablehook = sys.unraisablehook, hear_of_lost
    signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # also ends a wait in a system call
    else:
        _thread.interrupt_main()


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
