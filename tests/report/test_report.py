"""`alexnet report` on a real run: whole, in progress, without its data, and where it can't."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from random_runs import make_run

from alexnet import AlexNetError, Run, UsageError, evaluate
from alexnet.data.preparation import prepare
from alexnet.evaluation import metrics
from alexnet.report.report import write_report
from alexnet.runs.run import METRICS

VOID = {"meta", "link", "img", "input", "br", "path", "use", "image"}
SECTIONS = ["glance", "learning", "results", "answers", "mistakes", "looks", "neighbors", "inside", "recipe"]


class Page(HTMLParser):
    """What a page is made of: its elements with their attributes, its text, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def sections(self) -> list[str]:
        return [attributes["id"] for tag, attributes in self.elements if tag == "section"]


@pytest.fixture(scope="module")
def report(run: Run, striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(
        run.path, striped_data, tmp_path_factory.mktemp("report"), recall=0.9, precision="float32", device="cpu"
    )


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report)


def test_every_section_is_there_and_in_the_contents(page: Page) -> None:
    assert page.sections == SECTIONS
    anchors = [a["href"] for tag, a in page.elements if tag == "a" and a["href"].startswith("#")]
    assert [anchor for anchor in anchors if anchor != "#content"] == [f"#{name}" for name in SECTIONS]


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            value = attributes.get(name, "")
            linked = tag == "a" and name == "href" and value.startswith(("#", "figures/"))
            assert not value or linked or value.startswith(("data:", "#")), (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert style is not None
    assert not re.search(r"@import|url\((?!#)", style[1])
    assert not re.search(r"\b(fetch|import|XMLHttpRequest)\(", page.source)


def test_the_page_is_well_formed_and_readable_by_ear(page: Page) -> None:
    assert not page.unclosed
    assert not page.open
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"] or attributes.get("class") == "banner"
        if tag == "svg":
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"]) > 20
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_figure_linked_is_there_as_png_and_svg(report: Path, page: Page) -> None:
    links = {a["href"] for tag, a in page.elements if tag == "a" and a["href"].startswith("figures/")}
    there = {f"figures/{file.name}" for file in (report.parent / "figures").iterdir()}
    assert links == there
    names = {Path(link).stem for link in links}
    assert links == {f"figures/{name}.{form}" for name in names for form in ("png", "svg")}
    assert {"losses", "errors", "layer-weights", "layer-updates", "kernels", "confusion", "classes", "roc"} <= names
    assert {"precision-recall", "calibration", "top-five", "where-it-looks", "neighbors", "maps-fc7"} <= names
    for name in names:
        Image.open(report.parent / "figures" / f"{name}.png").verify()


def test_the_numbers_are_those_of_evaluate(page: Page, evaluation) -> None:
    right = int(np.trace(evaluation.confusion))
    assert f"Right on {right} of 24 images: {right / 24:.1%}" in page.text
    source = re.search(r'<script type="application/json">(.*?)</script>', page.source)
    assert source is not None
    dial = json.loads(source[1])
    assert dial["positives"] == dial["negatives"] == 12
    assert dial["rows"] == evaluation.to_dict()["thresholds"]


def test_the_recipe_says_what_was_changed(page: Page) -> None:
    assert "epochs is 2 (usually 90)" in page.text
    assert "epoch 2 lr 0.0001" in page.text


def copy_of(run: Run, folder: Path, *files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).symlink_to(run.path / name)
    return folder


def test_in_the_middle_of_the_first_epoch_there_is_what_there_is(run: Run, tmp_path: Path) -> None:
    begun = copy_of(run, tmp_path / "begun", "config.json", "classes.json")
    lines = (run.path / METRICS).read_bytes().splitlines(keepends=True)
    finding = {"kind": "plateau", "where": "loss", "message": "the loss is <stuck>", "remedy": "try `--lr 0.1`"}
    noticed = json.dumps({"event": "finding", "step": 3, **finding}).encode() + b"\n"
    (begun / METRICS).write_bytes(b"".join(lines[:3]) + noticed + b'{"event": "st')
    page = Page(write_report(begun, device="cpu"))
    assert page.sections == ["glance", "learning", "recipe"]
    assert "The training has done 0 of 2 epochs." in page.text
    assert "the training has saved no weights yet" in page.text
    assert "the first epoch has not ended" in page.text
    assert "Noticed while it trained: the loss is <stuck>." in page.text
    assert "The loss is <stuck>. What to do: try --lr 0.1 . (Step 3.)" in page.text
    assert {file.stem for file in (begun / "figures").iterdir()} == {"losses"}


def moved(run: Run, folder: Path, *files: str) -> Path:
    """The run, without the dataset that its config names."""
    copy_of(run, folder, *files)
    config = json.loads((run.path / "config.json").read_text())
    config["dataset"]["path"] = str(folder / "gone")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_run_in_progress_is_shown_with_the_weights_it_has(run: Run, tmp_path: Path) -> None:
    begun = moved(run, tmp_path / "begun", "last.safetensors")
    lines = (run.path / METRICS).read_text().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if '"event": "epoch"' in line]
    (begun / METRICS).write_text("".join(lines[: ends[0] + 1]))
    page = Page(write_report(begun, device="cpu"))
    assert page.sections == ["glance", "learning", "inside", "recipe"]
    assert "The training has done 1 of 2 epochs; shown are its last weights so far." in page.text
    assert "epochs done 1 of 2" in page.text
    assert f"the prepared dataset is no longer at {begun / 'gone'}; name it with --data" in page.text
    drawn = {file.stem for file in (begun / "figures").iterdir()}
    assert drawn == {"losses", "errors", "layer-weights", "layer-updates", "kernels"}


