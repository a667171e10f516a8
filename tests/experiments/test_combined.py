"""`alexnet reproduce combined` in its quick form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet.cli.main import main
from alexnet.experiments.combined import METHODS, _scores


@pytest.mark.long
def test_a_network_a_baseline_and_their_average_are_measured_once(
    striped_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = striped_folder(14, 13, 64)
    results = tmp_path / "combined.json"
    arguments = ["reproduce", "combined", "--quick", "--data", str(images), "--out", str(tmp_path / "out")]
    arguments += ["--results", str(results)]
    assert main([*arguments, "--seeds", "0"]) == 0
    report = json.loads(results.read_text(encoding="utf-8"))
    (name, row) = next(iter(report["table"].items()))
    assert row["seeds"] == 1
    assert "together" not in row
    trial = report["trials"][f"{name}/0"]
    assert set(METHODS) <= set(trial)
    assert trial["baseline"]["accuracy"] > 0.9, "stripes are what gradients see"
    assert trial["network"]["log_loss"] > trial["average"]["log_loss"]
    assert row["difference"]["values"] == [trial["average"]["accuracy"] - trial["network"]["accuracy"]]
    assert not list((tmp_path / "out").rglob("*.safetensors"))

    capsys.readouterr()
    assert main([*arguments, "--seeds", "0", "1"]) == 0
    assert f"{name}/0:" not in capsys.readouterr().err, "measured before"
    row = json.loads(results.read_text(encoding="utf-8"))["table"][name]
    kept = [np.load(tmp_path / "out" / name / f"{seed}.npz") for seed in (0, 1)]
    labels, found = kept[0]["labels"], np.concatenate([one["probabilities"] for one in kept])
    assert row["together"]["seeds"] == [0, 1]
    assert row["together"]["average"] == _scores(found.mean(axis=0), labels)
    assert row["together"]["networks"] == _scores(found[::2].mean(axis=0), labels)
    assert row["together"]["baselines"] == _scores(found[1::2].mean(axis=0), labels)

    assert main([*arguments, "--seeds", "0"]) == 0
    assert json.loads(results.read_text(encoding="utf-8"))["table"][name]["together"] == row["together"], "kept"


def test_scores_are_those_of_the_definitions() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    found = _scores(probabilities, np.array([0, 1, 1, 1]))
    assert found["accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.3, 0.8]).mean())
    assert found["roc_auc"] == 1.0, "every image of class 1 has a higher probability of it than that of class 0"
    assert _scores(np.full((2, 3), 1 / 3), np.array([0, 2]))["roc_auc"] is None
