"""The screenshots of docs/tutorial/inspection.md: pages in Chromium, from the folder that examples/inspection.sh wrote.

python tests/inspection/tutorial_screenshots.py inspection-out docs/tutorial
python tests/inspection/tutorial_screenshots.py inspection-out pages --all    # whole pages: two widths, two languages

It needs Chromium and Playwright (`make browser`). The runs, the cross-validation and the dataset are not changed.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageEnhance
from playwright.sync_api import Browser, Page, sync_playwright

from alexnet.cli.main import main
from alexnet.inspection.sorting import sort_images
from alexnet.prediction.classifier import Classifier

COLORS = 128
WIDTH, NARROW = 1400, 360
LOCALES = {"en": "en-GB", "ko": "ko-KR"}
DAYS, CELLS_PER_DAY = 6, 40
BRIGHTNESS = 0.35
"""Brightness of the cells of the last two days: a lamp that has aged."""
SECONDS_PER_DAY = 86_400

SHORTENED = (
    "() => { const p = document.getElementById('path'); p.textContent = p.textContent.replace(/^.*packages/, '…'); }"
)
"""Without the folder in which the package of the cells is installed."""

Shot = Callable[[Page, Path], None]


def draw(out: Path, target: Path, whole: bool, only: list[str]) -> None:
    """Write the screenshots of the tutorial, or with `whole` every page in both widths and languages."""
    os.chdir(out)  # the pages name the runs as they were given
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        work = Path(folder)
        cells = chosen_cells()
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if not only or "days" in only:
            draw_days(work, target)
        if not only or "report" in only:
            run_verb("report", "run", "--data", "data", "--out", work / "report")
        if not only or "compare" in only:
            run_verb("compare", "run", "cv/fold-1", "--data", "data", "--views", "1", "--html", work / "compare.html")
        pages: dict[str, tuple[str, Shot]] = {
            "report": (f"file://{work}/report/report.html", show_decision_section),
            "compare": (f"file://{work}/compare.html", shoot),
        }
        labels = "labels", "cv", "--serve", "--top", "50", "--port", "0", "--labels", work / "labels.csv"
        with served(*labels) as review, served("serve", "run", "--data", "data", "--port", "0") as inspect:
            pages["labels"] = review, show_a_suspect
            for kind, image in {**cells, "unknown": Path(__file__).parents[2] / "docs" / "report.png"}.items():
                pages[f"serve-{kind}"] = inspect, decided(image, whole)
            chosen = {name: page for name, page in pages.items() if not only or name.split("-")[0] in only}
            for name, (address, show) in chosen.items():
                for language in LOCALES:
                    for width in (NARROW, WIDTH) if whole else (WIDTH if name == "report" else 1000,):
                        file = target / f"inspection-{name}-{language}{f'-{width}' * whole}.png"
                        open_and_show(browser, address, language, width, show, file)
        browser.close()


def chosen_cells() -> dict[str, Path]:
    """A test cell that is decided as defective, and one that is unsure."""
    with Path("cells.csv").open(encoding="utf-8") as file:
        files = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    answers = Classifier.load("run").predict(files[:200])
    chosen = {}
    for kind in ("defective", "unsure"):
        chosen[kind] = Path(next(one.source for one in answers if one.answer == kind))
    return chosen


def run_verb(*arguments: object) -> None:
    if code := main([str(argument) for argument in arguments]):
        raise SystemExit(code)


@contextmanager
def served(*arguments: object) -> Iterator[str]:
    """Run a verb that serves until the block ends; yields its address."""
    command = [sys.executable, "-m", "alexnet", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def open_and_show(browser: Browser, address: str, language: str, width: int, show: Shot, file: Path) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, locale=LOCALES[language])
    page = context.new_page()
    page.goto(address)
    show(page, file)
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        print(f"{file}: wider than the window", file=sys.stderr)
    context.close()


def show_a_suspect(page: Page, file: Path) -> None:
    """The first suspects are decided by keyboard; the next one is shown."""
    page.wait_for_selector("#neighbors li")
    for key in ("s", "k", "ArrowLeft"):
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    page.evaluate(SHORTENED)
    shoot(page, file)
    for _ in range(2):
        page.keyboard.press("u")
    page.wait_for_timeout(500)


def decided(image: Path, whole: bool) -> Shot:
    def show(page: Page, file: Path) -> None:
        page.set_input_files("#file", str(image))
        page.wait_for_selector("#bars li")
        page.wait_for_selector("#attribution img")
        if whole:
            page.wait_for_selector("#neighbors li")
            shoot(page, file)
        else:
            save(page.locator("section.input").screenshot(), file)

    return show


def show_decision_section(page: Page, file: Path) -> None:
    if "-en-" in file.name or "-ko-" in file.name:
        shoot(page, file)
    else:
        save(page.locator("details", has_text="With the decision rule").last.screenshot(), file)


def shoot(page: Page, file: Path) -> None:
    save(page.screenshot(full_page=file.stem.endswith(("360", "1400"))), file)


def save(png: bytes, file: Path) -> None:
    """Write a screenshot with a palette: a third of the bytes."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def draw_days(work: Path, target: Path) -> None:
    """Sort test cells as of several days, the last two with dark images, and draw the summary of the days."""
    with Path("cells.csv").open(encoding="utf-8") as file:
        cells = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    drawn = np.random.default_rng(0).permutation(len(cells))[: DAYS * CELLS_PER_DAY]
    now = time.time()
    for day, chosen in enumerate(drawn.reshape(DAYS, CELLS_PER_DAY)):
        folder = work / "camera" / f"day-{day + 1}"
        folder.mkdir(parents=True)
        for number in chosen:
            image: Any = Image.open(cells[number]).convert("L")
            if day >= DAYS - 2:
                image = ImageEnhance.Brightness(image).enhance(BRIGHTNESS)
            image.save(folder / f"{number}.png")
        then = now - (DAYS - day) * SECONDS_PER_DAY
        with mock.patch("alexnet.inspection.journal.time.time", return_value=then):
            sort_images("run", folder, work / "sorted")
    run_verb("sort", "--summary", "--to", work / "sorted")
    save((work / "sorted" / "sort-days.png").read_bytes(), target / "inspection-days.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder that examples/inspection.sh wrote")
    parser.add_argument("target", type=Path, help="folder of the screenshots")
    parser.add_argument("--all", action="store_true", help="whole pages in both widths and languages")
    parser.add_argument("--only", action="append", default=[], help="days, report, compare, labels or serve")
    options = parser.parse_args()
    draw(options.out.absolute(), options.target.absolute(), options.all, options.only)
