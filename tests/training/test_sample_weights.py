"""Weights and soft labels in the loss, balanced classes, and the same training in every layout."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stripes import striped_image
from torch.nn import functional

from alexnet.data.dataset import PreparedDataset
from alexnet.data.loading import balanced_order
from alexnet.data.preparation import prepare
from alexnet.runs.recipe import Recipe, recipes
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.training.sample_weights import class_masses, training_targets
from alexnet.training.steps import mean_loss
from alexnet.training.train import set_up_training, train

CLASSES = ("lying", "standing")
WORKER = Path(__file__).parents[1] / "parallel" / "layout_worker.py"


def recipe(**changes: Any) -> Recipe:
    return recipes()["paper"].override(changes)


def make_data(folder: Path, **columns: Any) -> Path:
    """9 lying and 14 standing stripes to train on, 4 to validate, with columns as functions of the number."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", *columns])
        for number in range(27):
            standing = number % 5 in (1, 2, 4)
            striped_image(rng, standing, 72).save(folder / f"{number}.png")
            row = [function(number) for function in columns.values()]
            label = "standing" if standing else "lying"
            writer.writerow([f"{number}.png", label, "train" if number < 23 else "val", *row])
    prepare(folder / "images.csv", folder / "data", size=72, progress=False, workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with whole weights from 0 to 3 and confidences."""
    folder = tmp_path_factory.mktemp("weighted")
    return make_data(folder, weight=lambda n: n % 4, confidence=lambda n: 0.6 if n % 3 else 1)


def logits_for(count: int) -> torch.Tensor:
    return torch.randn((count, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_weight_of_k_equals_k_repetitions_of_the_image(weighted: Path) -> None:
    split = PreparedDataset.open(weighted).split("train")
    targets = training_targets(split, recipe(), CLASSES)
    assert targets is not None
    assert split.weights is not None
    assert split.targets is not None
    logits, everything = logits_for(len(split)), np.arange(len(split))
    repeated = np.repeat(everything, split.weights.astype(int))
    loss = mean_loss(logits, torch.from_numpy(split.labels), recipe(), targets(everything))
    reference = functional.cross_entropy(logits[repeated], torch.from_numpy(split.targets[repeated]).double())
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_labels_are_those_of_torch(tmp_path: Path, smoothing: float) -> None:
    split = PreparedDataset.open(make_data(tmp_path, confidence=lambda n: 1 - n / 40)).split("train")
    chosen = recipe(label_smoothing=smoothing)
    targets = training_targets(split, chosen, CLASSES)
    assert targets is not None
    assert split.targets is not None
    logits = logits_for(len(split))
    loss = mean_loss(logits, torch.from_numpy(split.labels), chosen, targets(np.arange(len(split))))
    soft = torch.from_numpy(split.targets).double()
    torch.testing.assert_close(loss, functional.cross_entropy(logits, soft, label_smoothing=smoothing))


def test_balanced_class_weights_are_those_of_scikit_learn(striped_folder: Any, tmp_path: Path) -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    prepare(striped_folder(4, 12), tmp_path / "data", size=72, progress=False, workers=1)
    split = PreparedDataset.open(tmp_path / "data").split("train")
    chosen = recipe(class_weights="balanced")
    targets = training_targets(split, chosen, CLASSES)
    assert targets is not None
    weights = targets(np.arange(len(split))).sum(1).numpy()
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", split.labels))
    assert class_masses(split, chosen, targets) == pytest.approx([8, 8])


def test_class_weights_of_a_file_multiply_those_of_the_images(weighted: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.csv"
    file.write_text("class,weight\nstanding,1\nlying,3\n")
    split = PreparedDataset.open(weighted).split("train")
    assert split.weights is not None
    chosen = recipe(class_weights=str(file))
    assert chosen == recipe(class_weights={"lying": 3, "standing": 1})
    file.write_bytes("class;weight\nstanding;1,0\nlying;3,0\n".encode("utf-16"))  # as a spreadsheet program saves it
    assert recipe(class_weights=str(file)) == chosen
    assert Recipe.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    assert not chosen.differing({"class_weights": str(file)})
    targets = training_targets(split, chosen, CLASSES)
    assert targets is not None
    expected = split.weights * np.where(split.labels == 0, 3, 1)
    np.testing.assert_allclose(targets(np.arange(len(split))).sum(1).numpy(), expected / expected.mean())


def test_class_weights_that_are_none_are_refused(weighted: Path, tmp_path: Path) -> None:
    for text, message in (
        ("class,weight\nlying,0\nstanding,1\n", "must be a number above 0"),
        ("class,weight\nlying,2\nlying,1\n", "two weights"),
        ("name,weight\nlying,2\n", "must have class and weight"),
    ):
        (tmp_path / "weights.csv").write_text(text)
        with pytest.raises(AlexNetError, match=message):
            recipe(class_weights=str(tmp_path / "weights.csv"))
    with pytest.raises(UsageError, match="none, balanced, or a CSV file"):
        recipe(class_weights="balance")
    for weights, message in (({"lying": 2}, "no weight for class 'standing'"), (dict.fromkeys("ab", 1), "lying")):
        with pytest.raises(UsageError, match=message):
            train(weighted, tmp_path / "run", recipe=recipe(class_weights=weights))
    assert not (tmp_path / "run").exists()


def test_without_weights_the_loss_has_no_targets(striped_data: Path) -> None:
    assert training_targets(PreparedDataset.open(striped_data).split("train"), recipe(), CLASSES) is None


def test_a_balanced_epoch_has_as_many_images_of_each_class(weighted: Path) -> None:
    split = PreparedDataset.open(weighted).split("train")
    order = balanced_order(split, np.random.default_rng(0))
    assert len(order) == len(split)
    counts = np.bincount(split.labels[order])
    assert counts.max() - counts.min() <= 1
    for label in (0, 1):
        times = np.bincount(order, minlength=len(split))[split.labels == label]
        assert times.max() - times.min() <= 1
    assert (order == balanced_order(split, np.random.default_rng(0))).all()
    assert (order != balanced_order(split, np.random.default_rng(1))).any()


def test_balancing_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="rare classes would count twice"):
        recipe(class_weights="balanced", sampler="balanced")


TRAINING: dict[str, Any] = {
    **{"recipe": "paper", "variant": "narrow", "crop_size": 64, "batch_size": 11, "lr": 0.002},
    **{"pixel_scaling": "std", "precision": "float64", "seed": 5, "epochs": 2},
}


def run_all(folder: Path, processes: int, trainings: list[dict[str, Any]]) -> None:
    listed = folder / f"trainings-{processes}.json"
    listed.write_text(json.dumps(trainings), encoding="utf-8")
    command = [sys.executable, str(WORKER), str(listed)]
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


@pytest.mark.long
def test_every_layout_trains_with_the_same_weights_and_soft_labels(weighted: Path, tmp_path: Path) -> None:
    blocks = {"variant": "narrow-weird", "sampler": "balanced"}
    options = {"data": {}, "towers": {}, "one-weird-trick": blocks}

    def training(name: str, out: str, **more: Any) -> dict[str, Any]:
        recipe = {**TRAINING, **options[name]}
        return {"data": str(weighted), "out": str(tmp_path / out), "options": more, "recipe": recipe, "steps": 4}

    run_all(tmp_path, 1, [training(name, f"one {name}") for name in options])
    run_all(tmp_path, 2, [training(name, f"two {name}", parallel=name) for name in options])
    plain = {**training("data", "plain"), "data": str(make_data(tmp_path / "unweighted"))}
    run_all(tmp_path, 1, [plain])
    for name in options:
        one, two = state_of(tmp_path / f"one {name}"), state_of(tmp_path / f"two {name}")
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-8)
    assert any(
        (state_of(tmp_path / "plain")[key] != value).any() for key, value in state_of(tmp_path / "one data").items()
    )


def test_a_resumed_weighted_training_is_bitwise_identical(weighted: Path, tmp_path: Path) -> None:
    changes = {**TRAINING, "variant": "convolutions", "precision": "float32", "sampler": "balanced"}
    for name, stops in (("whole", [None]), ("resumed", [2, None])):
        for number, stop in enumerate(stops):
            given = {} if number else changes
            set_up_training(weighted, tmp_path / name, resume=number > 0, **given).train(stop)
    whole, resumed = state_of(tmp_path / "whole"), state_of(tmp_path / "resumed")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
