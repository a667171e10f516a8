"""A finished run keeps what it needs, in 16 bits where the predictions allow it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_resume import RECIPE

from alexnet.data.dataset import PreparedDataset
from alexnet.runs.run import MEAN, Run
from alexnet.training import stored_weights
from alexnet.weights.importing import find_weights


@pytest.fixture(scope="module")
def float32(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(striped_data, tmp_path_factory.mktemp("stored") / "run", "--weights-dtype", "float32")


def trained(data: Path, out: Path, *more: str) -> Path:
    from alexnet.cli.main import main

    assert main(["train", str(data), "--out", str(out), *RECIPE, "--epochs", "2", *more]) == 0
    return out


def test_a_finished_run_has_neither_checkpoint_nor_other_weights(float32: Path) -> None:
    names = {file.name for file in float32.iterdir() if file.stat().st_size}
    assert names == {"classes.json", "config.json", "metrics.jsonl", "model.safetensors", "tensorboard"}


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_the_rounded_weights_of_float32(
    striped_data: Path, tmp_path: Path, float32: Path, name: str
) -> None:
    out = trained(striped_data, tmp_path / "run", "--weights-dtype", name)
    ours, theirs = load_file(out / "model.safetensors"), load_file(float32 / "model.safetensors")
    for key, value in theirs.items():
        wide = key == MEAN or value.ndim < 2 or not value.is_floating_point()
        assert torch.equal(ours[key], value if wide else value.to(getattr(torch, name)))
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["recipe"]["weights_dtype"] == name
    network, _ = Run.open(out).load()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert torch.equal(find_weights(str(out)).weights["conv1.weight"], network.conv1.weight)


def test_the_choice_by_measurement_says_what_it_measured(
    striped_data: Path, tmp_path: Path, float32: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(stored_weights, "MIN_BYTES", 0)
    out = trained(striped_data, tmp_path / "halved", "--weights-dtype", "auto")
    assert "weights stored as float16: on 24 images of val float16 changes a probability by at most" in (
        capsys.readouterr().err
    )
    assert (out / "model.safetensors").stat().st_size < 0.8 * (float32 / "model.safetensors").stat().st_size
    networks = [Run.open(run).load() for run in (out, float32)]
    images = torch.from_numpy(np.array(PreparedDataset.open(striped_data).split("val").gather(np.arange(24))))
    with torch.inference_mode():
        one, two = (network(preprocess.center(images)).softmax(1) for network, preprocess in networks)
    assert (one - two).abs().max() <= stored_weights.TOLERANCE
    monkeypatch.setattr(stored_weights, "TOLERANCE", -1)
    kept = trained(striped_data, tmp_path / "kept", "--weights-dtype", "auto")
    assert "weights stored as float32: on 24 images" in capsys.readouterr().err
    assert (kept / "model.safetensors").read_bytes() == (float32 / "model.safetensors").read_bytes()
