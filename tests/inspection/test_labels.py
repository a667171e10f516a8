"""Wrong labels: ranks of suspects, against their definitions, and decisions that `prepare` applies."""

import csv
import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import SMALL_TRAINING

import alexnet
from alexnet.data.dataset import PreparedDataset
from alexnet.inspection.crossval import cross_validate
from alexnet.inspection.labels import (
    confident_labels,
    find_label_errors,
    nearest_others,
    neighbor_disagreement,
    rank_label_errors,
)
from alexnet.runtime.progress import Progress


def predictions(classes: int, count: int, wrong: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which `wrong` are wrong, probabilities that follow the true ones, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), true] += 4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = rng.choice(count, wrong, replace=False)
    labels = true.copy()
    labels[flipped] = (true[flipped] + rng.integers(1, classes, size=wrong)) % classes
    return labels, probabilities, flipped


def test_confident_labels_follow_the_definition_in_the_paper() -> None:
    """Equation 1 of Northcutt et al. 2021, image by image."""
    labels, probabilities, _ = predictions(4, 200, 30)
    counted = confident_labels(labels, probabilities)
    for i in range(len(labels)):
        possible = []
        for j in range(4):
            of_class = [probabilities[x, j] for x in range(len(labels)) if labels[x] == j]
            if probabilities[i, j] >= sum(of_class) / len(of_class):
                possible.append(j)
        wanted = max(possible, key=lambda j: probabilities[i, j]) if possible else -1
        assert counted[i] == wanted


def test_wrong_labels_are_ranked_first() -> None:
    labels, probabilities, flipped = predictions(5, 1000, 50)
    found = rank_label_errors(labels, probabilities)
    assert len(set(found.order[:50]) & set(flipped)) >= 45
    assert set(np.flatnonzero(found.confident)) <= set(flipped) | set(found.order[:60].tolist())
    assert 35 <= found.confident.sum() <= 60


def test_disagreement_counts_nearer_neighbors_more() -> None:
    labels = np.array([0, 0, 1, 1])
    neighbors = np.array([[1, 2, 3], [2, 3, 0], [3, 0, -1], [-1, -1, -1]])
    np.testing.assert_allclose(neighbor_disagreement(labels, neighbors), [3 / 6, 5 / 6, 2 / 5, 0])


def test_the_nearest_others_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    features = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    features[7] = features[3]  # equal images
    distances, rows = nearest_others(features, 5)
    wanted, _ = NearestNeighbors(n_neighbors=5).fit(features).kneighbors()
    np.testing.assert_allclose(distances, wanted, rtol=1e-5)
    assert (rows != np.arange(60)[:, None]).all()
    assert rows[3, 0] == 7
    assert rows[7, 0] == 3


@pytest.fixture(scope="module")
def source(striped_folder: Callable[..., Path]) -> Path:
    return striped_folder(10, 10)


