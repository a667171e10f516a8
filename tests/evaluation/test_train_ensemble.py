"""`alexnet train --networks`: several networks and their mean, interrupted, continued and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import SMALL_TRAINING
from safetensors.torch import load_file

from alexnet import evaluate
from alexnet.evaluation import train_ensemble as module
from alexnet.evaluation.ensemble import members_of
from alexnet.evaluation.train_ensemble import _Settings, train_ensemble
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.training.train import train

TRAINING = {name: value for name, value in SMALL_TRAINING.items() if name != "views"}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TRAINING.items()]


def weights(run: Path) -> dict[str, Any]:
    (file,) = run.glob("*.safetensors")
    return load_file(file)


def test_the_networks_are_those_of_single_trainings_and_their_mean_is_evaluated(
    striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "ensemble"
    done = command("train", striped_data, "--out", out, "--networks", 2, "--seed", 5, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert [run.name for run in members_of(out)] == ["network-1", "network-2"]
    alone = train(striped_data, tmp_path / "alone", seed=6, **TRAINING)
    for name, tensor in weights(alone.path).items():
        assert np.array_equal(tensor, weights(out / "network-2")[name]), name
    errors = [1 - evaluate(out / f"network-{number}", striped_data, views=1).accuracy for number in (1, 2)]
    mean = 1 - evaluate(out, striped_data, views=1).accuracy
    said = f"the mean of 2 networks; validation error {mean:.2%}, of the single networks {min(errors):.2%} to"
    assert said in done.stderr
    again = command("train", striped_data, "--out", out, "--networks", 2, *OPTIONS)
    assert again.returncode == 1
    assert f"{out} exists already; continue it with --resume" in again.stderr


def test_an_interrupted_ensemble_continues_with_its_own_settings_and_can_be_enlarged(
    striped_data: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ensemble"
    calls = []

    def interrupted(data: Path, run: Path, **options: Any) -> None:
        calls.append(run.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        train(data, run, **options)

    monkeypatch.setattr(module, "train", interrupted)
    done = command("train", striped_data, "--out", out, "--networks", 2, *OPTIONS)
    assert done.returncode == 130
    assert f"interrupted in network 2 of 2; continue with `alexnet train {striped_data} --out {out} --resume`" in (
        done.stderr
    )
    assert [run.name for run in members_of(out)] == ["network-1"]

    for wrong, message in (
        (["--epochs", 2], "was begun with another epochs"),
        (["--recipe", "paper"], "was begun with another recipe"),
        (["--processes", 2], "leave out --processes"),
    ):
        refused = command("train", striped_data, "--out", out, "--resume", *wrong)
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr

    done = command("train", striped_data, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert calls == ["network-1", "network-2", "network-2"], "the first is not trained again"
    done = command("train", striped_data, "--out", out, "--resume", "--networks", 3, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert len(members_of(out)) == 3
    recipes = [json.loads((run / "config.json").read_text(encoding="utf-8"))["recipe"] for run in members_of(out)]
    assert [recipe.pop("seed") for recipe in recipes] == [0, 1, 2]
    assert recipes[0] == recipes[1] == recipes[2]
    fewer = command("train", striped_data, "--out", out, "--resume", "--networks", 2)
    assert fewer.returncode == 2
    assert "has 3 finished ones" in fewer.stderr


def test_a_refused_training_leaves_nothing(striped_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "ensemble"
    for changes in ({"epochs": 0}, {"crop_size": 500}, {"no_such_value": 1}, {"budget": "5m", "epochs": 3}):
        with pytest.raises(UsageError):
            train_ensemble(striped_data, out, networks=2, **changes)
        assert not out.exists(), changes
    with pytest.raises(UsageError, match="at least 2"):
        train_ensemble(striped_data, out, networks=1)
    with pytest.raises(AlexNetError, match="not an ensemble that"):
        train_ensemble(striped_data, out, resume=True)
    (out / "something").mkdir(parents=True)
    with pytest.raises(AlexNetError, match="exists already; name another folder"):
        train_ensemble(striped_data, out, networks=2)
    assert [file.name for file in out.iterdir()] == ["something"]


def test_a_budget_is_divided_and_what_is_left_of_it_goes_to_the_others() -> None:
    settings = _Settings(3, "auto", {"budget": 900.0, "seed": 4}, [])
    assert settings.changes_of(1) == {"budget": 300, "seed": 4}
    settings = _Settings(3, "auto", {"budget": 900.0}, [240.0])
    assert settings.changes_of(2) == {"budget": 330, "seed": 1}
    settings = _Settings(3, "auto", {"budget": 900.0}, [500.0, 500.0])
    assert settings.changes_of(3)["budget"] == 150, "half of an equal part: never nothing"
    assert "budget" not in _Settings(3, "auto", {}, [1.0]).changes_of(2)


@pytest.mark.long
def test_a_budget_makes_as_many_networks(striped_data: Path, tmp_path: Path, capsys: Any) -> None:
    options = {**TRAINING, "budget": "40s"}
    del options["epochs"]
    runs = train_ensemble(striped_data, tmp_path / "ensemble", networks=2, **options)
    assert len(runs) == 2
    assert "of the budget of 20 s" in capsys.readouterr().err
