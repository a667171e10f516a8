"""The starter: the five convolutions that come with the package."""

from __future__ import annotations

from pathlib import Path

from alexnet.cli.main import main
from alexnet.training.train import set_up_training
from alexnet.weights.importing import STARTER_FILE, find_weights

CONVOLUTIONS = ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_the_starter_in_the_package_is_five_convolutions_under_five_megabytes():
    start = find_weights("starter")
    assert STARTER_FILE.stat().st_size < 5_000_000
    assert start.variant == "convolutions"
    convolutions = [array for name, array in start.weights.items() if name.startswith("conv")]
    assert sum(array.numel() for array in convolutions) == 2_332_704  # of the paper's 2,334,080 less 1,376 biases
    kept_for_measuring = "n01882714 n02099601 n02123045 n02504458 n03100240 n04146614 n04285008 n07747607 n09246464"
    assert set(start.config.classes).isdisjoint(kept_for_measuring.split())


def test_small_images_start_from_it_unless_told_otherwise(tmp_path: Path, striped_data: Path, capsys):
    changes = {"crop_size": 64, "input_size": 64, "early_input_size": 64, "precision": "float32"}
    started = set_up_training(striped_data, tmp_path / "a", recipe="small", **changes)
    assert started.run.config.start["layers"] == CONVOLUTIONS
    assert "pretrained weights from the starter features: conv1 to conv5" in capsys.readouterr().err
    assert set_up_training(striped_data, tmp_path / "b", recipe="small", init="he", **changes).run.config.start is None


def test_a_network_that_it_does_not_fit_starts_from_scratch_and_says_so(tmp_path: Path, striped_data: Path, capsys):
    changes = {
        "crop_size": 64,
        "input_size": 64,
        "early_input_size": 64,
        "precision": "float32",
        "variant": "one-weird-trick",
    }
    training = set_up_training(striped_data, tmp_path / "run", recipe="small", **changes)
    assert training.recipe.init == "he"
    message = "no layer of the starter features fits this network (conv1: 96×3×11×11 there, 64×3×11×11 here"
    assert message in capsys.readouterr().err
    out = tmp_path / "asked"
    asked = ["train", str(striped_data), "--out", str(out), "--init", "starter", "--variant", "one-weird-trick"]
    assert main([*asked, "--crop-size", "64", "--precision", "float32"]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
