"""Sampling and order of the trials of `alexnet reproduce transfer`; the trainings themselves take hours."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data.dataset import PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.experiments import transfer
from alexnet.experiments.image_sets import prepared_size
from alexnet.experiments.transfer import METHODS, Trial, _sample, _summary, _trials
from alexnet.experiments.trials import train_once
from alexnet.training.train import set_up_training
from alexnet.weights.importing import STARTER_FILE


@pytest.fixture
def without_fully_connected_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """fc6 and fc7 take most of the time."""
    monkeypatch.setattr(transfer, "set_up_training", functools.partial(set_up_training, variant="convolutions"))


@pytest.fixture(scope="module")
def dataset(striped_folder, tmp_path_factory) -> PreparedDataset:
    data = tmp_path_factory.mktemp("transfer") / "data"
    return prepare(striped_folder(3, 24), data, size=72, progress=False)


@pytest.mark.parametrize("images", [2, 9, 18])
def test_training_images_are_sampled_evenly_and_from_every_class(dataset, tmp_path: Path, images: int):
    drawn = [PreparedDataset.open(_sample(dataset, Trial("x", images, "probe", seed), tmp_path)) for seed in (0, 1)]
    for one in drawn:
        assert one.classes == dataset.classes
        counts = one.split("train").class_counts
        assert sum(counts) == images
        assert min(counts) >= 1
        assert counts[1] >= counts[0]
    known, *ours = (_labels_of_images(one) for one in (dataset, *drawn))
    assert all(len(one) == images and one.items() <= known.items() for one in ours)
    assert ours[0].keys() != ours[1].keys()


def _labels_of_images(dataset: PreparedDataset) -> dict[bytes, int]:
    split = dataset.split("train")
    return {image.tobytes(): label for image, label in (split[i] for i in range(len(split)))}


def test_trials_that_can_be_sampled_come_in_order_of_size(dataset):
    names = [trial.name for trial in _trials({"x": dataset}, [0, 1])]
    assert names == [f"x/{size}/{way}/{seed}" for size in (12, "all") for seed in (0, 1) for way in METHODS]


def test_the_table_has_mean_and_standard_deviation_over_the_seeds():
    measured = {Trial("x", None, "probe", seed): {"accuracy": 0.5 + seed / 10, "seconds": seed} for seed in (0, 1, 2)}
    (row,) = _summary(measured)
    assert (row["images"], row["seeds"], row["seconds"]) == ("all", [0, 1, 2], 1)
    assert (row["mean"], row["standard_deviation"]) == pytest.approx((0.6, np.std([0.5, 0.6, 0.7], ddof=1)))


def test_an_interrupted_probe_is_repeated(dataset, tmp_path: Path, monkeypatch, without_fully_connected_layers):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    trial = Trial("x", None, "probe", 0)
    with monkeypatch.context() as crop:
        crop.setattr(transfer, "probe", stopped)
        with pytest.raises(KeyboardInterrupt):
            transfer._measure(trial, dataset, tmp_path, tmp_path / "run", "starter")
    assert transfer._measure(trial, dataset, tmp_path, tmp_path / "run", "starter")["accuracy"] > 0.5


def test_the_time_before_an_interruption_counts(dataset, tmp_path: Path, monkeypatch):
    changes = {"variant": "convolutions", "epochs": 1, "crop_size": 64, "batch_size": 24}
    monkeypatch.setattr(transfer.demo, "CHANGES", changes)
    trial = Trial(transfer.SOLAR, None, "scratch", 0)
    run = train_once(dataset.path, tmp_path / "run", seed=0, init="he", **changes)
    (epoch,) = run.metrics("epoch")
    assert transfer._measure(trial, dataset, tmp_path, tmp_path / "run", "he")["seconds"] > epoch["seconds"] > 0.1


def test_other_weights_add_two_methods_to_the_results(
    striped_folder, tmp_path: Path, command, monkeypatch, without_fully_connected_layers
):
    monkeypatch.setattr(transfer.solar_cells, "write_source", lambda _: striped_folder(3, 24, splits=("train", "test")))
    weights = tmp_path / "Other One.safetensors"
    weights.write_bytes(STARTER_FILE.read_bytes())
    results = tmp_path / "transfer.json"
    arguments = ("reproduce", "transfer", "--seeds", 0, "--out", tmp_path / "out", "--results", results)
    done = command(*arguments, "--init", weights, "--only", "solar/all/other-one-probe", "--only", "solar/all/probe")
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text(encoding="utf-8"))
    assert report["init"]["name"] == "other-one"
    assert report["init"]["layers"].split() == [f"{kind}{n}" for kind in ("batch", "conv") for n in range(1, 6)]
    assert len(report["init"]["checksum"]) == 64
    assert report["command"].endswith("--init Other One.safetensors")
    of_starter = tmp_path / "out" / report["starter"][:8]
    assert (of_starter / "solar-all-probe-0.json").exists(), "another starter does not find the trials of this one"
    assert not list((of_starter / "runs").rglob("*.*"))
    trials = report["trials"]
    assert trials.keys() == {"solar/all/other-one-probe/0", "solar/all/probe/0"}
    assert trials["solar/all/other-one-probe/0"]["accuracy"] == trials["solar/all/probe/0"]["accuracy"]

    weights.rename(tmp_path / "starter.safetensors")
    done = command(*arguments, "--init", tmp_path / "starter.safetensors")
    assert done.returncode == 2
    assert "starter is already the name of a method; rename the file" in done.stderr
    done = command(*arguments, "--init", "nowhere.pth")
    assert done.returncode == 1
    assert "nowhere.pth can't be read: No such file or directory" in done.stderr
    done = command("reproduce", "transfer", "--out", tmp_path / "out2", "--data", tmp_path / "nowhere")
    assert done.returncode == 1
    assert not (tmp_path / "out2").exists()


@pytest.mark.long
def test_trials_of_an_existing_results_file_are_kept_with_their_command(
    tmp_path: Path, striped_folder, command, without_fully_connected_layers
):
    results = tmp_path / "transfer.json"
    earlier = {"accuracy": 0.5, "seconds": 3.0, "date": "2026-01-01", "machine": "another"}
    before = {"sets": {"other": {"train": 9}}, "trials": {"other/all/probe/0": earlier}, "command": "alexnet earlier"}
    results.write_text(json.dumps(before), encoding="utf-8")
    source = striped_folder(3, 24, splits=("train", "test"))
    arguments = ("--data", source, "--only", f"{source.name}/all/probe", "--seeds", 0, "--out", tmp_path / "out")
    done = command("reproduce", "transfer", *arguments, "--results", results)
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text(encoding="utf-8"))
    assert report["trials"].keys() == {"other/all/probe/0", f"{source.name}/all/probe/0"}
    assert report["trials"]["other/all/probe/0"] == {"command": "alexnet earlier", **earlier}
    assert report["sets"]["other"] == {"train": 9}
    assert [row["set"] for row in report["table"]] == ["other", source.name]

    other_starter = {**before, "starter": "0123456789abcdef"}
    other_starter["trials"] = {f"other/all/{method}/0": earlier for method in ("starter", "probe", "scratch")}
    results.write_text(json.dumps(other_starter), encoding="utf-8")
    done = command("reproduce", "transfer", *arguments, "--results", results)
    assert done.returncode == 0, done.stderr
    again = json.loads(results.read_text(encoding="utf-8"))
    assert again["starter"] == report["starter"] != other_starter["starter"]
    methods = {name.split("/")[2] for name in again["trials"] if name.startswith("other")}
    assert methods == {"starter-01234567", "starter-01234567-probe", "scratch"}
    assert again["trials"][f"{source.name}/all/probe/0"] == report["trials"][f"{source.name}/all/probe/0"]


@pytest.mark.parametrize(("side", "size"), [(64, 64), (65, 256)])
def test_larger_images_are_prepared_at_full_size(tmp_path: Path, side: int, size: int):
    for name in "ab":
        (tmp_path / "source" / name).mkdir(parents=True)
        Image.new("RGB", (40, side)).save(tmp_path / "source" / name / "1.png")
    assert prepared_size(tmp_path / "source") == size
