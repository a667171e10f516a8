"""The page of `alexnet compare --html`: what it says, in a browser, by keyboard, in both languages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_runs import make_run
from tabbing import reached_by_tab

from alexnet.data.preparation import prepare
from alexnet.inspection.comparison import compare


@pytest.fixture(scope="module")
def page(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The page of two random networks, one of which has markup in its name, and the comparison."""
    from alexnet.report.comparison_page import write_comparison

    folder = tmp_path_factory.mktemp("compared")
    prepare(striped_folder(16, 16), folder / "data", size=72, progress=False)
    runs = [
        make_run(folder / name, folder / "data", seed, variant="convolutions")
        for seed, name in ((0, "one"), (2, "<b>"))
    ]
    comparison = compare(runs, folder / "data", views=1)
    return write_comparison(comparison, folder / "comparison.html"), comparison


def test_the_page_has_the_numbers_and_the_images_and_loads_nothing(page: tuple[Path, Any]) -> None:
    file, comparison = page
    html = file.read_text(encoding="utf-8")
    pair = comparison.pairs[0]
    assert len(comparison.differing) > 0
    assert html.count("<li data-kind=") == len(comparison.differing) == pair.differing
    assert f"{pair.accuracy.difference:+.2%}" in html
    assert f"(p = {pair.accuracy.p_value:.2g})" in html
    assert "&lt;b&gt;" in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert html.count('data-kind="first"') == pair.only_first_correct


def test_the_page_works_by_keyboard_in_both_languages(page: tuple[Path, Any], open_tab: Callable[..., Any]) -> None:
    for size, locale, result in (((1400, 900), "en-US", "Result"), ((360, 780), "ko-KR", "결과")):
        window = {"width": size[0], "height": size[1]}
        tab = open_tab(page[0].as_uri(), viewport=window, locale=locale, reduced_motion="reduce")
        shown = tab.page
        assert [name.split()[0] for name in reached_by_tab(shown)] == ["<a", "<button", "<input"]
        assert shown.inner_text("#result-heading") == result
        assert shown.evaluate("document.documentElement.scrollWidth") == size[0]
        for _ in range(2):
            shown.keyboard.press("Tab")
        shown.keyboard.press("Enter")
        assert shown.inner_text("#result-heading") == {"Result": "결과", "결과": "Result"}[result]
        shown.keyboard.press("Tab")
        shown.keyboard.press("ArrowRight")
        kind = shown.evaluate("document.querySelector('.filter input:checked').value")
        visible = shown.evaluate(
            "[...document.querySelectorAll('.gallery > li:not([hidden])')].map(c => c.dataset.kind)"
        )
        assert visible
        assert set(visible) == {kind}
        assert tab.complaints == []


def test_the_command_writes_the_page(page: tuple[Path, Any], tmp_path: Path, command: Callable[..., Any]) -> None:
    folder = page[0].parent
    done = command(
        *(
            "compare",
            folder / "one",
            folder / "one",
            "--data",
            folder / "data",
            "--views",
            1,
            "--html",
            tmp_path / "p.html",
        )
    )
    assert done.returncode == 0, done.stderr
    assert "the runs predict the same class for every image" in (tmp_path / "p.html").read_text(encoding="utf-8")
