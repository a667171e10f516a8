"""`alexnet evaluate`: metrics of a run, or of several runs averaged."""

from __future__ import annotations

import argparse
import json

from alexnet.cli.options import (
    DATA_HELP,
    add_batch_size,
    add_device,
    add_json,
    add_precision,
    add_raw,
    add_safe,
    add_split,
    add_threshold,
    add_views,
)

HELP = "metrics of a trained network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Evaluate a run on a prepared dataset, or several runs whose probabilities are averaged. Where the run has a "
        "decision rule (`alexnet decide`), it is measured too. Weights of the images are used where the dataset has "
        "them, and images with doubtful labels are reported apart."
    )
    parser.epilog = "example: alexnet evaluate run --data data --recall 0.95 --positive defective"
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run folder or a baseline; several, or a folder of `alexnet crossval` or `ensemble`, are averaged",
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    add_split(parser)
    add_views(parser, 10)
    add_precision(parser, "float32")
    add_device(parser)
    add_safe(parser)
    add_batch_size(parser, 64)
    add_json(parser)
    parser.add_argument("--predictions", metavar="FILE.csv", help="also write the prediction of each image to a CSV")
    add_threshold(parser)
    parser.add_argument(
        "--costs",
        metavar="FILE.csv",
        help="report the expected cost: cost of each predicted class (column) for each true class (row), and of unsure",
    )
    add_raw(parser)
    parser.add_argument(
        "--search-coefficients",
        action="store_true",
        help="search the weights of the ensemble on val; if val itself is evaluated, on the other half of it",
    )


def run(options: argparse.Namespace) -> None:
    """Evaluate and print."""
    from alexnet.evaluation.evaluate import check_can_write, evaluate

    if options.predictions:
        check_can_write(options.predictions)
    result = evaluate(
        options.runs,
        options.data,
        split=options.split,
        views=options.views,
        batch_size=options.batch_size,
        precision=options.precision,
        recall=options.recall,
        positive=options.positive,
        search_coefficients=options.search_coefficients,
        costs=options.costs,
        raw=options.raw,
        device=options.device,
        safe=options.safe,
    )
    if options.predictions:
        result.write_predictions(options.predictions)
    if options.json:
        print(json.dumps(result.to_dict(), indent=1, ensure_ascii=False))
    else:
        from alexnet.evaluation.printing import print_evaluation

        print_evaluation(result)
