"""LeNet-5 and ResNet in the training loop; data parallel training of residual blocks: parallel/test_layouts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stripes import striped_image

import alexnet
from alexnet.serve.network_drawing import drawing
from alexnet.training.train import set_up_training

QUICK = {"recipe": "paper", "crop_size": 64, "epochs": 2, "batch_size": 16, "precision": "float32", "init": "he"}


@pytest.mark.parametrize(
    "variant",
    [
        "lenet5-1998",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("lenet5", "resnet18", "resnet50", "vgg11")),
    ],
)
def test_a_resumed_training_ends_bitwise_identical(striped_data: Path, tmp_path: Path, variant: str) -> None:
    whole = alexnet.train(striped_data, tmp_path / "whole", variant=variant, **QUICK)
    interrupted = set_up_training(striped_data, tmp_path / "again", variant=variant, **QUICK)
    interrupted.train(last_step=3)
    del interrupted
    again = alexnet.train(striped_data, tmp_path / "again", resume=True)
    expected, found = load_file(whole.weights_file()), load_file(again.weights_file())
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    evaluation = alexnet.evaluate(again.path, striped_data, views=10)
    assert len(evaluation.predictions.labels) > 0


def test_lenet5_is_trained_and_used_in_bfloat16_and_comes_back_from_onnx(striped_data: Path, tmp_path: Path) -> None:
    changes = {**QUICK, "epochs": 1, "precision": "bfloat16"}
    run = alexnet.train(striped_data, tmp_path / "run", variant="lenet5-1998", **changes)
    evaluation = alexnet.evaluate(run.path, striped_data, precision="bfloat16", views=1)
    assert np.isfinite(evaluation.log_loss)
    again = alexnet.import_weights(alexnet.export(run.path, "onnx", tmp_path / "model"), tmp_path / "again")
    weights, found = load_file(run.weights_file()), load_file(again.weights_file())
    assert all(torch.equal(weights[name].float(), found[name].float()) for name in weights)


@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "layer", "shortcuts"), [("resnet18", "pool5", 8), ("resnet50", "pool5", 16), ("vgg11", "fc7", 0)]
)
def test_a_neighbor_has_a_report_a_search_an_export_and_a_page_with_its_shortcuts(
    striped_data: Path, tmp_path: Path, command: Callable[..., Any], variant: str, layer: str, shortcuts: int
) -> None:
    run = alexnet.train(striped_data, tmp_path / "run", variant=variant, **{**QUICK, "epochs": 1})
    page = Path(command("report", run.path, "--data", striped_data).stdout.strip()).read_text(encoding="utf-8")
    assert layer in page, "the layer whose activations are compared"
    striped_image(np.random.default_rng(0), True, 72).save(tmp_path / "query.png")
    found = command("search", run.path, tmp_path / "query.png", "--data", striped_data)
    assert f"Euclidean distance in {layer}" in found.stderr
    network, _ = run.load()
    assert drawing(network, 64).count('class="shortcut"') == shortcuts
    again = alexnet.import_weights(alexnet.export(run.path, "onnx", tmp_path / "model"), tmp_path / "again")
    errors = [alexnet.evaluate(path, striped_data, views=10).log_loss for path in (run.path, again.path)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("variant", ["resnet50", "vgg11"])
def test_two_processes_train_a_neighbor_as_one(
    striped_data: Path, tmp_path: Path, command: Callable[..., Any], variant: str
) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (QUICK | {"epochs": 1, "lr": 0.001}).items()]
    for name, processes in (("one", []), ("two", ["--processes", 2])):
        command("train", striped_data, "--out", tmp_path / name, "--variant", variant, *options, *processes)
    one, two = (load_file(alexnet.Run.open(tmp_path / name).weights_file()) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name].float(), one[name].float(), rtol=1e-2, atol=1e-3)
