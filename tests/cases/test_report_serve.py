"""Reported situations of `alexnet report` and `alexnet serve`: fonts, long names, many classes, damaged files."""

import asyncio
import dataclasses
import tokenize
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import Image
from random_runs import make_run

from alexnet import Classifier, Evaluation, Run, evaluate
from alexnet.data.preparation import prepare
from alexnet.evaluation.metrics import Predictions
from alexnet.report import attribution, image_figures, metric_figures, neighbors, style
from alexnet.report.figure_files import FigureFiles
from alexnet.report.report import write_report
from alexnet.report.sections import results_section
from alexnet.report.sentences import class_list
from alexnet.serve.api import api
from alexnet.serve.explorer import Explorer
from alexnet.serve.limits import Limits
from alexnet.serve.service import Service

LONG_NAMES = ["W" * 120, "가" * 120]


@pytest.fixture(scope="module")
def run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = make_run(tmp_path_factory.mktemp("cases") / "run", striped_data, seed=5, variant="convolutions")
    yield path
    (path / "model.safetensors").unlink()


@pytest.fixture(scope="module")
def evaluation(run: Path, striped_data: Path) -> Evaluation:
    return evaluate(run, striped_data, views=1, device="cpu")


@style.drawn
def titled(title: str) -> style.Figure:
    figure = style.new(1)
    figure.subplots().set_title(title)
    return figure


def test_a_font_with_the_glyphs_is_chosen() -> None:
    """Some character that DejaVu Sans lacks and another installed font has: matplotlib brings several."""
    base = FT2Font(next(font.fname for font in fontManager.ttflist if font.name == style.FONT)).get_charmap()
    other = next(font for font in fontManager.ttflist if font.name == "STIXGeneral" and font.style == "normal")
    character = chr(max(set(FT2Font(other.fname).get_charmap()) - set(base) - set(range(0xE000, 0xF900))))
    figure = titled(f"class {character}")
    assert style.missing_glyphs(figure) == ""
    style.png(figure)
    families = next(text for text in figure.findobj(Text) if character in text.get_text()).get_fontfamily()
    assert families[0] == style.FONT
    assert len(families) > 1


