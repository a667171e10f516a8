"""`alexnet compare`: paired tests of runs on the same images."""

from __future__ import annotations

import argparse
import json

from alexnet.cli.options import (
    DATA_HELP,
    add_batch_size,
    add_device,
    add_json,
    add_precision,
    add_split,
    add_views,
    requires_extra,
)

HELP = "paired tests of trained networks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Compare runs with the first one on the images of a split: the exact McNemar test of the accuracies, a paired "
        "bootstrap of the areas under the ROC curve (two classes), the differences with 95% intervals, and the images "
        "for which they predict different classes. With several pairs the p-values are adjusted (Holm)."
    )
    parser.epilog = "example: alexnet compare run other-run --data data --differences differences.csv"
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two or more run folders or baselines")
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    add_split(parser)
    add_views(parser, 10)
    add_precision(parser, "float32")
    add_device(parser)
    add_batch_size(parser, 64)
    parser.add_argument("--positive", metavar="CLASS", help="positive class of two (default: the rarer class)")
    parser.add_argument(
        "--differences", metavar="FILE.csv", help="write the images for which the runs predict different classes"
    )
    parser.add_argument(
        "--html",
        metavar="FILE.html",
        help="write the comparison and the images on which the runs differ as a self-contained page",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Compare and print."""
    from alexnet.evaluation.evaluate import check_can_write
    from alexnet.inspection.comparison import compare

    if options.html:
        with requires_extra("compare --html", "report"):
            from alexnet.report.comparison_page import write_comparison
    for file in filter(None, (options.differences, options.html)):
        check_can_write(file)
    result = compare(
        options.runs,
        options.data,
        split=options.split,
        views=options.views,
        batch_size=options.batch_size,
        precision=options.precision,
        positive=options.positive,
        device=options.device,
    )
    if options.differences:
        result.write_differences(options.differences)
    if options.html:
        write_comparison(result, options.html)
    if options.json:
        print(json.dumps(result.to_dict(), indent=1, ensure_ascii=False))
        return
    print(f"{len(result.evaluations[0].predictions):,} images: {result.evaluations[0].split.name} of {options.data}")
    if result.evaluations[0].predictions.weights is not None:
        print("weighted by the weights of the images; p-values of accuracies by a paired bootstrap")
    for pair in result.pairs:
        print(f"\n{pair.first} -> {pair.second}")
        certainty = [(f"accuracy, {name} labels", difference) for name, difference in pair.certainty.items()]
        for name, difference in [("accuracy", pair.accuracy), *certainty, ("ROC AUC", pair.roc_auc)]:
            if difference is not None:
                low, high = difference.interval
                print(
                    f"  {name}: {difference.first:.2%} -> {difference.second:.2%}, difference "
                    f"{difference.difference:+.2%} (95% interval: {low:+.2%} to {high:+.2%}), {difference.verdict}"
                )
        print(
            f"  different predictions: {pair.differing:,} images; correct for the first only: "
            f"{pair.only_first_correct:,}, for the second only: {pair.only_second_correct:,}"
        )
