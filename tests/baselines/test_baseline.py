"""Hand-made features and a linear SVM: the numbers of both, and a baseline wherever a run is taken."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_runs import make_run
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from alexnet.baselines import svm
from alexnet.baselines.baseline import Baseline, fit_baseline
from alexnet.baselines.features import DenseSift
from alexnet.baselines.fisher import Mixture, pyramid
from alexnet.data.dataset import PreparedDataset
from alexnet.prediction.ensemble import load_classifier
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError, UsageError


@pytest.fixture(scope="module")
def base(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baselines") / "base"
    fit_baseline(striped_data, folder, features="hog")
    return folder


def random_mixture(gaussians: int = 3, parts: int = 4) -> Mixture:
    draw = torch.Generator().manual_seed(0)
    shares = torch.rand(gaussians, generator=draw) + 0.2
    return Mixture(
        center=torch.randn(6, generator=draw),
        components=torch.linalg.qr(torch.randn(6, parts, generator=draw))[0],
        shares=shares / shares.sum(),
        means=torch.randn(gaussians, parts, generator=draw),
        deviations=torch.rand(gaussians, parts, generator=draw) + 0.5,
    )


def test_a_fisher_vector_is_the_gradient_of_the_likelihood() -> None:
    mixture = random_mixture()
    descriptors = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    means, deviations = (t.double().requires_grad_() for t in (mixture.means, mixture.deviations))
    likelihood = MixtureSameFamily(Categorical(mixture.shares.double()), Independent(Normal(means, deviations), 1))
    reduced = ((descriptors - mixture.center) @ mixture.components).double()
    by_mean, by_deviation = torch.autograd.grad(likelihood.log_prob(reduced).mean(), (means, deviations))
    root = mixture.shares.double().sqrt()[:, None]
    expected = torch.cat([by_mean * deviations / root, by_deviation * deviations / (root * math.sqrt(2))])
    found = mixture.gradient(mixture.statistics(descriptors), 40)
    torch.testing.assert_close(found.double(), expected.detach().flatten(), rtol=1e-4, atol=1e-5)
    vector = mixture.vector(mixture.statistics(descriptors), 40)
    assert vector.norm().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(vector.sign(), found.sign())


def test_the_mixture_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(4, 6)) * 6
    descriptors = (centers[rng.integers(4, size=800)] + rng.normal(size=(800, 6)) * [1, 2, 1, 0.5, 1, 1]).astype("f4")
    found = Mixture.fit(descriptors, gaussians=4)
    reduced = (torch.from_numpy(descriptors) - found.center) @ found.components
    expected = GaussianMixture(4, covariance_type="diag", reg_covar=1e-4 * float(reduced.var()), random_state=0)
    expected.fit(reduced.double().numpy())
    order, other = found.means[:, 0].argsort(), expected.means_[:, 0].argsort()
    np.testing.assert_allclose(found.shares[order], expected.weights_[other], atol=2e-3)
    np.testing.assert_allclose(found.means[order], expected.means_[other], atol=2e-2)
    np.testing.assert_allclose(found.deviations[order], np.sqrt(expected.covariances_[other]), atol=2e-2)


def test_the_pyramid_holds_the_whole_image_and_its_strips() -> None:
    mixture, heights = random_mixture(), torch.linspace(0, 0.99, 60)
    descriptors = torch.randn(60, 6, generator=torch.Generator().manual_seed(2))
    found = pyramid(mixture, descriptors, heights, 3).chunk(4)
    parts = [descriptors, descriptors[:20], descriptors[20:40], descriptors[40:]]
    for one, expected in zip(found, parts, strict=True):
        vector = mixture.vector(mixture.statistics(expected), len(expected))
        torch.testing.assert_close(one, vector / 2, rtol=1e-4, atol=1e-5)


def test_sift_sees_the_direction_of_stripes_and_not_their_contrast() -> None:
    sift = DenseSift(64)
    rows = np.arange(64)
    lying = np.repeat((128 + 60 * np.sin(rows / 2))[:, None, None], 64, 1).repeat(3, 2)
    strong, weak, standing = (
        sift.descriptors(np.ascontiguousarray(image, dtype=np.uint8))
        for image in (lying, 64 + lying / 2, lying.transpose(1, 0, 2))
    )
    np.testing.assert_allclose(np.linalg.norm(strong, axis=1), 1, rtol=1e-5)
    assert np.linalg.norm(strong - weak, axis=1).mean() < 0.1
    assert np.linalg.norm(strong - standing, axis=1).mean() > 0.7
    assert len(sift.heights) == len(strong)


def clouds(count: int, classes: int, length: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    vectors = rng.normal(0, 1, (classes, length))[labels] + rng.normal(0, 0.8, (count, length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_the_machine_in_the_small_basis_is_that_of_the_vectors(classes: int) -> None:
    from sklearn.svm import LinearSVC

    vectors, labels = clouds(30, classes)  # fewer images than numbers
    found = svm.fit_svm(vectors, labels, classes, cost=1.0)
    reference = LinearSVC(C=1.0, dual=True, tol=1e-8, max_iter=100_000).fit(vectors.astype(np.float64), labels)
    scores = vectors @ found.weights.T + found.biases
    expected = reference.decision_function(vectors)
    np.testing.assert_allclose(scores if classes > 2 else scores[:, 1], expected, atol=1e-2)
    assert (found.probabilities(vectors).argmax(1) == scores.argmax(1)).all()


def test_many_images_are_streamed_and_classified_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors, labels = clouds(600, 3)
    exact = svm.fit_svm(vectors, labels, 3)
    monkeypatch.setattr(svm, "EXACT_IMAGES", 100)
    monkeypatch.setattr(svm, "ROWS", 50)
    monkeypatch.setattr(svm, "SGD_STEPS", 200)
    monkeypatch.setattr(svm, "CHOICE_IMAGES", 300)
    streamed = svm.fit_svm(vectors, labels, 3)
    assert "C is chosen by SVMs fitted to 300 images, the final one to all 600" in capsys.readouterr().err
    predicted = [found.probabilities(vectors).argmax(1) for found in (exact, streamed)]
    assert (predicted[0] == labels).mean() > 0.95
    assert (predicted[0] == predicted[1]).mean() > 0.97


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("cost", [0.1, 1.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_gradient_descent_finds_the_minimum_of_the_linear_svm(
    monkeypatch: pytest.MonkeyPatch, classes: int, cost: float, balanced: bool
) -> None:
    """The objective of scikit-learn's LinearSVC, summed over its machines."""
    from sklearn.svm import LinearSVC

    vectors, labels = clouds(600, 4)
    labels = np.minimum(labels, classes - 1)  # the last class has more images
    monkeypatch.setattr(svm, "EXACT_IMAGES", 100)
    found = svm.fit_svm(vectors, labels, classes, cost=cost, balanced=balanced)
    reference = LinearSVC(C=cost, tol=1e-8, max_iter=100_000, class_weight="balanced" if balanced else None)
    reference.fit(vectors.astype(np.float64), labels)
    counts = np.bincount(labels)
    each = (len(labels) / (classes * counts))[labels] if balanced else np.ones(len(labels))

    def objective(weights: np.ndarray, biases: np.ndarray) -> float:
        signs = np.where(labels[:, None] == np.arange(classes)[-len(biases) :], 1, -1)
        violations = np.maximum(0, 1 - signs * (vectors @ weights.T + biases))
        penalty = 0.5 * float((weights**2).sum() + (biases**2).sum())
        return penalty + cost * float((each[:, None] * violations**2).sum())

    machines = len(reference.intercept_)
    least = objective(reference.coef_, reference.intercept_)
    assert objective(found.weights[-machines:], found.biases[-machines:]) < 1.02 * least


