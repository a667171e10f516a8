"""Pretrained weights: the layers that are loaded, the messages, and what the network then computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from random_runs import make_run

from alexnet.cli.main import main
from alexnet.data.dataset import PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.network.model import AlexNet
from alexnet.runs import checkpoint
from alexnet.runs.config import Config
from alexnet.runs.recipe import Recipe, recipes
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError
from alexnet.training.findings import worse_than_pretrained
from alexnet.training.pretrained import fold_batch_norm, match_layers, pretrained_depths
from alexnet.training.train import set_up_training
from alexnet.weights.foreign import ForeignWeights
from alexnet.weights.torchvision import layers_of

CONVOLUTIONS = ["conv1", "conv2", "conv3", "conv4", "conv5"]
QUICK = ("--recipe", "paper", "--crop-size", "64", "--epochs", "1", "--batch-size", "8", "--precision", "float32")


def config(recipe: Recipe, classes: list[str], scale: float = 1.0) -> Config:
    return Config(recipe, classes, size=72, crop_size=64, input_size=64, scale=scale, dataset={})


def source(network: AlexNet, classes: list[str], scale: float = 1.0) -> ForeignWeights:
    """The network as a file of others would give it."""
    return ForeignWeights(
        "a test's", network.variant.name, network.state_dict(), torch.zeros(3), 64, scale=scale, classes=classes
    )


def lively(network: AlexNet) -> AlexNet:
    """Weights and statistics of batch normalization that are all different."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var") or (name.startswith("batch") and name.endswith("weight")):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, 0.05, generator=generator)
    return network.eval()


@torch.no_grad()
def test_the_same_network_in_another_unit_of_pixels_computes_the_same():
    """Batch normalization folded in, conv1 rescaled, all layers taken: the logits of the source, to rounding."""
    there = lively(AlexNet("paper", 2, normalization="batch"))
    recipe = recipes()["paper"].override({"normalization": "none"})
    here = config(recipe, ["a", "b"], scale=0.25)
    start = match_layers(source(there, ["a", "b"], scale=1 / 64), here, "there")
    assert start.layers == [*CONVOLUTIONS, "fc6", "fc7", "logits"]
    assert start.skipped == {}
    network = here.network().eval()
    network.load_state_dict(start.weights)
    pixels = torch.randn(2, 3, 99, 99, generator=torch.Generator().manual_seed(0)) * 50
    expected = there.double()(pixels.double() / 64)
    assert torch.allclose(network.double()(pixels.double() * 0.25), expected, rtol=1e-4, atol=1e-7)
    assert expected.std() > 1e-3


def test_folding_is_the_identity_without_batch_normalization():
    network = AlexNet("paper", 2)
    state = network.state_dict()
    assert fold_batch_norm(state, network.variant.batch_norms()).keys() == state.keys()


@pytest.mark.parametrize(
    ("there", "here", "layers", "why"),
    [
        ({"num_classes": 5}, {}, [*CONVOLUTIONS, "fc6", "fc7"], {"logits": "other classes"}),
        (
            {"variant": "one-weird-trick"},
            {},
            [],
            {"conv1": "64×3×11×11 there, 96×3×11×11 here", "conv2": "192×64×5×5 there, 256×48×5×5 here"},
        ),
        (
            {"variant": "one-tower"},
            {},
            ["conv1"],
            {"conv2": "256×96×5×5 there, 256×48×5×5 here", "conv3": "above conv2"},
        ),
        (
            {"variant": "convolutions", "normalization": "batch"},
            {"normalization": "batch"},
            CONVOLUTIONS,
            {"fc6": "not there", "fc7": "not there"},
        ),
        ({}, {"normalization": "batch"}, [*CONVOLUTIONS, "fc6", "fc7", "logits"], {}),
    ],
)
def test_layers_are_loaded_from_the_lowest_to_the_first_that_does_not_fit(there, here, layers, why):
    network = lively(AlexNet(**{"num_classes": 2, **there}))
    names = [f"class {number}" for number in range(network.num_classes)]
    start = match_layers(source(network, names), config(recipes()["paper"].override(here), names[:2]), "there")
    assert start.layers == layers
    assert {layer: start.skipped[layer] for layer in why} == why
    assert set(start.layers).isdisjoint(start.skipped)


