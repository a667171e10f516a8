"""The server process: socket, classifier, application, and shutdown."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.ensemble import members_of
from alexnet.evaluation.evaluate import check_compatible
from alexnet.evaluation.predictor import is_baseline
from alexnet.prediction.ensemble import load_classifier
from alexnet.runs.run import CROSS_VALIDATION, Run, check_has_networks
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.serve.access import Access, chosen_token
from alexnet.serve.api import api
from alexnet.serve.explorer import Explorer
from alexnet.serve.limits import Limits
from alexnet.serve.service import Service

SHUTDOWN_SECONDS = 5
"""Time for requests in progress to finish when the server is stopped."""
SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread yields to a waiting one; Python's default of 5 ms exceeds the time of an image."""


def serve(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    precision: str = "float32",
    device: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    token: str | None = None,
) -> None:
    """Serve the page and the HTTP API of a run until Ctrl-C or SIGTERM; prints the URL on stdout when ready.

    Parameters
    ----------
    run
        A run folder, or a folder of `alexnet crossval` or `ensemble`: its members decide together, and the page shows
        the first network.
    data
        The prepared dataset that the page shows; by default the one that the run was trained on, if it is still there.
        Required for a cross-validation to show a dataset, since its folds were trained on different images.
    host
        Address to bind; "0.0.0.0" accepts connections from other machines.
    port
        Port to bind; 0 selects a free port.
    precision
        "float32", "bfloat16" or "auto".
    device
        Device name, such as "cpu" or "cuda:1"; by default the best available.
    limits
        The limits on requests.
    token
        What a request must carry, as the header ``Authorization: Bearer TOKEN`` or as the cookie that the printed URL
        sets; "" draws one. By default everyone who reaches the server can use it.

    Raises
    ------
    UsageError
        The port is not a number from 0 to 65535, or the token is too short.
    AlexNetError
        The server cannot bind to the port, the run has no weights, or `data` does not fit it.
    """
    token = None if token is None else chosen_token(token)
    folder = Path(run)
    check_has_networks(folder, baselines=False)
    shown = members_of(folder)[0]
    if is_baseline(shown):
        raise AlexNetError(f"{folder} has baselines only, and the page shows a network: add a run folder")
    opened = Run.open(shown)
    with bound_socket(host, port) as listener:
        keep_freed_memory()
        classifier = load_classifier(folder, device=device, precision=precision)
        if (folder / CROSS_VALIDATION).is_file() and data is None:
            dataset, data_unavailable = None, "the folds were trained on different images: name a dataset with --data"
        else:
            dataset, data_unavailable = _open_data(opened, data)
        if dataset is None:
            print(f"alexnet: the page shows no dataset: {data_unavailable}", file=sys.stderr)
        # The first forward pass compiles the CPU kernels.
        classifier.probabilities(np.zeros((1, opened.config.size, opened.config.size, 3), dtype=np.uint8))
        service = Service(classifier, limits)
        app: Any = api(service, Explorer(opened, service, dataset, data_unavailable, folder))
        if token is not None:
            app = Access(app, token)
        with _frozen_objects(), _short_switch_interval():
            run_app(app, listener, url_of(listener, token))


def run_app(app: Any, listener: socket.socket, url: str) -> None:
    """Run an ASGI application on a bound socket until Ctrl-C or SIGTERM; prints `url` on stdout when ready."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    with _signals_to(server):
        print(url, flush=True)
        print("press Ctrl-C to stop", file=sys.stderr)
        server.run(sockets=[listener])
    print("stopped", file=sys.stderr)


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Exclude the objects that exist now from garbage collection: a full collection pauses all for a quarter second.

    They are included again at the end, so that the interpreter releases them: extension modules built with nanobind,
    such as Triton's, print a warning for each of their objects that is never released.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _signals_to(server: uvicorn.Server) -> Iterator[None]:
    """Send Ctrl-C to the server, also before it runs and while it shuts down.

    uvicorn handles the signal only while it runs. At other times Python would raise `KeyboardInterrupt` anywhere,
    which is lost in a callback of the garbage collector.
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
def _short_switch_interval() -> Iterator[None]:
    """Shorten the interpreter's switch interval, so that decoders do not wait while answers are sent."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def url_of(listener: socket.socket, token: str | None = None) -> str:
    """Return the URL of a bound socket, with a token if there is one."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/" + (f"?token={token}" if token else "")


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    UsageError
        The port is not a number from 0 to 65535.
    AlexNetError
        The host or port cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} is not valid: choose a number from 0 to 65535 (0 selects a free port)")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AlexNetError(f"cannot resolve host {host!r}: {error.strerror or error}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise AlexNetError(
            f"cannot bind to {host}:{port} ({error.strerror or error}); a free port is chosen with --port 0"
        ) from None
    return listener


def _open_data(run: Run, data: str | os.PathLike[str] | None) -> tuple[PreparedDataset | None, str]:
    """The dataset to show, or why there is none. A dataset that was named must exist and fit the run."""
    try:
        dataset = run.find_data(data)
        check_compatible(run, dataset, "the page can't show it")
    except AlexNetError as error:
        if data is not None:
            raise
        return None, str(error)
    return dataset, ""
