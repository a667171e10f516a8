"""A cross-validation predicts with the mean of its networks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import make_run
from stripes import striped_image

from alexnet import evaluate
from alexnet.data.dataset import PreparedDataset
from alexnet.inspection.comparison import compare
from alexnet.prediction.classifier import Classifier


@pytest.fixture(scope="module")
def cv(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cv") / "cv"
    for number in (1, 2, 3):
        make_run(folder / f"fold-{number}", striped_data, seed=number, variant="convolutions")
    (folder / "crossval.json").write_text(
        json.dumps({"folds": {"1": {}, "2": {}}}), encoding="utf-8"
    )  # the third is not finished
    return folder


def test_predict_and_sort_average_the_finished_folds(cv: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        striped_image(rng, number % 2 == 0, 72).save(images / f"{number}.png")
    files = sorted(images.iterdir())
    alone = [Classifier.load(cv / f"fold-{number}").predict(files, top=2) for number in (1, 2)]
    expected = [
        {label: (dict(one.top)[label] + dict(two.top)[label]) / 2 for label in dict(one.top)}
        for one, two in zip(*alone, strict=True)
    ]
    done = command("predict", cv, images, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "the mean of 2 members" in done.stderr
    found = [{entry["label"]: entry["probability"] for entry in row["top"]} for row in json.loads(done.stdout)]
    for one, two in zip(found, expected, strict=True):
        assert one == pytest.approx(two, abs=1e-6)
    done = command("sort", cv, images, "--to", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    for file, probabilities in zip(files, expected, strict=True):
        assert (tmp_path / "out" / max(probabilities, key=probabilities.__getitem__) / file.name).is_file()


def test_evaluate_and_compare_take_the_finished_folds(cv: Path, striped_data: Path) -> None:
    found = evaluate(cv, striped_data, split="val", views=1)
    assert found.runs == [str(cv / "fold-1"), str(cv / "fold-2")]
    assert found.log_loss == evaluate(found.runs, striped_data, split="val", views=1).log_loss
    (pair,) = compare([cv, cv / "fold-1"], striped_data, split="val", views=1).pairs
    assert (pair.first, pair.second) == (str(cv), str(cv / "fold-1"))
    assert pair.accuracy.first == found.accuracy


def test_a_cross_validation_without_a_finished_fold_says_what_to_do(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "crossval.json").write_text('{"folds": {}}', encoding="utf-8")
    (tmp_path / "image.png").write_bytes(b"")
    done = command("predict", tmp_path, tmp_path / "image.png")
    assert done.returncode == 1
    assert "no fold of" in done.stderr.splitlines()[-1]


def test_the_dataset_that_was_cross_validated_is_not_another_one(
    cv: Path, striped_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folds were trained on parts of it, so their records have other checksums."""
    folder = tmp_path / "cv"
    shutil.copytree(cv, folder)
    for number in (1, 2):
        config = folder / f"fold-{number}" / "config.json"
        values = json.loads(config.read_text("utf-8"))
        values["dataset"]["checksum"] = "of a part"
        config.write_text(json.dumps(values), encoding="utf-8")
    evaluate(folder, striped_data, split="val", views=1)
    assert "another dataset" in capsys.readouterr().err
    settings = {"data": PreparedDataset.open(striped_data).checksums()}
    (folder / "crossval.json").write_text(json.dumps({"settings": settings, "folds": {"1": {}}}), encoding="utf-8")
    evaluate(folder, striped_data, split="val", views=1)
    assert "another dataset" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", [("report",), ("export", "--to", "safetensors")])
def test_a_verb_that_needs_one_run_names_what_works(
    verb: tuple[str, ...], cv: Path, command: Callable[..., Any]
) -> None:
    done = command(verb[0], cv, *verb[1:])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"is a cross-validation: name one of its runs, such as {cv / 'fold-1'} (predict, evaluate" in done.stderr