@pytest.mark.parametrize("rare", [2, 20])
def test_gradient_descent_converges_where_a_few_images_have_half_of_the_weight(
    monkeypatch: pytest.MonkeyPatch, rare: int
) -> None:
    from sklearn.svm import LinearSVC

    vectors, _ = clouds(2000, 4)
    labels = (np.arange(2000) % (2000 // rare) == 0).astype(np.int64)
    vectors[labels == 1, 0] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(svm, "EXACT_IMAGES", 100)
    found = svm.fit_svm(vectors, labels, 2, cost=1.0, balanced=True)
    reference = LinearSVC(C=1.0, class_weight="balanced", tol=1e-6, max_iter=100_000).fit(vectors, labels)
    each = (len(labels) / (2 * np.bincount(labels)))[labels]

    def objective(weights: np.ndarray, bias: float) -> float:
        violations = np.maximum(0, 1 - (2 * labels - 1) * (vectors @ weights + bias))
        return 0.5 * float(weights @ weights + bias**2) + float((each * violations**2).sum())

    least = objective(reference.coef_[0], float(reference.intercept_[0]))
    assert objective(found.weights[1], float(found.biases[1])) < 1.25 * least


FIT_A_FILE = """
import sys, threading, time
import numpy as np
from alexnet.baselines import svm

peak = 0
def watch():
    global peak
    while True:
        status = open("/proc/self/status").read()
        peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))
        time.sleep(0.005)

count, file = int(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
labels = np.arange(count) % 2
vectors = np.memmap(file, dtype=np.float16, mode="w+", shape=(count, 4096))
for first in range(0, count, 500):
    vectors[first : first + 500] = rng.normal(labels[first : first + 500, None] * 0.01, 0.02, (500, 4096))
svm.SGD_EPOCHS, svm.SGD_STEPS = 1, 1
svm.fit_svm(vectors[:6000], labels[:6000], 2, cost=1.0)  # whatever the libraries need once
threading.Thread(target=watch, daemon=True).start()
svm.fit_svm(vectors, labels, 2, cost=1.0)
print(peak * 1024)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """24,000 vectors are 393 MB in single precision; their file of 16-bit numbers is mapped, not loaded."""
    peaks = []
    for count in (6_000, 24_000):
        command = [sys.executable, "-c", FIT_A_FILE, str(count), str(tmp_path / "vectors")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout))
    assert peaks[1] - peaks[0] < 40e6, peaks


def test_balanced_weights_find_the_rare_class() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (400, 5)).astype(np.float32)
    labels = (np.arange(400) < 20).astype(np.int64)
    vectors[labels == 1, 0] += 1.5
    plain, balanced = (svm.fit_svm(vectors, labels, 2, cost=1.0, balanced=b) for b in (False, True))
    recalls = [found.probabilities(vectors)[labels == 1].argmax(1).mean() for found in (plain, balanced)]
    assert recalls[0] < 0.5 < recalls[1]


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("grouping", [None, "pairs", "classes", "one"])
def test_few_images_per_class_are_fitted(each: int, grouping: str | None) -> None:
    """Cross-validation has no more folds than a class has images, and none where no class can be split."""
    vectors, labels = clouds(4 * each, 4)
    groups = {
        "pairs": np.arange(4 * each) // 2,
        "classes": labels,
        "one": np.zeros(4 * each, dtype=np.int64),
    }
    found = svm.fit_svm(vectors, labels, 4, groups=None if grouping is None else groups[grouping])
    assert (found.probabilities(vectors).argmax(1) == labels).all()


def test_a_class_without_images_is_an_error() -> None:
    vectors, labels = clouds(30, 3)
    with pytest.raises(AlexNetError, match="1 of 4 classes have no training image"):
        svm.fit_svm(vectors, labels, 4)


def test_a_baseline_is_evaluated_compared_predicted_and_reported(
    base: Path, striped_data: Path, striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    done = command("evaluate", base, "--data", striped_data, "--json")
    result = json.loads(done.stdout)
    assert result["accuracy"] > 0.9, "HOG tells lying from standing stripes"
    assert result["log_loss"] < 0.5

    run = make_run(tmp_path / "run", striped_data, seed=1, variant="convolutions")
    compared = json.loads(command("compare", run, base, "--data", striped_data, "--views", 1, "--json").stdout)
    assert compared["pairs"][0]["accuracy"]["second"] > 0.9
    together = json.loads(command("evaluate", run, base, "--data", striped_data, "--views", 1, "--json").stdout)
    assert together["n_samples"] == 24, "an average of a network and a baseline"

    images = sorted(striped_folder(2, 2).rglob("*.png"))
    predictions = json.loads(command("predict", base, *images, "--json").stdout)
    assert [one["label"] for one in predictions] == [image.parent.name for image in images]

    costs = tmp_path / "costs.csv"
    costs.write_text(",lying,standing\nlying,0,5\nstanding,1,0\n", encoding="utf-8")
    reported = command("report", base, "--out", tmp_path / "report", "--costs", costs)
    page = Path(reported.stdout.strip()).read_text(encoding="utf-8")
    assert "expected cost per image" in page
    assert "histograms of oriented gradients" in page
    assert '<h2 id="mistakes-heading">' in page


def test_a_saved_baseline_says_the_same(base: Path, striped_data: Path) -> None:
    images = PreparedDataset.open(striped_data).split("val").gather(np.arange(6))
    one, two = Baseline.open(base), Baseline.open(base)
    np.testing.assert_array_equal(one.probabilities(images), two.probabilities(images))
    classifier = load_classifier(base)
    np.testing.assert_array_equal(classifier.probabilities(images), one.probabilities(images))
    flipped = (one.probabilities(images) + one.probabilities(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(classifier.probabilities(images, views=10), flipped)
    assert one.config.seconds.keys() == {"fit of the features", "features", "support vector machine"}


def test_sift_with_fisher_vectors_learns_stripes(striped_data: Path, tmp_path: Path) -> None:
    found = fit_baseline(striped_data, tmp_path / "base", cost=10.0)
    split = PreparedDataset.open(striped_data).split("val")
    images = split.gather(np.arange(len(split)))
    predicted = load_classifier(tmp_path / "base").probabilities(images, views=10).argmax(1)
    assert (predicted == split.labels).mean() > 0.9
    assert found.config.length == 4 * 2 * 64 * 150, "24 images have 4,800 sampled descriptors, for 150 Gaussians"
    assert [file.name for file in (tmp_path / "base").iterdir() if file.name.startswith(".")] == []


def test_what_has_no_network_is_refused_in_one_line(base: Path, striped_data: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="is a baseline, which has no network"):
        Run.open(base)
    with pytest.raises(AlexNetError, match="exists already"):
        fit_baseline(striped_data, base)
    with pytest.raises(UsageError, match="C is 0; it must be above 0"):
        fit_baseline(striped_data, tmp_path / "other", cost=0)
    assert not (tmp_path / "other").exists()


def test_a_damaged_baseline_is_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_bytes((base / "baseline.json").read_bytes())
    with pytest.raises(AlexNetError, match="can't be read as a baseline"):
        Baseline.open(tmp_path)


@pytest.mark.long
def test_reproduce_baseline_draws_a_split_with_each_seed(
    striped_folder: Callable[..., Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    images = striped_folder(14, 13, 64)
    arguments = (
        "reproduce",
        "baseline",
        "--quick",
        "--data",
        images,
        "--out",
        tmp_path,
        "--only",
        images.name + "/hog",
    )
    assert command(*arguments, "--seeds", 0, 1).returncode == 0
    report = json.loads((tmp_path / "baseline.json").read_text(encoding="utf-8"))
    (row,) = report["table"]
    assert row["accuracy"]["values"] == [entry["accuracy"] for entry in report["trials"].values()]
    first, second = (PreparedDataset.open(tmp_path / images.name / f"data-{seed}") for seed in (0, 1))
    assert first.counts == second.counts == {"train": 23, "test": 6}, (
        "27 training images and one of each class for testing"
    )
    assert not np.array_equal(first.split("test").gather(np.arange(6)), second.split("test").gather(np.arange(6)))
