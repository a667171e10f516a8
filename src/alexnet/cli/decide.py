"""`alexnet decide`: the decision rule of a run."""

from __future__ import annotations

import argparse
import json

from alexnet.cli.options import DATA_HELP, add_device, add_json, add_run, add_views

HELP = "find thresholds, unsure and unknown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.runs.decision import DISTANCE_METHODS

    parser.description = (
        "Find the decision rule of a run, a baseline, or a folder of `alexnet crossval` or `ensemble` on images that "
        "it was not trained on, and store it in the folder: "
        "calibrated probabilities, a threshold for a guaranteed recall or precision or the least expected cost, and "
        "the answers unsure and unknown. Then `alexnet predict`, `sort`, `evaluate`, `report` and `serve` obey it; "
        "--raw ignores it."
    )
    parser.epilog = "example: alexnet decide run --data data --recall defective=0.95 --unsure 0.1 --unknown-rate 0.01"
    add_run(parser)
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--split", default="val", metavar="NAME", help="split that decides, not train (default: val)")
    parser.add_argument(
        "--recall",
        action="append",
        default=[],
        metavar="CLASS=R",
        help="share of the images of CLASS, above 0 and below 1, that must not be decided as another class; may be "
        "given for several classes",
    )
    parser.add_argument(
        "--precision",
        action="append",
        default=[],
        metavar="CLASS=P",
        help="share, above 0 and below 1, of the images decided as CLASS that must be of it; may be given for several "
        "classes",
    )
    parser.add_argument(
        "--accuracy",
        type=float,
        metavar="A",
        help="accuracy among the images that are answered, above 0 and below 1; the others are unsure",
    )
    parser.add_argument(
        "--costs",
        metavar="FILE.csv",
        help="cost of each predicted class (column) for each true class (row), and of unsure; of --recall, "
        "--precision, --accuracy and --costs one can be given",
    )
    parser.add_argument(
        "--unsure",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the images with the smallest margin that are answered with unsure, 0 to below 1 (default: 0)",
    )
    parser.add_argument(
        "--unknown-rate",
        type=float,
        metavar="SHARE",
        help="share of known images, above 0 and below 1, that may be answered with unknown (default: none)",
    )
    parser.add_argument(
        "--unknown-method",
        choices=DISTANCE_METHODS,
        default=DISTANCE_METHODS[0],
        help="distance in feature space: to the fifth nearest training image, or to the class means (default: "
        "neighbors)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.9,
        metavar="C",
        help="confidence of the guarantees, above 0 and below 1 (default: 0.9)",
    )
    add_views(parser, 1)
    add_device(parser)
    add_json(parser, "print the rule as JSON on stdout")


def run(options: argparse.Namespace) -> None:
    """Find and store the rule."""
    from alexnet.inspection.decide import decide

    report = decide(
        options.run_folder,
        options.data,
        split=options.split,
        recall=_shares(options.recall, "--recall"),
        precision=_shares(options.precision, "--precision"),
        accuracy=options.accuracy,
        costs=options.costs,
        unsure=options.unsure,
        unknown_rate=options.unknown_rate,
        unknown_method=options.unknown_method,
        confidence=options.confidence,
        views=options.views,
        device=options.device,
    )
    if options.json:
        print(json.dumps(report.rule.to_dict(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(report.sentences))


def _shares(given: list[str], option: str) -> dict[str, float]:
    from alexnet.runtime.errors import UsageError

    shares = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            shares[name] = float(value)
        except ValueError:
            raise UsageError(f"{option} {text}: give CLASS=SHARE, such as defective=0.95") from None
    return shares