def test_another_dataset_where_its_own_was_is_left_alone(run: Run, odd: tuple[Path, Path], tmp_path: Path) -> None:
    other = moved(run, tmp_path / "other", METRICS)
    (other / "gone").symlink_to(odd[1])
    page = Page(write_report(other, device="cpu"))
    assert page.sections == ["glance", "learning", "recipe"]
    assert "is another one; name the right one with --data" in page.text


def test_before_the_first_step_only_the_recipe_is_there(run: Run, tmp_path: Path) -> None:
    begun = copy_of(run, tmp_path / "begun", "config.json")
    page = Page(write_report(begun, device="cpu"))
    assert page.sections == ["glance", "learning", "recipe"]
    assert "no step of the training is recorded" in page.text


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A random run on seven classes with names that HTML, SVG and fonts may stumble over, and its data."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    names = ["<b>bold</b>", "a & b", 'quo"te', "고양이", "$dollar$ and _more^", "x" * 90, "</script>"]
    rows = []
    for number, name in enumerate(names):
        for image in range(3):
            file = folder / f"{number}-{image}.png"
            Image.fromarray(rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)).save(file)
            rows.append((file.name, name, "train" if image else "test"))
    import csv

    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    prepare(folder / "list.csv", folder / "data", size=72, progress=False)
    run = make_run(folder / "run", folder / "data", seed=3)
    yield run, folder / "data"
    (run / "model.safetensors").unlink()


def test_any_class_name_is_shown_as_it_is(odd: tuple[Path, Path]) -> None:
    """Also: what was measured already is shown, not measured again."""
    run, data = odd
    page = Page(write_report(run, evaluation=evaluate(run, data, views=10, device="cpu"), device="cpu"))
    assert "10 views: corners, center and mirror images" in page.text
    assert page.sections == SECTIONS
    assert not page.unclosed
    for name in ("<b>bold</b>", "a & b", 'quo"te', "고양이", "$dollar$ and _more^", "x" * 90, "</script>"):
        assert name in page.text
    assert "no step of the training is recorded" in page.text


def test_the_command_prints_where_the_report_is(command, run: Run, tmp_path: Path) -> None:
    begun = copy_of(run, tmp_path / "begun", "config.json", METRICS)
    code, out, _ = command("report", begun, "--out", tmp_path / "there")
    assert (code, out) == (0, f"{tmp_path / 'there' / 'report.html'}\n")
    assert Page(tmp_path / "there" / "report.html").sections == ["glance", "learning", "recipe"]
    assert not (begun / "report.html").exists()


