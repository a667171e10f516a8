"""`alexnet baseline`: hand-made features and a linear SVM, the method before the network."""

from __future__ import annotations

import argparse

from alexnet.cli.options import DATA_HELP, describe_choices

HELP = "classify with hand-made features and an SVM, for comparison"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.baselines.features import FEATURES

    parser.description = (
        "Fit hand-made features and a linear SVM to the training images: what the network of the paper was compared "
        "with. The folder is taken by `alexnet evaluate`, `decide`, `compare`, `predict`, `sort`, `report` and "
        "`ensemble`. Requires OpenCV: pip install 'alexnet[baseline]'."
    )
    parser.epilog = "example: alexnet baseline data --out base --features hog"
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", required=True, metavar="BASE", help="folder of the baseline; it must not exist")
    parser.add_argument(
        "--features",
        choices=tuple(FEATURES),
        default="sift-fisher",
        help=f"{describe_choices(FEATURES)} (default: sift-fisher)",
    )
    parser.add_argument(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="weights of the classes: none, or in inverse proportion to the images of a class (default: none)",
    )
    parser.add_argument(
        "--cost",
        type=float,
        metavar="C",
        help="C of the SVM, above 0 (default: the best of 0.1, 1 and 10 in cross-validation)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of sampled descriptors, Gaussians and folds (default: 0)"
    )


def run(options: argparse.Namespace) -> None:
    """Fit."""
    from alexnet.baselines.baseline import fit_baseline

    fit_baseline(
        options.data,
        options.out,
        features=options.features,
        class_weights=options.class_weights,
        cost=options.cost,
        seed=options.seed,
    )
