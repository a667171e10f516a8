"""A figure as a file, and inline in a page."""

import re

from alexnet.report import style


@style.drawn
def image() -> style.Figure:
    figure = style.new(2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=style.BLUE, marker="o")
    axes.set_title("제목 & <title>")
    return figure


def test_equal_figures_give_equal_bytes() -> None:
    assert style.svg(image()) == style.svg(image())


def test_a_notebook_displays_a_png() -> None:
    assert image()._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_an_inline_figure_takes_the_colors_of_the_page() -> None:
    text = style.inline(style.svg(image()), "one", 'rises "steadily" & <fast>')
    assert re.match(r'<svg [^>]*role="img" aria-label="rises &quot;steadily&quot; &amp; &lt;fast&gt;" viewBox=', text)
    assert "stroke: var(--blue)" in text
    assert not set(re.findall(r"#[0-9a-f]{6}\b", text)) & set(style.NAMES)
    assert "제목 &amp; &lt;title&gt;" in text
    assert "metadata" not in text


def test_two_inline_figures_do_not_share_an_id() -> None:
    file = style.svg(image())
    one, two = (style.inline(file, name, "") for name in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", one))
    assert used <= ids[0]
