"""How every figure looks: sizes, colors, letters; and how it becomes a file or a part of a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import fontManager
from PIL import Image

P = ParamSpec("P")

# Every color has a name, under which the page gives it another value on a dark ground.
INK, MUTED, LINE, GROUND, ON = "#1c2230", "#5d6675", "#d5dae2", "#ffffff", "#fffffe"
BLUE, ORANGE, GREEN, RED = "#2262b0", "#bf4d0b", "#187a4e", "#c02a37"
LAYERS = ("#6a1b9a", "#a8329e", "#d02f6a", "#d9512c", "#c07a12", "#86861a", "#2f8f4e", "#13868c", "#2f6fc4")
NAMES = {
    **{INK: "ink", MUTED: "muted", LINE: "line", GROUND: "ground", ON: "on"},
    **{BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red"},
    **{color: f"layer{number}" for number, color in enumerate(LAYERS)},
}

WIDTH = 5.0
"""Inches; at this width the letters can be read on a phone."""
DPI = 144

# Letters that DejaVu Sans lacks are taken from the first of these that is installed.
_MORE_LETTERS = (
    *("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo"),
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Arial Unicode MS"),
)


def _look() -> Any:
    """Values of matplotlib's rcParams."""
    installed = {font.name for font in fontManager.ttflist}
    return {
        "font.family": ["DejaVu Sans", *(name for name in _MORE_LETTERS if name in installed)],
        "font.size": 9.5,
        "text.color": INK,
        "text.parse_math": False,  # a class may be called "$"
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 9,
        "axes.titlecolor": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": LINE,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": LINE,
        "grid.linewidth": 0.8,
        "xtick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.color": LINE,
        "ytick.labelcolor": MUTED,
        "ytick.left": False,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "lines.linewidth": 1.9,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.labelcolor": INK,
        "figure.facecolor": GROUND,
        "figure.dpi": 110,
        "savefig.dpi": DPI,
        "savefig.facecolor": "auto",
        "image.interpolation": "none",
        "svg.fonttype": "none",  # text stays text: selectable, in the letters of the page
        "svg.hashsalt": "alexnet",
        "path.simplify_threshold": 0.4,
    }


class Figure(MatplotlibFigure):
    """A matplotlib figure that a notebook shows without pyplot, where it would be shown twice."""

    def _repr_png_(self) -> bytes:
        return png(self)


def drawn(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function whose figure has this module's look."""

    @wraps(draw)
    def draw_in_style(*arguments: P.args, **keywords: P.kwargs) -> Figure:
        with matplotlib.rc_context(_look()):
            return draw(*arguments, **keywords)

    return draw_in_style


def new(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), layout="constrained")


def bare(axes: Axes) -> Axes:
    """Axes for an image: nothing around it."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


def canvas(height: float, width: float) -> tuple[Figure, Axes]:
    """A figure of so many inches whose axes are all of it, in inches from the upper left corner.

    Many images in one pair of axes are drawn several times as fast as each in its own.
    """
    figure = Figure(figsize=(width, height))
    axes = bare(figure.add_axes((0, 0, 1, 1)))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")
    return figure, axes


def place(axes: Axes, image: np.ndarray, left: float, top: float, side: float) -> None:
    """A square image on a `canvas`, no larger than its file needs at this size."""
    enough = round(side * DPI)
    if image.shape[0] > enough:
        image = np.asarray(Image.fromarray(image).resize((enough, enough), Image.Resampling.LANCZOS))
    axes.imshow(image, extent=(left, left + side, top + side, top), aspect="auto")


def clipped(name: str, most: int) -> str:
    """A name of no more than so many letters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def png(figure: MatplotlibFigure) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, "png")


def svg(figure: MatplotlibFigure) -> bytes:
    """The figure as an SVG file, on white, the same bytes for the same figure."""
    return _saved(figure, "svg", metadata={"Date": None, "Creator": None})


def _saved(figure: MatplotlibFigure, form: str, **keywords: Any) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(_look()), warnings.catch_warnings():
        # Where no font has a letter, the PNG has a box; the SVG, whose text stays text, has the letter.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format=form, **keywords)
    return file.getvalue()


def inline(file: bytes, name: str, description: str) -> str:
    """An SVG file as a part of a page, in the colors of the page.

    `name`: letters, digits and hyphens, another for every figure of a page. `description`: what one would see.
    """
    from html import escape

    text = file.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for color, variable in NAMES.items():
        text = re.sub(rf"(?<=: ){color}\b", f"var(--{variable})", text)
    label = f'role="img" aria-label="{escape(description, quote=True)}"'
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf"<svg {label} \1>", text, count=1)