@pytest.mark.long
def test_train_from_a_run_reports_the_loaded_layers_and_a_linear_probe(tmp_path: Path, striped_data: Path, capsys):
    run = make_run(tmp_path / "before", striped_data, seed=1)
    assert main(["train", str(striped_data), "--out", str(tmp_path / "run"), "--init", str(run), *QUICK]) == 0
    said = capsys.readouterr().err
    assert f"pretrained weights from {run}: conv1 to logits" in said
    assert "before training, the pretrained weights give " in said
    assert "linear probe on fc7)" in said
    made = Run.open(tmp_path / "run")
    assert made.config.start["layers"] == [*CONVOLUTIONS, "fc6", "fc7", "logits"]
    (known,) = [record for record in made.metrics() if record["event"] == "probe"]
    assert known["layer"] == "fc7"
    assert (known["measured"], known["split"], known["majority"]) == (24, "val", 0.5)
    assert 0 <= known["accuracy"] <= 1


def test_convolutions_under_torchvisions_names_are_started_from_and_are_no_network_to_import(
    tmp_path: Path, striped_data: Path, capsys
):
    """A backbone without a last layer, as others publish them."""
    generator = torch.Generator().manual_seed(5)
    names = {theirs: ours for theirs, ours in layers_of("one-weird-trick").items() if ours in CONVOLUTIONS}
    network = AlexNet("one-weird-trick", 2)
    for theirs in names.values():
        torch.nn.init.kaiming_normal_(network.get_submodule(theirs).weight, generator=generator)
    state = {
        f"{theirs}.{kind}": getattr(network.get_submodule(ours), kind).detach()
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
    }
    file, run = tmp_path / "backbone.pth", tmp_path / "run"
    torch.save(state, file)
    assert main(["train", str(striped_data), "--out", str(run), "--init", str(file), *QUICK]) == 0
    assert (
        f"pretrained weights from {file}: conv1 to conv5; fc6 initialized: not there; fc7 initialized: not there"
        in capsys.readouterr().err
    )
    made = Run.open(run).config
    assert (made.recipe.variant, made.start["layers"]) == ("one-weird-trick", CONVOLUTIONS)
    assert main(["import", str(file), "--out", str(tmp_path / "imported")]) == 1
    assert f"starts from it, `alexnet train DATA --init {file} --out run`" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()


def test_a_training_that_ends_below_the_linear_probe_is_a_finding(tmp_path: Path, striped_data: Path, capsys):
    """The kernels of the starter tell stripes apart; a last layer that is nothing but a bias does not."""
    how = {
        "variant": "convolutions",
        "init": "starter",
        "crop_size": 64,
        "epochs": 1,
        "batch_size": 24,
        "lr": 1e-9,
        "precision": "float32",
    }
    training = set_up_training(striped_data, tmp_path / "run", recipe="paper", **how)
    with torch.no_grad():
        training.state.network.get_submodule("logits").weight.zero_()
        training.state.network.get_submodule("logits").bias[0] = 1
    training.train()
    said = capsys.readouterr().err
    assert "before training, the pretrained weights give 100.0% accuracy on 24 val images" in said
    assert "the validation accuracy is 50.0% at the end, and was 100.0% before the training, by a linear probe" in said
    assert (
        "train longer, such as `--epochs 3`, or train the loaded layers more slowly: `--pretrained-lr-scale 0.1`"
        in said
    )
    (finding,) = [one for one in training.run.metrics("finding") if one["kind"] == "worse-than-pretrained"]
    assert finding["where"] == "conv5"


@pytest.mark.parametrize(("accuracy", "error", "told"), [(0.9, 0.3, 1), (0.9, 0.12, 0), (0.5, 0.1, 0)])
def test_only_a_significant_difference_is_worse_than_the_linear_probe(accuracy: float, error: float, told: int):
    known = {"layer": "conv5", "split": "val", "measured": 100, "accuracy": accuracy}
    assert len(worse_than_pretrained(known, error, recipes()["small"])) == told
    assert worse_than_pretrained({**known, "split": "train"}, 1.0, recipes()["small"]) == []


@pytest.mark.long
def test_a_training_from_a_run_begins_with_its_weights_and_resumes_without_it(tmp_path: Path, striped_data: Path):
    before = make_run(tmp_path / "before", striped_data, seed=1)
    expected, _ = Run.open(before).load()
    changes = {"init": str(before), "crop_size": 64, "epochs": 2, "batch_size": 12, "precision": "float32"}
    training = set_up_training(striped_data, tmp_path / "run", recipe="paper", **changes)
    # The source's pixels are divided by 64, the recipe's are not.
    weight = training.state.network.get_submodule("conv1").weight
    assert torch.allclose(weight, expected.get_submodule("conv1").weight / 64, rtol=1e-5)
    assert torch.equal(training.state.network.get_submodule("fc7").weight, expected.get_submodule("fc7").weight)
    assert pretrained_depths(training.run.config)["conv1"] == 7
    training.train(1)
    assert checkpoint.exists(tmp_path / "run")
    (before / "model.safetensors").unlink()
    set_up_training(striped_data, tmp_path / "run", resume=True).train(2)


