"""The common style of all figures (size, colors, fonts), and their conversion to PNG, SVG and inline SVG."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from typing import Any, ParamSpec
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import FontEntry, FontProperties, findSystemFonts, fontManager, weight_dict
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from PIL import Image
from rich.cells import cell_len

P = ParamSpec("P")

# Each color has a name, under which the report substitutes another value in dark mode.
INK, MUTED, LINE, GROUND, ON = "#1c2230", "#5d6675", "#d5dae2", "#ffffff", "#fffffe"
BLUE, ORANGE, GREEN, RED = "#2262b0", "#bf4d0b", "#187a4e", "#c02a37"
LAYERS = ("#6a1b9a", "#a8329e", "#d02f6a", "#d9512c", "#c07a12", "#86861a", "#2f8f4e", "#13868c", "#2f6fc4")
NAMES = {
    **{INK: "ink", MUTED: "muted", LINE: "line", GROUND: "ground", ON: "on"},
    **{BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red"},
    **{color: f"layer{number}" for number, color in enumerate(LAYERS)},
}

WIDTH = 5.0
"""Default figure width in inches; text stays legible on a phone."""
DPI = 144

FONT = "DejaVu Sans"
WIDE_EM = 1.15
"""Upper bound of the width of a wide (East Asian) character, in em."""
# Fonts to try first for characters that DejaVu Sans lacks; after them, any installed font that has the glyph.
_PREFERRED_FONTS = (
    *("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo"),
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Arial Unicode MS"),
)
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def _rc_params() -> Any:
    return {
        "font.family": [FONT],
        "font.size": 9.5,
        "text.color": INK,
        "text.parse_math": False,  # a class may be named "$"
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
        "svg.fonttype": "none",  # text stays text: selectable, in the font of the page
        "svg.hashsalt": "alexnet",
        "path.simplify_threshold": 0.4,
    }


class Figure(MatplotlibFigure):
    """A matplotlib figure that a notebook displays without pyplot, which would display it twice."""

    def _repr_png_(self) -> bytes:
        return png(self)


def drawn(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure, so that it draws in the style of this module."""

    @wraps(draw)
    def draw_in_style(*arguments: P.args, **keywords: P.kwargs) -> Figure:
        with matplotlib.rc_context(_rc_params()):
            return draw(*arguments, **keywords)

    return draw_in_style


