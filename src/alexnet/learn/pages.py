"""The pages of the course, from texts, templates and computed arrays, as files that work without a server."""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from safetensors import safe_open

from alexnet.learn.lessons import LESSONS, Lesson, Values
from alexnet.report.figure_files import writing
from alexnet.runtime.files import write_atomic

LANGUAGES = {"en": "", "ko": "ko/"}
"""Each language and the folder of its pages."""

PACKAGE = files("alexnet.learn")
SOURCE = Path(__file__).parents[1]
TEMPLATES = Environment(
    loader=PackageLoader("alexnet.learn"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
TEXTS = Environment(undefined=StrictUndefined)
"""Of the numbers in the texts."""
TEXTS.filters |= {
    "comma": "{:,}".format,
    "fixed": lambda value, digits=3: f"{value:.{digits}f}".replace("-", "−"),
    "signed": lambda value, digits=1: f"{round(value, digits) + 0:+.{digits}f}".replace("-", "−"),
}


@dataclass(frozen=True)
class Text:
    """The text of a lesson in one language: title, text before and after the widget, questions with solutions."""

    title: str
    before: Markup
    after: Markup
    questions: tuple[tuple[Markup, Markup], ...]


@dataclass(frozen=True)
class Code:
    """A function of this package that a lesson refers to."""

    place: str
    first: int
    last: int
    text: str


def write_course(out: Path | str) -> Path:
    """Write the course as static pages.

    Parameters
    ----------
    out : path
        Folder to write to; it is made if it does not exist.

    Returns
    -------
    Path
        The first page.
    """
    out = Path(out)
    with writing(out, "the course"):
        out.mkdir(parents=True, exist_ok=True)
    values: dict[str, Values] = {lesson.name: lesson.values() for lesson in LESSONS}
    with safe_open(PACKAGE / "data" / "course.safetensors", framework="np") as opened:
        about = {name: json.loads(text) for name, text in opened.metadata().items()}
        arrays = {name for lesson in LESSONS for name in lesson.arrays}
        contents = {f"data/{name}.js": _array_script(name, opened.get_tensor(name)) for name in sorted(arrays)}
    for name in ("js/compute.js", "js/course.js", "js/widgets.js", "course.css"):
        contents[name] = (PACKAGE / "templates" / name).read_text("utf-8")
    contents["data/values.js"] = f"Object.assign(Course.values, {json.dumps(values)});\n"
    for language, folder in LANGUAGES.items():
        contents |= {f"{folder}{name}": page for name, page in _pages(language, values, about)}
    with writing(out, "the course"):
        for name, content in contents.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out / name, content.encode())
    return out / "index.html"


def _pages(language: str, values: dict[str, Values], about: Values) -> Iterator[tuple[str, str]]:
    texts = {lesson.name: read_text(lesson, language, values[lesson.name]) for lesson in LESSONS}

    def translate(english: str, korean: str) -> str:
        return korean if language == "ko" else english

    shared: dict[str, Any] = {"t": translate, "language": language, "lessons": LESSONS, "texts": texts, "about": about}
    shared["root"] = "../" * LANGUAGES[language].count("/")
    shared["other"] = "ko/" if language == "en" else "../"
    shared["glossary"] = _sections(f"glossary.{language}.md", {})[1]
    yield "index.html", TEMPLATES.get_template("index.html").render(shared, page="index.html")
    arrays = sorted({name for lesson in LESSONS for name in lesson.arrays})
    slides = TEMPLATES.get_template("slides.html")
    yield "slides.html", slides.render(shared, page="slides.html", arrays=arrays, all_values=values)
    for number, lesson in enumerate(LESSONS):
        found = {"lesson": lesson, "number": number, "text": texts[lesson.name], "values": values[lesson.name]}
        codes = [code_of(place) for place in lesson.sources]
        template = TEMPLATES.get_template("lesson.html")
        yield f"{lesson.name}.html", template.render(shared | found, codes=codes, page=f"{lesson.name}.html")


def read_text(lesson: Lesson, language: str, values: Values) -> Text:
    """Read the text of a lesson with its numbers filled in.

    Raises
    ------
    ValueError
        If the number of questions is not that of the answers.
    """
    title, before, after, questions = _sections(f"{lesson.name}.{language}.md", values)
    if len(questions) != len(lesson.answers):
        raise ValueError(f"{lesson.name}.{language}.md has {len(questions)} questions, not {len(lesson.answers)}")
    return Text(title, before, after, questions)


def _sections(name: str, values: Values) -> tuple[str, Markup, Markup, tuple[tuple[Markup, Markup], ...]]:
    """Title, text up to the line `---`, text after it, and pairs of the lines `Q:` and `A:` at its end."""
    title, _, text = source_text(name, values).removeprefix("# ").partition("\n")
    text, *items = text.split("\nQ: ")
    before, _, after = text.partition("\n---\n")
    questions = [tuple(map(_html, item.split("\nA: "))) for item in items]
    return title, _html(before), _html(after), tuple((question, solution) for question, solution in questions)


def source_text(name: str, values: Values) -> str:
    """The Markdown of a file in `texts/` with its numbers filled in."""
    return TEXTS.from_string((PACKAGE / "texts" / name).read_text("utf-8")).render(values)


def _html(text: str) -> Markup:
    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text.strip()))


def code_of(place: str) -> Code:
    """The text and the lines of ``package/module.py:function``."""
    name, _, symbol = place.partition(":")
    text = (SOURCE / name).read_text("utf-8")
    (node,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == symbol)
    assert node.end_lineno is not None
    return Code(place, node.lineno, node.end_lineno, "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))


def _array_script(name: str, array: np.ndarray) -> str:
    fields = {"dtype": str(array.dtype), "shape": array.shape, "base64": base64.b64encode(array.tobytes()).decode()}
    return f"Course.add({json.dumps(name)}, {json.dumps(fields)});\n"
