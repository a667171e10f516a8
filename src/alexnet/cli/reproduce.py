"""`alexnet reproduce`: repeat an experiment of the paper."""

from __future__ import annotations

import argparse
import sys

HELP = "repeat an experiment of the paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Run an experiment of the paper, or of its author's code, on real images and write its numbers and its figure. "
        "Finished trials are not repeated and an interrupted experiment continues. Without a name, list the "
        "experiments."
    )
    parser.epilog = "example: alexnet reproduce figure-1 --data cifar-10.zip"
    parser.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help="the experiment; --list shows the names")
    parser.add_argument("--list", action="store_true", help="list all experiments, published beside measured values")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="random seeds (default: those of the experiment)"
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder of the runs (default: EXPERIMENT-out)")
    parser.add_argument("--data", action="append", default=[], metavar="SOURCE", help="source of images (repeatable)")
    parser.add_argument("--quick", action="store_true", help="a trial of about a minute; its numbers are no result")
    parser.add_argument("--full", action="store_true", help="the published length, where the default is shorter")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="transfer, ablation, baseline, history: trials whose name starts with this, such as solar/100/starter or "
        "tanh; inspection: crossval or decisions (repeatable)",
    )
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help="imagenet: network variant, paper or released-2012, or its -half, -no-norm or -six-conv (default: paper)",
    )
    parser.add_argument(
        "--init", metavar="WEIGHTS", help="transfer: pretrained weights to compare with the starter, as in train --init"
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="history: seconds of the training for the same time (default: 180)",
    )
    parser.add_argument(
        "--results",
        metavar="FILE",
        help="the JSON file to write (default: docs/results/EXPERIMENT.json, or EXPERIMENT-SET.json where each image "
        "set has its own)",
    )


def run(options: argparse.Namespace) -> None:
    """List the experiments, or run one."""
    from alexnet.experiments.catalog import print_list, reproduce

    if options.list or options.experiment is None:
        print_list(options.results)
        return
    summary, results = reproduce(
        options.experiment,
        data=options.data,
        seeds=options.seeds,
        out=options.out,
        results=options.results,
        quick=options.quick,
        full=options.full,
        only=options.only,
        variant=options.variant,
        init=options.init,
        budget=options.budget,
    )
    print(summary)
    print(f"results written to {results}", file=sys.stderr)
