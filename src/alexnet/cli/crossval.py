"""`alexnet crossval`: cross-validation of a recipe on a prepared dataset."""

from __future__ import annotations

import argparse
import json

from alexnet.cli.options import DATA_HELP, add_device, add_json, add_training_options, add_views, recipe_changes

HELP = "cross-validation on the training images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Divide the training images into folds with the same share of every class, train a network without each fold, "
        "and evaluate it on that fold; print the mean and standard deviation of every metric. The test split is not "
        "read. After an interruption the same command continues. CV/fold-*/ are run folders, which `alexnet evaluate` "
        "takes as an ensemble; CV/out-of-fold.csv has the prediction of every training image by a network that was not "
        "trained on it."
    )
    parser.epilog = "example: alexnet crossval data --folds 5 --out cv"
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", required=True, metavar="CV", help="the folder to create, or to continue")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default: 5)")
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="R", help="divide the images into folds R times (default: 1)"
    )
    parser.add_argument(
        "--fold-seed", type=int, default=0, metavar="N", help="seed of the division into folds (default: 0)"
    )
    add_views(parser, 10)
    add_device(parser)
    add_json(parser)
    add_training_options(parser)


def run(options: argparse.Namespace) -> None:
    """Cross-validate and print."""
    from alexnet.inspection.crossval import cross_validate

    result = cross_validate(
        options.data,
        options.out,
        folds=options.folds,
        repeats=options.repeats,
        fold_seed=options.fold_seed,
        recipe=options.recipe,
        views=options.views,
        device=options.device,
        checkpoint_interval=options.checkpoint_interval,
        **recipe_changes(options),
    )
    mean, std = result.mean, result.std
    if options.json:
        metrics = {name: {"mean": mean[name], "std": std[name], "folds": result.metrics[name]} for name in mean}
        found = {"runs": [str(path) for path in result.runs], "metrics": metrics}
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    print(f"{len(result.runs)} folds: mean ± standard deviation")
    for name, value in mean.items():
        deviation = std[name]
        print(f"  {name:<28} {value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"))
