"""`alexnet decide`: guarantees against simulation and published values, and the rule through the shell."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import make_run
from scipy.stats import beta

from alexnet.data.preparation import prepare
from alexnet.evaluation.costs import read_costs
from alexnet.inspection.decide import (
    _accuracy_margin,
    _precision_thresholds,
    _recall_thresholds,
    allowed_misses,
    fit_distance,
    fit_temperature,
    images_needed,
)
from alexnet.runs.decision import DecisionRule, calibrate
from alexnet.runtime.errors import AlexNetError


def test_59_images_are_needed_for_95_percent_at_95_percent_confidence() -> None:
    """Wilks' published number; with 90% confidence it is 45."""
    assert (images_needed(0.95, 0.95), images_needed(0.95, 0.9)) == (59, 45)
    assert (allowed_misses(58, 0.95, 0.95), allowed_misses(59, 0.95, 0.95)) == (-1, 0)


@pytest.mark.parametrize("images", [60, 200, 1000])
def test_allowed_misses_agree_with_clopper_and_pearson(images: int) -> None:
    allowed = allowed_misses(images, 0.95, 0.9)
    low = [beta.ppf(0.1, images - k, k + 1) for k in (allowed, allowed + 1)]  # one-sided bounds of the recall
    assert low[0] >= 0.95 > low[1]