def test_resuming_before_the_first_checkpoint_asks_for_the_same_weights(tmp_path: Path, striped_data: Path):
    before = make_run(tmp_path / "before", striped_data, seed=1)
    changes = {"init": str(before), "crop_size": 64, "epochs": 2, "batch_size": 12, "precision": "float32"}
    set_up_training(striped_data, tmp_path / "run", recipe="paper", **changes)
    (make_run(tmp_path / "other", striped_data, seed=2) / "model.safetensors").replace(before / "model.safetensors")
    with pytest.raises(AlexNetError, match="have changed since"):
        set_up_training(striped_data, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("startr", "no init 'startr'"),
        ("{tmp}/empty", "holds neither model.safetensors"),
        ("{tmp}/text", "is not a weight file of a known format"),
    ],
)
def test_invalid_weights_end_in_one_line_and_no_run(init, message, tmp_path: Path, striped_data: Path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("weights", encoding="utf-8")
    init = init.format(tmp=tmp_path)
    assert main(["train", str(striped_data), "--out", str(tmp_path / "run"), "--init", init, *QUICK]) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("alexnet: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_the_network_of_a_run_is_kept_unless_another_is_asked_for(tmp_path: Path, striped_data: Path):
    before = make_run(tmp_path / "before", striped_data, seed=1)
    path = before / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["recipe"] |= {"variant": "caffe"}
    path.write_text(json.dumps(values), encoding="utf-8")
    changes = {"init": str(before), "crop_size": 64, "precision": "float32"}
    assert set_up_training(striped_data, tmp_path / "a", recipe="small", **changes).recipe.variant == "caffe"
    assert set_up_training(striped_data, tmp_path / "a2", recipe="small", **changes).recipe.normalization is None
    asked = set_up_training(striped_data, tmp_path / "b", recipe="small", variant="paper", **changes)
    assert asked.recipe.variant == "paper"


def test_other_classes_and_another_size_of_images_keep_all_but_the_last_layer(
    tmp_path: Path, striped_data: Path, striped_folder
):
    before = make_run(tmp_path / "before", striped_data, seed=1)
    folder = striped_folder(4, 4, size=100)
    (folder / "train" / "lying").rename(folder / "train" / "flat")
    (folder / "val" / "lying").rename(folder / "val" / "flat")
    prepare(folder, tmp_path / "data", size=100, progress=False)
    training = set_up_training(
        tmp_path / "data", tmp_path / "run", recipe="paper", init=str(before), crop_size=90, precision="float32"
    )
    assert training.run.config.start["skipped"] == {"logits": "other classes"}
    assert np.isfinite(training.state.network.get_submodule("fc6").weight.detach().numpy()).all()


def test_a_dataset_of_one_image_a_class_has_no_probe(tmp_path: Path, striped_folder):
    from alexnet.training.linear_probe import probe

    prepare(striped_folder(1, 1, splits=("train",)), tmp_path / "data", size=72, split={}, progress=False)
    dataset = PreparedDataset.open(tmp_path / "data")
    run = Run.open(make_run(tmp_path / "run", tmp_path / "data", seed=0, variant="convolutions"))
    assert probe(*run.load(), dataset.split("train"), None, "conv5") is None


def test_a_linear_probe_separates_classes_that_a_feature_separates(tmp_path: Path, striped_data: Path, monkeypatch):
    """Horizontal and vertical stripes differ in the features of oriented kernels, random or not."""
    from alexnet.training.linear_probe import probe

    dataset = PreparedDataset.open(striped_data)
    network, preprocess = Run.open(make_run(tmp_path / "run", striped_data, seed=0, variant="convolutions")).load()
    known = probe(network, preprocess, dataset.split("train"), dataset.split("val"), "conv1")
    assert known is not None
    assert (known.split, known.measured, known.majority) == ("val", 24, 0.5)
    assert known.accuracy > 0.9
    left_out = probe(network, preprocess, dataset.split("train"), None, "conv1")
    assert left_out is not None
    assert (left_out.split, left_out.measured) == ("train", 24)
    assert left_out.accuracy > 0.9
    # Random labels cannot be learned.
    mixed = dataset.split("train")
    monkeypatch.setattr(mixed, "labels", np.random.default_rng(0).permutation(mixed.labels))
    none = probe(network, preprocess, mixed, None, "conv1")
    assert none is not None
    assert none.accuracy < 0.8