def test_characters_without_a_font_are_reported_in_one_line(
    run: Path, evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A hieroglyph that no font of this machine has.
    unknown = next(c for c in map(chr, range(0x13000, 0x13400)) if style.missing_glyphs(titled(c)))
    named = dataclasses.replace(evaluation, classes=[f"lying {unknown}", "standing"])
    page = write_report(run, evaluation=named, out=tmp_path, device="cpu").read_text("utf-8")
    lines = [line for line in capsys.readouterr().err.splitlines() if "font" in line]
    assert len(lines) == 1
    assert unknown in lines[0]
    assert "no installed font has" in page


def extents(figure: style.Figure, only: Callable[[Text], bool]) -> list[tuple[float, float, float, float]]:
    """Left, bottom, right and top of the texts in inches."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.findobj(Text) if only(text)]
    return [tuple(value / figure.dpi for value in box.extents) for box in boxes]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
@pytest.mark.parametrize("name", LONG_NAMES)
def test_long_class_names_do_not_overlap(evaluation: Evaluation, name: str) -> None:
    long = dataclasses.replace(evaluation, classes=[name + "1", name + "2"])
    gallery = image_figures.top_five(long, np.arange(8))
    titles = sorted(extents(gallery, lambda text: text.get_fontweight() == "bold" and bool(text.get_text())))
    assert len(titles) == 8
    for left, _, right, _ in titles:
        assert right - left <= image_figures.SIDE + 0.02
    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    rows = neighbors.nearest_images(images, [name], images[None].repeat(3, 1), [[name] * 3])
    captions = sorted(extents(rows, lambda text: "…" in text.get_text()))
    assert len(captions) == 4
    assert all(one[2] <= other[0] for one, other in pairwise(captions))
    maps = attribution.attribution_maps([images.repeat(2, 0)] * 3, [name, name])
    vertical = sorted((bottom, top) for _, bottom, _, top in extents(maps, lambda text: "…" in text.get_text()))
    assert vertical[0][1] <= vertical[1][0]
    for draw in (metric_figures.roc_curve, metric_figures.precision_recall_curve):
        figure = draw(dataclasses.replace(long, positive=1))
        (title,) = extents(figure, lambda text: "curve of" in text.get_text())
        assert title[2] <= style.WIDTH


def test_a_name_is_cut_to_its_width_and_kept_where_it_fits() -> None:
    assert style.fit("short", 1, 9) == "short"
    for name in LONG_NAMES:
        cut = style.fit(name, 1, 9)
        assert cut.endswith("…")
        assert len(cut) > 3
    # Wide letters take two columns.
    assert style.shorten("가나다라마", 6) == "가나…"
    assert style.shorten("abcdef", 6) == "abcdef"


def test_a_recall_without_positive_images_is_omitted_and_reported(
    run: Path, striped_data: Path, striped_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = striped_folder(6, 6)
    for file in (folder / "val" / "standing").iterdir():
        file.unlink()
    Image.new("RGB", (72, 72)).save(folder / "val" / "lying" / "more.png")
    (folder / "val" / "standing").rmdir()
    prepare(folder, tmp_path / "data", size=72, progress=False)
    page = write_report(
        run, tmp_path / "data", tmp_path / "out", recall=0.9, positive="standing", device="cpu"
    ).read_text("utf-8")
    text = "The threshold for recall 0.9: the split “val” has no image of the class “standing”."
    assert text in page
    assert 'id="results"' in page
    assert 'id="features"' in page


def test_a_report_of_a_thousand_classes_stays_readable(run: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = [f"class {number:04}, with a synonym" for number in range(1000)]
    labels = rng.integers(0, 1000, 4000)
    # 7 in 10 correct; class 3 is often confused with class 4.
    shares = np.full((4000, 1000), 1e-5)
    predicted = np.where(rng.random(4000) < 0.7, labels, rng.integers(0, 1000, 4000))
    labels[:50], predicted[:50] = 3, 4
    shares[np.arange(4000), predicted] = 0.9
    predictions = Predictions.from_probabilities(shares / shares.sum(1)[:, None], labels)
    many = dataclasses.replace(evaluation, classes=classes, positive=None, predictions=predictions)
    assert class_list(classes).endswith("and 997 more")
    (axes,) = metric_figures.per_class(many).axes
    assert len(axes.get_yticklabels()) == metric_figures.MAX_CLASSES
    (axes,) = metric_figures.confusion_matrix(many).axes
    assert not axes.texts
    assert len(axes.get_yticks()) < 20
    section = results_section(many, FigureFiles(tmp_path))
    assert section.values["pairs"].rows[0][:2] == [classes[3], classes[4]]
    assert len(section.values["pairs"].rows) == 15
    assert len(section.values["classes"].rows) == 1000
    assert (tmp_path / "figures" / "confusion-matrix.svg").stat().st_size < 1_000_000


@pytest.mark.parametrize("error", [tokenize.TokenError("EOF in multi-line statement"), KeyError("x"), MemoryError()])
def test_whatever_a_decoder_raises_is_an_error_of_that_file(
    run: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decode(data: bytes, size: int, *_: object) -> np.ndarray:
        if data == b"damaged":
            raise error
        return np.zeros((size, size, 3), dtype=np.uint8)

    monkeypatch.setattr("alexnet.serve.service.square_image", decode)

    async def main() -> None:
        service = Service(Classifier.load(run, device="cpu"), Limits())
        app = api(service, Explorer(Run.open(run), service, None, "no data"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            alone = await client.post("/v1/predict", content=b"damaged")
            assert (alone.status_code, "damaged" in alone.json()["detail"]) == (422, True)
            files = [("file", ("good", b"good")), ("file", ("bad", b"damaged"))]
            good, bad = (await client.post("/v1/predict", files=files)).json()["predictions"]
            assert good["label"]
            assert bad["error"]["status"] == 422
        await asyncio.to_thread(service.close)

    asyncio.run(main())
    assert not caplog.records


def test_an_unexpected_error_is_answered_and_logged_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        service = Service(Classifier.load(run, device="cpu"), Limits())
        explorer = Explorer(Run.open(run), service, None, "no data")
        monkeypatch.setattr(explorer, "network", lambda: 1 / 0)
        transport = httpx.ASGITransport(api(service, explorer))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answer = await client.get("/v1/network")
            assert answer.status_code == 500
            assert "ZeroDivisionError" in answer.json()["detail"]
            assert "content-security-policy" in answer.headers
        await asyncio.to_thread(service.close)

    asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