@pytest.fixture(scope="module")
def cv(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    alexnet.prepare(source, folder / "data", size=72, progress=False)
    cross_validate(folder / "data", folder / "cv", folds=2, **SMALL_TRAINING)
    return folder / "cv"


def test_suspects_of_a_cross_validation(cv: Path, command: Callable[..., Any]) -> None:
    found = find_label_errors(cv, neighbors=3)
    assert [one.rank for one in found.suspects] == list(range(1, 21))
    with (cv / "out-of-fold.csv").open(encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for one in found.suspects:
        row = rows[one.path]
        assert one.label == row["label"]
        assert one.confidence == pytest.approx(float(row[f"probability_{one.label}"]))
        assert len(one.neighbors) == 3
        assert {rows[found.suspects[0].path]["fold"]} <= {"1", "2"}
    # The neighbors are held-out images of the same fold.
    split = PreparedDataset.open(cv.parent / "data").split("train")
    for one in found.suspects:
        assert {rows[split.paths(near.position)]["fold"] for near in one.neighbors} == {rows[one.path]["fold"]}

    done = command("labels", cv, "--neighbors", 3, "--json", "--top", 4)
    assert [one["path"] for one in json.loads(done.stdout)["suspects"]] == [one.path for one in found.suspects[:4]]
    printed = list(csv.DictReader(io.StringIO(command("labels", cv, "--neighbors", 3, "--csv").stdout)))
    assert [row["path"] for row in printed] == [one.path for one in found.suspects]
    done = command("labels", cv, "--neighbors", 3, "--top", 2)
    assert done.stdout.count("\n") == 3
    assert found.suspects[0].path in done.stdout


def test_networks_that_are_often_wrong_are_named_as_the_cause_of_their_suspects(cv: Path) -> None:
    found = find_label_errors(cv)
    probabilities = np.array([suspect.probabilities for suspect in found.suspects])
    labels = [found.dataset.classes.index(suspect.label) for suspect in found.suspects]
    assert found.disagreements == (probabilities.argmax(axis=1) != labels).sum()
    assert found.warning is None
    often = replace(found, suspects=found.suspects * 10, disagreements=500, expected=100)
    assert "most suspects are errors of the networks" in str(often.warning)
    assert replace(often, expected=101).warning is None


def test_what_is_no_cross_validation_is_refused(
    cv: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    assert "alexnet crossval DATA --out" in command("labels", tmp_path).stderr
    done = command("labels", cv, "--data", striped_data)
    assert done.returncode == 1
    assert "is not the dataset of" in done.stderr
    assert command("labels", cv, "--top", 0).returncode == 2
    moved = tmp_path / "cv"
    shutil.copytree(cv, moved)
    index = moved / "data" / "fold-1" / "dataset.json"
    index.write_text(index.read_text("utf-8").replace(str(cv.parent / "data"), "/gone/data"), "utf-8")
    assert "name it with --data DATA" in command("labels", moved).stderr


def images_of(data: Path) -> dict[str, tuple[str, str]]:
    """Split and class of each image of a dataset by its name."""
    dataset = PreparedDataset.open(data)
    return {
        split.paths(i): (name, dataset.classes[split.labels[i]])
        for name in dataset.splits
        for split in [dataset.split(name)]
        for i in range(len(split))
    }


def test_prepare_applies_corrections_and_keeps_the_split_of_every_image(
    striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    source = striped_folder(15, 14, splits=("",))
    before_files = {path: path.read_bytes() for path in source.rglob("*.png")}
    assert command("prepare", source, tmp_path / "before", "--size", 72).returncode == 0
    before = images_of(tmp_path / "before")
    names = random.Random(0).sample(sorted(before), 3)
    other = {"lying": "standing", "standing": "lying"}
    rows = [
        (names[0], before[names[0]][1], "change", other[before[names[0]][1]]),
        (names[1], before[names[1]][1], "drop", ""),
        (names[2], before[names[2]][1], "keep", before[names[2]][1]),
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("path,given,decision,label\n" + "".join(",".join(row) + "\n" for row in rows), "utf-8")
    done = command("prepare", source, tmp_path / "after", "--size", 72, "--labels", labels)
    assert done.returncode == 0, done.stderr
    assert "1 label changed, 1 image dropped, 1 confirmed" in done.stderr
    wanted = {name: image for name, image in before.items() if name != names[1]}
    wanted[names[0]] = (before[names[0]][0], rows[0][3])
    assert images_of(tmp_path / "after") == wanted
    assert {path: path.read_bytes() for path in source.rglob("*.png")} == before_files


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\nno/such.png,lying\n", "none of its 1 images is in the source"),
        ("path,label\nlying/0000.png,lyng\n", "'lyng', which the source does not have"),
        ("path,label,decision\nlying/0000.png,lying,maybe\n", "line 2: decision 'maybe' does not exist"),
        ("path,label,given\nlying/0000.png,lying,standing\n", None),
        ("path,given,decision,label\nlying/0000.png,standing,drop,\n", "was of class 'standing' when it was decided"),
        ("path,label\nlying/0000.png,lying\nlying/0000.png,standing\n", "line 3: lying/0000.png was decided"),
        ("image,label\nlying/0000.png,lying\n", "no column 'path'"),
    ],
)
def test_corrections_that_do_not_fit_are_refused(
    table: str, message: str | None, striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    source = striped_folder(4, 4, 24, splits=("",))
    (tmp_path / "labels.csv").write_text(table, "utf-8")
    done = command("prepare", source, tmp_path / "data", "--size", 24, "--labels", tmp_path / "labels.csv")
    if message is None:  # corrected in the source meanwhile
        assert done.returncode == 0
    else:
        assert done.returncode in (1, 2)
        assert message in done.stderr
        assert not (tmp_path / "data").exists()


def test_ctrl_c_while_the_features_are_computed_leaves_nothing_behind(
    cv: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(cv.rglob("*"))
    sent = []

    def press(*_: object) -> None:
        sent.append(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "advance", press)
        done = command("labels", cv, "--neighbors", 7)
    assert (len(sent), done.returncode, done.stdout) == (1, 130, "")
    assert done.stderr.splitlines()[-1] == "alexnet: interrupted"
    assert sorted(cv.rglob("*")) == before
    assert command("labels", cv, "--neighbors", 7).returncode == 0
