"""`alexnet reproduce history` in its quick form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alexnet.cli.main import main
from alexnet.experiments import history
from alexnet.network.model import AlexNet


@pytest.mark.long
def test_methods_are_trained_on_the_same_images_and_finished_trials_are_kept(
    striped_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = striped_folder(14, 13, 64)
    arguments = ["reproduce", "history", "--quick", "--data", str(images), "--out", str(tmp_path), "--budget", "0.01"]
    assert main([*arguments, "--only", "hog"]) == 0
    results = tmp_path / f"history-{images.name}.json"
    assert [row["method"] for row in json.loads(results.read_text())["table"]] == ["hog"]

    assert main(arguments) == 0
    report = json.loads(results.read_text())
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert report["images"] == {"train": 27, "val": 16}
    network, baseline = report["table"]
    assert (network["year"], baseline["year"]) == (1998, 2005)
    assert network["threads"] == torch.get_num_threads()
    assert network["time"]["epochs"] == 1, "no epoch fits in a hundredth of a second, and one is the least"
    assert network["end"]["epochs"] == report["epochs"] == 2
    assert network["parameters"] == sum(p.numel() for p in AlexNet("lenet5", 2).parameters())
    assert "time" not in baseline
    assert baseline["end"]["accuracy"]["values"] == [report["trials"]["hog/end/0"]["accuracy"]]
    trial = report["trials"]["lenet5/end/0"]
    assert trial["accuracy"] == pytest.approx(1 - trial["validation_error"][-1]), "weights of the last epoch"
    assert not list(tmp_path.rglob("model.safetensors"))

    capsys.readouterr()
    assert main(arguments) == 0
    assert "lenet5/end/0:" not in capsys.readouterr().err
    assert json.loads(results.read_text()) == report

    elsewhere = [*arguments, "--out", str(tmp_path / "other"), "--results", str(results), "--only", "hog"]
    assert main([*elsewhere, "--seeds", "0", "1"]) == 0
    again = json.loads(results.read_text())
    assert again["trials"].keys() == {*report["trials"], "hog/end/1"}
    assert again["table"][0] == network, "a method that is not measured again keeps its row"
    assert again["table"][1]["end"]["seeds"] == 2

    capsys.readouterr()
    assert main([*elsewhere, "--budget", "0.02"]) == 2
    assert "has trials with other budget_seconds; name another file with --results" in capsys.readouterr().err
    assert json.loads(results.read_text()) == again


def test_every_method_is_a_network_or_a_baseline_in_the_order_of_years() -> None:
    years = [method.year for method in history.METHODS.values()]
    assert years == sorted(years)
    assert all((method.variant is None) != (method.features is None) for method in history.METHODS.values())
