"""`alexnet labels`: training images whose labels are likely wrong."""

from __future__ import annotations

import argparse
import json
import sys

from alexnet.cli.options import DATA_HELP, add_device, add_json
from alexnet.runtime.errors import UsageError

HELP = "find training images whose labels are likely wrong, and correct them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Rank the training images of a cross-validation by how likely their labels are wrong: by the out-of-fold "
        "probability of the label (confident learning) and by the labels of the nearest images in feature space; the "
        "rank is the mean of both. `alexnet prepare SOURCE DATA --labels FILE` makes a corrected dataset."
    )
    parser.epilog = "example: alexnet labels cv --top 50"
    parser.add_argument("cv", metavar="CV", help="a folder made by `alexnet crossval`")
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="number of suspects (default: the number of labels that are expected to be wrong, at least 20)",
    )
    parser.add_argument(
        "--neighbors", type=int, default=10, metavar="K", help="nearest images that are compared (default: 10)"
    )
    parser.add_argument("--data", metavar="DATA", help=f"{DATA_HELP} (default: that of the cross-validation)")
    add_device(parser)
    forms = parser.add_mutually_exclusive_group()
    add_json(forms)
    forms.add_argument("--csv", action="store_true", help="print the suspects as CSV on stdout")


def run(options: argparse.Namespace) -> None:
    """Rank and print, or serve the page."""
    from alexnet.inspection.labels import find_label_errors, table

    if options.top is not None and options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    found = find_label_errors(options.cv, data=options.data, neighbors=options.neighbors, device=options.device)
    if options.json:
        print(json.dumps(found.to_dict(options.top), indent=1, ensure_ascii=False))
        return
    if options.csv:
        print(found.csv(options.top), end="")
        return
    shown = found.first(options.top)
    print("\n".join(table(shown)))
    print(
        f"{found.expected:,} of {len(found.suspects):,} labels are expected to be wrong; {len(shown):,} suspects are "
        f"shown. `alexnet labels {options.cv} --csv` prints them as CSV",
        file=sys.stderr,
    )
