"""Cross-validation: folds, out-of-fold predictions, and continuation after an interruption."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import SMALL_TRAINING

import alexnet
from alexnet.data.dataset import PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.inspection import crossval
from alexnet.inspection.crossval import CrossValidation, assign_folds, cross_validate
from alexnet.prediction.classifier import Classifier
from alexnet.runtime.errors import AlexNetError, UsageError


def test_folds_have_the_same_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 23, 7])
    assigned = assign_folds(labels, 5, seed=0)
    for label, count in enumerate([50, 23, 7]):
        sizes = np.bincount(assigned[labels == label], minlength=5)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1


def test_the_seed_determines_the_folds() -> None:
    labels = np.repeat([0, 1], 20)
    assert (assign_folds(labels, 4, seed=1) == assign_folds(labels, 4, seed=1)).all()
    assert (assign_folds(labels, 4, seed=1) != assign_folds(labels, 4, seed=2)).any()


def test_images_of_a_group_are_in_one_fold() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(30, size=200)
    labels = (groups % 3 == 0).astype(int)
    assigned = assign_folds(labels, 5, 0, groups)
    assert all(len(set(assigned[groups == group])) == 1 for group in set(groups))
    shares = [labels[assigned == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.15


def test_impossible_folds_are_refused(striped_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folds is 1"):
        assign_folds(np.zeros(5, dtype=int), 1, 0)
    with pytest.raises(UsageError, match="no class has 4 images"):
        assign_folds(np.repeat([0, 1], 3), 4, 0)
    with pytest.raises(UsageError, match="2 groups for 3 folds"):
        assign_folds(np.zeros(6, dtype=int), 3, 0, np.repeat([0, 1], 3))
    with pytest.raises(UsageError, match="4 groups for 6 images"):
        assign_folds(np.zeros(6, dtype=int), 3, 0, np.arange(4))
    with pytest.raises(UsageError, match="has 12 training images for 13 folds"):
        cross_validate(striped_data, tmp_path / "cv", folds=13)
    assert not (tmp_path / "cv").exists()


@pytest.fixture(scope="module")
def data(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with the splits train, val and test."""
    path = tmp_path_factory.mktemp("folds") / "data"
    prepare(striped_folder(6, 9, splits=("train", "val", "test")), path, size=72, progress=False)
    return path


