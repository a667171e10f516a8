"""`alexnet predict`: classes of images."""

from __future__ import annotations

import argparse
import atexit
import gc
import sys

from alexnet.cli.options import (
    add_device,
    add_json,
    add_max_pixels,
    add_pixel_range,
    add_precision,
    add_raw,
    add_run,
    add_views,
)

HELP = "classify images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Print the most probable classes of each image, and first the decision (a class, unsure or unknown) if the run "
        "has a rule of `alexnet decide`. An unreadable file is named on stderr, the other images are classified, and "
        "the exit code is 1."
    )
    parser.description += (
        " RUN can also be a folder of `alexnet baseline`, or of `alexnet crossval` or `ensemble`: the probabilities of "
        "its members are averaged."
    )
    parser.epilog = "example: alexnet predict run photographs/ --csv > predictions.csv"
    add_run(parser)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="a file, a folder (searched recursively), a zip or tar archive, or - for an image on stdin",
    )
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="FILE",
        help="a text file with one IMAGE per line; - for standard input; may be given several times",
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="number of classes per image (default: 5)")
    add_views(parser, 1, or_rule=True)
    add_raw(parser)
    add_precision(parser, "float32")
    add_device(parser)
    add_pixel_range(parser, "that of the run's dataset")
    add_max_pixels(parser)
    forms = parser.add_mutually_exclusive_group()
    add_json(forms, "print a JSON list, one image per line")
    forms.add_argument("--csv", action="store_true", help="print a CSV with a header")


def run(options: argparse.Namespace) -> int:
    """Classify images; the exit code is 1 if some were unreadable."""
    from alexnet.prediction.predict import predict
    from alexnet.runtime.errors import UsageError

    if not options.images and not options.list:
        raise UsageError("no images: name files, folders or archives, or a list of them with --list FILE")
    atexit.register(_leave_modules_alone)
    unreadable = predict(
        options.run_folder,
        options.images,
        lists=options.list,
        top=options.top,
        views=options.views,
        form="json" if options.json else "csv" if options.csv else "table",
        precision=options.precision,
        device=options.device,
        black=options.black,
        white=options.white,
        max_pixels=options.max_pixels,
        raw=options.raw,
    )
    return 1 if unreadable else 0


def _leave_modules_alone() -> None:
    """Keep the interpreter from looking for garbage among the objects of PyTorch's modules at its end: 0.2 seconds.

    Triton's modules print a warning for each of their objects that is never released.
    """
    if "triton" not in sys.modules:
        gc.freeze()