def test_errors_are_one_clear_line(command, run: Run, striped_data: Path, tmp_path: Path) -> None:
    def said(*words: object) -> tuple[int, str]:
        code, out, err = command("report", *words)
        assert out == ""
        assert err.count("\n") == 1
        return code, err

    assert said(tmp_path / "none") == (
        1,
        f"alexnet: {tmp_path / 'none'} is not a run folder: it has no config.json (`alexnet train` makes one)\n",
    )
    code, err = said(run.path, "--data", tmp_path / "none")
    assert code == 1
    assert "does not exist: make it with `alexnet prepare" in err
    code, err = said(run.path, "--data", striped_data, "--split", "tset")
    assert code == 1
    assert "no split 'tset': it has train, val" in err
    code, err = said(run.path, "--data", striped_data, "--recall", "2")
    assert code == 2
    (tmp_path / "file").touch()
    code, err = said(run.path, "--data", striped_data, "--out", tmp_path / "file")
    assert code == 1
    assert "the report can't be written" in err


def test_weights_that_are_damaged_are_an_error_not_left_out(run: Run, tmp_path: Path) -> None:
    damaged = copy_of(run, tmp_path / "damaged", "config.json", METRICS)
    (damaged / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(AlexNetError, match=r"model.safetensors can't be read"):
        write_report(damaged, device="cpu")


def test_data_of_other_classes_is_an_error(odd: tuple[Path, Path], striped_data: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="different classes"):
        write_report(odd[0], striped_data, tmp_path, device="cpu")
    with pytest.raises(UsageError, match="needs two classes"):
        write_report(odd[0], odd[1], tmp_path, recall=0.5, device="cpu")


def test_without_matplotlib_it_says_what_to_install(run: Run) -> None:
    script = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class WithoutMatplotlib(MetaPathFinder):
    def find_spec(self, name, *rest):
        return None if name.startswith("matplotlib") else PathFinder.find_spec(name, *rest)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutMatplotlib()
from alexnet.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "report", str(run.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "alexnet: figures are drawn with matplotlib: pip install 'alexnet[report]'\n"


def test_a_run_shows_itself_in_a_notebook(run: Run) -> None:
    html = run._repr_html_()
    assert len(html) < 2000
    assert "2 of 2" in html
    assert "lying, standing" in html
    epochs = run.metrics("epoch")
    assert f"{epochs[-1]['validation_error']:.2%} in validation" in html


def test_a_notebook_needs_no_matplotlib_for_it(run: Run) -> None:
    script = f"import sys; from alexnet import Run; Run.open({str(run.path)!r})._repr_html_(); "
    script += "sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_slider_changes_the_numbers(
    report: Path, run: Run, striped_data: Path, open_tab: Callable[..., Any]
) -> None:
    tab = open_tab(report.as_uri(), viewport={"width": 390, "height": 844})
    slider = tab.page.locator(".dial input")

    def numbers() -> dict[str, str]:
        return {name: tab.page.inner_text(f"[data-is={name}]") for name in ("threshold", "found", "missed", "alarms")}

    evaluation = evaluate(run.path, striped_data, views=1, device="cpu")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    seen = []
    for share in (0.02, 0.98):
        tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2, steps=4)
        tab.page.mouse.up()
        seen.append(numbers())
        # What it says is true of the images.
        threshold = float(seen[-1]["threshold"])
        score, is_positive = metrics.scores(evaluation.predictions, evaluation.positive)
        found = {int((score[is_positive] >= threshold + slack).sum()) for slack in (-5e-4, 5e-4)}
        missed, of = seen[-1]["missed"].split(" of ")
        assert int(of) == is_positive.sum() == 12
        assert min(found) <= 12 - int(missed) <= max(found)
    assert seen[0] != seen[1]
    assert tab.complaints == []
    assert tab.asked == [report.as_uri()]
