"""The page in a real browser: what it shows is what the API says, in two languages, for keyboards and readers too."""

import base64
import re
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from servers import Server

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


def image(content: bytes, name: str = "stripes.png") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


@pytest.fixture
def page_of(server: Server, open_tab: Callable[..., Any]) -> Any:
    """The page in English, in a window as on a desk; at the end nothing was complained of or loaded from elsewhere."""
    tabs = []

    def open_page(**options: Any) -> Any:
        tab = open_tab(server.address + "/", **{"viewport": DESK, "locale": "en-GB"} | options)
        tabs.append(tab)
        return tab.page

    yield open_page
    for tab in tabs:
        tab.page.wait_for_load_state("networkidle")
        # Of an answer of 415 the browser itself makes a note.
        assert [said for said in tab.complaints if "status of 415" not in said] == []
        away = [address for address in tab.asked if not address.startswith((server.address, "data:", "blob:"))]
        assert away == []
        tab.page.context.close()


def until(page: Any, expression: str, arg: Any = None) -> None:
    """Wait until JavaScript is true; `Page.wait_for_function` would have the page evaluate text, which it forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def bars(page: Any) -> list[list[str]]:
    page.wait_for_selector("#bars li")
    return [bar.inner_text().split("\n") for bar in page.query_selector_all("#bars li")]


def test_a_image_is_answered_and_looked_into(server: Server, images: list[bytes], page_of: Any) -> None:
    page = page_of()
    page.set_input_files("#file", image(images[0]))
    (entry,) = server.post("/v1/predict", images[0]).json()["predictions"]
    assert bars(page) == [[a["label"], f"{100 * a['probability']:.1f}%"] for a in entry["top"]]
    assert page.inner_text("#verdict") == entry["label"]
    assert entry["label"] in page.inner_text("#status")

    # A layer of the drawing shows its maps; one of them what excites it.
    page.click("#drawing [data-layer=conv3] rect >> nth=0")
    until(page, "document.querySelectorAll('#maps .tile').length === 384")
    until(page, "document.querySelector('#maps .tile').style.backgroundImage.includes('data:image/png')")
    (maps,) = server.post("/v1/maps", images[0], layer="conv3").json()["maps"]
    shown = page.eval_on_selector("#maps .tile", "tile => tile.style.backgroundImage")
    assert maps["image"] in shown
    page.click("#maps .tile >> nth=200")
    assert page.inner_text("#unit-title") == "conv3, map 200 of tower 2"
    page.wait_for_selector("#made:not([hidden])")
    assert page.eval_on_selector("#made", "image => image.decode().then(() => image.naturalWidth)") == 64
    # Once the server has looked at all of its images, and the page has heard of it.
    until(page, "/^Among [0-9]+ training images;/.test(document.querySelector('#exciting-words').textContent)")
    wanted = server.get("/v1/units/conv3/200").json()["images"]
    assert page.eval_on_selector_all("#exciting img", "all => all.map((i) => new URL(i.src).pathname)") == [
        found["address"] for found in wanted
    ]
    # Units of a fully connected layer, and the classes.
    page.click("#layers button:text-is('fc7')")
    page.wait_for_selector(".square img")
    assert page.locator(".units button").count() == 24
    page.click("#layers button:text-is('logits')")
    until(page, "document.querySelectorAll('.units button').length === 2")

    # Where it looks, for either class; what is near; what is wrong.
    page.wait_for_selector("#looks img")
    (looks,) = server.post("/v1/explain", images[0]).json()["explanations"]
    assert page.eval_on_selector_all("#looks img", "all => all.map((i) => i.src)") == [
        looks[name] for name in ("seen", "gradient", "grad_cam")
    ]
    page.click("#looks-labels button >> nth=1")
    until(page, "src => document.querySelectorAll('#looks img')[1].src !== src", looks["gradient"])
    page.wait_for_selector("#near li")
    (near,) = server.post("/v1/neighbors", images[0]).json()["neighbors"]
    assert page.eval_on_selector_all("#near img", "all => all.map((i) => new URL(i.src).pathname)") == [
        found["address"] for found in near["nearest"]
    ]
    found = server.get("/v1/mistakes").json()
    assert page.locator("#mistakes > li").count() == min(12, found["wrong"])
    if found["wrong"]:
        name = found["mistakes"][0]["name"]
        page.click("#mistakes button >> nth=0")
        until(page, "name => document.querySelector('#asked').textContent.includes(name)", name)


def test_a_bad_image_is_said_and_the_next_one_is_answered(images: list[bytes], page_of: Any) -> None:
    page = page_of()
    page.set_input_files("#file", [image(b"no image", "bad.png"), image(images[1])])
    until(page, "document.querySelector('#verdict').textContent === 'not an image that can be read'")
    page.click("#tray button >> nth=0")
    assert len(bars(page)) == 2


def test_dropped_and_pasted_images(images: list[bytes], page_of: Any) -> None:
    page = page_of()
    carried = """(content) => {
        const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "carried.png", { type: "image/png" }));
        return data;
    }"""
    data = page.evaluate_handle(carried, base64.b64encode(images[2]).decode())
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert len(bars(page)) == 2
    assert page.inner_text("#asked") == "carried.png"
    page.evaluate(
        f"(content) => dispatchEvent(new ClipboardEvent('paste', {{ clipboardData: ({carried})(content) }}))",
        base64.b64encode(images[3]).decode(),
    )
    until(page, "document.querySelectorAll('#tray button').length === 2")


def test_the_camera(page_of: Any) -> None:
    page = page_of(permissions=["camera"])
    page.click("#camera")
    assert len(bars(page)) == 2
    page.click("#keep")
    until(page, "document.querySelectorAll('#tray button').length === 1")
    assert page.is_hidden("#video")
    page.wait_for_selector("#looks img")


def test_languages(images: list[bytes], page_of: Any) -> None:
    page = page_of(locale="ko-KR", viewport=PHONE)
    assert page.eval_on_selector("html", "html => html.lang") == "ko"
    assert page.inner_text("#choose") == "사진 고르기"
    page.set_input_files("#file", image(images[0]))
    page.wait_for_selector("#looks img")
    page.click("#language")
    assert page.inner_text("#choose") == "Choose images"
    assert page.inner_text("#looks-heading") == "Where it looks"
    assert not re.search("[가-힣]", page.inner_text("main"))
    page.reload()
    until(page, "document.querySelector('#choose').innerText === 'Choose images'")
    page.click("#language")
    assert page.inner_text("#language") == "English"


def test_the_words_are_the_same_in_every_language(page_of: Any) -> None:
    page = page_of()
    tables = page.evaluate("import('/page/words.js').then(({ WORDS }) => WORDS)")
    english, korean = (
        {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in tables[name].items()} for name in ("en", "ko")
    )
    assert english == korean
    sources = "".join(file.read_text("utf-8") for file in files("alexnet.serve").joinpath("page").iterdir())
    assert {key for key in tables["en"] if not re.search(rf"""["'`]{key}["'`]""", sources)} - {"name"} == set() | {
        key for key in tables["en"] if re.fullmatch(r"e\d+", key)
    }


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
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_everything_has_a_name_and_fits(
    viewport: dict[str, int], scheme: str, images: list[bytes], page_of: Any
) -> None:
    page = page_of(viewport=viewport, color_scheme=scheme)
    page.set_input_files("#file", image(images[0]))
    page.wait_for_selector("#looks img")
    until(page, "document.querySelectorAll('#maps .tile').length > 0")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    nameless = """[...document.querySelectorAll('button, a, input:not([aria-hidden])')]
        .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.textContent.trim())).length"""
    assert page.evaluate(nameless) == 0
    assert page.evaluate("[...document.images].filter((image) => image.getAttribute('alt') === null).length") == 0
    labeled = "(s) => document.getElementById(s.getAttribute('aria-labelledby'))"
    assert page.evaluate(f"[...document.querySelectorAll('section')].every({labeled})")


def test_the_documentation_loads_nothing_from_elsewhere(server: Server, open_tab: Callable[..., Any]) -> None:
    tab = open_tab(server.address + "/docs")
    assert "/v1/predict" in tab.page.inner_text("main")
    assert tab.complaints == []
    assert all(address.startswith((server.address, "data:")) for address in tab.asked)
