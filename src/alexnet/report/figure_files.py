"""Figures as PNG and SVG files beside a report, and as inline SVG within it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from alexnet.report import style
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

FIGURES = "figures"


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure within the page: inline SVG, caption, and links to its files by format; `narrow` limits its width."""

    svg: Markup
    caption: str
    links: Mapping[str, str]
    narrow: bool = False


class FigureFiles:
    """Writes figures to `figures/` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing_glyphs: set[str] = set()
        """Characters of the figures so far that no installed font can draw."""

    def save(self, name: str, figure: style.Figure) -> dict[str, str]:
        """Write a figure as SVG and PNG; returns the relative address of each file by format."""
        contents = {"SVG": style.svg(figure)}
        figure.set_layout_engine("none")  # the layout is done: the second file reuses it
        contents["PNG"] = style.png(figure)
        self.missing_glyphs.update(style.missing_glyphs(figure))
        links = {form: f"{FIGURES}/{name}.{form.lower()}" for form in contents}
        with writing(self.folder):
            (self.folder / FIGURES).mkdir(parents=True, exist_ok=True)
            for form, content in contents.items():
                write_atomic(self.folder / links[form], content)
        return links

    def embed(self, name: str, figure: style.Figure, *, alt: str, caption: str, narrow: bool = False) -> EmbeddedFigure:
        """Write a figure as files, and return it as a part of the page.

        Parameters
        ----------
        name
            File name without suffix, unique within the report.
        figure
            The figure.
        alt
            Text alternative: what the figure shows.
        caption
            Text below the figure.
        narrow
            Whether the figure is narrower than its column.
        """
        links = self.save(name, figure)
        drawing = (self.folder / links["SVG"]).read_bytes()
        # Matplotlib escapes all text of an SVG, and `inline` the text alternative.
        return EmbeddedFigure(Markup(style.inline(drawing, name, alt)), caption, links, narrow)


@contextmanager
def writing(folder: Path, what: str = "the report") -> Iterator[None]:
    """Turn an `OSError` of the block into an `AlexNetError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise AlexNetError(f"{what} cannot be written to {folder}: {error.strerror or error}") from error
