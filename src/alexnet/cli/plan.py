"""`alexnet plan`: predicted time of an epoch on several devices."""

from __future__ import annotations

import argparse
import dataclasses
import json

from alexnet.cli.options import add_json

HELP = "predict the time of an epoch on several devices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.parallel.plan import DEVICES, IMAGENET, LINKS

    parser.description = (
        "Predict compute time, memory and traffic of each --parallel layout on 1, 2, 4, ... devices from operation "
        "counts, bytes and the rate of one device."
    )
    parser.epilog = "example: alexnet plan --devices 8 --gpu a100 --link nvlink3 --rate 9000"
    parser.add_argument("--devices", type=int, required=True, metavar="N", help="largest number of devices")
    parser.add_argument("--gpu", default="h100", metavar="NAME", help=f"{', '.join(DEVICES)} (default: h100)")
    parser.add_argument("--link", default="nvlink4", metavar="NAME", help=f"{', '.join(LINKS)} (default: nvlink4)")
    parser.add_argument("--rate", type=float, metavar="X", help="measured training rate of one device in images/s")
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="images per device (default: 128)")
    parser.add_argument(
        "--fc-batch-size", type=int, metavar="N", help="images per update of the fully connected layers"
    )
    parser.add_argument(
        "--images", type=int, default=IMAGENET, metavar="N", help=f"images per epoch (default: {IMAGENET}, ILSVRC-2012)"
    )
    parser.add_argument("--variant", default="paper", metavar="NAME", help="network variant (default: paper)")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Print the plan."""
    from alexnet.parallel.plan import plan, print_plan

    steps = plan(
        options.devices,
        options.gpu,
        options.link,
        rate=options.rate,
        batch=options.batch_size,
        fc_batch_size=options.fc_batch_size,
        variant=options.variant,
    )
    if options.json:
        rows = [{**dataclasses.asdict(step), "epoch_seconds": step.epoch(options.images)} for step in steps]
        print(json.dumps(rows, indent=1))
    else:
        print_plan(steps, options.gpu, options.link, options.images, options.rate)
