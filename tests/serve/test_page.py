"""The page in a real browser: it shows what the API returns, in two languages, and is accessible."""

import base64
import json
import re
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from random_runs import make_run
from servers import Server, serving
from tabbing import reached_by_tab

from alexnet.runs.decision import DecisionRule
from alexnet.runs.run import Run, checksum_of

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


def image(content: bytes, name: str = "stripes.png") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


@pytest.fixture
def page_of(server: Server, open_tab: Callable[..., Any]) -> Any:
    """Open the page (English, desktop); at the end, check for console errors and requests to other servers."""
    tabs = []

    def open_page(**options: Any) -> Any:
        tab = open_tab(server.address + "/", **{"viewport": DESKTOP, "locale": "en-GB"} | options)
        tabs.append(tab)
        ready(tab.page)
        return tab.page

    yield open_page
    for tab in tabs:
        tab.page.wait_for_load_state("networkidle")
        # The browser itself logs an answer of 415.
        assert [line for line in tab.complaints if "status of 415" not in line] == []
        external = [address for address in tab.asked if not address.startswith((server.address, "data:", "blob:"))]
        assert external == []
        tab.page.context.close()


def ready(page: Any) -> None:
    """Wait until the page listens: its script writes the title in the step in which it adds its listeners."""
    until(page, "document.querySelector('#title').textContent.trim() !== ''")


