"""`alexnet sort`: images of a folder into one folder per class, once or as they arrive."""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alexnet.cli.options import add_device, add_json, add_precision, add_raw, add_views, requires_extra

if TYPE_CHECKING:
    from alexnet.inspection.journal import Placement
    from alexnet.inspection.sort_session import SortResult

HELP = "sort images into one folder per class"
FIGURE = "sort-days.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Classify the images of a folder and copy, move or link each into the folder of its class; the decision rule "
        "of `alexnet decide` is obeyed, with folders for unsure and unknown images. No file is overwritten: a name "
        "that exists gets a numbered suffix. A journal records every action; after a kill the same command continues, "
        "and --undo undoes it. An unreadable image is named on stderr and stays where it is, and the exit code is 1. "
        "With --watch the command goes on with what arrives, until Ctrl-C or SIGTERM."
    )
    parser.epilog = "example: alexnet sort run camera/ --to sorted --move --watch --log results.csv"
    parser.add_argument("run_folder", nargs="?", metavar="RUN", help="a run folder; not needed with --undo, --summary")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="the images, at any depth; optional with --undo")
    parser.add_argument("--to", required=True, metavar="OUT", help="the folder of the class folders and the journal")
    modes = parser.add_mutually_exclusive_group()
    for mode, text in (
        ("copy", "copy the images (the default)"),
        ("move", "move the images"),
        ("link", "create symbolic links to the images"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="copy", help=text)
    parser.add_argument("--unsure", metavar="DIR", help="the folder of unsure images (default: OUT/unsure)")
    parser.add_argument(
        "--unsure-below", type=float, metavar="P", help="images whose class is less probable than P are unsure too"
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--watch", action="store_true", help="go on with images that arrive in FOLDER")
    actions.add_argument("--dry-run", action="store_true", help="print what would be done as CSV and write nothing")
    actions.add_argument(
        "--undo", action="store_true", help="move files back and remove copies and links: of all, or those from FOLDER"
    )
    actions.add_argument(
        "--summary",
        action="store_true",
        help="print how the confidences and the shares of unsure and unknown images of each day compare with those of "
        f"validation, and draw OUT/{FIGURE}",
    )
    parser.add_argument(
        "--settle",
        type=float,
        metavar="SECONDS",
        help="watch: an image is whole when its file has not changed for this time (default: 2)",
    )
    parser.add_argument(
        "--log", metavar="FILE", help="append each result to a CSV file (.csv) or a SQLite database (.sqlite, .db)"
    )
    parser.add_argument("--post", metavar="URL", help="send each result as JSON to this address (HTTP POST)")
    add_json(parser, "summary: print it as JSON on stdout")
    add_raw(parser)
    add_views(parser, 1, or_rule=True)
    add_precision(parser, "float32")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Sort, undo or summarize; the exit code is 1 if a file was not sorted or not undone."""
    from alexnet.runtime.errors import UsageError

    if options.undo:
        return _undo(options)
    if options.summary:
        return _summarize(options)
    if options.folder is None:
        raise UsageError("give a run folder and the folder with the images: alexnet sort RUN FOLDER --to OUT")
    if options.settle is not None and not options.watch:
        raise UsageError("--settle is for --watch: without it each file is read once, as it is")
    given = {
        name: getattr(options, name)
        for name in ("mode", "unsure", "unsure_below", "views", "raw", "precision", "device", "log", "post")
    }
    return _watch(options, given) if options.watch else _sort(options, given)


def _sort(options: argparse.Namespace, given: dict[str, Any]) -> int:
    from alexnet.inspection.sorting import sort_images

    result = sort_images(options.run_folder, options.folder, options.to, dry_run=options.dry_run, **given)
    if options.dry_run:
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(["source", "target", "decision", "class", "probability"])
        out.writerows([p.source, p.target, p.decision, p.label, f"{p.probability:.6g}"] for p in result.placements)
    else:
        _print_counts(result)
    for placement in result.renamed:
        print(f"the name of {placement.source} exists: {placement.target}", file=sys.stderr)
    if result.already:
        print(f"{result.already:,} images were sorted before", file=sys.stderr)
    for reason, files, first in result.ignored:
        print(f"ignored: {files:,}, {reason}, such as {first}", file=sys.stderr)
    for note in result.notes:
        print(note, file=sys.stderr)
    _print_not_sent(result, options.post)
    if result.unsorted:
        print(f"alexnet: {len(result.unsorted):,} images stay where they are", file=sys.stderr)
    return 1 if result.unsorted else 0


def _watch(options: argparse.Namespace, given: dict[str, Any]) -> int:
    from alexnet.inspection.watching import SETTLE, watch_folder
    from alexnet.prediction.predict import show_file_names
    from alexnet.runtime.progress import notify

    show_file_names()
    settle = SETTLE if options.settle is None else options.settle
    with _stopped_by_signals() as stop:
        notify(f"watching {options.folder}; Ctrl-C ends it")
        result = watch_folder(
            options.run_folder, options.folder, options.to, stop=stop, settle=settle, placed=_print_placed, **given
        )
    _print_counts(result)
    _print_not_sent(result, options.post)
    return 0


def _undo(options: argparse.Namespace) -> int:
    from alexnet.inspection.sorting import undo_sort

    undone, messages = undo_sort(options.to, options.folder)
    for message in messages:
        print(f"alexnet: {message}", file=sys.stderr)
    print(f"undone: {undone:,} files")
    return 1 if messages else 0


def _summarize(options: argparse.Namespace) -> int:
    from pathlib import Path

    from alexnet.inspection.drift import describe_day, read_days
    from alexnet.inspection.journal import JOURNAL, Journal
    from alexnet.runtime.errors import AlexNetError
    from alexnet.runtime.files import write_atomic

    out = Path(options.to)
    if not (out / JOURNAL).is_file():
        raise AlexNetError(f"{out} has no journal ({JOURNAL}): nothing was sorted into it")
    validation, days = read_days(Journal(out, write=False))
    if options.json:
        known = None if validation is None else validation.to_dict()
        print(json.dumps({"validation": known, "days": [day.to_dict() for day in days]}, indent=1, ensure_ascii=False))
    else:
        for day in days:
            print(describe_day(day, validation))
    if validation is None:
        print("no validation to compare with: run `alexnet decide`, then sort with its rule", file=sys.stderr)
    if days:
        with requires_extra("sort --summary", "report"):
            from alexnet.report.days import draw_days
            from alexnet.report.style import png
        write_atomic(out / FIGURE, png(draw_days(days, validation)))
        print(f"figure: {out / FIGURE}", file=sys.stderr)
    return 0


def _print_placed(placement: Placement) -> None:
    from alexnet.inspection.result_log import local_time

    when = local_time(placement.time)[:19].replace("T", " ")
    print(f"{when}  {placement.source}  {placement.answer}  {placement.probability:.1%}", flush=True)


def _print_counts(result: SortResult) -> None:
    for folder, count in result.counts.items():
        print(f"{count:7,}  {folder}")


def _print_not_sent(result: SortResult, address: str | None) -> None:
    if result.not_sent:
        print(
            f"alexnet: {address} has not received {result.not_sent:,} results; the next command with --post sends them",
            file=sys.stderr,
        )


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets. A second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
