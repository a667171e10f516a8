"""Times of the course on this machine: writing it, opening its lessons from disk, and running its notebooks.

    python tests/learn/measure_course.py [--results docs/results/course.json] [--only notebooks]

A lesson is opened in Chromium in a new window without a cache, three times: the first paint of its text and the end of
the work of its scripts, when its widget is ready, are those of the Performance API; the result has the longest. Each
notebook is run as shipped, kernel start included; the texts that it prints are in the result. With `--only` the other
part of the file stays as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from playwright.sync_api import sync_playwright

from alexnet.learn import write_course
from alexnet.learn.lessons import LESSONS
from alexnet.learn.notebooks import notebook
from alexnet.runtime.provenance import provenance, write_result

ROUNDS = 3
TIMES = """() => ({
    first_text_ms: performance.getEntriesByName('first-contentful-paint')[0].startTime,
    ready_ms: performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd,
})"""


def opening_times(site: Path) -> dict[str, dict[str, float]]:
    """Milliseconds until the first text and until the widget is ready, of each lesson."""
    found = {}
    with sync_playwright() as driver:
        arguments = ["--no-sandbox"] * (os.geteuid() == 0)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for lesson in LESSONS:
            rounds = []
            for _ in range(ROUNDS):
                page = browser.new_context().new_page()
                page.goto((site / f"{lesson.name}.html").as_uri())
                page.wait_for_selector("[data-ready=true]")
                page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
                rounds.append(page.evaluate(TIMES))
                page.context.close()
            found[lesson.name] = {name: round(max(times[name] for times in rounds), 1) for name in rounds[0]}
        browser.close()
    return found


def run_notebook(lesson: Any, folder: str) -> dict[str, Any]:
    """Seconds of a notebook from the start of its kernel, and the texts that it printed."""
    book = nbformat.from_dict(notebook(lesson, "en"))
    start = time.perf_counter()
    NotebookClient(book, timeout=300, resources={"metadata": {"path": folder}}).execute()
    seconds = time.perf_counter() - start
    printed = [
        output.text for cell in book.cells for output in cell.get("outputs", []) if output.get("name") == "stdout"
    ]
    return {"seconds": round(seconds, 1), "printed": "".join(printed).splitlines()}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description="Measure the times of the course.")
    parser.add_argument("--results", type=Path, default=Path("docs/results/course.json"))
    parser.add_argument("--only", choices=("lessons", "notebooks"))
    options = parser.parse_args()
    result: dict[str, Any] = json.loads(options.results.read_text("utf-8")) if options.only else {}
    with tempfile.TemporaryDirectory() as folder:
        result["description"] = (
            "the course: seconds to write it; for each lesson, opened from disk in Chromium, milliseconds until the "
            "first text and until the widget is ready, the longest of three; seconds of each notebook"
        )
        if options.only != "notebooks":
            start = time.perf_counter()
            site = write_course(Path(folder) / "course").parent
            result["write_seconds"] = round(time.perf_counter() - start, 1)
            result["bytes"] = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
            result["lessons"] = opening_times(site)
        if options.only != "lessons":
            result["notebooks"] = {lesson.name: run_notebook(lesson, folder) for lesson in LESSONS}
    write_result(options.results, result | provenance("python tests/learn/measure_course.py"))


if __name__ == "__main__":
    main()
