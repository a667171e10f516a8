"""`alexnet learn`: the paper as a course that computes."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet.cli.options import requires_extra

HELP = "the paper as a course that computes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Open a course on the paper in the browser: each lesson has something to change, and computes with it what "
        "this package computes. Only this machine can connect. Requires Jinja2: pip install 'alexnet[report]'."
    )
    parser.epilog = "example: alexnet learn --lang ko"
    parser.add_argument("--lang", choices=("en", "ko"), default="en", help="language of the first page (default: en)")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="port on 127.0.0.1; 0 selects a free port (default: 0)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    parser.add_argument("--out", metavar="FOLDER", help="write the pages to this folder instead, and print the first")
    parser.add_argument(
        "--slides", action="store_true", help="open the slides of a lecture of 45 minutes (default: off)"
    )
    parser.add_argument(
        "--notebooks", metavar="FOLDER", help="write a notebook for each lesson to this folder instead, and print them"
    )
    parser.add_argument(
        "--compute", metavar="FILE", help="compute the arrays of the course again and write them to FILE instead"
    )


def run(options: argparse.Namespace) -> None:
    """Open or write the course."""
    if options.compute:
        from alexnet.learn.computation import compute

        compute(Path(options.compute), f"alexnet learn --compute {options.compute}")
        return
    with requires_extra("learn", "report"):
        from alexnet.learn import open_course, write_course, write_notebooks
        from alexnet.learn.pages import LANGUAGES

    page = "slides.html" if options.slides else "index.html"
    if options.notebooks:
        print(*write_notebooks(options.notebooks, options.lang), sep="\n")
    elif options.out:
        print(write_course(options.out).parent / LANGUAGES[options.lang] / page)
    else:
        open_course(options.lang, options.port, browser=not options.no_browser, page=page)
