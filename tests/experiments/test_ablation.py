"""`alexnet reproduce ablation`, `ensemble` and `views` in their quick form, and the numbers that they are judged by."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ttest_1samp

from alexnet import AlexNet, UsageError
from alexnet.cli.main import main
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments import ablation, averaged_networks
from alexnet.experiments.ablation import CHANGES, FULL, MISTAKES, Trial, base
from alexnet.experiments.catalog import experiments, rows
from alexnet.experiments.image_sets import first_per_class, image_set
from alexnet.experiments.trials import compare
from alexnet.runs.recipe import recipes


@pytest.fixture(scope="module")
def images(striped_folder: Callable[..., Path]) -> Path:
    return striped_folder(14, 13, 64)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablation") / "out"


def quickly(name: str, images: Path, out: Path, *more: str) -> dict:
    assert main(["reproduce", name, "--quick", "--data", str(images), "--out", str(out), *more]) == 0
    found = out / f"{name}-{images.name}.json"
    assert found.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return json.loads(found.read_text(encoding="utf-8"))


@pytest.mark.long
def test_selected_trials_are_written_and_the_others_follow_later(images: Path, out: Path, capsys) -> None:
    assert main(["reproduce", "ablation", "--quick", "--data", str(images), "--out", str(out), "--only", "full"]) == 0
    results = out / f"ablation-{images.name}.json"
    report = json.loads(results.read_text(encoding="utf-8"))
    assert list(report["changes"]) == [FULL]
    assert (report["images"], report["set"]) == ({"train": 27, "test": 16}, images.name)
    assert not results.with_suffix(".png").exists()

    report = quickly("ablation", images, out)
    assert list(report["changes"]) == [FULL, "tanh", "without-conv4"]
    full = report["changes"][FULL]["trials"]["0"]
    for name in ("tanh", "without-conv4"):
        entry, trial = report["changes"][name], report["changes"][name]["trials"]["0"]
        assert entry["difference"]["values"] == [pytest.approx(trial["ten_views"] - full["ten_views"])]
        assert "one seed" in entry["difference"]["verdict"]
        assert trial["train_loss"] != full["train_loss"]
        config = json.loads((out / images.name / f"{name}-0-quick" / "config.json").read_text(encoding="utf-8"))[
            "recipe"
        ]
        assert config.items() >= CHANGES[name].values.items()
    capsys.readouterr()
    quickly("ablation", images, out)
    assert "training: " not in capsys.readouterr().err


@pytest.mark.long
def test_three_networks_are_averaged_and_views_read_the_same_runs(images: Path, out: Path, capsys) -> None:
    report = quickly("ensemble", images, out)
    assert {size: len(found["values"]) for size, found in report["networks"].items()} == {"1": 3, "3": 1}
    runs = [out / images.name / f"full-{seed}-quick" for seed in (0, 1, 2)]
    data = out / images.name / "few"
    errors = [1 - evaluate(run, data, views=10, precision="auto").accuracy for run in runs]
    assert report["networks"]["1"]["values"] == pytest.approx(errors)
    together = 1 - evaluate(runs, data, views=10, precision="auto").accuracy
    assert report["networks"]["3"]["mean"] == pytest.approx(together)
    assert report["networks"]["3"]["difference"] == pytest.approx(together - np.mean(errors))
    assert "one test image is 6.25 points" in report["verdict"]

    capsys.readouterr()
    views = quickly("views", images, out)
    assert "training: " not in capsys.readouterr().err
    assert views["ten_views"]["values"] == pytest.approx(errors)
    assert views["difference"]["values"] == pytest.approx(np.subtract(errors, views["one_view"]["values"]))


def test_the_verdict_of_an_ensemble_states_the_weight_of_one_image() -> None:
    text = averaged_networks.verdict([0.30, 0.32, 0.34], 0.31, 3, 200)
    assert text.startswith("3 networks: -1.0 points of error against the mean of single networks, lower than 2 of 3;")
    assert text.endswith("one test image is 0.50 points")


# The comparisons.


def test_each_change_alters_one_network_or_one_training_option() -> None:
    whole = recipes()["paper"].override(base(quick=False))
    made = {}
    for name, change in CHANGES.items():
        recipe = whole.override(change.values)
        values, other = whole.to_dict(), recipe.to_dict()
        made[name] = {key for key in values if values[key] != other[key]}
        with torch.device("meta"):
            AlexNet(
                recipe.variant,
                20,
                activation=recipe.activation,
                normalization=recipe.normalization,
                pooling=recipe.pooling,
                drop_layer=recipe.drop_layer,
                dropout=recipe.dropout,
                init=recipe.init,
            )
    assert made.pop(FULL) == set()
    assert made.pop("no-crops") == {"crop_position", "flip"}
    assert all(len(changed) == 1 for changed in made.values())


def test_all_trials_of_a_seed_come_before_the_next(images: Path, out: Path) -> None:
    dataset = image_set(out, [str(images)], quick=True)
    names = [trial.name for trial in ablation._trials(dataset, [3, 4], quick=False)]
    assert names == [f"{change}/{seed}" for seed in (3, 4) for change in CHANGES]
    assert Trial("tanh", 3, dataset).run.name == "tanh-3"


def test_seeds_that_only_one_of_two_trials_has_are_not_compared() -> None:
    def trial(one: float, ten: float) -> dict[str, float]:
        return {"one_view": one, "ten_views": ten, MISTAKES: "1" * round(100 * ten) + "0" * round(100 - 100 * ten)}

    full = {0: trial(0.3, 0.2), 1: trial(0.3, 0.25)}
    entry = ablation._entry("half", {FULL: full, "half": {0: trial(0.3, 0.22), 2: trial(0.9, 0.9)}})
    assert entry["seeds"] == [0, 2]
    assert entry["difference"]["values"] == pytest.approx([0.02])
    assert entry["published"] == 0.017
    assert "difference" not in ablation._entry("half", {FULL: full, "half": {2: trial(0.9, 0.9)}})
    # The variance of one seed is unknown; it is pooled from the other changes.
    tanh = {0: trial(0.3, 0.21), 1: trial(0.3, 0.28)}
    judged = ablation._entry("half", {FULL: full, "half": {0: trial(0.3, 0.22)}, "tanh": tanh})["difference"]
    assert (judged["degrees_of_freedom"], judged["standard_error"]) == (1, pytest.approx(0.02 / 2**0.5))


def test_with_one_seed_the_interval_is_that_over_the_test_images() -> None:
    full = {"one_view": 0.2, "ten_views": 0.2, MISTAKES: "1" * 20 + "0" * 80}
    worse = {"one_view": 0.3, "ten_views": 0.3, MISTAKES: "1" * 30 + "0" * 70}
    entry = ablation._entry("half", {FULL: {0: full}, "half": {0: worse}})
    low, high = entry["difference"]["interval_over_images"]
    spread = binomtest(10, 100).proportion_ci(method="wilson")  # ten images of a hundred, all in one direction
    assert (low, high) == (pytest.approx(spread.low, abs=0.02), pytest.approx(spread.high, abs=0.02))
    assert entry["difference"]["interval"] is None
    assert entry["paper"] == "undecided: no variance over the seeds"
    assert MISTAKES not in entry["trials"]["0"]
    two = ablation._entry("half", {FULL: {0: full, 1: full}, "half": {0: worse, 1: {**worse, "ten_views": 0.31}}})
    assert two["paper"] == "confirmed"


def test_the_trials_of_an_earlier_result_are_kept_if_all_they_share_is_the_same(images: Path, out: Path) -> None:
    dataset = image_set(out, [str(images)], quick=True)
    results = out / "earlier.json"
    full = {"one_view": 0.3, "ten_views": 0.2, "train_error": [0.5]}
    half = full | {"ten_views": 0.25}
    measured = {(FULL, 7): full, (FULL, 8): full, ("half", 7): half}
    found = {Trial(*key, dataset, quick=True): values for key, values in measured.items()}
    written = ablation._write(found, results, "command", "set")
    assert written["half"]["difference"]["values"] == [pytest.approx(0.05)]
    assert "interval_over_images" not in written["half"]["difference"]  # not without each prediction
    assert ablation._earlier(results, "set", dataset, quick=True) == found
    report = json.loads(results.read_text(encoding="utf-8"))
    assert report["recipe"].pop("sampler") == "random"  # of a version that did not have it yet
    results.write_text(json.dumps(report), encoding="utf-8")
    assert ablation._earlier(results, "set", dataset, quick=True) == found
    assert ablation._earlier(results, "other set", dataset, quick=True) == {}
    assert ablation._earlier(results, "set", dataset, quick=False) == {}  # another recipe
    assert ablation._earlier(out / "missing.json", "set", dataset, quick=True) == {}


def test_a_run_with_another_seed_keeps_the_seeds_of_the_result(images: Path, out: Path) -> None:
    dataset = image_set(out, [str(images)], quick=True)
    results = out / "seeds.json"
    full = {"one_view": 0.3, "ten_views": 0.2, "train_error": [0.5]}
    measured = {Trial(FULL, seed, dataset, quick=True): full for seed in (7, 8)}
    ablation._write(measured, results, "command", images.name)
    ablation.reproduce(out, results, [9], "command", data=[str(images)], only=["none of them"], quick=True)
    assert list(json.loads(results.read_text(encoding="utf-8"))["changes"][FULL]["trials"]) == ["7", "8"]


# How it is judged.


@pytest.mark.parametrize(
    ("differences", "arguments"),
    [
        ([0.014], "+1.4 points; one seed: the seed-to-seed standard deviation is unknown"),
        ([0.01, -0.01, 0.02], "+0.7 ± 0.9 points: within noise"),
        ([0.02, 0.021, 0.019], "+2.0 ± 0.1 points: statistically significant increase"),
        ([0.02, 0.03], "+2.5 ± 0.5 points: within noise"),
        ([-0.02, -0.03, -0.04], "-3.0 ± 0.6 points: statistically significant decrease"),
        ([0.0, 0.0], "+0.0 points; equal with each of 2 seeds: they have no variance to test against"),
        # The same three images, computed from other accuracies.
        (
            [0.96 - 0.95, 0.97 - 0.96, 0.98 - 0.97],
            "+1.0 points; equal with each of 3 seeds: they have no variance to test against",
        ),
    ],
)
def test_a_verdict_depends_on_the_number_of_seeds(differences: list[float], arguments: str) -> None:
    assert compare(differences)["verdict"] == arguments


def test_standard_error_and_p_are_those_of_the_paired_test() -> None:
    before, after = np.random.default_rng(0).normal(0.2, 0.02, (2, 5))
    found = compare((after - before).tolist())
    assert found["p"] == pytest.approx(ttest_1samp(after - before, 0).pvalue)
    assert found["standard_error"] == pytest.approx(np.std(after - before, ddof=1) / 5**0.5)


# Which images.


def test_the_first_images_of_each_class_are_taken_and_val_becomes_test(images: Path) -> None:
    found = list(first_per_class(images, 10, 6))
    counts = {(label, split): 0 for _, label, split in found}
    for _, label, split in found:
        counts[label, split] += 1
    assert counts == {(name, split): n for name in ("lying", "standing") for split, n in (("train", 5), ("test", 3))}
    first = sorted((images / "train" / "lying").iterdir())[:5]
    assert [data for data, label, split in found if (label, split) == ("lying", "train")] == [
        file.read_bytes() for file in first
    ]


def test_without_data_the_images_are_the_solar_cells(tmp_path: Path) -> None:
    if find_spec("elpv_dataset") is None:
        pytest.skip("the extra `demo` is not installed")
    dataset = image_set(tmp_path, [], quick=True)
    assert dataset.classes == ["defective", "functional"]
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {"train": 48, "test": 16}
    with pytest.raises(UsageError, match="one image set"):
        image_set(tmp_path, ["a", "b"])


def test_another_set_has_results_of_its_own_and_rows_in_the_list(tmp_path: Path) -> None:
    known = experiments()
    assert known["ablation"].file([]) == "ablation-solar.json"
    assert known["ablation"].file(["/data/Tiny ImageNet 20.zip"]) == "ablation-tiny-imagenet-20.json"
    assert known["figure-1"].file(["cifar.zip"]) == "figure-1.json"
    assert {row.experiment for row in rows(tmp_path) if row.experiment.startswith("ablation")} == {"ablation"}
    for name, value in (("ablation-solar", 0.01), ("ablation-birds", -0.02)):
        report = {"changes": {"no-lrn": {"difference": {"mean": value}}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    found = {row.experiment: row.cells() for row in rows(tmp_path) if "response normalization" in row.claim.text}
    assert found["ablation-solar"][2:] == ("+1.4 points", "+1.0 points", "-0.4 points")
    assert found["ablation-birds"][2:] == ("+1.4 points", "-2.0 points", "-3.4 points")
    assert {row.experiment for row in rows(tmp_path) if row.experiment.startswith("ablation")} == {
        "ablation-birds",
        "ablation-solar",
    }
