"""`alexnet ensemble`: several runs and baselines as one."""

from __future__ import annotations

import argparse

HELP = "average several runs and baselines as one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Make a folder that represents the mean of the probabilities of several runs and baselines, which stay where "
        "they are. `alexnet predict`, `evaluate`, `compare`, `sort` and `serve` take it where they take a run. "
        "The mean gains most where its members misclassify different images, such as a network and a baseline. "
        "`alexnet decide` finds a decision rule of the mean."
    )
    parser.epilog = "example: alexnet ensemble run base --out both"
    parser.add_argument(
        "members",
        nargs="+",
        metavar="RUN",
        help="a run folder, a baseline, or a folder of `alexnet crossval`, which represents its finished folds",
    )
    parser.add_argument("--out", required=True, metavar="ENSEMBLE", help="the folder; it must not exist, or be empty")


def run(options: argparse.Namespace) -> None:
    """Write the folder."""
    from alexnet.evaluation.ensemble import make_ensemble

    members = make_ensemble(options.members, options.out)
    print(f"{options.out}: the mean of {len(members)} members")
    for member in members:
        print(f"  {member}")