def until(page: Any, expression: str, arg: Any = None) -> None:
    """Wait until an expression is true; `Page.wait_for_function` evaluates text, which the page's policy forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def bars(page: Any) -> list[list[str]]:
    page.wait_for_selector("#bars li")
    return [bar.inner_text().split("\n") for bar in page.query_selector_all("#bars li")]


def test_an_image_is_classified_and_inspected(server: Server, images: list[bytes], page_of: Any) -> None:
    page = page_of()
    page.set_input_files("#file", image(images[0]))
    (entry,) = server.post("/v1/predict", images[0]).json()["predictions"]
    assert bars(page) == [[a["label"], f"{100 * a['probability']:.1f}%"] for a in entry["top"]]
    assert page.inner_text("#prediction") == entry["label"]
    assert entry["label"] in page.inner_text("#status")

    # A layer of the drawing shows its feature maps; one of them its top images.
    page.click("#drawing [data-layer=conv3] rect >> nth=0")
    until(page, "document.querySelectorAll('#maps .tile').length === 384")
    until(page, "document.querySelector('#maps .tile').style.backgroundImage.includes('data:image/png')")
    (maps,) = server.post("/v1/feature-maps", images[0], layer="conv3").json()["feature_maps"]
    shown = page.eval_on_selector("#maps .tile", "tile => tile.style.backgroundImage")
    assert maps["image"] in shown
    page.click("#maps .tile >> nth=200")
    assert page.inner_text("#unit-title") == "conv3, feature map 200 (tower 2)"
    page.wait_for_selector("#optimized:not([hidden])")
    assert page.eval_on_selector("#optimized", "image => image.decode().then(() => image.naturalWidth)") == 64
    # Once the server has scanned all of its images.
    until(page, "/^Among [0-9]+ training images;/.test(document.querySelector('#top-images-note').textContent)")
    wanted = server.get("/v1/units/conv3/200").json()["images"]
    assert page.eval_on_selector_all("#top-images img", "all => all.map((i) => new URL(i.src).pathname)") == [
        found["url"] for found in wanted
    ]
    # Units of a fully connected layer, and the classes.
    page.click("#layers button:text-is('fc7')")
    page.wait_for_selector(".square img")
    assert page.locator(".units button").count() == 24
    page.click("#layers button:text-is('logits')")
    until(page, "document.querySelectorAll('.units button').length === 2")

    # Attribution for either class, nearest images, mistakes.
    page.wait_for_selector("#attribution img")
    (explanation,) = server.post("/v1/explain", images[0]).json()["explanations"]
    assert page.eval_on_selector_all("#attribution img", "all => all.map((i) => i.src)") == [
        explanation[name] for name in ("input", "gradient", "grad_cam")
    ]
    page.click("#attribution-labels button >> nth=1")
    until(page, "src => document.querySelectorAll('#attribution img')[1].src !== src", explanation["gradient"])
    page.wait_for_selector("#neighbors li")
    (near,) = server.post("/v1/neighbors", images[0]).json()["neighbors"]
    assert page.eval_on_selector_all("#neighbors img", "all => all.map((i) => new URL(i.src).pathname)") == [
        found["url"] for found in near["nearest"]
    ]
    found = server.get("/v1/mistakes").json()
    assert page.locator("#mistakes > li").count() == min(12, found["errors"])
    if found["errors"]:
        name = found["mistakes"][0]["name"]
        page.click("#mistakes button >> nth=0")
        until(page, "name => document.querySelector('#source').textContent.includes(name)", name)


def test_an_unreadable_image_is_reported_and_the_next_one_is_classified(images: list[bytes], page_of: Any) -> None:
    page = page_of()
    page.set_input_files("#file", [image(b"not an image", "bad.png"), image(images[1])])
    until(page, "document.querySelector('#prediction').textContent === 'not a supported image'")
    page.click("#tray button >> nth=0")
    assert len(bars(page)) == 2


def test_images_chosen_before_the_script_ran_are_classified(
    images: list[bytes], server: Server, open_tab: Callable[..., Any]
) -> None:
    held = []
    page = open_tab("about:blank").page
    page.route("**/v1/network", lambda route: held.append(route))
    page.goto(server.address + "/")
    while not held:
        page.wait_for_timeout(20)
    page.set_input_files("#file", image(images[0]))
    held[0].continue_()
    assert len(bars(page)) == 2


def test_dropped_and_pasted_images(images: list[bytes], page_of: Any) -> None:
    page = page_of()
    transferred = """(content) => {
        const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "transferred.png", { type: "image/png" }));
        return data;
    }"""
    data = page.evaluate_handle(transferred, base64.b64encode(images[2]).decode())
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert len(bars(page)) == 2
    assert page.inner_text("#source") == "transferred.png"
    page.evaluate(
        f"(content) => dispatchEvent(new ClipboardEvent('paste', {{ clipboardData: ({transferred})(content) }}))",
        base64.b64encode(images[3]).decode(),
    )
    until(page, "document.querySelectorAll('#tray button').length === 2")


def test_the_page_obeys_the_decision_rule_of_the_run(
    striped_data: Path, images: list[bytes], open_tab: Callable[..., Any], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", striped_data, seed=5, variant="convolutions")
    weights = checksum_of(Run.open(run).load()[0].state_dict())
    DecisionRule(("lying", "standing"), unsure_below=1e6, weights=weights).save(run)
    with serving(run, striped_data) as server:
        page = open_tab(server.address + "/", viewport=PHONE, locale="en-GB").page
        ready(page)
        page.set_input_files("#file", image(images[0]))
        (first, *_) = bars(page)
        assert page.inner_text("#prediction") == f"Unsure; closest: {first[0]}"
        assert "decided by the decision rule of the run" in page.inner_text("#duration")
        assert "Unsure" in page.inner_text("#status")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.context.close()


@pytest.mark.long
def test_the_networks_of_a_cross_validation_decide_together(
    striped_data: Path, images: list[bytes], open_tab: Callable[..., Any], tmp_path: Path
) -> None:
    cv = tmp_path / "cv"
    for number in (1, 2):
        make_run(cv / f"fold-{number}", striped_data, seed=number, variant="convolutions")
    (cv / "crossval.json").write_text(json.dumps({"folds": {"1": {}, "2": {}}}), encoding="utf-8")
    with serving(cv, striped_data, "--data", str(striped_data)) as server:
        (entry,) = server.post("/v1/predict", images[0]).json()["predictions"]
        page = open_tab(server.address + "/", viewport=PHONE, locale="en-GB").page
        ready(page)
        page.set_input_files("#file", image(images[0]))
        assert bars(page) == [[a["label"], f"{100 * a['probability']:.1f}%"] for a in entry["top"]]
        assert "The mean of 2 classifiers decides" in page.inner_text("#notice")
        assert "those of the first, fold-1" in page.inner_text("#notice")
        assert "AlexNet · cv · " in page.inner_text("#overline")
        page.wait_for_selector("#neighbors li")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("#language")
        assert "분류기 2개" in page.inner_text("#notice")
        page.context.close()
        for width, locale in product((1400, 360), ("en-GB", "ko-KR")):
            options = {"viewport": {"width": width, "height": 800}, "locale": locale, "reduced_motion": "reduce"}
            page = open_tab(server.address + "/", **options).page
            ready(page)
            page.set_input_files("#file", image(images[0]))
            page.wait_for_selector("#neighbors li")
            until(page, "document.querySelector('#maps .tile')?.style.backgroundImage.includes('data:')")
            boxes = [page.locator(name).bounding_box() for name in ("#notice", "section.input")]
            assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
            reached_by_tab(page)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.context.close()


def test_the_camera(page_of: Any) -> None:
    page = page_of(permissions=["camera"])
    page.click("#camera")
    assert len(bars(page)) == 2
    page.click("#capture")
    until(page, "document.querySelectorAll('#tray button').length === 1")
    assert page.is_hidden("#video")
    page.wait_for_selector("#attribution img")


def test_languages(images: list[bytes], page_of: Any) -> None:
    page = page_of(locale="ko-KR", viewport=PHONE)
    assert page.eval_on_selector("html", "html => html.lang") == "ko"
    assert page.inner_text("#choose") == "이미지 선택"
    page.set_input_files("#file", image(images[0]))
    page.wait_for_selector("#attribution img")
    page.click("#language")
    assert page.inner_text("#choose") == "Choose images"
    assert page.inner_text("#attribution-heading") == "Attribution"
    assert not re.search("[가-힣]", page.inner_text("main"))
    page.reload()
    until(page, "document.querySelector('#choose').innerText === 'Choose images'")
    page.click("#language")
    assert page.inner_text("#language") == "English"


def test_the_messages_are_the_same_in_every_language(page_of: Any) -> None:
    page = page_of()
    tables = page.evaluate("import('/page/messages.js').then(({ MESSAGES }) => MESSAGES)")
    english, korean = (
        {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in tables[name].items()} for name in ("en", "ko")
    )
    assert english == korean
    sources = "".join(file.read_text("utf-8") for file in files("alexnet.serve").joinpath("page").iterdir())
    assert {key for key in tables["en"] if not re.search(rf"""["'`]{key}["'`]""", sources)} - {
        "languageName"
    } == set() | {key for key in tables["en"] if re.fullmatch(r"e\d+", key)}


