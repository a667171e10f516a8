"""Paired comparison of runs: every number against another library, a published value, or a simulation."""

import csv
import json
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import make_run
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import alexnet
from alexnet.data.preparation import prepare
from alexnet.inspection.comparison import (
    Difference,
    compare,
    compare_accuracy,
    compare_auc,
    holm,
    mcnemar,
    paired_interval,
)
from alexnet.runtime.errors import AlexNetError, UsageError


@pytest.mark.parametrize(("only_first", "only_second"), [(1, 7), (0, 5), (12, 2), (9, 9), (40, 61)])
def test_mcnemar_is_the_exact_sum_of_the_binomial_tail(only_first: int, only_second: int) -> None:
    n, smaller = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(n, k) for k in range(smaller + 1)) / 2**n
    assert mcnemar(only_first, only_second) == pytest.approx(min(1, 2 * tail), rel=1e-12)


def test_mcnemar_of_the_published_example() -> None:
    """Airway hyper-responsiveness (Bentur et al. 2009; Fagerland, Lydersen and Laake 2013): exact p = 0.0703."""
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)


def test_without_a_difference_the_p_value_is_1() -> None:
    assert mcnemar(0, 0) == 1


def test_the_interval_of_the_published_example() -> None:
    """The same example: Newcombe's interval of the difference is -0.507 to -0.026 (Fagerland et al. 2014)."""
    assert paired_interval(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_the_interval_contains_the_true_difference_in_95_percent_of_samples() -> None:
    rng = np.random.default_rng(0)
    probabilities = [0.75, 0.1, 0.05, 0.1]
    tables = rng.multinomial(200, probabilities, size=1000)
    inside = [low <= 0.05 <= high for low, high in (paired_interval(*map(int, table)) for table in tables)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("table", [(10, 0, 0, 0), (0, 0, 0, 10), (0, 10, 0, 0), (5, 0, 0, 5)])
def test_the_interval_of_extreme_tables_contains_the_difference(table: tuple[int, int, int, int]) -> None:
    low, high = paired_interval(*table)
    assert -1 <= low <= (table[1] - table[2]) / 10 <= high <= 1


def test_the_difference_is_second_minus_first() -> None:
    first = np.array([True] * 6 + [False] * 4)
    second = np.array([True] * 5 + [False] + [True] * 4)
    result = compare_accuracy(first, second)
    assert (result.first, result.second, result.difference) == (0.6, 0.9, pytest.approx(0.3))
    low, high = paired_interval(5, 4, 1, 0)
    assert result.interval == (pytest.approx(low), pytest.approx(high))
    assert result.p_value == pytest.approx(2 * (1 + 5) / 32)


def delong(first: np.ndarray, second: np.ndarray, is_positive: np.ndarray) -> tuple[float, float]:
    """Standard error and p-value of the difference of two areas (DeLong, DeLong and Clarke-Pearson 1988)."""
    components = []
    for scores in (first, second):
        wins = (scores[is_positive][:, None] > scores[~is_positive]) + 0.5 * (
            scores[is_positive][:, None] == scores[~is_positive]
        )
        components.append((wins.mean(axis=1), wins.mean(axis=0)))
    variance = sum(
        np.var(components[1][side] - components[0][side], ddof=1) / len(components[0][side]) for side in (0, 1)
    )
    z = (components[1][0].mean() - components[0][0].mean()) / np.sqrt(variance)
    return float(np.sqrt(variance)), float(2 * norm.sf(abs(z)))


@pytest.mark.parametrize("gain", [0.0, 0.35, 1.0])
def test_the_bootstrap_agrees_with_delong(gain: float) -> None:
    rng = np.random.default_rng(3)
    is_positive = rng.random(400) < 0.3
    shared = rng.normal(size=400) + is_positive
    first = np.round(shared + rng.normal(size=400), 1)  # with ties
    second = np.round(shared + rng.normal(size=400) + gain * is_positive, 1)
    result = compare_auc(first, second, is_positive)
    assert result.first == pytest.approx(roc_auc_score(is_positive, first), abs=1e-12)
    assert result.second == pytest.approx(roc_auc_score(is_positive, second), abs=1e-12)
    error, p_value = delong(first, second, is_positive)
    low, high = result.interval
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (low + high) / 2 == pytest.approx(result.difference, abs=0.3 * error)
    assert result.p_value == pytest.approx(p_value, abs=0.05)


def test_holm_of_the_published_rule() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_verdict_follows_the_p_value() -> None:
    assert Difference(0.5, 0.9, 0.4, (0.3, 0.5), 0.001).verdict == "statistically significant (p = 0.001)"
    assert Difference(0.5, 0.6, 0.1, (-0.1, 0.3), 0.31).verdict == "within noise (p = 0.31)"
    assert Difference(0.5, 0.9, 0.4, (0.3, 0.5), 0.04, 0.08).verdict.startswith("within noise")


@pytest.fixture(scope="module")
def runs(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compared")
    return [make_run(folder / f"{n}", striped_data, seed=n, variant="convolutions") for n in range(3)]


def test_runs_are_compared_image_by_image(runs: list[Path], striped_data: Path, tmp_path: Path) -> None:
    result = compare(runs, striped_data, views=1, resamples=50)
    evaluations = [alexnet.evaluate(run, striped_data, views=1).predictions for run in runs]
    predicted = np.stack([evaluation.ranked[:, 0] for evaluation in evaluations])
    correct = predicted == evaluations[0].labels
    for number, pair in enumerate(result.pairs, 1):
        assert (pair.first, pair.second) == (str(runs[0]), str(runs[number]))
        assert pair.accuracy.difference == pytest.approx(correct[number].mean() - correct[0].mean())
        assert pair.only_first_correct == (correct[0] & ~correct[number]).sum()
        assert pair.differing == (predicted[0] != predicted[number]).sum()
        assert pair.roc_auc is not None
    raw, adjusted = zip(*((p.accuracy.p_value, p.accuracy.adjusted_p_value) for p in result.pairs), strict=True)
    assert list(adjusted) == holm(raw)
    file = tmp_path / "differences.csv"
    result.write_differences(file)
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    expected = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    split = result.evaluations[0].split
    assert [row["path"] for row in rows] == [split.paths(int(i)) for i in expected]
    names = result.evaluations[0].classes
    assert [[row[f"prediction_{n}"] for n in (1, 2, 3)] for row in rows] == [
        [names[c] for c in predicted[:, i]] for i in expected
    ]


def test_the_command_prints_text_and_json(runs: list[Path], striped_data: Path, command: Callable[..., Any]) -> None:
    arguments = ("compare", runs[0], runs[0], "--data", striped_data, "--views", 1)
    done = command(*arguments)
    assert done.returncode == 0
    assert "difference +0.00%" in done.stdout
    assert "within noise (p = 1)" in done.stdout
    assert "different predictions: 0 images" in done.stdout
    values = json.loads(command(*arguments, "--json").stdout)
    assert values["differing"] == 0
    assert values["pairs"][0]["accuracy"]["p_value"] == 1


def test_invalid_comparisons_are_named(runs: list[Path], striped_data: Path) -> None:
    with pytest.raises(UsageError, match="at least two runs"):
        compare(runs[:1], striped_data)
    with pytest.raises(AlexNetError, match="no such"):
        compare(runs, striped_data, views=1, split="no such")


def test_weights_of_the_images_weigh_the_difference() -> None:
    rng = np.random.default_rng(4)
    first, second, weights = rng.random(400) < 0.7, rng.random(400) < 0.8, rng.integers(1, 4, 400).astype(float)
    found = compare_accuracy(first, second, weights, resamples=400)
    assert found.first == pytest.approx(np.average(first, weights=weights))
    assert found.difference == pytest.approx(np.average(second * 1.0 - first, weights=weights))
    equal = compare_accuracy(first, second, np.ones(400), resamples=2000)
    exact = compare_accuracy(first, second)
    assert equal.difference == pytest.approx(exact.difference)
    assert equal.interval == pytest.approx(exact.interval, abs=0.01)
    assert (equal.p_value < 0.05) == (exact.p_value < 0.05)


def test_networks_that_agree_on_every_weighted_image_may_differ_on_others() -> None:
    correct, weights = np.arange(60) < 57, np.where(np.arange(60) % 2, 1.0, 3.0)
    found = compare_accuracy(correct, correct, weights, resamples=200)
    assert found.difference == 0
    assert found.p_value == 1
    assert found.interval[0] < -0.02 < 0.02 < found.interval[1]
    alike = compare_accuracy(correct, correct, np.full(60, 2.0), resamples=200)
    assert alike.interval == pytest.approx(compare_accuracy(correct, correct).interval)


def test_images_with_doubtful_labels_are_compared_apart(tmp_path: Path, striped_folder: Callable[..., Path]) -> None:
    source = striped_folder(8, 8)
    rows = ["path,label,split,weight,confidence"]
    for number, path in enumerate(sorted(source.glob("*/*/*.png"))):
        rows.append(f"{path},{path.parts[-2]},{path.parts[-3]},{1 + number % 2},{1 if number % 4 else 0.7}")
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    data = prepare(tmp_path / "images.csv", tmp_path / "data", size=72, progress=False, workers=1)
    runs = [make_run(tmp_path / f"run-{seed}", data.path, seed=seed, variant="convolutions") for seed in (1, 2)]
    result = compare(runs, data, split="val", views=1).to_dict()
    assert result["weighted"]
    assert set(result["pairs"][0]["certainty"]) == {"certain", "doubtful"}
