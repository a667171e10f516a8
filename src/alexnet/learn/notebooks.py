"""A notebook for each lesson: its text, and code of this package that computes the same on the reader's machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alexnet.learn.lessons import LESSONS, Lesson
from alexnet.learn.pages import PACKAGE, source_text
from alexnet.report.figure_files import writing
from alexnet.runtime.files import write_atomic


def write_notebooks(out: Path | str, language: str = "en") -> list[Path]:
    """Write the notebooks of the course.

    Parameters
    ----------
    out : path
        Folder to write to; it is made if it does not exist.
    language : str
        Language of the texts, "en" or "ko".

    Returns
    -------
    list of Path
        The notebooks, in the order of the lessons.
    """
    paths = []
    with writing(Path(out), "the notebooks"):
        Path(out).mkdir(parents=True, exist_ok=True)
        for number, lesson in enumerate(LESSONS, 1):
            paths.append(Path(out) / f"{number:02}-{lesson.name}.ipynb")
            text = json.dumps(notebook(lesson, language), ensure_ascii=False, indent=1) + "\n"
            write_atomic(paths[-1], text.encode())
    return paths


def notebook(lesson: Lesson, language: str) -> dict[str, Any]:
    """The notebook of a lesson, as its JSON: its text around the code cells of `cells/`, and its questions."""
    text = source_text(f"{lesson.name}.{language}.md", lesson.values())
    text, *questions = text.split("\nQ: ")
    before, _, after = text.partition("\n---\n")
    code = (PACKAGE / "cells" / f"{lesson.name}.py").read_text("utf-8")
    contents = [("markdown", before), *(("code", cell) for cell in code.split("# %%\n") if cell), ("markdown", after)]
    for question in questions:
        asked, _, solution = question.partition("\nA: ")
        contents.append(
            ("markdown", f"**?** {asked.strip()}\n\n<details><summary>✓</summary>\n\n{solution.strip()}\n\n</details>")
        )
    return {
        "cells": [_cell(number, kind, content.strip()) for number, (kind, content) in enumerate(contents)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(number: int, kind: str, content: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": content}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})
