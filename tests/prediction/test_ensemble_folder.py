"""A folder of `alexnet ensemble` predicts with the mean of its members."""

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
from alexnet.baselines.baseline import fit_baseline
from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.ensemble import make_ensemble, members_of
from alexnet.prediction.ensemble import load_classifier
from alexnet.runs.decision import KINDS
from alexnet.runtime.errors import AlexNetError


@pytest.fixture(scope="module")
def parts(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a baseline and a cross-validation of two folds."""
    folder = tmp_path_factory.mktemp("parts")
    make_run(folder / "run", striped_data, seed=1, variant="convolutions")
    fit_baseline(striped_data, folder / "base", features="hog")
    for number in (1, 2):
        make_run(folder / "cv" / f"fold-{number}", striped_data, seed=number + 1, variant="convolutions")
    (folder / "cv" / "crossval.json").write_text(json.dumps({"folds": {"1": {}, "2": {}}}), encoding="utf-8")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        striped_image(rng, number % 2 == 0, 72).save(folder / f"{number}.png")
    return folder


def test_predict_sort_evaluate_and_compare_use_the_mean(
    parts: Path, images: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    both = tmp_path / "both"
    done = command("ensemble", parts / "base", parts / "run", "--out", both)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{both}: the mean of 2 members"
    assert [member.name for member in members_of(both)] == ["run", "base"], "networks first"
    files = sorted(images.iterdir())
    alone = [load_classifier(parts / name).predict(files, top=2) for name in ("run", "base")]
    expected = [
        {label: np.mean([dict(p.top)[label] for p in pair]) for label in dict(pair[0].top)}
        for pair in zip(*alone, strict=True)
    ]
    done = command("predict", both, images, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "the mean of 2 members, run to base" in done.stderr
    for row, one in zip(json.loads(done.stdout), expected, strict=True):
        assert {entry["label"]: entry["probability"] for entry in row["top"]} == pytest.approx(one, abs=1e-6)
    done = command("sort", both, images, "--to", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    for file, one in zip(files, expected, strict=True):
        assert (tmp_path / "out" / max(one, key=one.__getitem__) / file.name).is_file()
    found = evaluate(both, striped_data, split="val", views=1)
    assert found.log_loss == evaluate([parts / "run", parts / "base"], striped_data, split="val", views=1).log_loss
    done = command("compare", both, parts / "run", "--data", striped_data, "--split", "val", "--views", "1")
    assert done.returncode == 0, done.stderr


def test_members_are_folds_and_members_each_once_and_move_together(parts: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(parts, moved)
    first = make_ensemble([moved / "base", moved / "cv"], moved / "first")
    assert [path.name for path in first] == ["fold-1", "fold-2", "base"]
    second = make_ensemble([moved / "first", moved / "run", moved / "base"], moved / "second")
    assert [path.name for path in second] == ["fold-1", "fold-2", "run", "base"]
    shutil.move(moved, tmp_path / "elsewhere")
    assert all(member.is_dir() for member in members_of(tmp_path / "elsewhere" / "second"))


def test_what_cannot_be_averaged_leaves_no_folder(
    parts: Path, striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    other = tmp_path / "other"
    shutil.copytree(parts / "base", other)
    config = json.loads((other / "baseline.json").read_text("utf-8"))
    (other / "baseline.json").write_text(json.dumps({**config, "classes": ["a", "b"]}), encoding="utf-8")
    darker = tmp_path / "darker"
    shutil.copytree(parts / "base", darker)
    pixel_range = {"black": 0, "white": 4095, "origin": "option"}
    (darker / "baseline.json").write_text(json.dumps({**config, "pixel_range": pixel_range}), encoding="utf-8")
    for members, message in (
        ([parts / "run", darker], "have another range of pixel values"),
        ([parts / "run", parts / "run"], "needs two different members"),
        ([parts / "run", other], "different classes"),
        ([parts / "run", tmp_path / "missing"], "does not exist"),
        ([parts / "run", parts], "is not a run folder, a cross-validation, a baseline or an ensemble"),
    ):
        done = command("ensemble", *members, "--out", out)
        assert (done.returncode, message in done.stderr, len(done.stderr.splitlines())) == (1, True, 1), done.stderr
        assert not out.exists()
    done = command("ensemble", parts / "run", parts / "base", "--out", parts / "cv")
    assert (done.returncode, "exists already" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"members": []}', "cannot be read"),
        ('{"members": [], "format_version": 1}', "names no member"),
        ('{"members": ["../gone"], "format_version": 1}', "which is not there"),
        ('{"members": ["../run"], "format_version": 2}', "this version reads 1"),
    ],
)
def test_a_damaged_ensemble_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "ensemble.json").write_text(content, encoding="utf-8")
    with pytest.raises(AlexNetError, match=message):
        members_of(tmp_path)


def test_verbs_for_one_network_name_the_runs(
    parts: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    make_ensemble([parts / "run", parts / "base"], tmp_path / "both")
    done = command("report", tmp_path / "both", "--data", striped_data)
    assert done.returncode != 0
    assert "is an ensemble: name one of the runs" in done.stderr
    make_ensemble([parts / "base", shutil.copytree(parts / "base", tmp_path / "again")], tmp_path / "bases")
    done = command("serve", tmp_path / "bases", "--port", "0")
    assert done.returncode == 1
    assert "has baselines only" in done.stderr


def test_a_rule_of_the_mean_is_found_obeyed_and_measured(
    parts: Path, images: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    both = tmp_path / "both"
    make_ensemble([parts / "run", parts / "base"], both)
    options = ("--data", striped_data, "--unsure", "0.3", "--unknown-rate", "0.3")
    done = command("decide", both, *options, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    classifier = load_classifier(both, device="cpu")
    val = PreparedDataset.open(striped_data).split("val")
    pixels = val.gather(np.arange(len(val)))
    alone = [load_classifier(parts / name, device="cpu") for name in ("run", "base")]
    mean = np.mean([one.probabilities(pixels) for one in alone], axis=0)
    features = alone[0].probabilities_and_features(pixels)[1]
    assert classifier.rule is not None
    expected = classifier.rule.apply(mean, features)
    assert [answer.decision for answer in classifier.answers(pixels)] == [KINDS[kind] for kind in expected.kind]
    assert len(set(expected.kind)) == 3, "some are decided, some are unsure, some unknown"
    found = evaluate(both, striped_data, split="val", views=1, device="cpu")
    assert found.decided is not None
    assert (found.decided.decisions.kind == expected.kind).all()
    assert evaluate(both, striped_data, split="val", views=1, raw=True).decided is None
    assert evaluate([parts / "run", parts / "base"], striped_data, split="val", views=1).decided is None
    done = command("sort", both, images, "--to", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    placed = {file.name: file.parent.name for file in (tmp_path / "out").rglob("*.png")}
    answers = {Path(one.source).name: one.answer for one in classifier.predict(sorted(images.iterdir()))}
    assert placed == answers


def test_a_rule_of_other_members_is_refused(
    parts: Path, images: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    both = tmp_path / "both"
    make_ensemble([parts / "run", parts / "base"], both)
    assert command("decide", both, "--data", striped_data, "--device", "cpu").returncode == 0
    listed = json.loads((both / "ensemble.json").read_text("utf-8"))
    listed["members"][0] = str((parts / "cv" / "fold-1").resolve())
    (both / "ensemble.json").write_text(json.dumps(listed), encoding="utf-8")
    for verb in (("predict", both, images), ("evaluate", both, "--data", striped_data)):
        done = command(*verb)
        assert (done.returncode, "belongs to other weights" in done.stderr) == (1, True), done.stderr
    assert command("predict", both, images, "--raw").returncode == 0


def test_a_baseline_and_a_cross_validation_have_a_rule(
    parts: Path, images: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    for name in ("base", "cv"):
        folder = shutil.copytree(parts / name, tmp_path / name)
        done = command("decide", folder, "--data", striped_data, "--unsure", "0.3", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        classifier = load_classifier(folder, device="cpu")
        assert classifier.rule is not None
        assert classifier.rule.unsure_below > 0
        decided = evaluate(folder, striped_data, split="val", views=1).decided
        assert decided is not None
        assert (decided.decisions.kind == 1).any()
        done = command("predict", folder, images, "--json", "--device", "cpu")
        assert {row["decision"] for row in json.loads(done.stdout)} <= {"class", "unsure"}
        done = command("sort", folder, images, "--to", tmp_path / f"sorted-{name}", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        placed = {file.name: file.parent.name for file in (tmp_path / f"sorted-{name}").rglob("*.png")}
        answers = {Path(one.source).name: one.answer for one in classifier.predict(sorted(images.iterdir()))}
        assert placed == answers
    done = command("decide", tmp_path / "base", "--data", striped_data, "--unknown-rate", "0.3")
    assert (done.returncode, "has no network" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["run", "base"])
def test_each_member_of_another_dataset_is_named(
    parts: Path, striped_data: Path, tmp_path: Path, name: str, command: Callable[..., Any]
) -> None:
    """The images of a split may be in the training of one member only."""
    shutil.copytree(parts, tmp_path / "parts")
    file = tmp_path / "parts" / name / {"run": "config.json", "base": "baseline.json"}[name]
    config = json.loads(file.read_text("utf-8"))
    config["dataset"]["checksum"] = "of another"
    file.write_text(json.dumps(config), encoding="utf-8")
    make_ensemble([tmp_path / "parts" / "run", tmp_path / "parts" / "base"], tmp_path / "both")
    for verb in (("evaluate", "--views", "1"), ("decide",)):
        done = command(verb[0], tmp_path / "both", "--data", striped_data, *verb[1:])
        assert done.returncode == 0, done.stderr
        notes = [line for line in done.stderr.splitlines() if "is another dataset than the one that" in line]
        assert [f"{name} was trained on" in note for note in notes] == [True]
