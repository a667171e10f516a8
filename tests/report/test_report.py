"""`alexnet report` on a real run: finished, in progress, without its data, and its errors."""

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
import torch
from PIL import Image
from random_runs import make_run
from tabbing import reached_by_tab

from alexnet import AlexNetError, Run, UsageError, evaluate
from alexnet.data.preparation import prepare
from alexnet.evaluation import metrics
from alexnet.evaluation.views import describe_views
from alexnet.network.optimized import without_batch_norm
from alexnet.report.report import write_report
from alexnet.runs.run import METRICS

VOID = {"meta", "link", "img", "input", "br", "path", "use", "image"}
SECTIONS = [
    *(
        "summary",
        "training",
        "results",
        "predictions",
        "mistakes",
        "attribution",
        "neighbors",
        "features",
        "layers",
        "recipe",
    ),
]


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and the tags that are not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.data_parts: list[str] = []
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
            self.data_parts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.data_parts))

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


def test_every_section_is_in_the_contents(page: Page) -> None:
    assert page.sections == SECTIONS
    anchors = [a["href"] for tag, a in page.elements if tag == "a" and a["href"].startswith("#")]
    assert [anchor for anchor in anchors if anchor != "#content"] == [f"#{name}" for name in SECTIONS]


def test_the_page_is_self_contained(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            value = attributes.get(name, "")
            linked = tag == "a" and name == "href" and value.startswith(("#", "figures/"))
            assert not value or linked or value.startswith(("data:", "#")), (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert style is not None
    assert not re.search(r"@import|url\((?!#)", style[1])
    assert not re.search(r"\b(fetch|import|XMLHttpRequest)\(", page.source)


def test_the_page_is_well_formed_and_accessible(page: Page) -> None:
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


def test_every_linked_figure_exists_as_png_and_svg(report: Path, page: Page) -> None:
    links = {a["href"] for tag, a in page.elements if tag == "a" and a["href"].startswith("figures/")}
    there = {f"figures/{file.name}" for file in (report.parent / "figures").iterdir()}
    assert links == there
    names = {Path(link).stem for link in links}
    assert links == {f"figures/{name}.{form}" for name in names for form in ("png", "svg")}
    assert {
        "losses",
        "error-rates",
        "layer-weights",
        "layer-updates",
        "first-layer-kernels",
        "confusion-matrix",
        "per-class",
    } <= names
    assert {
        "roc-curve",
        "precision-recall-curve",
        "calibration",
        "top-five",
        "attribution",
        "neighbors",
        "feature-maps-fc7",
    } <= names
    for name in names:
        Image.open(report.parent / "figures" / f"{name}.png").verify()


def test_the_numbers_are_those_of_evaluate(page: Page, evaluation) -> None:
    correct = int(np.trace(evaluation.confusion_matrix))
    assert f"Accuracy: {correct} of 24 images, {correct / 24:.1%}" in page.text
    source = re.search(r'<script type="application/json">(.*?)</script>', page.source)
    assert source is not None
    slider = json.loads(source[1])
    assert slider["positives"] == slider["negatives"] == 12
    assert slider["rows"] == evaluation.to_dict()["thresholds"]


def test_the_recipe_lists_the_changed_values(page: Page) -> None:
    assert "epochs is 2 (default 90)" in page.text
    assert "epoch 2 lr 0.0001" in page.text


def copy_of(run: Run, folder: Path, *files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).symlink_to(run.path / name)
    return folder


def test_a_report_in_the_middle_of_the_first_epoch(run: Run, tmp_path: Path) -> None:
    begun = copy_of(run, tmp_path / "begun", "config.json", "classes.json")
    lines = (run.path / METRICS).read_bytes().splitlines(keepends=True)
    finding = {"kind": "plateau", "where": "loss", "message": "the loss is <stuck>", "remedy": "try `--lr 0.1`"}
    noticed = json.dumps({"event": "finding", "step": 3, **finding}).encode() + b"\n"
    (begun / METRICS).write_bytes(b"".join(lines[:3]) + noticed + b'{"event": "st')
    page = Page(write_report(begun, device="cpu"))
    assert page.sections == ["summary", "training", "recipe"]
    assert "Training in progress: 0 of 2 epochs completed." in page.text
    assert "the training has not saved any weights yet" in page.text
    assert "the first epoch has not been completed" in page.text
    assert "Detected during training: the loss is <stuck>." in page.text
    assert "The loss is <stuck>. Remedy: try --lr 0.1 . (Step 3.)" in page.text
    assert {file.stem for file in (begun / "figures").iterdir()} == {"losses"}


def moved(run: Run, folder: Path, *files: str) -> Path:
    """The run, without the dataset that its config names."""
    copy_of(run, folder, *files)
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    config["dataset"] |= {"path": str(folder / "gone"), "absolute_path": str(folder / "gone")}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_the_layers_are_timed_with_their_share_of_the_parameters(page: Page, run: Run) -> None:
    found = dict(re.findall(r"<td [^>]*><span>((?:conv\d|fc6)[^<]*)</span></td>(.*?)</tr>", page.source, re.DOTALL))
    cells = {name.split()[0]: re.findall(r"<td [^>]*><span>(.*?)</span></td>", row) for name, row in found.items()}
    network, side = run.load(torch.device("cpu"))[0], run.config.crop_size
    expected = {cost.name: cost for cost in network.costs(side)}
    total = sum(cost.parameters for cost in without_batch_norm(network).costs(side))
    for name in ("conv1", "conv5", "fc6"):
        milliseconds, share_of_time, products, moved, _, share = cells[name]
        assert int(products.replace(",", "")) == expected[name].multiply_adds
        assert float(share.rstrip("%")) == pytest.approx(100 * expected[name].parameters / total, abs=0.2)
        assert float(milliseconds) >= 0
        assert 0 <= float(share_of_time.rstrip("%")) <= 100
        assert float(moved) > 0
    assert re.search(r"Convolutions: \d+% of the time, \d+% of the multiply-adds, \d+% of the parameters\.", page.text)


def test_a_run_in_progress_is_reported_with_its_weights_so_far(run: Run, tmp_path: Path) -> None:
    begun = moved(run, tmp_path / "begun", "last.safetensors")
    lines = (run.path / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if '"event": "epoch"' in line]
    (begun / METRICS).write_text("".join(lines[: ends[0] + 1]), encoding="utf-8")
    page = Page(write_report(begun, device="cpu"))
    assert page.sections == ["summary", "training", "features", "layers", "recipe"]
    assert "Training in progress: 1 of 2 epochs completed; this report uses its last weights so far." in page.text
    assert "epochs completed 1 of 2" in page.text
    assert f"the prepared dataset is no longer at {begun / 'gone'}: name it with --data" in page.text
    drawn = {file.stem for file in (begun / "figures").iterdir()}
    assert drawn == {"losses", "error-rates", "layer-weights", "layer-updates", "first-layer-kernels"}


def test_a_different_dataset_at_the_recorded_path_is_not_used(run: Run, odd: tuple[Path, Path], tmp_path: Path) -> None:
    other = moved(run, tmp_path / "other", METRICS)
    (other / "gone").symlink_to(odd[1])
    page = Page(write_report(other, device="cpu"))
    assert page.sections == ["summary", "training", "recipe"]
    assert "is not the dataset that" in page.text


def test_before_the_first_step_the_report_has_only_the_recipe(run: Run, tmp_path: Path) -> None:
    begun = copy_of(run, tmp_path / "begun", "config.json")
    page = Page(write_report(begun, device="cpu"))
    assert page.sections == ["summary", "training", "recipe"]
    assert "no step of the training has been recorded" in page.text


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A random run on seven classes whose names are hard for HTML, SVG and fonts, and its data."""
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
    run = make_run(folder / "run", folder / "data", seed=3, variant="convolutions")
    yield run, folder / "data"
    (run / "model.safetensors").unlink()


def test_any_class_name_is_shown_literally(odd: tuple[Path, Path]) -> None:
    """Also: a given evaluation is reported, not repeated."""
    run, data = odd
    page = Page(write_report(run, evaluation=evaluate(run, data, views=10, device="cpu"), device="cpu"))
    assert describe_views(10) in page.text
    assert page.sections == SECTIONS
    assert not page.unclosed
    for name in ("<b>bold</b>", "a & b", 'quo"te', "고양이", "$dollar$ and _more^", "x" * 90, "</script>"):
        assert name in page.text
    assert "no step of the training has been recorded" in page.text


def test_the_command_prints_the_path_of_the_report(command, run: Run, tmp_path: Path) -> None:
    begun = copy_of(run, tmp_path / "begun", "config.json", METRICS)
    code, out, _ = command("report", begun, "--out", tmp_path / "there")
    assert (code, out) == (0, f"{tmp_path / 'there' / 'report.html'}\n")
    assert Page(tmp_path / "there" / "report.html").sections == ["summary", "training", "recipe"]
    assert not (begun / "report.html").exists()


def test_errors_are_one_clear_line(command, run: Run, striped_data: Path, tmp_path: Path) -> None:
    def run_command(*arguments: object) -> tuple[int, str]:
        code, out, err = command("report", *arguments)
        assert out == ""
        assert err.count("\n") == 1
        return code, err

    assert run_command(tmp_path / "none") == (
        1,
        f"alexnet: {tmp_path / 'none'} is not a run folder: it has no config.json (`alexnet train` makes one)\n",
    )
    code, err = run_command(run.path, "--data", tmp_path / "none")
    assert code == 1
    assert "does not exist: make it with `alexnet prepare" in err
    code, err = run_command(run.path, "--data", striped_data, "--split", "tset")
    assert code == 1
    assert "no split 'tset': it has train, val" in err
    code, err = run_command(run.path, "--data", striped_data, "--recall", "2")
    assert code == 2
    (tmp_path / "file").touch()
    code, err = run_command(run.path, "--data", striped_data, "--out", tmp_path / "file")
    assert code == 1
    assert "the report cannot be written" in err


def test_damaged_weights_are_an_error(run: Run, tmp_path: Path) -> None:
    damaged = copy_of(run, tmp_path / "damaged", "config.json", METRICS)
    (damaged / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(AlexNetError, match=r"model.safetensors can't be read"):
        write_report(damaged, device="cpu")


def test_data_of_other_classes_is_an_error(odd: tuple[Path, Path], striped_data: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="different classes"):
        write_report(odd[0], striped_data, tmp_path, device="cpu")
    with pytest.raises(UsageError, match="for two classes"):
        write_report(odd[0], odd[1], tmp_path, recall=0.5, device="cpu")


def test_without_matplotlib_the_message_names_the_extra(run: Run) -> None:
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
    assert done.stderr == "alexnet: figures and reports require matplotlib: pip install 'alexnet[report]'\n"


def test_a_run_has_a_notebook_representation(run: Run) -> None:
    html = run._repr_html_()
    assert len(html) < 2000
    assert "2 of 2" in html
    assert "lying, standing" in html
    epochs = run.metrics("epoch")
    assert f"{epochs[-1]['validation_error']:.2%} (validation)" in html


def test_the_notebook_representation_needs_no_matplotlib(run: Run) -> None:
    script = f"import sys; from alexnet import Run; Run.open({str(run.path)!r})._repr_html_(); "
    script += "sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_slider_updates_the_numbers(
    report: Path, run: Run, striped_data: Path, open_tab: Callable[..., Any]
) -> None:
    tab = open_tab(report.as_uri(), viewport={"width": 390, "height": 844})
    slider = tab.page.locator(".slider input")

    def numbers() -> dict[str, str]:
        return {
            name: tab.page.inner_text(f"[data-value={name}]")
            for name in ("threshold", "recall", "missed", "false-positives")
        }

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
        # The numbers hold for the images.
        threshold = float(seen[-1]["threshold"])
        score, is_positive = metrics.binary_scores(evaluation.predictions, evaluation.positive)
        found = {int((score[is_positive] >= threshold + slack).sum()) for slack in (-5e-4, 5e-4)}
        missed, of = seen[-1]["missed"].split(" of ")
        assert int(of) == is_positive.sum() == 12
        assert min(found) <= 12 - int(missed) <= max(found)
    assert seen[0] != seen[1]
    assert tab.complaints == []
    assert tab.asked == [report.as_uri()]


def test_the_page_works_by_keyboard_and_fits(report: Path, open_tab: Callable[..., Any]) -> None:
    for width, columns in ((1400, "table-cell"), (360, "flex")):
        options = {"viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}
        tab = open_tab(report.as_uri(), **options)
        reached_by_tab(tab.page)
        slider = tab.page.locator(".slider input")
        slider.focus()
        before = tab.page.inner_text("[data-value=threshold]")
        for _ in range(3):
            tab.page.keyboard.press("ArrowLeft")
        assert tab.page.inner_text("[data-value=threshold]") != before
        while summary := tab.page.query_selector("details:not([open]) > summary"):
            summary.focus()
            tab.page.keyboard.press("Enter")
        # On a phone no table is wider than the window, nor has columns that break every label.
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        assert {tab.page.evaluate("e => getComputedStyle(e).display", cell) for cell in cells(tab.page)} == {columns}
        wide = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
        assert tab.page.evaluate(wide) == 0
        assert tab.complaints == []
        tab.page.context.close()


def cells(page: Any) -> list[Any]:
    """The first cell of each table."""
    return [table.query_selector("td") for table in page.query_selector_all("table")]
