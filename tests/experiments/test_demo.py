"""Every step of `alexnet demo`, on a few of its solar cells and for one epoch."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from alexnet.experiments import demo as demo_module
from alexnet.experiments import solar_cells

CELLS = {"train": 12, "test": 5}  # of each class


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("elpv_dataset") is None:
        pytest.skip("the extra `demo` is not installed")
    write_all = solar_cells.write_source

    def write_few(path: Path) -> Path:
        head, *rows = csv.reader(io.StringIO(write_all(path).read_text(encoding="utf-8")))
        taken: Counter[tuple[str, str]] = Counter()
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(head)
            for image, label, split in rows:
                taken[label, split] += 1
                if taken[label, split] <= CELLS[split]:
                    writer.writerow([image, label, split])
        return path

    monkeypatch.setattr(solar_cells, "write_source", write_few)
    for name, value in {"epochs": 1, "variant": "convolutions"}.items():  # fc6 and fc7 take most of the time
        monkeypatch.setitem(demo_module.CHANGES, name, value)


def test_the_demo_shows_its_metrics_and_continues_with_training_from_scratch(few_cells, command, tmp_path):
    out = tmp_path / "out"
    first = command("demo", "--out", out, "--seed", 3)
    assert first.returncode == 0, first.stderr
    assert first.stdout.rstrip().endswith("report.html")
    rows = _rows(first.stdout)
    assert rows["AlexNet, fine-tuned from the starter, this run, ten views"][1] == "measured now"
    before = (f"{solar_cells.FROM_SCRATCH:.2f}%", "stored result")
    assert rows["AlexNet from scratch, mean of five seeds, ten views"] == before
    assert "With --scratch" in first.stderr
    assert not (out / "from-scratch").exists()

    both = command("demo", "--out", out, "--seed", 3, "--scratch")
    assert both.returncode == 0, both.stderr
    assert "is already trained" in both.stderr
    assert "With --scratch" not in both.stderr
    again = _rows(both.stdout)
    assert again.pop("AlexNet from scratch, this run, ten views")[1] == "measured now"
    rows.pop("AlexNet from scratch, mean of five seeds, ten views")
    assert again == rows
    starts = [
        json.loads((out / run / "config.json").read_text(encoding="utf-8"))["start"] for run in ("run", "from-scratch")
    ]
    assert starts[0]["from"] == "starter"
    assert starts[1] is None


def test_an_invalid_output_path_is_named_before_any_work(command, tmp_path):
    file = tmp_path / "photograph.jpg"
    file.write_bytes(b"mine")
    done = command("demo", "--out", file)
    assert (done.returncode, done.stderr) == (1, f"alexnet: {file}: File exists; --debug shows the traceback\n")
    assert file.read_bytes() == b"mine"
    done = command("demo", "--out", tmp_path / "out", "--image", tmp_path / "nowhere" / "x.svg")
    assert done.returncode == 1
    assert done.stderr == f"alexnet: {tmp_path}/nowhere/x.svg can't be written: there is no folder {tmp_path}/nowhere\n"
    assert not (tmp_path / "out").exists()


def test_the_stored_result_is_the_mean_in_the_results():
    report = json.loads((Path(__file__).parents[2] / "docs" / "results" / "solar.json").read_text(encoding="utf-8"))
    assert round(100 * report["mean"], 2) == solar_cells.FROM_SCRATCH


def _rows(printed: str) -> dict[str, tuple[str, str]]:
    """The rows of the table of accuracies: their accuracy, and where it is from."""
    cells = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in printed.splitlines()]
    return {row[0]: (row[1], row[2]) for row in cells if len(row) == 3 and row[1].endswith("%")}
