"""`alexnet reproduce recipe-ablation` and `from-nothing`: their tables, and a quick form of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from alexnet.cli.main import main
from alexnet.experiments.ablation import FULL
from alexnet.experiments.recipe_trials import TABLES
from alexnet.runs.recipe import recipes


def made_of(table: str) -> dict[str, dict]:
    """The recipe of each training, by name."""
    found = {}
    for name in TABLES[table].changes:
        recipe, values = TABLES[table].values(name)
        found[name] = recipes()[recipe].override(values).to_dict()
    return found


def test_each_change_of_the_ablation_alters_one_part_of_the_recipe() -> None:
    made = made_of("recipe-ablation")
    full = made.pop(FULL)
    differing = {name: {key for key in full if full[key] != one[key]} for name, one in made.items()}
    assert differing["sgd"] == {"optimizer", "lr", "weight_decay"}  # a rate and a decay that suit it
    assert differing["no-crops"] == {"crop_position", "flip"}
    assert all(len(changed) == 1 for name, changed in differing.items() if name not in ("sgd", "no-crops"))
    assert {key for key in full if full[key] != recipes()["small"].to_dict()[key]} == {
        *("init", "epochs", "input_size", "early_input_size")
    }


def test_each_step_from_nothing_keeps_those_before_it_until_the_recipe_changes() -> None:
    made = made_of("from-nothing")
    changed = [{key for key in made[a] if made[a][key] != made[b][key]} for a, b in pairwise(made)]
    assert changed[:3] == [{"init", "pixel_scaling"}, {"batch_size", "schedule", "warmup"}, {"normalization"}]
    paper, small = recipes()["paper"].to_dict(), recipes()["small"].to_dict()
    assert {key for key in paper if made["paper"][key] != paper[key]} == {"epochs", "input_size"}
    assert {key for key in small if made["small"][key] != small[key]} == {
        *("init", "epochs", "input_size", "early_input_size")
    }
    assert made["small"]["epochs"] == made["paper"]["epochs"]


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
def test_two_trainings_of_a_table_are_measured_once(
    table: str, striped_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = striped_folder(14, 13, 64)
    arguments = ["reproduce", table, "--quick", "--data", str(images), "--out", str(tmp_path), "--seeds", "0"]
    assert main(arguments) == 0
    file = next(tmp_path.glob(f"{table}*.json"))
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert list(report["changes"]) == list(TABLES[table].changes)[:2]
    assert report["chance_loss"] == pytest.approx(0.6931, abs=1e-4)
    for entry in report["changes"].values():
        assert 0 <= entry["ten_views"]["mean"] <= 1
        assert len(entry["trials"]["0"]["train_loss"]) == 1
    assert not list(tmp_path.rglob("model.safetensors"))
    capsys.readouterr()
    assert main(arguments) == 0
    assert "training: " not in capsys.readouterr().err


@pytest.mark.parametrize("table", TABLES)
def test_an_image_set_must_be_named(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", table]) == 2
    assert f"{table} takes one image set: give --data once" in capsys.readouterr().err
