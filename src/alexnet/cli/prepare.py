"""`alexnet prepare`: images to a prepared dataset."""

from __future__ import annotations

import argparse

HELP = "images -> prepared dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Decode, resize and store images as a prepared dataset for training. If it is interrupted, the same command "
        "continues."
    )
    parser.epilog = "example: alexnet prepare photographs/ data --split val=0.1,test=0.1"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with one folder per class (optionally in train/, val/, test/), a zip or tar archive of one, a "
        "folder of the ILSVRC tar files, a CSV of path,label[,split], Hugging Face parquet or Arrow files, or hf:NAME",
    )
    parser.add_argument("data", metavar="DATA", help="the folder to create")
    parser.add_argument(
        "--size", type=int, default=256, metavar="N", help="side of the stored images in pixels (default: 256)"
    )
    parser.add_argument(
        "--split",
        metavar="SHARES",
        help="shares held out of the training split, per class, such as val=0.2,test=0.1 (default: the splits of the "
        "source, else val=0.2)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the split (default: 0)")
    parser.add_argument(
        "--max-bad",
        default="1%",
        metavar="SHARE",
        help="largest share of unreadable images, such as 1%% or 0.01 (default: 1%%)",
    )
    parser.add_argument(
        "--black",
        type=float,
        metavar="X",
        help="value that becomes black in images with more than 8 bits (default: found for all images together)",
    )
    parser.add_argument(
        "--white", type=float, metavar="X", help="value that becomes white in them, such as 4095 for 12 bits"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=250_000_000,
        metavar="N",
        help="largest image in pixels; larger ones are not decoded (default: 250000000)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per available CPU)")


def run(options: argparse.Namespace) -> None:
    """Prepare a dataset."""
    from alexnet.data.preparation import parse_share, parse_split, prepare

    prepare(
        options.source,
        options.data,
        size=options.size,
        split=parse_split(options.split) if options.split is not None else None,
        seed=options.seed,
        max_bad=parse_share(options.max_bad),
        workers=options.workers,
        black=options.black,
        white=options.white,
        max_pixels=options.max_pixels,
    )
