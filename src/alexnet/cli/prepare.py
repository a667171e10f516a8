"""`alexnet prepare`: images to a prepared dataset."""

from __future__ import annotations

import argparse
from typing import Any

from alexnet.cli.options import add_max_pixels, add_pixel_range

HELP = "images -> prepared dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.data.duplicates import KEEP, POLICIES

    parser.description = (
        "Decode, resize and store images as a prepared dataset for training. What the source is understood to be is "
        "printed first; --dry-run prints only that. If it is interrupted, the same command continues."
    )
    parser.epilog = "example: alexnet prepare photographs/ data --split val=0.1,test=0.1"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with one folder per class (optionally in train/, val/, test/), a zip or tar archive of one, a "
        "folder with a table of images and classes, a CSV of path,label[,split], the ILSVRC tar files, Hugging Face "
        "parquet or Arrow files, or hf:NAME",
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="the folder to create (not needed with --dry-run)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print classes, counts and splits, and read and write nothing"
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: print them as JSON on stdout")
    parser.add_argument("--root", metavar="DIR", help="folder of the source that holds the images (default: all of it)")
    parser.add_argument(
        "--splits", metavar="NAME=DIR,...", help="folders of the splits, such as train=seg_train,val=seg_test"
    )
    parser.add_argument(
        "--classes-from",
        metavar="WHAT",
        help="source of the class of an image: folder (the first below the root), parent (the one the image lies in), "
        "name (the file name, as in cat.0.jpg), or a table as FILE or FILE:COLUMN, or several, such as 'train_*.txt' "
        "(default: decided by what is there)",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of names and tables that are not UTF-8, such as cp949 or cp1252 (default: guessed)",
    )
    parser.add_argument(
        "--group-regex",
        metavar="REGEX",
        help="regular expression whose first capturing group, in the file name (in the path, where it has a slash), "
        "names the part, module, lot or patient that an image shows, such as '^([^_]+)_'; images of one group stay in "
        "one split (default: the column group of a table, else none)",
    )
    parser.add_argument(
        "--ignore-columns",
        metavar="NAME,...",
        help="columns of tables that are not read, such as a weight in grams (default: none; the columns weight, "
        "confidence, group, and one of probabilities for each class are)",
    )
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
    add_pixel_range(parser, "found for all images together")
    add_max_pixels(parser)
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="CSV of corrected labels with the columns path and label, such as CV/labels.csv of `alexnet labels`; the "
        "source is not changed",
    )
    parser.add_argument(
        "--duplicates",
        choices=POLICIES,
        default=KEEP,
        help="images that are equal or nearly so, in two splits or under two classes, are named, and: keep changes "
        "nothing, drop leaves out the copy in train of a val or test image of its class, error stops (default: keep)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per available CPU)")


def run(options: argparse.Namespace) -> None:
    """Prepare a dataset, or show the plan of it."""
    from alexnet.data.preparation import parse_share, prepare
    from alexnet.data.sources.planning import plan_source
    from alexnet.data.splitting import parse_folders, parse_split
    from alexnet.runtime.errors import UsageError

    if options.labels is not None and options.dry_run:
        raise UsageError("--dry-run shows the source as it is: leave --labels out")
    reading: dict[str, Any] = {
        "split": parse_split(options.split) if options.split is not None else None,
        "seed": options.seed,
        "root": options.root,
        "splits": parse_folders(options.splits) if options.splits is not None else None,
        "classes_from": options.classes_from,
        "encoding": options.encoding,
        "group_regex": options.group_regex,
        "ignore_columns": [name.strip() for name in (options.ignore_columns or "").split(",") if name.strip()],
    }
    if options.dry_run:
        plan = plan_source(options.source, output=options.data, **reading)
        if options.json:
            import json

            print(json.dumps(plan.to_dict(), indent=1, ensure_ascii=False))
        else:
            print("\n".join(plan.lines()))
        return
    if options.json:
        raise UsageError("--json needs --dry-run")
    if options.data is None:
        raise UsageError("name the folder to create: alexnet prepare SOURCE DATA, or add --dry-run")
    prepare(
        options.source,
        options.data,
        size=options.size,
        max_bad=parse_share(options.max_bad),
        workers=options.workers,
        black=options.black,
        white=options.white,
        max_pixels=options.max_pixels,
        labels=options.labels,
        duplicates=options.duplicates,
        **reading,
    )
