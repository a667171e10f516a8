"""`alexnet demo`: every step on real images of solar cells."""

from __future__ import annotations

import argparse

HELP = "every step on real images of solar cells, within 15 minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Prepare, train, evaluate, predict and report on the electroluminescence images of elpv-dataset "
        "(CC BY-NC-SA 4.0). If it is interrupted, the same command continues."
    )
    parser.epilog = "example: alexnet demo --out demo-out"
    parser.add_argument("--out", default="demo-out", metavar="FOLDER", help="where to write (default: demo-out)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    parser.add_argument(
        "--scratch",
        action="store_true",
        help="also train without pretrained weights, in twice the time; otherwise the table shows the stored result",
    )
    parser.add_argument("--image", metavar="FILE.svg", help="also write the tables as an SVG image")


def run(options: argparse.Namespace) -> None:
    """Run the demo."""
    from alexnet.experiments.solar_cells import images_folder

    images_folder()  # first: the extra with the images includes that of the report, which the demo imports
    from alexnet.experiments.demo import demo

    demo(options.out, seed=options.seed, scratch=options.scratch, image=options.image)
