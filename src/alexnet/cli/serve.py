"""`alexnet serve`: a page to inspect a run, and an HTTP API."""

from __future__ import annotations

import argparse

from alexnet.cli.options import DATA_HELP, add_device, add_max_pixels, add_precision, requires_extra

HELP = "a page to inspect a run, and an HTTP API"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Serve a run until Ctrl-C: the page at /, the API documentation at /docs. Only this machine can connect unless "
        "--host says otherwise. Requires FastAPI and uvicorn: pip install 'alexnet[serve]'."
    )
    parser.epilog = "example: alexnet serve run --data data --port 8080"
    parser.add_argument(
        "run_folder",
        metavar="RUN",
        help="a run folder, or a folder CV of `alexnet crossval` or of `ensemble`, whose members decide together",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help=f"{DATA_HELP} (default: the dataset of the training; none for CV)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to bind; 0.0.0.0 accepts connections from other machines (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port to bind; 0 selects a free port (default: 8000)"
    )
    parser.add_argument(
        "--token",
        nargs="?",
        const="",
        metavar="TOKEN",
        help="answer only requests with this token, 16 characters or more; the printed URL contains it. Without a "
        "value that of ALEXNET_TOKEN, else a drawn one (default: no token)",
    )
    add_precision(parser, "float32")
    add_device(parser)
    parser.add_argument(
        "--max-megabytes", type=float, default=20, metavar="N", help="largest request in MB (default: 20)"
    )
    add_max_pixels(parser, 50_000_000)
    parser.add_argument(
        "--timeout", type=float, default=30, metavar="S", help="seconds until a request is answered (default: 30)"
    )
    parser.add_argument(
        "--queue", type=int, default=256, metavar="N", help="images that are processed or wait at once (default: 256)"
    )


def run(options: argparse.Namespace) -> None:
    """Serve the run."""
    with requires_extra("serve", "serve"):
        from alexnet.serve import Limits, serve

    serve(
        options.run_folder,
        options.data,
        host=options.host,
        port=options.port,
        precision=options.precision,
        device=options.device,
        limits=Limits(
            bytes=int(options.max_megabytes * 1e6),
            pixels=options.max_pixels,
            seconds=options.timeout,
            queue=options.queue,
        ),
        token=options.token,
    )
