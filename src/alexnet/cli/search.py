"""`alexnet search`: the images of a dataset that are nearest to an image."""

from __future__ import annotations

import argparse

from alexnet.cli.options import DATA_HELP, add_device, add_json, add_max_pixels, add_run

HELP = "the most similar images of a prepared dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.search.index import METHODS

    parser.description = (
        "Print the images of a prepared dataset that are nearest to each given image, by Euclidean distance in the "
        "activations of fc7 (paper, section 6.1). An image of the dataset itself is first, at distance 0. The features "
        "of the dataset are stored in RUN/search/. An unreadable file is named on stderr, the other images are "
        "searched, and the exit code is 1."
    )
    parser.epilog = "example: alexnet search run query.jpg --data data --top 10"
    add_run(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file, a folder (searched recursively), or a zip or tar file"
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--split", default="train", metavar="NAME", help="split to search (default: train)")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="number of images (default: 5)")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="exact; index: an inverted-file index, milliseconds for a million images, approximate; codes: Hamming "
        "distance of binary codes from an auto-encoder; auto: exact up to 20,000 images, else index (default: auto). "
        "index and codes require faiss: pip install 'alexnet[search]'",
    )
    add_max_pixels(parser)
    add_json(parser, "print a JSON list, one image per line")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Search; the exit code is 1 if some images were unreadable."""
    from alexnet.search.search import search

    unreadable = search(
        options.run_folder,
        options.images,
        options.data,
        split=options.split,
        top=options.top,
        method=options.method,
        max_pixels=options.max_pixels,
        form="json" if options.json else "table",
        device=options.device,
    )
    return 1 if unreadable else 0
