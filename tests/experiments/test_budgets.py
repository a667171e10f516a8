"""`alexnet reproduce budgets`: the result of a training that has time for a linear classifier only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.experiments import budgets


@pytest.mark.long
def test_the_time_and_the_accuracy_of_a_budget_are_written(
    striped_folder: Callable[..., Path], tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = striped_folder(14, 13, 64, splits=("train", "test"))
    changes = {"variant": "convolutions", "crop_size": 64, "input_size": 67, "early_input_size": None, "batch_size": 12}
    monkeypatch.setattr(budgets.solar_cells, "write_source", lambda *_, **__: images)
    monkeypatch.setattr(budgets, "CHANGES", changes)
    monkeypatch.setattr(budgets, "BUDGETS", ("1s", "8h"))
    results = tmp_path / "budgets.json"
    done = command("reproduce", "budgets", "--only", "1s", "--out", tmp_path / "out", "--results", results)
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text(encoding="utf-8"))
    (trial,) = report["trials"].values()
    assert (trial["budget"], trial["method"], trial["epochs"]) == (1.0, "linear classifier", 1)
    assert trial["seconds"] > 0.1
    assert trial["one_view"]["accuracy"] > 0.9
    assert not list((tmp_path / "out").rglob("model.safetensors"))
    done = command("reproduce", "budgets", "--only", "9h", "--out", tmp_path / "other", "--results", results)
    assert (done.returncode, "no trial starts with 9h; a name is like 1s/0" in done.stderr) == (1, True)
