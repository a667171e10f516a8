"""LeNet-5 and ResNet in the training loop; data parallel training of residual blocks: parallel/test_layouts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import alexnet
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
