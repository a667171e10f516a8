"""The comparison of runs as one self-contained HTML page, in English and Korean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.inspection.comparison import Comparison, Difference
from alexnet.report.rendering import EmbeddedImage, asset, embed, render
from alexnet.report.sentences import short_name
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

SHOWN = 120
"""Images on the page, those with the most confident predictions first; the CSV of `--differences` has all."""
KINDS = ("first", "other", "none", "mixed")
"""Which runs classify an image correctly: the first only, all but the first, none, or another mixture."""


@dataclass(frozen=True)
class Interval:
    """A metric of two runs, and where its difference is on an axis from 0 to 100."""

    metric: str
    difference: Difference
    low: float
    high: float
    value: float
    limit: float


@dataclass(frozen=True)
class DifferingImage:
    """An image, its true class, and the prediction of each run: class, probability, whether it is correct."""

    image: EmbeddedImage
    truth: str
    name: str
    kind: str
    predictions: Sequence[tuple[str, float, bool]]


def write_comparison(comparison: Comparison, file: str | os.PathLike[str]) -> Path:
    """Write a comparison as a page that needs no other file and no network.

    Parameters
    ----------
    comparison : Comparison
        A result of `alexnet.inspection.comparison.compare`.
    file : str or path
        The HTML file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    AlexNetError
        If it cannot be written.
    """
    first = comparison.evaluations[0]
    runs = [comparison.pairs[0].first, *(pair.second for pair in comparison.pairs)]
    images = list(_images(comparison))
    html = render(
        "comparison.html",
        runs=list(zip(_letters(len(runs)), runs, [e.accuracy for e in comparison.evaluations], strict=True)),
        pairs=_pairs(comparison),
        images=images,
        kinds=[kind for kind in KINDS if any(image.kind == kind for image in images)],
        differing=len(comparison.differing),
        count=len(first.predictions),
        split=first.split.name,
        data=first.data,
        views=first.views,
        more_style=asset("comparison.css"),
        script=asset("comparison.js"),
    )
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, html)
    except OSError as error:
        raise AlexNetError(f"{file} cannot be written: {error.strerror or error}") from error
    return path


def _letters(count: int) -> list[str]:
    """A, B, ... Z, then numbers."""
    return [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]


def _pairs(comparison: Comparison) -> list[dict[str, Any]]:
    """Each pair with the intervals of its metrics, all on one axis."""
    rows = [(pair, [("accuracy", pair.accuracy), ("auc", pair.roc_auc)]) for pair in comparison.pairs]
    known = [difference for _, metrics in rows for _, difference in metrics if difference is not None]
    limit = max(0.001, *(abs(end) for difference in known for end in difference.interval))
    letters = _letters(len(rows) + 1)
    return [
        {
            "letter": letters[number],
            "pair": pair,
            "intervals": [_interval(name, metric, limit) for name, metric in metrics if metric is not None],
        }
        for number, (pair, metrics) in enumerate(rows, 1)
    ]


def _interval(metric: str, difference: Difference, limit: float) -> Interval:
    low, high, value = (50 + 50 * end / limit for end in (*difference.interval, difference.difference))
    return Interval(metric, difference, low, high, value, limit)


def _images(comparison: Comparison) -> Iterator[DifferingImage]:
    """The images on which the runs differ, the most confident prediction first."""
    evaluations = comparison.evaluations
    first = evaluations[0]
    differing = comparison.differing
    confidence = np.max([e.predictions.ranked_probabilities[differing, 0] for e in evaluations], axis=0)
    chosen = differing[np.argsort(-confidence, kind="stable")[:SHOWN]]
    for index, pixels in zip(chosen.tolist(), first.split.gather(chosen), strict=True):
        label = first.predictions.labels[index]
        predictions = []
        for e in evaluations:
            predicted = e.predictions.ranked[index, 0]
            probability = float(e.predictions.ranked_probabilities[index, 0])
            predictions.append((e.classes[predicted], probability, bool(predicted == label)))
        truth = first.classes[label]
        name = Path(first.split.paths(index)).name
        kind = _kind([correct for _, _, correct in predictions])
        yield DifferingImage(embed(pixels, f"{short_name(truth)}: {name}"), truth, name, kind, predictions)


def _kind(correct: Sequence[bool]) -> str:
    if not any(correct):
        return "none"
    if correct[0] and not any(correct[1:]):
        return "first"
    return "other" if not correct[0] and all(correct[1:]) else "mixed"