def test_with_the_keyboard_alone(images: list[bytes], page_of: Any) -> None:
    page = page_of()
    page.set_input_files("#file", image(images[0]))
    until(page, "document.querySelector('#maps .tile')?.style.backgroundImage.includes('data:')")
    page.focus("#layers button >> nth=0")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#maps .tile').length === 256")
    for _ in range(7):
        page.keyboard.press("Tab")
    unit = "document.activeElement.dataset.unit"
    assert page.evaluate(unit) == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(unit) == "1"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "unit-title"
    assert page.get_attribute("#maps [data-unit='1']", "aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_everything_has_an_accessible_name_and_fits(
    viewport: dict[str, int], scheme: str, images: list[bytes], page_of: Any
) -> None:
    page = page_of(viewport=viewport, color_scheme=scheme)
    page.set_input_files("#file", image(images[0]))
    page.wait_for_selector("#attribution img")
    until(page, "document.querySelectorAll('#maps .tile').length > 0")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    unnamed = """[...document.querySelectorAll('button, a, input:not([aria-hidden])')]
        .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.textContent.trim())).length"""
    assert page.evaluate(unnamed) == 0
    assert page.evaluate("[...document.images].filter((image) => image.getAttribute('alt') === null).length") == 0
    labeled = "(s) => document.getElementById(s.getAttribute('aria-labelledby'))"
    assert page.evaluate(f"[...document.querySelectorAll('section')].every({labeled})")


def test_the_documentation_loads_nothing_from_other_servers(server: Server, open_tab: Callable[..., Any]) -> None:
    tab = open_tab(server.address + "/docs")
    assert "/v1/predict" in tab.page.inner_text("main")
    assert tab.complaints == []
    assert all(address.startswith((server.address, "data:")) for address in tab.asked)
