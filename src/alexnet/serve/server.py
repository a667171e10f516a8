"""The server: a port, a network, and until Ctrl-C answers."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import check_compatible
from alexnet.prediction.classifier import Classifier
from alexnet.runs.run import Run
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.serve.api import api
from alexnet.serve.explorer import Exhibits
from alexnet.serve.limits import Limits
from alexnet.serve.service import Service

LAST_SECONDS = 5
"""How long requests under way may take to end when the server is stopped."""
TURN = 0.0005
"""Seconds for which a thread may run Python while another waits to; Python's own 5 ms are more than an image takes."""


def serve(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    precision: str = "float32",
    device: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> None:
    """Answer requests with the network of a run, and serve the page to look into it, until Ctrl-C or SIGTERM.

    `data`: the prepared dataset that the page shows; by default the one that the run was trained on, where it still
    is. `port` 0 takes a free one. Prints the address on stdout when it is ready.

    Raises `AlexNetError` when the port can't be had, the run has no weights, or `data` does not fit it.
    """
    opened = Run.open(run)
    with _listening(host, port) as listening:
        keep_freed_memory()
        classifier = Classifier.load(run, device=device, precision=precision)
        dataset, why_not = _dataset(opened, data)
        if dataset is None:
            print(f"alexnet: without data: {why_not}", file=sys.stderr)
        # The first pass compiles what is written for this processor.
        classifier.probabilities(np.zeros((1, opened.config.size, opened.config.size, 3), dtype=np.uint8))
        service = Service(classifier, limits)
        app = api(service, Exhibits(opened, service, dataset, why_not))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        server = uvicorn.Server(config)
        gc.collect()
        gc.freeze()  # what is here by now stays: looking through it again would keep all waiting for a quarter second
        with _ctrl_c_ends(server), _short_turns():
            print(address(listening), flush=True)
            print("Ctrl-C stops it", file=sys.stderr)
            server.run(sockets=[listening])
        print("stopped", file=sys.stderr)


@contextmanager
def _ctrl_c_ends(server: uvicorn.Server) -> Iterator[None]:
    """From here on Ctrl-C is the server's, also before it has begun and while it ends.

    The server takes the signal only while it runs. Left to Python outside of that, it would be a `KeyboardInterrupt`
    wherever the program happens to be, and is lost where that is a callback of the garbage collector.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let a thread that can go on have its turn soon: decoders stood idle while the answers of a batch were sent."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def address(listening: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UsageError(f"port is {port}; it is a number from 0 to 65535")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AlexNetError(f"no address {host!r} here: {error.strerror or error}") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(where)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise AlexNetError(
            f"port {port} of {host} can't be had ({error.strerror or error}): choose another with --port"
        ) from None
    return listening


def _dataset(run: Run, data: str | os.PathLike[str] | None) -> tuple[PreparedDataset | None, str]:
    """The data to show, or why there are none; those that were named must be there, and fit."""
    try:
        dataset = run.find_data(data)
        check_compatible(run, dataset, "the page can't show it")
    except AlexNetError as error:
        if data is not None:
            raise
        return None, str(error)
    return dataset, ""
