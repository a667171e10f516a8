"""A training that was stopped, killed or thrown back ends as the one that was not. Real processes, real signals."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alexnet.training.train import set_up_training

PAPER = (
    *("--recipe", "paper", "--init", "he", "--pixel-scaling", "std", "--crop-size", "64", "--epochs", "6"),
    *("--batch-size", "6", "--lr", "0.001", "--patience", "2", "--seed", "3", "--precision", "float32"),
)
# Without the fully connected layers: few bytes to write. Dropout is in the layouts of test_parallel.
RECIPE = (*PAPER, "--variant", "convolutions")


def train(data: Path, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "alexnet", "train", str(data), "--out", str(out)]
    command += ["--keep-checkpoint", *more]  # and the last weights
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def whole(data: Path, out: Path, *more: str) -> str:
    process = train(data, out, *more)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def learned(run: Path) -> list[tuple]:
    """The metrics of the training, without the times."""
    return [(r["event"], r["step"], r.get("loss"), r.get("train_loss"), r.get("validation_loss")) for r in metrics(run)]


def assert_same_end(run: Path, undisturbed: Path) -> None:
    for name in ("model.safetensors", "last.safetensors"):
        ours, theirs = load_file(run / name), load_file(undisturbed / name)
        assert ours.keys() == theirs.keys()
        different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
        assert not different
    assert learned(run) == learned(undisturbed)


@pytest.fixture(scope="module")
def undisturbed(striped_data, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    whole(striped_data, run, *RECIPE)
    return run


@pytest.mark.long
def test_killed_at_ten_random_moments(striped_data, tmp_path):
    whole(striped_data, tmp_path / "undisturbed", *PAPER)
    out, moments = tmp_path / "run", random.Random(0)
    every_step = ("--checkpoint-interval", "0.2")
    process = train(striped_data, out, *PAPER, *every_step)
    for _ in range(10):
        while not (out / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 2.5))
        process.kill()
        process.communicate()
        # Killed before it had a configuration, a run has nothing to resume: it starts again.
        again = ("--resume",) if (out / "config.json").exists() else PAPER
        process = train(striped_data, out, *again, *every_step)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert_same_end(out, tmp_path / "undisturbed")
    assert not list(out.glob(".*tmp")), "a killed writer's leftovers"


def test_an_interrupted_training_saves_names_the_command_to_resume_and_resumes(striped_data, undisturbed, tmp_path):
    out = tmp_path / "my run"
    process = train(striped_data, out, *RECIPE)
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text(encoding="utf-8"):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    line = next(line for line in said.splitlines() if "continue with: " in line)
    assert shlex.split(line.partition("continue with: ")[2]) == [
        *("alexnet", "train", str(striped_data), "--out", str(out), "--resume")
    ]
    whole(striped_data, out, "--resume")
    assert_same_end(out, undisturbed)


def test_resuming_a_finished_run_changes_nothing(command, striped_data, undisturbed):
    before = (undisturbed / "model.safetensors").read_bytes()
    done = command("train", striped_data, "--out", undisturbed, "--resume")
    assert done.returncode == 0
    assert f"{undisturbed} is finished (6 epochs)" in done.stderr
    assert f"--init {undisturbed}" in done.stderr
    assert (undisturbed / "model.safetensors").read_bytes() == before


def test_a_loss_of_nan_rolls_back_once_then_ends_with_the_layer_named(command, striped_data, tmp_path):
    wild = tuple("1e30" if value == "0.001" else value for value in RECIPE)
    done = command("train", striped_data, "--out", tmp_path / "run", *wild)
    said = done.stderr
    assert done.returncode == 1
    assert "rolled back to step 0, with a tenth of the learning rate" in said
    assert said.count("first in the weights of conv1") + said.count("first in the activations of") == 2
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--recipe", "papre"), 2, "unknown recipe 'papre'; choose from: auto, paper"),
        (("--variant", "vgg"), 2, "unknown variant 'vgg'; choose from: paper"),
        (("--epochs", "0"), 2, "epochs is 0"),
        (("--crop-size", "300"), 2, "the crop size is 300"),
        (("--device", "cuda:77"), 2, "'cuda:77' is not available"),
        (
            ("--epochs", "many"),
            2,
            "alexnet train: argument --epochs: invalid int value: 'many'; see alexnet train --help",
        ),
    ],
)
def test_invalid_usage_ends_in_one_line_and_leaves_nothing(command, striped_data, tmp_path, arguments, code, message):
    done = command("train", striped_data, "--out", tmp_path / "run", *arguments)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_dataset_or_no_run(command, striped_data, tmp_path, undisturbed):
    for data, out, more, message in (
        (tmp_path, tmp_path / "run", (), "is not a prepared dataset"),
        (striped_data, undisturbed, (), "exists already; continue it with --resume, or name another folder with --out"),
        (striped_data, striped_data, (), "exists already; name another folder with --out"),
        (striped_data, tmp_path / "none", ("--resume",), "is not a run folder"),
        (
            striped_data,
            undisturbed,
            ("--resume", "--epochs", "9"),
            "leave out epochs, or start a new run from its weights with --init",
        ),
    ):
        done = command("train", data, "--out", out, *more)
        assert done.returncode in (1, 2)
        assert message in done.stderr.splitlines()[-1]


def test_a_damaged_checkpoint_is_named(command, striped_data, tmp_path):
    out = tmp_path / "run"
    changes = {"variant": "convolutions", "init": "he", "crop_size": 64, "epochs": 2, "precision": "float32"}
    set_up_training(striped_data, out, recipe="paper", **changes).train(1)
    os.truncate(out / "checkpoint.pt", 100_000)
    done = command("train", striped_data, "--out", out, "--resume")
    assert done.returncode == 1
    assert "checkpoint.pt can't be read" in done.stderr.splitlines()[-1]