def test_the_recall_holds_as_often_as_the_confidence_says() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(600):
        p = rng.beta(2, 3, size=100)
        shares = np.stack([p, 1 - p], axis=1)
        labels = np.zeros(100, dtype=np.int64)
        thresholds, _ = _recall_thresholds(shares, labels, ["bad", "good"], {"bad": 0.9}, 0.9, temperature=1.7)
        rule = DecisionRule(("bad", "good"), 1.7, thresholds)
        misses = (rule.apply(shares).label != 0).sum()
        assert misses == allowed_misses(100, 0.9, 0.9)
        x = calibrate(np.array([[0.5, 0.5]]), 1)[0, 0]  # bisection for the raw probability of the threshold
        low, high = 0.0, 1.0
        for _ in range(40):
            x = (low + high) / 2
            decided = rule.apply(np.array([[x, 1 - x]])).label[0] == 0
            low, high = (low, x) if decided else (x, high)
        held.append(beta.sf(high, 2, 3) >= 0.9)
    assert np.mean(held) >= 0.9 - 0.03


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of two classes, most of them decisive, and labels that follow them."""
    p = rng.beta(0.3, 0.5, size=n)
    return np.stack([p, 1 - p], axis=1), np.where(rng.random(n) < p, 0, 1)


@pytest.mark.parametrize(("what", "share"), [("precision", 0.8), ("accuracy", 0.9)])
def test_a_precision_and_an_accuracy_hold_as_often_as_the_confidence_says(what: str, share: float) -> None:
    rng = np.random.default_rng(5)
    truth, true_labels = drawn(np.random.default_rng(6), 20_000)
    held, limits = [], []
    for _ in range(80):
        shares, labels = drawn(rng, 1000)
        if what == "precision":
            thresholds, (row,) = _precision_thresholds(shares, labels, ["bad", "good"], {"bad": share}, 0.9, 1.3)
            rule = DecisionRule(("bad", "good"), 1.3, thresholds)
            counted = rule.apply(truth).label == 0
            assert row["images"] == (rule.apply(shares).label == 0).sum()
        else:
            margin, row = _accuracy_margin(shares, labels, share, 0.9, 1.3)
            rule = DecisionRule(("bad", "good"), 1.3, unsure_below=margin)
            counted = rule.apply(truth).answered
            assert row["images"] == rule.apply(shares).answered.sum()
        held.append((rule.apply(truth).label == true_labels)[counted].mean() >= share)
        limits.append(counted.mean())
    assert np.mean(held) >= 0.9
    assert np.mean(limits) > 0.2  # and something is answered


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(1)
    true = rng.dirichlet([1, 1, 1], size=20_000)
    labels = np.array([rng.choice(3, p=row) for row in true])
    assert fit_temperature(calibrate(true, 1 / 3), labels) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("method", ["neighbors", "mahalanobis"])
def test_far_features_have_a_larger_distance(method: str) -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(300) % 3
    means = rng.normal(size=(3, 40)) * 4
    known, other = (means[labels] + rng.normal(size=(300, 40)), rng.normal(size=(300, 40)) * 4)
    distance = fit_distance(known.astype(np.float32), labels, method)
    again = (means[labels] + rng.normal(size=(300, 40))).astype(np.float32)
    assert np.quantile(distance(again), 0.95) < np.quantile(distance(other.astype(np.float32)), 0.05)


def test_costs_are_read_in_the_order_of_the_classes_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    file.write_text(",good,bad,unsure\nbad,10,0,1\ngood,0,1,1\n", encoding="utf-8")
    np.testing.assert_array_equal(read_costs(file, ["bad", "good"]), [[0, 10, 1], [1, 0, 1]])
    for text, message in (
        ("", "empty"),
        (",good,bad\nbad,1,0\n", "rows"),
        (",good,ugly\nbad,1,0\ngood,1,0\n", "columns"),
        (",good,bad\nbad,1,0\ngood,1\n", "'good'"),
        (",good,bad\nbad,-1,0\ngood,1,0\n", "no cost"),
        (",good,bad\nbad,x,0\ngood,1,0\n", "no cost"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(AlexNetError, match=message):
            read_costs(file, ["bad", "good"])


@pytest.fixture(scope="module")
def original(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("decided") / "run", striped_data, seed=1, variant="convolutions")


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def test_predict_obeys_the_rule_and_raw_ignores_it(
    run: Path, striped_data: Path, striped_folder: Callable[..., Path], command: Callable[..., Any]
) -> None:
    images = striped_folder(12, 12) / "val"
    plain = json.loads(command("predict", run, images, "--json").stdout)
    limits = ("--recall", "lying=0.8", "--confidence", 0.9, "--unsure", 0.25, "--unknown-rate", 0.1)
    done = command("decide", run, "--data", striped_data, *limits)
    assert done.returncode == 0, done.stderr
    assert "Recall of “lying” at least 0.8 with 0.9 confidence: at most 0 of 12 images" in done.stdout
    ruled = json.loads(command("predict", run, images, "--json").stdout)
    assert sum(row["decision"] == "unknown" for row in ruled) <= 2
    assert sum(row["decision"] == "unsure" for row in ruled) <= 6
    assert {row["decision"] for row in ruled} >= {"class", "unsure"}
    assert not [row for row in ruled if "lying" in row["source"] and row["label"] != "lying"]
    assert json.loads(command("predict", run, images, "--json", "--raw").stdout) == plain
    assert "unsure" in command("predict", run, images).stdout
    assert "views" in command("predict", run, images, "--views", 10).stderr


def test_too_few_images_are_refused_with_the_number_needed(
    run: Path, striped_data: Path, command: Callable[..., Any]
) -> None:
    done = command("decide", run, "--data", striped_data, "--recall", "lying=0.95")
    assert done.returncode == 1
    assert "12 images of that class: 45 are needed" in done.stderr
    done = command("decide", run, "--data", striped_data, "--unknown-rate", 0.01)
    assert "needs 99 images" in done.stderr
    done = command("decide", run, "--data", striped_data, "--split", "train")
    assert "was trained on" in done.stderr
    done = command("decide", run, "--data", striped_data, "--accuracy", 0.99)
    assert done.returncode == 1
    assert "without an error, 597 images are needed" in done.stderr
    assert not (run / "decision.json").exists()


def test_costs_decide_and_invalid_usage_is_named(
    run: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    file = tmp_path / "costs.csv"
    file.write_text(",lying,standing\nlying,0,1000000\nstanding,1,0\n", encoding="utf-8")
    rule = json.loads(command("decide", run, "--data", striped_data, "--costs", file, "--json").stdout)
    assert rule["record"]["expected_cost"] == 0.5  # every image is “lying”: the 12 of 24 “standing” cost 1
    for wrong in (
        ("--costs", file, "--recall", "lying=0.8"),
        ("--precision", "lying=0.8", "--accuracy", 0.9),
        ("--accuracy", 0.9, "--unsure", 0.1),
        ("--accuracy", 1.0),
        ("--recall", "lying"),
        ("--precision", "x=0.5"),
    ):
        assert command("decide", run, "--data", striped_data, *wrong).returncode == 2


def test_a_rule_for_other_weights_is_refused(
    run: Path, striped_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    assert command("decide", run, "--data", striped_data).returncode == 0
    other = make_run(tmp_path / "other", striped_data, seed=2, variant="convolutions")
    shutil.copy(run / "decision.json", other)
    done = command("predict", other, tmp_path / "none.png")
    assert done.returncode == 1
    assert "other weights" in done.stderr


def test_the_training_split_of_another_dataset_is_refused_too(
    striped_data: Path, striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    """The run of a fold was trained on a part of the training split of the whole dataset."""
    run = make_run(tmp_path / "run", striped_data, seed=1, variant="convolutions")
    prepare(striped_folder(14, 14), tmp_path / "whole", size=72, progress=False)
    done = command("decide", run, "--data", tmp_path / "whole", "--split", "train")
    assert done.returncode == 1
    assert "use --split val or --split test" in done.stderr
    assert not (run / "decision.json").exists()
