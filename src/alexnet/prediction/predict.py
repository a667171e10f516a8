"""Sort images with a trained network, and say what comes out: for people, as JSON, or as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Sequence

from alexnet.prediction.classifier import Classifier, ImageInput, Named, Prediction, Unread, image_files
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.progress import progress

FORMS = ("table", "json", "csv")
STDIN = "-"


def predict(
    run: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    *,
    top: int = 5,
    views: int = 1,
    form: str = "table",
    precision: str = "float32",
    device: str | None = None,
) -> int:
    """Print the `top` most probable classes of each image on stdout, as soon as they are known, in order.

    `images`: files, folders (searched through) and "-", one image on standard input. `form`: "table", one line a
    image; "json", a list with one object a line; "csv", with a header. What can't be read is named on stderr and the
    rest is done. Returns how many could not be read. Raises `AlexNetError` when there are no images.
    """
    files, others = image_files(images)
    if others:
        print(f"{others:,} other files in the folders are no images and were left alone", file=sys.stderr)
    keep_freed_memory()
    classifier = Classifier.load(run, device=device, precision=precision)
    top = min(top, len(classifier.classes))
    write = {"table": _as_table, "json": _as_json, "csv": _as_csv}[form](classifier, files, top)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names come out as they are on disk, Unicode or not
    unread = 0
    with progress(len(files), "classify") as bar:
        for line in write.head:
            bar.result(line)
        try:
            for result in classifier.stream((_image(file) for file in files), top, views):
                if isinstance(result, Unread):
                    unread += 1
                    bar.note(f"alexnet: {result.source}: {result.reason}")
                else:
                    bar.result(write.line(result))
                bar.advance()
        finally:
            for line in write.tail:
                bar.result(line)
    if unread:
        print(f"alexnet: {unread:,} of {len(files):,} images could not be read", file=sys.stderr)
    return unread


class _Form:
    """How results are written: lines before them, a line for each, lines after."""

    def __init__(self, line: Callable[[Prediction], str], head: Sequence[str] = (), tail: Sequence[str] = ()) -> None:
        self.line, self.head, self.tail = line, head, tail


def _as_table(classifier: Classifier, files: list[str], top: int) -> _Form:
    width = max(map(len, files))
    # Of ImageNet's descriptions, which are lists of synonyms, a table has room for the first.
    shown = {label: label.partition(",")[0] if classifier.config.descriptions else label for label in classifier.labels}
    label_width = max(map(len, shown.values()))

    def line(result: Prediction) -> str:
        cells = (f"{probability:6.1%} {shown[label]:<{label_width}}" for label, probability in result.top)
        return f"{result.source:<{width}}  {'  '.join(cells)}".rstrip()

    return _Form(line)


def _as_json(classifier: Classifier, files: list[str], top: int) -> _Form:
    first = True

    def line(result: Prediction) -> str:
        nonlocal first
        start, first = ("  " if first else ", "), False
        return start + json.dumps(result.to_dict(), ensure_ascii=False)

    return _Form(line, head=["["], tail=["]"])


def _as_csv(classifier: Classifier, files: list[str], top: int) -> _Form:
    more = [name for i in range(2, top + 1) for name in (f"label_{i}", f"probability_{i}")]

    def line(result: Prediction) -> str:
        return _csv_line([result.source, *(cell for label, p in result.top for cell in (label, f"{p:.6g}"))])

    return _Form(line, head=[_csv_line(["source", "label", "probability", *more])])


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _image(file: str) -> ImageInput | Named:
    # Read when its turn comes, which is also when an empty standard input becomes an image that can't be read.
    return Named(STDIN, sys.stdin.buffer.read()) if file == STDIN else file
