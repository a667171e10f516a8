"""The course in the browser of this machine, from a server on loopback."""

from __future__ import annotations

import functools
import tempfile
import webbrowser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from alexnet.learn.pages import LANGUAGES, write_course
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.progress import notify


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line on stderr per request."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def open_course(language: str = "en", port: int = 0, browser: bool = True, page: str = "index.html") -> None:
    """Serve the course on this machine until Ctrl-C, and open it in the browser.

    Parameters
    ----------
    language : str
        Language of the first page, "en" or "ko".
    port : int
        Port on 127.0.0.1; 0 chooses a free one.
    browser : bool
        Open the browser.
    page : str
        The page to open: "slides.html" for the slides of the lecture.

    Raises
    ------
    UsageError
        If the port is not a number from 0 to 65535.
    AlexNetError
        If the port is in use.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} is not valid: choose a number from 0 to 65535 (0 selects a free port)")
    with tempfile.TemporaryDirectory(prefix="alexnet-learn-") as folder:
        write_course(Path(folder))
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Quiet, directory=folder))
        except OSError as error:
            raise AlexNetError(
                f"cannot bind to 127.0.0.1:{port} ({error.strerror}); `--port 0` chooses a free port"
            ) from None
        with server:
            address = f"http://127.0.0.1:{server.server_port}/{LANGUAGES[language]}{page}"
            notify(f"the course is at {address}; Ctrl-C ends it")
            if browser:
                webbrowser.open(address)
            server.serve_forever()
