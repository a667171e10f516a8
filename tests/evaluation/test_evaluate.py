"""`alexnet evaluate` on real runs and datasets, against values computed independently."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from PIL import Image
from random_runs import make_run

import alexnet
from alexnet import Classifier, PreparedDataset, Run, UsageError, evaluate
from alexnet.data.preparation import prepare
from alexnet.evaluation import metrics
from alexnet.evaluation.predictor import NetworkPredictor
from alexnet.evaluation.views import VIEWS
from alexnet.inspection.decide import fit_distance
from alexnet.runs.decision import DecisionRule
from alexnet.runs.run import checksum_of
from alexnet.runtime.errors import AlexNetError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 12 and 9 images in val, 11 and 8 in test, 72 × 72."""
    folder, rng = tmp_path_factory.mktemp("two"), np.random.default_rng(0)
    for split, counts in {"train": (4, 4), "val": (12, 9), "test": (11, 8)}.items():
        for name, count, light in zip(("bright", "dark"), counts, (170, 90), strict=True):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(light, 60, (72, 72, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{number}.png")
    prepare(folder / "images", folder / "data", size=72, progress=False)
    return folder / "data"


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    folder = tmp_path_factory.mktemp("runs")
    runs = [make_run(folder / name, data, seed, variant="convolutions") for seed, name in ((1, "first"), (2, "second"))]
    yield runs
    for run in runs:
        (run / "model.safetensors").unlink()


@torch.no_grad()
def probabilities_by_hand(run: Path, data: Path, split: str, views: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Ten crops of every image one after the other in numpy, and the softmax outputs averaged."""
    network, preprocess = Run.open(run).load()
    images = PreparedDataset.open(data).split(split)
    mean, crop_size, far = preprocess.mean.numpy(), preprocess.crop_size, 72 - preprocess.crop_size
    corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    views_of_all = []
    for i in range(len(images)):
        centered = (images[i][0].astype(np.float32) - mean) / 64
        crops = [centered[y : y + crop_size, x : x + crop_size] for y, x in corners]
        views_of_all += [view for c in crops for view in (c, c[:, ::-1])] if views == 10 else crops[-1:]
    logits = network(torch.from_numpy(np.stack(views_of_all).transpose(0, 3, 1, 2).copy()))
    shares = logits.double().softmax(1).numpy().reshape(len(images), views, -1).mean(1)
    return shares, images.labels


@pytest.fixture(scope="module")
def by_hand(runs: list[Path], data: Path) -> dict[str, list[np.ndarray]]:
    """Probabilities of both runs on val and test."""
    return {split: [probabilities_by_hand(run, data, split)[0] for run in runs] for split in ("val", "test")}


def test_json_has_the_metrics_of_the_ten_crops_taken_by_hand(command, runs, data, by_hand) -> None:
    done = command("evaluate", runs[0], "--data", data, "--json", "--batch-size", 5)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    shares, labels = by_hand["test"][0], PreparedDataset.open(data).split("test").labels
    assert (result["n_samples"], result["views"], result["split"], result["runs"]) == (19, 10, "test", [str(runs[0])])
    assert result["accuracy"] == pytest.approx(np.mean(shares.argmax(1) == labels))
    assert result["top5_accuracy"] == 1.0
    assert result["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, shares), rel=1e-4)
    confusion = sklearn.metrics.confusion_matrix(labels, shares.argmax(1))
    assert result["confusion_matrix"] == confusion.tolist()
    assert list(result["classes"]) == ["bright", "dark"]
    assert result["classes"]["bright"]["support"] == 11
    assert result["classes"]["bright"]["recall"] == pytest.approx(confusion[0, 0] / 11)
    assert result["positive_class"] == "dark"  # the rarer one
    assert result["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, shares[:, 1]))
    assert len(result["thresholds"]) == 19
    assert "threshold_for_recall" not in result


def test_one_view_is_the_center_alone(runs, data) -> None:
    shares, labels = probabilities_by_hand(runs[0], data, "val", views=1)
    result = evaluate(runs[0], data, split="val", views=1)
    assert result.log_loss == pytest.approx(sklearn.metrics.log_loss(labels, shares), rel=1e-4)
    assert result.to_dict()["views"] == 1


@pytest.mark.parametrize("views", VIEWS)
def test_the_table_names_every_set_of_views(command, runs, data, views) -> None:
    done = command("evaluate", runs[0], "--data", data, "--split", "val", "--views", views)
    assert done.returncode == 0, done.stderr
    assert f"{views} view{'s' * (views > 1)}: {VIEWS[views].description}" in done.stdout


def test_the_report_takes_every_set_of_views(command, runs, data, tmp_path) -> None:
    done = command("report", runs[0], "--data", data, "--split", "val", "--views", "9", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert VIEWS[9].description in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_registered_metric_is_in_the_table_and_the_json(command, runs, data, by_hand, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "_registry", {})
    alexnet.register_metric("brier score", lambda labels, p: np.mean((p[:, 1] - labels) ** 2))
    done = command("evaluate", runs[0], "--data", data, "--json", "--batch-size", 5)
    assert done.returncode == 0, done.stderr
    shares, labels = by_hand["test"][0], PreparedDataset.open(data).split("test").labels
    expected = sklearn.metrics.brier_score_loss(labels, shares[:, 1])
    assert json.loads(done.stdout)["metrics"] == {"brier score": pytest.approx(expected, rel=1e-4)}
    printed = re.search(r"brier score\W+([\d.]+)", command("evaluate", runs[0], "--data", data).stdout)
    assert float(printed[1]) == pytest.approx(expected, abs=1e-3)


def test_several_runs_are_averaged(runs, data, by_hand) -> None:
    labels = PreparedDataset.open(data).split("test").labels
    result = evaluate(runs, data)
    assert result.log_loss == pytest.approx(sklearn.metrics.log_loss(labels, np.mean(by_hand["test"], 0)), rel=1e-4)


def best_of_two(p: list[np.ndarray], labels: np.ndarray) -> float:
    """The coefficient of the first of two runs, by trying ten thousand."""
    rows = np.arange(len(labels))
    grid = np.linspace(0, 1, 10_001)[:, None]
    mixtures = grid * p[0][rows, labels] + (1 - grid) * p[1][rows, labels]
    return float(grid[np.log(mixtures).mean(1).argmax(), 0])


def test_coefficients_searched_on_val_are_applied_to_test(runs, data, by_hand) -> None:
    dataset = PreparedDataset.open(data)
    best = best_of_two(by_hand["val"], dataset.split("val").labels)
    result = evaluate(runs, data, search_coefficients=True).to_dict()
    assert result["coefficients"]["searched_on"] == "val"
    ((first, second),) = result["coefficients"]["values"]
    assert (first, second) == pytest.approx((best, 1 - best), abs=0.01)
    average = first * by_hand["test"][0] + second * by_hand["test"][1]
    labels = dataset.split("test").labels
    assert result["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, average), rel=1e-3)


def test_coefficients_for_val_itself_come_from_its_other_half(runs, data, by_hand) -> None:
    labels = PreparedDataset.open(data).split("val").labels
    result = evaluate(runs, data, split="val", search_coefficients=True, batch_size=4).to_dict()
    assert "halves of val" in result["coefficients"]["searched_on"]
    average = np.empty_like(by_hand["val"][0])
    for half, row in enumerate(result["coefficients"]["values"]):
        other = [p[1 - half :: 2] for p in by_hand["val"]]
        assert row[0] == pytest.approx(best_of_two(other, labels[1 - half :: 2]), abs=0.01)
        average[half::2] = row[0] * by_hand["val"][0][half::2] + row[1] * by_hand["val"][1][half::2]
    assert result["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, average), rel=1e-3)


def test_predictions_are_a_csv_with_one_line_for_each_image(command, runs, data, by_hand, tmp_path) -> None:
    file = tmp_path / "predictions.csv"
    done = command("evaluate", runs[0], "--data", data, "--predictions", file)
    assert done.returncode == 0, done.stderr
    split = PreparedDataset.open(data).split("test")
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == 19
    for i, (row, shares) in enumerate(zip(rows, by_hand["test"][0], strict=True)):
        label, prediction = ("bright", "dark")[split.labels[i]], ("bright", "dark")[shares.argmax()]
        assert (row["path"], row["label"], row["prediction"]) == (split.paths(i), label, prediction)
        assert row["correct"] == str(int(label == prediction))
        assert float(row["probability"]) == pytest.approx(shares.max(), abs=1e-4)
        assert float(row["label_probability"]) == pytest.approx(shares[split.labels[i]], abs=1e-4)
        assert float(row["probability_2"]) == pytest.approx(shares.min(), abs=1e-4)
    assert "19 images: test of" in done.stdout


def test_a_requested_recall_gives_the_threshold_and_its_row_in_the_table(command, runs, data, by_hand) -> None:
    arguments = ("evaluate", runs[0], "--data", data, "--recall", "0.7", "--positive", "bright")
    chosen = json.loads(command(*arguments, "--json").stdout)["threshold_for_recall"]
    found = by_hand["test"][0][:11, 0]  # bright comes first
    assert chosen["threshold"] == pytest.approx(np.sort(found)[-8], abs=1e-4)
    assert chosen["recall"] == pytest.approx(8 / 11)
    table = command(*arguments).stdout
    assert "positive class bright" in table
    assert "chosen on the same images" in table
    assert "10 views" in table


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--split", "validation"], "no split 'validation': it has train, val, test", 1),
        (["--recall", "1.5"], "recall is 1.5", 2),
        (["--positive", "gray"], "'gray'.*bright, dark", 2),
        (["--search-coefficients"], "needs several runs", 2),
        (["--batch-size", "0"], "batch_size is 0", 2),
        (["--predictions", "nowhere/p.csv"], "nowhere/p.csv can't be written: there is no folder", 1),
    ],
)
def test_invalid_usage_is_one_clear_line(command, runs, data, arguments, message, code, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("evaluate", runs[0], "--data", data, *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr)


def test_a_run_of_other_classes_or_another_size_does_not_fit(runs, data, striped_data, tmp_path) -> None:
    with pytest.raises(AlexNetError, match=r"only .*first has 'bright', 'dark'.*can't be evaluated"):
        evaluate(runs[0], striped_data)
    stripes = make_run(tmp_path / "stripes", striped_data, seed=0, variant="convolutions")
    with pytest.raises(AlexNetError, match="can't be averaged"):
        evaluate([runs[0], stripes], data)
    config = json.loads((stripes / "config.json").read_text(encoding="utf-8"))
    (stripes / "config.json").write_text(
        json.dumps(config | {"classes": ["bright", "dark"], "size": 80}), encoding="utf-8"
    )
    with pytest.raises(AlexNetError, match=r"mean image of 80|80 pixels"):
        evaluate(stripes, data)
    (stripes / "model.safetensors").unlink()


def test_without_test_and_val_the_splits_are_named(runs, data) -> None:
    dataset = PreparedDataset.open(data)
    index = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    index["splits"] = {"train": index["splits"]["train"]}
    with pytest.raises(AlexNetError, match=r"no images in test or val.*train"):
        evaluate(runs[0], PreparedDataset(dataset.path, index))
    assert evaluate(runs[0], PreparedDataset(dataset.path, index), split="train", views=1).split.name == "train"


def test_recall_needs_two_classes(runs, data) -> None:
    index = json.loads((data / "dataset.json").read_text(encoding="utf-8")) | {"classes": ["a", "b", "c"]}
    with pytest.raises(UsageError, match="recall and positive are for two classes"):
        evaluate(runs[0], PreparedDataset(data, index), recall=0.9)


def test_a_folder_that_is_no_run_or_no_dataset_is_named(command, runs, data, tmp_path) -> None:
    for arguments in ((tmp_path, "--data", data), (runs[0], "--data", tmp_path)):
        done = command("evaluate", *arguments)
        assert done.returncode == 1
        assert str(tmp_path) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def rated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `data` with weights 1 to 3 and, every third, a confidence of 2/3."""
    folder = tmp_path_factory.mktemp("rated")
    rows = ["path,label,split,weight,confidence"]
    for number, path in enumerate(sorted((data.parent / "images").glob("*/*/*.png"))):
        split, label = path.parts[-3:-1]
        rows.append(f"{path},{label},{split},{1 + number % 3},{1 if number % 3 else 2 / 3:.6g}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    prepare(folder / "images.csv", folder / "data", size=72, progress=False, workers=1)
    return folder / "data"


def test_weights_of_the_images_are_used_and_said(command, runs, rated) -> None:
    split = PreparedDataset.open(rated).split("test")
    shares, labels = probabilities_by_hand(runs[0], rated, "test")
    predicted, weights = shares.argmax(1), split.weights
    result = evaluate(runs[0], rated).to_dict()
    assert result["weighted"]
    assert result["accuracy"] == pytest.approx(np.average(predicted == labels, weights=weights))
    assert result["log_loss"] == pytest.approx(
        sklearn.metrics.log_loss(labels, shares, sample_weight=weights), rel=1e-4
    )
    assert result["roc_auc"] == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, shares[:, 1], sample_weight=weights)
    )
    for average in ("precision", "recall", "f1"):
        score = getattr(sklearn.metrics, f"{average}_score")
        expected = score(labels, predicted, average="macro", sample_weight=weights, zero_division=0)
        if average != "precision" or len(set(predicted)) == 2:
            assert result[f"macro_{average}"] == pytest.approx(expected)
    assert result["confusion_matrix"] == sklearn.metrics.confusion_matrix(labels, predicted).tolist()
    assert "those of the images" in command("evaluate", runs[0], "--data", rated).stdout


def test_images_with_doubtful_labels_are_reported_apart(runs, rated) -> None:
    split = PreparedDataset.open(rated).split("test")
    shares, labels = probabilities_by_hand(runs[0], rated, "test")
    certain, correct = split.targets.max(1) == 1, shares.argmax(1) == labels
    found = evaluate(runs[0], rated).to_dict()["certainty"]
    for name, chosen in (("certain", certain), ("doubtful", ~certain)):
        assert found[name]["n_samples"] == chosen.sum() > 0
        assert found[name]["accuracy"] == pytest.approx(np.average(correct[chosen], weights=split.weights[chosen]))


def test_the_expected_cost_is_the_mean_of_the_table(command, runs, data, tmp_path) -> None:
    (tmp_path / "costs.csv").write_text(",bright,dark\nbright,0,1\ndark,10,0\n")
    done = command("evaluate", runs[0], "--data", data, "--json", "--costs", tmp_path / "costs.csv")
    result = json.loads(done.stdout)
    confusion = np.array(result["confusion_matrix"])
    assert result["expected_cost"] == pytest.approx((confusion * [[0, 1], [10, 0]]).sum() / confusion.sum())
    low, high = result["expected_cost_interval"]
    assert low < result["expected_cost"] < high
    done = command("evaluate", runs[0], "--data", data, "--costs", tmp_path / "no.csv")
    assert done.returncode == 1
    assert "no.csv" in done.stderr


def test_the_decision_rule_of_the_run_is_measured_and_raw_leaves_it_out(command, runs, data, tmp_path) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    shares, labels = probabilities_by_hand(run, data, "test", views=1)
    costs = np.array([[0, 1, 0.4], [10, 0, 0.4]])
    weights = checksum_of(Run.open(run).load()[0].state_dict())
    DecisionRule(("bright", "dark"), costs=costs, weights=weights).save(run)
    result = json.loads(command("evaluate", run, "--data", data, "--json").stdout)
    expected = shares @ costs
    decided = expected.argmin(1)
    found = result["decision"]
    assert found["shares"]["unsure"] == pytest.approx((decided == 2).mean())
    assert found["expected_cost"] == pytest.approx(costs[labels, decided].mean())
    answered = decided < 2
    assert found["accuracy"] == (pytest.approx((decided == labels)[answered].mean()) if answered.any() else None)
    assert found["classes"]["dark"]["missed"] == ((labels == 1) & (decided == 0)).sum()
    assert "decision" not in json.loads(command("evaluate", run, "--data", data, "--json", "--raw").stdout)
    assert "with the decision rule of the run" in re.sub(r"\s+", " ", command("evaluate", run, "--data", data).stdout)


def test_a_rule_with_a_distance_is_measured_in_the_pass_of_the_evaluation(
    runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    before = evaluate(run, data, split="test", views=1)
    weights = checksum_of(Run.open(run).load()[0].state_dict())
    images, labels = PreparedDataset.open(data).split("train").gather(np.arange(8)), np.arange(8) % 2
    features = Classifier.load(run).probabilities_and_features(images)[1]
    distance = fit_distance(features, labels, "mahalanobis")
    computed = []
    for name in ("probabilities", "probabilities_and_features"):
        compute = getattr(NetworkPredictor, name)

        def counted(self: NetworkPredictor, images: torch.Tensor, views: int, compute: Any = compute) -> Any:
            computed.append(len(images))
            return compute(self, images, views)

        monkeypatch.setattr(NetworkPredictor, name, counted)
    rule = DecisionRule(("bright", "dark"), distance=replace(distance, limit=0.0), weights=weights)
    rule.save(run)
    found = evaluate(run, data, split="test", views=1)
    assert sum(computed) == len(found.split)
    assert found.decided is not None
    assert found.decided.to_dict()["shares"]["unknown"] == 1.0
    np.testing.assert_array_equal(found.predictions.ranked_probabilities, before.predictions.ranked_probabilities)
    ten = evaluate(run, data, split="test", views=10)
    assert ten.decided is not None
    np.testing.assert_array_equal(ten.decided.decisions.probabilities, found.decided.decisions.probabilities)
    without = evaluate(run, data, split="test", views=10, raw=True)
    np.testing.assert_array_equal(ten.predictions.ranked_probabilities, without.predictions.ranked_probabilities)
