"""The page of a report: its sections in the template, as one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alexnet.report import sentences
from alexnet.report.figure_files import FIGURES, writing
from alexnet.report.rendering import EmbeddedImage, asset, render
from alexnet.report.sections import Section
from alexnet.runtime.files import write_atomic
from alexnet.runtime.provenance import machine

REPORT = "report.html"


def write_page(
    folder: Path,
    origin: Path,
    classes: Sequence[str],
    facts: Sequence[str],
    sections: Sequence[Section],
    banner: EmbeddedImage | None = None,
) -> Path:
    """Write `report.html` to `folder`; return its path.

    Parameters
    ----------
    folder : Path
        Where the page is written.
    origin : Path
        What is reported: a run folder or a baseline.
    classes : sequence of str
        Names of the classes, the heading.
    facts : sequence of str
        The line under the heading.
    sections : sequence of Section
        The sections, in order.
    banner : EmbeddedImage, optional
        The background of the title.
    """
    html = render(
        "report.html",
        name=origin.absolute().name,
        heading=sentences.class_list(classes),
        facts=sentences.sentence(", ".join(facts)),
        banner=banner,
        sections=sections,
        script=asset("report.js"),
        machine=machine(),
        origin=str(origin),
        figures=FIGURES,
    )
    path = folder / REPORT
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, html)
    return path
