"""`alexnet bench`: speed of this machine against named peers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alexnet.cli.options import add_json

HELP = "speed of this machine against named peers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.bench.parts import PARTS

    parser.description = (
        "Time training, normalization, loading, preparation and inference, alternating with named peers. The default "
        "parts take about ten minutes; each comparison is printed on stderr when it is known."
    )
    parser.epilog = "example: alexnet bench --only train-step --batch-size 64 --json"
    parts = {
        by_default: "; ".join(
            f"{part.name}: {part.description}" for part in PARTS.values() if part.by_default == by_default
        )
        for by_default in (True, False)
    }
    others = f". Not in the default run: {parts[False]}" if parts[False] else ""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help=f"a part to measure (repeatable; default: all of the default run). {parts[True]}{others}",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images per batch (default: that of each part; 128 for training)"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="layers: cpu, cuda, ... (default: the CPU, and a GPU where there is one)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="timings of each side (default: 3)")
    parser.add_argument(
        "--images", metavar="FOLDER", help="JPEG photographs for the parts that read files (default: synthetic images)"
    )
    parser.add_argument(
        "--results", metavar="FOLDER", help="folder to write the results to as well, such as bench-<machine>.json"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Run the benchmarks."""
    from alexnet.bench.run import bench

    command = ["alexnet", "bench", *(argument for name in options.only for argument in ("--only", name))]
    command += ["--images", "IMAGES"] * (options.images is not None)
    command += ["--batch-size", str(options.batch_size)] * (options.batch_size is not None)
    command += ["--device", str(options.device)] * (options.device is not None)
    report = bench(
        options.only,
        batch_size=options.batch_size,
        rounds=options.rounds,
        images=Path(options.images) if options.images else None,
        device=options.device,
        results=Path(options.results) if options.results else None,
        command=" ".join([*command, "--rounds", str(options.rounds)]),
    )
    if options.json:
        print(json.dumps(report, indent=1))
