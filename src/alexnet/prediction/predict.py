"""`predict`: classes of images as a table, JSON or CSV."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.pixel_range import chosen_range
from alexnet.prediction.classifier import BATCH_SIZE, Classifier, Prediction, UnreadableImage
from alexnet.prediction.ensemble import load_classifier
from alexnet.prediction.inputs import NamedImage, find_images, print_unread
from alexnet.runs.decision import UNKNOWN
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.files import csv_text
from alexnet.runtime.progress import notify, progress

FORMS = ("table", "json", "csv")


def predict(
    run: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    top: int = 5,
    views: int | None = None,
    form: str = "table",
    precision: str = "float32",
    device: str | None = None,
    black: float | None = None,
    white: float | None = None,
    max_pixels: int = MAX_PIXELS,
    raw: bool = False,
) -> int:
    """Print the decision on each image and its most probable classes on stdout, in order, as soon as they are known.

    An unreadable image is named on stderr, and the others are classified.

    Parameters
    ----------
    run : str or path
        A run folder, a baseline, or a folder of `alexnet crossval` or `ensemble`: the mean of its members.
    images : sequence of str or path
        Files, folders (searched recursively), zip or tar files, and "-" for an image on standard input.
    lists : sequence of str or path
        Text files with one such path per line.
    top : int
        Number of classes per image.
    views : int, optional
        Number of crops per image whose probabilities are averaged: 1 or 10. Default: that of the decision rule, else 1.
    form : str
        "table", one line per image; "json", a list with one object per line; "csv", with a header.
    precision, device : str
        As for `Classifier.load`.
    black, white : float, optional
        Values that become black and white in images with more than 8 bits. Default: those of the run's dataset.
    max_pixels : int
        Limit of the pixels of an image.
    raw : bool
        Ignore the decision rule of the run.

    Returns
    -------
    int
        Number of images that could not be read.

    Raises
    ------
    AlexNetError
        There are no images, or the run cannot be loaded.
    """
    pixel_range = chosen_range(black, white)
    inputs = find_images(images, lists)
    for line in inputs.summary():
        notify(line)
    keep_freed_memory()
    several = len(inputs.images) > BATCH_SIZE
    classifier = load_classifier(run, device=device, precision=precision, raw=raw, packed=several)
    classifier.pixel_range, classifier.max_pixels = pixel_range or classifier.pixel_range, max_pixels
    top = min(top, len(classifier.classes))
    output = {"table": _table, "json": _json, "csv": _csv}[form](classifier, inputs.images, top)
    show_file_names()
    unreadable = 0
    with progress(len(inputs.images), "classify") as bar:
        for line in output.head:
            bar.result(line)
        try:
            for result in classifier.stream(iter(inputs), top, views):
                if isinstance(result, UnreadableImage):
                    unreadable += 1
                    bar.note(f"alexnet: {result.source}: {result.reason}")
                else:
                    bar.result(output.line(result))
                bar.advance()
        finally:
            for line in output.tail:
                bar.result(line)
    print_unread(unreadable, classifier.partly, len(inputs.images))
    return unreadable


def show_file_names() -> None:
    """Let file names that are not Unicode be printed on stdout as they are on disk, where its encoding is UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower().replace("-", "") == "utf8":
        sys.stdout.reconfigure(errors="surrogateescape")


def pad(text: str, width: int) -> str:
    """Fill a text with spaces to `width` columns of a terminal, of which an East Asian letter takes two."""
    return text + " " * (width - cell_len(text))


@dataclass(frozen=True)
class _Output:
    """How results are written: lines before them, a line for each, lines after them."""

    line: Callable[[Prediction], str]
    head: Sequence[str] = ()
    tail: Sequence[str] = ()


def _table(classifier: Classifier, images: list[NamedImage], top: int) -> _Output:
    width = max(cell_len(image.source) for image in images)
    # Of ImageNet's descriptions, which are lists of synonyms, a table has room for the first.
    shown = {label: label.partition(",")[0] if classifier.config.descriptions else label for label in classifier.labels}
    label_width = max(map(cell_len, shown.values()))

    def line(result: Prediction) -> str:
        cells = [f"{probability:6.1%} {pad(shown[label], label_width)}" for label, probability in result.top]
        if classifier.rule is not None:
            cells.insert(0, pad(shown.get(result.answer, result.answer), max(label_width, len(UNKNOWN))))
        return f"{pad(result.source, width)}  {'  '.join(cells)}".rstrip()

    return _Output(line)


def _json(classifier: Classifier, images: list[NamedImage], top: int) -> _Output:
    first = True

    def line(result: Prediction) -> str:
        nonlocal first
        start, first = ("  " if first else ", "), False
        return start + json.dumps(result.to_dict(), ensure_ascii=False)

    return _Output(line, head=["["], tail=["]"])


def _csv(classifier: Classifier, images: list[NamedImage], top: int) -> _Output:
    more = [name for i in range(1, top + 1) for name in (f"label_{i}", f"probability_{i}")]

    def line(result: Prediction) -> str:
        pairs = [(result.label, result.probability), *result.top]
        return _csv_line(
            [result.source, result.decision, *(cell for label, p in pairs for cell in (label, f"{p:.6g}"))]
        )

    return _Output(line, head=[_csv_line(["source", "decision", "label", "probability", *more])])


def _csv_line(cells: list[str]) -> str:
    return csv_text([cells]).removesuffix("\n")
