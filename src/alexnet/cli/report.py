"""`alexnet report`: figures and a self-contained page of a run."""

from __future__ import annotations

import argparse

from alexnet.cli.options import DATA_HELP, add_device, add_precision, add_run, add_split, add_threshold, add_views

HELP = "figures and a self-contained page of a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Write report.html, a self-contained page, and its figures as PNG and SVG. The training can still be running: "
        "the report shows what exists. Requires matplotlib: pip install 'alexnet[report]'."
    )
    parser.epilog = "example: alexnet report run --data data --recall 0.95"
    add_run(parser)
    parser.add_argument("--data", metavar="DATA", help=f"{DATA_HELP} (default: the dataset of the training)")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: the run folder)")
    add_split(parser)
    add_views(parser, 1)
    add_precision(parser, "auto")
    add_device(parser)
    add_threshold(parser)
    parser.add_argument("--costs", metavar="FILE.csv", help="report the expected cost, as `alexnet evaluate --costs`")


def run(options: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from alexnet.report.report import write_report

    print(
        write_report(
            options.run_folder,
            options.data,
            options.out,
            split=options.split,
            views=options.views,
            precision=options.precision,
            recall=options.recall,
            positive=options.positive,
            costs=options.costs,
            device=options.device,
        )
    )
