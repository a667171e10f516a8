"""The page: small pieces of HTML, and the frame they are put in. Everything is within the one file."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from PIL import Image

THUMBNAIL = 224
"""Pixels: sharp on a telephone's screen, some 10 kB an image."""


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its heading, what it is about in a sentence, and its HTML."""

    name: str
    heading: str
    lead: str
    html: str


def page(title: str, over: str, heading: str, under: str, banner: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page; `over` and `under` stand around the heading. `banner` and `footer` are HTML, the rest text."""
    frame, style, script = (files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in _KINDS)
    return Template(frame).substitute(
        title=escape(title),
        over=escape(over),
        heading=escape(heading),
        under=escape(under),
        banner=banner,
        style=style.strip(),
        script=script.strip(),
        contents="\n".join(f'<li><a href="#{s.name}">{escape(s.heading)}</a></li>' for s in sections),
        sections="\n".join(map(_section, sections)),
        footer=footer,
    )


_KINDS = ("html", "css", "js")


def _section(section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    name = section.name
    return (
        f'<section id="{name}" aria-labelledby="{name}-heading">\n'
        f'<h2 id="{name}-heading">{escape(section.heading)}</h2>\n{lead}\n{section.html}\n</section>'
    )


def figure(drawing: str, note: str, links: Mapping[str, str], kind: str = "") -> str:
    """An inline SVG with a note (text) and links to its files: name of the form → relative address."""
    files_of = " · ".join(f'<a href="{escape(address, quote=True)}">{form}</a>' for form, address in links.items())
    caption = f'<span>{escape(note)}</span><span class="files">{files_of}</span>'
    return f'<figure class="{kind}">{drawing}<figcaption>{caption}</figcaption></figure>'


def tiles(values: Mapping[str, str]) -> str:
    """Numbers that matter, each with what it is: label → value."""
    each = (f'<div class="tile"><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>' for n, v in values.items())
    return f'<dl class="tiles">{"".join(each)}</dl>'


def sentences(lines: Iterable[str]) -> str:
    """A list of sentences (text)."""
    return f'<ul class="words">{"".join(f"<li>{with_code(line)}</li>" for line in lines)}</ul>'


def with_code(text: str) -> str:
    """Text with what stands in backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def image(pixels: np.ndarray, description: str, form: str = "JPEG") -> str:
    """An image (H, W, 3 or 4) uint8 within the page, as a JPEG of at most `THUMBNAIL` pixels or as a PNG as it is."""
    image = Image.fromarray(pixels)
    if form == "JPEG":
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        if (pixels[..., :1] == pixels).all():
            image = image.convert("L")
    file = io.BytesIO()
    image.save(file, form, quality=82, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = image.height, image.width
    return (
        f'<img src="data:image/{form.lower()};base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(description, quote=True)}">'
    )


def answer_card(image: str, truth: str, name: str, answers: Sequence[tuple[str, float]]) -> str:
    """An image, what it is, its name, and the most probable labels as bars."""
    bars = []
    for place, (label, share) in enumerate(answers):
        kind = "right" if label == truth else "wrong" if not place else ""
        bars.append(
            f'<li class="{kind}" style="--share:{100 * share:.1f}%"><span>{escape(label)}</span>'
            f"<span>{share:.1%}</span></li>"
        )
    return (
        f'<li>{image}<div class="about"><b>{escape(truth)}</b> <span class="name" title="{escape(name, quote=True)}">'
        f'{escape(name)}</span><ol class="bars">{"".join(bars)}</ol></div></li>'
    )


def gallery(cards: Iterable[str]) -> str:
    """Cards side by side."""
    return f'<ul class="gallery">{"".join(cards)}</ul>'


def look_card(images: Sequence[tuple[str, str]], truth: str, words: str) -> str:
    """The same image several times, each with what it shows: (image, name)."""
    each = "".join(f"<div>{shown}<small>{escape(name)}</small></div>" for shown, name in images)
    return f'<li><div class="three">{each}</div><div class="about"><b>{escape(truth)}</b>, {escape(words)}</div></li>'


def neighbor_row(query: tuple[str, str], found: Sequence[tuple[str, str, float]]) -> str:
    """An image with those nearest to it: (image, label), and (image, label, distance) of each."""
    shown, label = query
    cells = [f"<li>{shown}<small>{escape(label)}</small></li>"]
    for other, its_label, distance in found:
        kind = "" if its_label == label else ' class="other"'
        cells.append(f"<li>{other}<small{kind}>{escape(its_label)}<br>{distance:.3g}</small></li>")
    return f'<ol class="row">{"".join(cells)}</ol>'


def folded(summary: str, html: str, is_open: bool = False) -> str:
    """HTML under a heading that opens it."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{html}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of text; `numbers` are the columns set to the right."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = [' class="n"' if column in numbers else "" for column in range(len(row))]
        return "".join(f"<{tag}{kind}>{with_code(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def dial(name: str, rows: Sequence[Mapping[str, Any]], positives: int, negatives: int, start: int) -> str:
    """A slider over the rows of `metrics.threshold_curve` that says what each threshold finds of the class `name`."""
    data = json.dumps({"rows": list(rows), "positives": positives, "negatives": negatives})
    said = {"threshold": "threshold", "found": f"of “{name}” found", "missed": "missed"}
    said |= {"alarms": "false alarms", "precision": "of the alarms are right"}
    says = "".join(f'<div><dt>{escape(words)}</dt><dd data-is="{key}"></dd></div>' for key, words in said.items())
    return (
        '<div class="card dial" hidden><h3 id="dial">Choose a threshold</h3>'
        f'<p class="lead">An image is called “{escape(name)}” '
        "when its probability is at least the threshold. Lower finds more and alarms more often.</p>"
        f'<input type="range" min="0" max="{len(rows) - 1}" value="{start}" aria-labelledby="dial">'
        f'<dl class="says" aria-live="polite">{says}</dl>'
        f'<script type="application/json">{data.replace("<", chr(92) + "u003c")}</script></div>'
    )
