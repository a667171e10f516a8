"""HTML by Jinja2 templates with autoescape, and images and SVG drawings as parts of a page."""

from __future__ import annotations

import base64
import datetime
import io
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from alexnet import __version__

THUMBNAIL = 224
"""Greatest side of an embedded JPEG in pixels: sharp on a phone, about 10 kB per image."""


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a `data:` URL, with its size in pixels and its text alternative."""

    url: str
    width: int
    height: int
    alt: str


def environment(package: str) -> Environment:
    """Return a Jinja2 environment for the `templates` folder of a package, with autoescape and the filter `code`.

    Parameters
    ----------
    package
        Dotted name of the package, such as "alexnet.report".
    """
    made = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["code"] = code_spans
    return made


def asset(name: str) -> Markup:
    """Return a style sheet or script of the `templates` folder; it is trusted, so it is not escaped."""
    return Markup(files(__package__).joinpath("templates").joinpath(name).read_text("utf-8").strip())


def render(template: str, **values: Any) -> bytes:
    """Render a template as a page that needs no other file, with its style, version and time; UTF-8."""
    written = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    common = {"style": asset("report.css"), "written": written, "version": __version__}
    html = environment(__package__).get_template(template).render(**common, **values)
    return html.encode("utf-8", errors="replace")


def code_spans(text: str) -> Markup:
    """Escape text and mark what is between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # the last backtick has no partner
        parts[-2:] = ["`".join(parts[-2:])]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def embed(pixels: np.ndarray, alt: str) -> EmbeddedImage:
    """Embed an image (H, W, 3) uint8 as a JPEG of at most `THUMBNAIL` pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if (pixels[..., :1] == pixels).all():
        image = image.convert("L")
    return _embedded(image, "JPEG", alt)


def embed_png(pixels: np.ndarray, alt: str) -> EmbeddedImage:
    """Embed an image (H, W, 3 or 4) uint8 as a PNG, pixel by pixel."""
    return _embedded(Image.fromarray(pixels), "PNG", alt)


def _embedded(image: Image.Image, form: str, alt: str) -> EmbeddedImage:
    file = io.BytesIO()
    image.save(file, form, quality=82, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return EmbeddedImage(f"data:image/{form.lower()};base64,{data}", image.width, image.height, alt)
