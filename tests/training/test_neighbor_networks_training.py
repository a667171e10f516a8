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
    ["lenet5-1998", pytest.param("lenet5", marks=pytest.mark.long), pytest.param("resnet18", marks=pytest.mark.long)],
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
def test_resnet_has_a_report_a_search_and_a_page_with_its_shortcuts(
    striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    run = alexnet.train(striped_data, tmp_path / "run", variant="resnet18", **{**QUICK, "epochs": 1})
    page = Path(command("report", run.path, "--data", striped_data).stdout.strip()).read_text(encoding="utf-8")
    assert "pool5" in page, "the layer whose activations are compared"
    striped_image(np.random.default_rng(0), True, 72).save(tmp_path / "query.png")
    found = command("search", run.path, tmp_path / "query.png", "--data", striped_data)
    assert "Euclidean distance in pool5" in found.stderr
    network, _ = run.load()
    assert drawing(network, 64).count('class="shortcut"') == 8
