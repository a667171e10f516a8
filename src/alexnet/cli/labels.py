"""`alexnet labels`: training images whose labels are likely wrong."""

from __future__ import annotations

import argparse
import json
import sys

from alexnet.cli.options import DATA_HELP, add_device, add_json, requires_extra
from alexnet.runtime.errors import UsageError

HELP = "find training images whose labels are likely wrong, and correct them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Rank the training images of a cross-validation by how likely their labels are wrong: by the out-of-fold "
        "probability of the label (confident learning) and by the labels of the nearest images in feature space; the "
        "rank is the mean of both. --serve opens a page to keep, change or drop each by keyboard, which writes "
        "CV/labels.csv; `alexnet prepare SOURCE DATA --labels CV/labels.csv` makes the corrected dataset. The images "
        "are never changed."
    )
    parser.epilog = "example: alexnet labels cv --top 50 --serve"
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
    forms.add_argument("--serve", action="store_true", help="serve the page until Ctrl-C")
    page = parser.add_argument_group("page", "Options of --serve.")
    page.add_argument("--labels", metavar="FILE", help="file of the decisions (default: CV/labels.csv)")
    page.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    page.add_argument(
        "--port", type=int, default=8001, metavar="N", help="port to bind; 0 selects a free port (default: 8001)"
    )


def run(options: argparse.Namespace) -> None:
    """Rank and print, or serve the page."""
    from alexnet.inspection.labels import find_label_errors, table

    if options.top is not None and options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    found = find_label_errors(options.cv, data=options.data, neighbors=options.neighbors, device=options.device)
    if found.warning is not None:
        print(f"alexnet: {found.warning}", file=sys.stderr)
    if options.serve:
        with requires_extra("labels --serve", "serve"):
            from alexnet.serve.review import serve_review

        serve_review(found, top=options.top, file=options.labels, host=options.host, port=options.port)
        return
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
        f"shown. Go through them: alexnet labels {options.cv} --serve",
        file=sys.stderr,
    )