@pytest.fixture(scope="module")
def result(data: Path, tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    return cross_validate(data, tmp_path_factory.mktemp("result") / "cv", folds=3, **SMALL_TRAINING)


def test_the_held_out_images_of_all_folds_are_the_training_images(result: CrossValidation, data: Path) -> None:
    source = PreparedDataset.open(data)
    whole = source.split("train")
    seen: list[str] = []
    for number in (1, 2, 3):
        fold = PreparedDataset.open(result.path / "data" / f"fold-{number}")
        paths = {name: [fold.split(name).paths(i) for i in range(n)] for name, n in fold.counts.items()}
        assert not set(paths["train"]) & set(paths["test"])
        assert len(paths["train"]) + len(paths["test"]) == len(whole)
        assert paths["val"] == [source.split("val").paths(i) for i in range(source.counts["val"])]
        assert not any(path.startswith("test/") for names in paths.values() for path in names)
        seen += paths["test"]
    assert sorted(seen) == sorted(whole.paths(i) for i in range(len(whole)))


def test_out_of_fold_predictions_are_those_of_the_network_that_did_not_see_the_image(
    result: CrossValidation, data: Path
) -> None:
    split = PreparedDataset.open(data).split("train")
    with (result.path / "out-of-fold.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [split.paths(i) for i in range(len(split))]
    assert [row["label"] for row in rows] == [result.class_names[label] for label in split.labels]
    assert {row["repeat"] for row in rows} == {"1"}
    for number in (1, 2, 3):
        members = [i for i, row in enumerate(rows) if row["fold"] == str(number)]
        held_out = PreparedDataset.open(result.path / "data" / f"fold-{number}").split("test")
        assert [rows[i]["path"] for i in members] == [held_out.paths(i) for i in range(len(held_out))]
        expected = Classifier.load(result.runs[number - 1]).probabilities(split.gather(np.array(members)))
        found = [[float(rows[i][f"probability_{name}"]) for name in result.class_names] for i in members]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_metrics_are_the_mean_and_deviation_over_the_folds(result: CrossValidation) -> None:
    losses, recalls = [], []
    for number, run in enumerate(result.runs, 1):
        fold = result.path / "data" / f"fold-{number}"
        evaluation = alexnet.evaluate(run, fold, split="test", views=1, positive="lying")
        losses.append(evaluation.log_loss)
        recalls.append(evaluation.per_class()["standing"]["recall"])
    assert result.metrics["log_loss"] == pytest.approx(losses)
    assert result.metrics["recall of standing"] == pytest.approx(recalls)
    assert result.mean["log_loss"] == pytest.approx(sum(losses) / 3)
    mean = sum(losses) / 3
    assert result.std["log_loss"] == pytest.approx((sum((x - mean) ** 2 for x in losses) / 2) ** 0.5)
    assert "roc_auc" in result.metrics
    summary = json.loads((result.path / "crossval.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["log_loss"]["std"] == result.std["log_loss"]
    assert summary["metrics"]["log_loss"]["folds"] == result.metrics["log_loss"]


def test_the_runs_form_an_ensemble(result: CrossValidation, data: Path) -> None:
    runs = sorted(result.path.glob("fold-*"))
    assert runs == result.runs
    ensemble = alexnet.evaluate(runs, data, split="test", views=1)
    split = PreparedDataset.open(data).split("test")
    images = split.gather(np.arange(len(split)))
    average = np.mean([Classifier.load(run).probabilities(images) for run in runs], axis=0)
    expected = average[np.arange(len(split)), split.labels]
    np.testing.assert_allclose(ensemble.predictions.label_probability, expected, atol=1e-6)


def test_finished_folds_are_not_trained_again(
    result: CrossValidation, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(crossval, "train", refuse)
    again = cross_validate(data, result.path, folds=3, **SMALL_TRAINING)
    assert again.metrics == result.metrics


def test_an_interrupted_fold_is_resumed_with_the_same_result(
    result: CrossValidation, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fold is done, the second was trained but not evaluated, the third was not begun."""
    out = tmp_path / "cv"
    evaluate_fold = crossval._evaluate_fold

    def interrupt(run: Path, *arguments: Any) -> Any:
        if run.name == "fold-2":
            raise KeyboardInterrupt
        return evaluate_fold(run, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(crossval, "_evaluate_fold", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(data, out, folds=3, **SMALL_TRAINING)
    assert list(json.loads((out / "crossval.json").read_text(encoding="utf-8"))["folds"]) == ["1"]
    trained = (out / "fold-2" / "model.safetensors").stat().st_mtime_ns
    resumed = cross_validate(data, out, folds=3, **SMALL_TRAINING)
    assert (out / "fold-2" / "model.safetensors").stat().st_mtime_ns == trained
    assert resumed.metrics == result.metrics
    assert (out / "out-of-fold.csv").read_bytes() == (result.path / "out-of-fold.csv").read_bytes()


def test_more_repeats_add_folds(result: CrossValidation, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "cv"
    shutil.copytree(result.path, out)
    trained: list[str] = []

    def copy(_: Any, run: Path, **__: Any) -> None:
        trained.append(run.name)
        shutil.copytree(result.runs[0], run)

    monkeypatch.setattr(crossval, "train", copy)
    repeated = cross_validate(data, out, folds=3, repeats=2, **SMALL_TRAINING)
    assert trained == ["fold-4", "fold-5", "fold-6"]
    assert repeated.metrics["log_loss"][:3] == result.metrics["log_loss"]
    with (out / "out-of-fold.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows[:15]] == [row["path"] for row in rows[15:]]
    assert {row["fold"] for row in rows[15:]} == {"4", "5", "6"}


def test_other_settings_are_refused(result: CrossValidation, data: Path, striped_data: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="begun with another folds: use the same settings"):
        cross_validate(data, result.path, folds=2, **SMALL_TRAINING)
    with pytest.raises(AlexNetError, match="begun with another changes"):
        cross_validate(data, result.path, folds=3, **SMALL_TRAINING | {"epochs": 2})
    with pytest.raises(AlexNetError, match="begun with another data"):
        cross_validate(striped_data, result.path, folds=3, **SMALL_TRAINING)
    (tmp_path / "file").touch()
    with pytest.raises(AlexNetError, match="is not a cross-validation"):
        cross_validate(data, tmp_path, folds=3, **SMALL_TRAINING)


def test_the_command_prints_mean_and_deviation(
    result: CrossValidation, data: Path, command: Callable[..., Any]
) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL_TRAINING.items()]
    done = command("crossval", data, "--out", result.path, "--folds", 3, *options)
    assert done.returncode == 0
    assert f"{result.mean['log_loss']:.4f} ± {result.std['log_loss']:.4f}" in done.stdout
    values = json.loads(command("crossval", data, "--out", result.path, "--folds", 3, *options, "--json").stdout)
    assert values["metrics"]["log_loss"]["folds"] == result.metrics["log_loss"]
