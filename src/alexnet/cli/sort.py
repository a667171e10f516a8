"""`alexnet sort`: images of a folder into one folder per class."""

from __future__ import annotations

import argparse
import csv
import sys

from alexnet.cli.options import add_device, add_precision, add_views

HELP = "sort images into one folder per class"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Classify the images of a folder and copy, move or link each into the folder of its class. No file is "
        "overwritten: a name that exists gets a numbered suffix. A journal records every action; after a kill the same "
        "command continues, and --undo undoes it. An unreadable image is named on stderr and stays where it is, and "
        "the exit code is 1."
    )
    parser.epilog = "example: alexnet sort run photographs/ --to sorted --unsure-below 0.8"
    parser.add_argument("run_folder", nargs="?", metavar="RUN", help="a run folder; not needed with --undo")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="the images, at any depth; optional with --undo")
    parser.add_argument("--to", required=True, metavar="OUT", help="the folder of the class folders and the journal")
    modes = parser.add_mutually_exclusive_group()
    for mode, text in (
        ("copy", "copy the images (the default)"),
        ("move", "move the images"),
        ("link", "create symbolic links to the images"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="copy", help=text)
    parser.add_argument(
        "--unsure-below", type=float, metavar="P", help="put images whose class is less probable than P in a folder"
    )
    parser.add_argument("--unsure", metavar="DIR", help="that folder (default: OUT/unsure)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done as CSV and write nothing")
    parser.add_argument(
        "--undo", action="store_true", help="move files back and remove copies and links: of all, or those from FOLDER"
    )
    add_views(parser, 1)
    add_precision(parser, "float32")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Sort or undo; the exit code is 1 if a file was not sorted or not undone."""
    from alexnet.inspection.sorting import sort_images, undo_sort
    from alexnet.runtime.errors import UsageError

    if options.undo:
        undone, messages = undo_sort(options.to, options.folder)
        for message in messages:
            print(f"alexnet: {message}", file=sys.stderr)
        print(f"undone: {undone:,} files")
        return 1 if messages else 0
    if options.folder is None:
        raise UsageError("give a run folder and the folder with the images: alexnet sort RUN FOLDER --to OUT")
    result = sort_images(
        options.run_folder,
        options.folder,
        options.to,
        mode=options.mode,
        unsure=options.unsure,
        unsure_below=options.unsure_below,
        views=options.views,
        precision=options.precision,
        device=options.device,
        dry_run=options.dry_run,
    )
    if options.dry_run:
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(["source", "target", "class", "probability"])
        out.writerows([p.source, p.target, p.label, f"{p.probability:.6g}"] for p in result.placements)
    else:
        for folder, count in result.counts.items():
            print(f"{count:7,}  {folder}")
    for placement in result.renamed:
        print(f"the name of {placement.source} exists: {placement.target}", file=sys.stderr)
    if result.already:
        print(f"{result.already:,} images were sorted before", file=sys.stderr)
    for reason, files, first in result.ignored:
        print(f"ignored: {files:,}, {reason}, such as {first}", file=sys.stderr)
    for note in result.notes:
        print(note, file=sys.stderr)
    if result.unsorted:
        print(f"alexnet: {len(result.unsorted):,} images stay where they are", file=sys.stderr)
    return 1 if result.unsorted else 0
