"""`alexnet train`: a prepared dataset to a run folder with a trained network."""

from __future__ import annotations

import argparse
import os

from alexnet.cli.options import DATA_HELP, add_device, add_safe, add_training_options, describe_choices, recipe_changes

HELP = "prepared dataset -> trained network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Train a network on a prepared dataset. Ctrl-C finishes the step and saves; --resume continues, and the final "
        "weights are bitwise identical to those of a run that was not interrupted."
    )
    parser.epilog = "example: alexnet train data --out run --epochs 20"
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to create")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument(
        "--networks",
        type=int,
        metavar="N",
        help="train N networks that differ in their seed, in RUN/network-1 and so on; RUN represents the mean of their "
        "probabilities, as a folder of `alexnet ensemble` (default: one network)",
    )
    add_device(parser)
    parser.add_argument(
        "--keep-checkpoint",
        action="store_true",
        help="keep checkpoint.pt, the state of the optimizers, when the training is finished (default: remove it)",
    )
    add_safe(parser)
    _add_parallel_options(parser)
    add_training_options(parser)


def _add_parallel_options(parser: argparse.ArgumentParser) -> None:
    from alexnet.parallel.plan import LAYOUTS, PASSINGS

    group = parser.add_argument_group(
        "several processes",
        "The result equals that of a single process. --processes starts them on this machine; for several machines "
        "use `torchrun ... -m alexnet train`.",
    )
    group.add_argument(
        "--parallel",
        choices=LAYOUTS,
        help=f"{describe_choices(LAYOUTS)} (default: data with --processes)",
    )
    group.add_argument("--processes", type=int, metavar="N", help="number of processes to start on this machine")
    group.add_argument(
        "--max-restarts",
        type=int,
        default=3,
        metavar="N",
        help="restarts of all processes after one of them fails (default: 3)",
    )
    group.add_argument(
        "--passing",
        choices=PASSINGS,
        default="in-shares",
        help="how one-weird-trick passes activations to the fully connected layers (arXiv 1404.5997, schemes a, b and "
        f"c): {describe_choices(PASSINGS)} (default: in-shares)",
    )
    group.add_argument(
        "--peer-timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds without an answer from another process before the training ends (default: 300)",
    )


def run(options: argparse.Namespace) -> int:
    """Train in this process, or start several; one network, or several of them."""
    from alexnet.evaluation.train_ensemble import begun_with_networks, train_ensemble
    from alexnet.runtime.errors import UsageError

    if options.networks is not None or (options.resume and begun_with_networks(options.out)):
        if options.processes is not None or options.parallel is not None:
            raise UsageError("several networks are trained in one process: leave out --processes and --parallel")
        train_ensemble(
            options.data,
            options.out,
            networks=options.networks,
            recipe=options.recipe,
            resume=options.resume,
            device=options.device,
            checkpoint_interval=options.checkpoint_interval,
            keep_checkpoint=options.keep_checkpoint,
            safe=options.safe,
            **recipe_changes(options),
        )
        return 0
    if options.processes is not None and "RANK" not in os.environ:
        from alexnet.parallel.launch import launch

        return launch(options.processes, options.arguments, options.max_restarts)
    from alexnet.training.train import train

    train(
        options.data,
        options.out,
        recipe=options.recipe,
        resume=options.resume,
        device=options.device,
        checkpoint_interval=options.checkpoint_interval,
        keep_checkpoint=options.keep_checkpoint,
        safe=options.safe,
        parallel=options.parallel or ("data" if options.processes is not None else None),
        passing=options.passing,
        peer_timeout=options.peer_timeout,
        **recipe_changes(options),
    )
    return 0