def new(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure with a constrained layout; `height` and `width` in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def bare(axes: Axes) -> Axes:
    """Remove ticks, grid and spines from axes that show an image; returns the axes."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


def canvas(height: float, width: float) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes over all of it, in inches from the upper left corner.

    Many images in one pair of axes draw several times as fast as each in axes of its own.
    """
    figure = Figure(figsize=(width, height))
    axes = bare(figure.add_axes((0, 0, 1, 1)))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")
    return figure, axes


def place(axes: Axes, image: np.ndarray, left: float, top: float, side: float) -> None:
    """Draw a square image on a `canvas`, downscaled to the resolution that its size needs."""
    pixels = round(side * DPI)
    if image.shape[0] > pixels:
        image = np.asarray(Image.fromarray(image).resize((pixels, pixels), Image.Resampling.LANCZOS))
    axes.imshow(image, extent=(left, left + side, top + side, top), aspect="auto")


def shorten(text: str, columns: int) -> str:
    """Cut text to a number of columns, with an ellipsis; a wide (East Asian) character takes two.

    Parameters
    ----------
    text
        Any text, such as a class name.
    columns
        Greatest width of the result, in columns.

    Returns
    -------
    str
        The text itself where it fits.
    """
    if cell_len(text) <= columns:
        return text
    kept = text[:columns]
    while cell_len(kept) > columns - 1:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def fit(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Cut text to a width on paper, with an ellipsis.

    Parameters
    ----------
    text
        Any text, such as a class name.
    width
        Greatest width of the result, in inches.
    size
        Font size in points.
    bold
        Whether the text is drawn in bold.

    Returns
    -------
    str
        The text itself where it fits.
    """
    text = text[:200]
    if _width_of(text, size, bold) <= width:
        return text
    low, high = 0, len(text) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _width_of(text[:middle] + "…", size, bold) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def _width_of(text: str, size: float, bold: bool) -> float:
    """Width in inches; a wide character counts as the box that is drawn where no font has its glyph."""
    wide = cell_len(text) - len(text)
    narrow = "".join(c for c in text if cell_len(c) == 1)
    font = FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        points = text_to_path.get_text_width_height_descent(narrow, font, ismath=False)[0] if narrow else 0.0
    return (points + max(0, wide) * WIDE_EM * size) / 72


def png(figure: MatplotlibFigure) -> bytes:
    """Return the figure as a PNG file."""
    return _saved(figure, "png")


def svg(figure: MatplotlibFigure) -> bytes:
    """Return the figure as an SVG file on white; equal figures give equal bytes."""
    return _saved(figure, "svg", metadata={"Date": None, "Creator": None})


def missing_glyphs(figure: MatplotlibFigure) -> str:
    """Return the characters of a figure that no installed font can draw: a PNG has boxes in their place."""
    return "".join(sorted(c for c in _characters(figure) if _font_with(c) is None))


def _characters(figure: MatplotlibFigure) -> set[str]:
    return {c for text in figure.findobj(Text) for c in text.get_text() if c.isprintable() and not c.isspace()}


def _saved(figure: MatplotlibFigure, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    for text in figure.findobj(Text):
        fonts = dict.fromkeys(filter(None, map(_font_with, text.get_text())))
        if set(fonts) - {FONT}:
            text.set_fontfamily([FONT, *(font for font in fonts if font != FONT)])
    with matplotlib.rc_context(_rc_params()), warnings.catch_warnings(), _quiet_font_manager():
        # `missing_glyphs` reports them; the SVG, whose text stays text, is complete.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format=form, **options)
    return file.getvalue()


@contextmanager
def _quiet_font_manager() -> Iterator[None]:
    """Silence "Failed to find font weight bold": a fallback font has the glyphs, if not every weight."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@cache
def _font_with(character: str) -> str | None:
    """Name of the first installed font with a glyph for the character."""
    if ord(character) < 128:
        return FONT
    return next((font.name for font in _fonts() if ord(character) in _code_points(font.fname)), None)


@cache
def _fonts() -> list[FontEntry]:
    """The regular face of each family, the preferred ones first; also those installed since matplotlib cached its list.

    A bold face can have characters that the regular one lacks.
    """
    known = {font.fname for font in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in known:
            with suppress(Exception):  # a font that FreeType cannot read is no candidate
                fontManager.addfont(path)
    order = {name: number for number, name in enumerate((FONT, *_PREFERRED_FONTS))}
    # The "Last Resort" font claims every character and draws a box for each.
    usable = [font for font in fontManager.ttflist if font.style == "normal" and "Last Resort" not in font.name]
    usable.sort(key=_distance_from_regular)
    regular: dict[str, FontEntry] = {}
    for font in usable:
        regular.setdefault(font.name, font)
    return sorted(regular.values(), key=lambda font: order.get(font.name, len(order)))


def _distance_from_regular(font: FontEntry) -> tuple[bool, int]:
    weight = font.weight if isinstance(font.weight, int) else weight_dict.get(font.weight, 400)
    return font.stretch != "normal", abs(weight - 400)


@cache
def _code_points(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # an unreadable font file
        return frozenset()


def inline(file: bytes, name: str, description: str) -> str:
    """Convert an SVG file to an element of an HTML page that takes its colors from the page's CSS variables.

    Parameters
    ----------
    file
        The SVG file, as `svg` returns it.
    name
        Letters, digits and hyphens; prefixes the ids of the element, so it must be unique on the page.
    description
        Text alternative for screen readers.

    Returns
    -------
    str
        The `<svg>` element, with all text escaped.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(file)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _renamed(key, value, name))
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"role": "img", "aria-label": description, "viewBox": view_box})
    return ElementTree.tostring(root, encoding="unicode")


def _renamed(key: str, value: str, name: str) -> str:
    """An attribute's value with its ids prefixed and its colors replaced by the page's variables."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    value = value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda match: _variable(match[0]), value)
    return value


def _variable(color: str) -> str:
    return f"var(--{NAMES[color]})" if color in NAMES else color
