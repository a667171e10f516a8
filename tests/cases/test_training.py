"""Situations of a training that users reported elsewhere: who writes, what is finished, room, divergence, one step."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alexnet.data.preparation import prepare
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.training import loop
from alexnet.training.diagnostics import EpochValidation
from alexnet.training.train import set_up_training, train

QUICK = {
    "recipe": "paper",
    "variant": "convolutions",
    "init": "he",
    "pixel_scaling": "std",
    "crop_size": 64,
    "epochs": 2,
    "batch_size": 8,
    "lr": 1e-4,
    "precision": "float64",
}


def test_a_second_training_on_a_run_folder_is_refused(tmp_path: Path, striped_data: Path, command):
    out = tmp_path / "run"
    first = set_up_training(striped_data, out, **QUICK)
    done = command("train", striped_data, "--out", out, "--resume")
    assert done.returncode == 1
    assert f"{out} is in use: another training writes to it" in done.stderr
    with pytest.raises(AlexNetError, match="exists already"):
        train(striped_data, out, **QUICK)
    code = "import sys; from alexnet.training.train import train; train(*sys.argv[1:], resume=True)"
    other = subprocess.run(
        [sys.executable, "-c", code, striped_data, out], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "is in use" in other.stderr
    first.train(1)
    train(striped_data, out, resume=True)  # the lock is free again
    assert Run.open(out).finished


def test_a_finished_run_says_so_and_how_to_train_further(tmp_path: Path, striped_data: Path, command):
    out = tmp_path / "my run"
    train(striped_data, out, **QUICK)
    assert not (out / "checkpoint.pt").exists()
    before = (out / "model.safetensors").stat().st_mtime_ns
    done = command("train", tmp_path / "no-such-dataset", "--out", out, "--resume")  # said before anything is read
    assert done.returncode == 0
    assert f"{out} is finished (2 epochs): nothing is left to train" in done.stderr
    remedy = shlex.split(done.stderr.split("`")[1])
    assert remedy == ["alexnet", "train", str(striped_data), "--out", f"{out}-2", "--init", str(out)]
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=f"leave out epochs, or start a new run from its weights with --init '{out}'"):
        train(striped_data, out, resume=True, epochs=9)
    quick = {**QUICK, "epochs": 1}
    given = [part for name, value in quick.items() if name != "init" for part in (f"--{name.replace('_', '-')}", value)]
    assert command(*remedy[1:], *given).returncode == 0
    assert Run.open(f"{out}-2").config.start["layers"][-1] == "logits"


def test_a_finished_run_keeps_its_checkpoint_where_that_is_asked_for(tmp_path: Path, striped_data: Path):
    run = train(striped_data, tmp_path / "run", keep_checkpoint=True, **{**QUICK, "epochs": 1})
    assert (run.path / "checkpoint.pt").exists()
    assert run.finished


def test_a_disk_without_room_is_found_before_the_first_step(tmp_path: Path, striped_data: Path, monkeypatch, command):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    done = command("train", striped_data, "--out", tmp_path / "run", "--crop-size", 64)
    assert done.returncode == 1
    assert re.search(r"no room for the run: weights and checkpoints take [\d.]+ GB, .* has 1.0 MB free", done.stderr)
    assert not (tmp_path / "run").exists()


def test_an_estimate_of_the_room_covers_what_a_run_takes(tmp_path: Path, striped_data: Path):
    from alexnet.training.train import run_bytes

    run = train(striped_data, tmp_path / "run", keep_checkpoint=True, **{**QUICK, "epochs": 1})
    taken = sum(file.stat().st_size for file in run.path.glob("*.*") if file.suffix in (".pt", ".safetensors"))
    with torch.device("meta"):
        estimated = run_bytes(run.config.network(), run.config.recipe)
    checkpoint = (run.path / "checkpoint.pt").stat().st_size
    assert taken + checkpoint == pytest.approx(estimated, rel=0.15)  # the next checkpoint is written beside the last


@pytest.mark.long
def test_a_loss_that_explodes_without_a_nan_is_a_divergence(tmp_path: Path, striped_folder, command):
    data = tmp_path / "data"
    prepare(striped_folder(34, 33), data, size=72, progress=False)
    how = ("--recipe", "paper", "--init", "he", "--lr", "0.01", "--precision", "float64", "--batch-size", "16")
    done = command("train", data, "--out", tmp_path / "run", "--crop-size", 64, "--epochs", 1, *how)
    assert "with a tenth of the learning rate" in done.stderr
    assert not re.search(r"\d{8}", done.stderr)  # a loss with 87 digits
    if done.returncode == 0:
        weights = load_file(tmp_path / "run" / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in weights.values())
    else:
        assert "train with a smaller one, such as --lr" in done.stderr


def test_a_validation_loss_of_nan_is_a_divergence(tmp_path: Path, striped_data: Path, monkeypatch, capsys):
    measured = loop.validate
    losses = [float("nan")]

    def validate(*arguments: object) -> EpochValidation:
        validation = measured(*arguments)
        return EpochValidation(losses.pop(), *list(vars(validation).values())[1:]) if losses else validation

    monkeypatch.setattr(loop, "validate", validate)
    run = train(striped_data, tmp_path / "run", **QUICK)
    said = capsys.readouterr().err
    assert "NaN or Inf at step 3, first in the validation loss; rolled back to step 0, with a tenth" in said
    (rollback,) = run.metrics("rollback")
    assert (rollback["step"], rollback["diverged_at"]) == (0, 3)
    assert [epoch["lr"] for epoch in run.metrics("epoch")] == pytest.approx([1e-5, 1e-5])


def test_weights_that_are_infinite_once_saved_are_a_divergence(tmp_path: Path, striped_data: Path, capsys):
    """float64 holds what float32, the format of the saved weights, does not."""
    training = set_up_training(striped_data, tmp_path / "run", **QUICK)
    with torch.no_grad():
        training.state.network.get_submodule("conv5").bias[0] = -1e300  # ReLU makes it 0
    training.train()
    assert "first in the weights of conv5; rolled back to step 0" in capsys.readouterr().err
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_training_of_one_step_learns_and_says_that_it_is_one(tmp_path: Path, striped_data: Path, capsys):
    how = {"recipe": "small", "variant": "convolutions", "init": "he", "whiten": False}
    how |= {"crop_size": 64, "input_size": 64, "early_input_size": 64}
    training = set_up_training(striped_data, tmp_path / "run", batch_size=64, epochs=1, precision="float32", **how)
    before = {name: weight.clone() for name, weight in training.state.layer_weights()}
    training.train()
    assert "one batch holds all 24 training images: the whole training is one step" in capsys.readouterr().err
    (epoch,) = training.run.metrics("epoch")
    assert epoch["lr"] > 0
    unchanged = [name for name, weight in training.state.layer_weights() if torch.equal(weight, before[name])]
    assert not unchanged
