"""Each disease is named, with a way out, and a healthy training is left in peace: small but real trainings."""

import copy
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn
from torch.nn import functional

from alexnet.data.augmentation import Preprocessing
from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.preparation import prepare
from alexnet.network.model import AlexNet
from alexnet.runs.recipe import Recipe, recipes
from alexnet.training.agreement import agreement, neighbors_agree
from alexnet.training.diagnostics import Diagnostics, EpochValidation, LayerUpdate, dead_units, guessing_loss
from alexnet.training.findings import Finding, overlap
from alexnet.training.input_pipeline import augmentation_pipeline
from alexnet.training.optimizers import make_optimizers
from alexnet.training.schedules import Schedule

SIDE, CROP = 72, 67


def with_labels(split: Split, labels: np.ndarray) -> Split:
    """The same images with other labels."""
    other = copy.copy(split)
    other.labels = labels
    other.class_counts = np.bincount(labels, minlength=len(split.class_counts)).tolist()
    return other


def out_of_step(split: Split) -> Split:
    """The same images, each with the label of another."""
    return with_labels(split, np.random.default_rng(0).permutation(split.labels))


def cells() -> tuple[list[Path], list[Path]]:
    """The files of the defective and of the functional solar cells, each in a random order."""
    package = pytest.importorskip("elpv_dataset", reason="the solar cells come with the extra alexnet[demo]")
    folder = Path(package.__file__).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    order = np.random.default_rng(0).permutation(len(rows))
    defective, functional = [], []
    for name, probability, _ in (rows[i] for i in order):
        (defective if float(probability) > 0.5 else functional).append(folder / name)
    return defective, functional


def prepare_cells(folder: Path, train: tuple[int, int], val: tuple[int, int]) -> PreparedDataset:
    """Prepare defective and functional cells, counted for training and validation, at 72 × 72."""
    for name, files, *counts in zip(("defective", "functional"), cells(), train, val, strict=True):
        for number, file in enumerate(files[: sum(counts)]):
            place = folder / "cells" / ("train" if number < counts[0] else "val") / name
            place.mkdir(parents=True, exist_ok=True)
            (place / file.name).symlink_to(file)
    return prepare(folder / "cells", folder / "data", size=SIDE, progress=False)


@pytest.fixture(scope="session")
def solar(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """1,000 of the solar cells, three in ten defective."""
    return prepare_cells(tmp_path_factory.mktemp("solar"), train=(210, 490), val=(90, 210))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """20 classes of ImageNet in color: 50 training and 10 validation images of each, at 64 × 64."""
    archive = Path(__file__).parents[2] / "../shared/data/tiny-imagenet-20.zip"
    if not archive.exists():
        pytest.skip("needs ../shared/data/tiny-imagenet-20.zip")
    folder, taken = tmp_path_factory.mktemp("tiny"), dict[str, int]()
    with zipfile.ZipFile(archive) as file:
        for name in sorted(file.namelist()):
            place = str(Path(name).parent)
            limit = 50 if name.startswith("train/") else 10
            if name.endswith(".JPEG") and taken.setdefault(place, 0) < limit:
                taken[place] += 1
                file.extract(name, folder / "images")
    return prepare(folder / "images", folder / "data", size=64, progress=False)


@dataclass
class Patient:
    """A training as one Diagnostics sees it, and what that says."""

    recipe: Recipe
    training: Split
    validation: Split | None = None
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        counts = self.training.class_counts
        classes = [f"class {number}" for number in range(len(counts))]
        steps = -(-len(self.training) // self.recipe.batch_size)
        self.health = Diagnostics(classes, counts, self.recipe, steps, train=self.training, validation=self.validation)

    def named(self) -> list[tuple[str, str]]:
        return [(finding.kind, finding.where) for finding in self.findings]


def thin(network: AlexNet) -> AlexNet:
    """The network with a quarter of its kernels and few units in fc6 and fc7: the same depth in a tenth of the time."""
    inputs = 3
    for name, layer in list(network.named_children()):
        match layer:
            case nn.Conv2d():
                bias = layer.bias is not None
                kind, shape = type(layer), (layer.kernel_size, layer.stride, layer.padding)
                setattr(network, name, kind(inputs, layer.out_channels // 4, *shape, groups=layer.groups, bias=bias))
                inputs = layer.out_channels // 4
            case nn.BatchNorm2d():
                setattr(network, name, nn.BatchNorm2d(inputs))
            case nn.Flatten():
                inputs *= 36
            case nn.Linear():
                units = network.num_classes if name == "logits" else 256
                setattr(network, name, nn.Linear(inputs, units))
                inputs = units
    network.initialize(network.init)
    return network


def train(data: PreparedDataset, *patients: Patient, whole: bool = False) -> None:
    """Train a real AlexNet on small crops and show every step and every epoch to the patients."""
    recipe, training = patients[0].recipe, patients[0].training
    torch.manual_seed(recipe.seed)
    network = AlexNet(
        recipe.variant,
        len(training.class_counts),
        activation=recipe.activation,
        normalization=recipe.normalization,
        dropout=recipe.dropout,
        init=recipe.init_scheme,
    )
    network = (network if whole else thin(network)).to(memory_format=torch.channels_last)
    optimizers = make_optimizers(network, recipe)
    mean = data.mean_image if recipe.mean == "image" else np.broadcast_to(data.mean_rgb, data.mean_image.shape)
    scale = 1 / np.sqrt(data.pca_eigenvalues.sum() / 3) if recipe.pixel_scaling == "std" else 1.0
    preprocess = Preprocessing(torch.tensor(np.array(mean), dtype=torch.float32), CROP, float(scale))
    augment = augmentation_pipeline(recipe, preprocess, data.pca_eigenvectors, data.pca_eigenvalues)
    images = torch.from_numpy(training.gather(np.arange(len(training))))
    labels = torch.from_numpy(training.labels)
    generator = torch.Generator().manual_seed(recipe.seed)
    per_epoch = -(-len(training) // recipe.batch_size)
    schedule = Schedule(recipe, per_epoch)
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        losses, wrong = 0.0, 0
        for rows in torch.randperm(len(training), generator=generator).tensor_split(per_epoch):
            before = {name: weight.clone() for name, weight in weights(network)}
            logits = network(augment(images[rows], generator))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=recipe.label_smoothing)
            loss.backward()
            for optimizer in optimizers:
                schedule.apply(optimizer, step)
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            losses += loss.item() * len(rows)
            wrong += int((logits.argmax(1) != labels[rows]).sum())
            for patient in patients:
                patient.findings += patient.health.after_step(step, loss.item())
        layers = [
            LayerUpdate(name, weight.abs().mean().item(), (weight - before[name]).abs().mean().item())
            for name, weight in weights(network)
        ]
        dead = dead_units(network, preprocess.center(images[rows]))
        for patient in patients:
            patient.findings += patient.health.after_epoch(
                epoch,
                train_loss=losses / len(training),
                train_error=wrong / len(training),
                validation=validate(network, preprocess, patient.validation),
                layers=layers,
                dead=dead,
            )


def weights(network: AlexNet) -> Iterator[tuple[str, Tensor]]:
    for name, module in network.named_children():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield name, module.weight.detach()


@torch.no_grad()
def validate(network: AlexNet, preprocess: Preprocessing, split: Split | None) -> EpochValidation | None:
    if split is None:
        return None
    network.eval()
    images, labels = torch.from_numpy(split.gather(np.arange(len(split)))), torch.from_numpy(split.labels)
    logits = torch.cat([network(preprocess.center(block)) for block in images.split(100)])
    network.train()
    answers = logits.argmax(1)
    counts = torch.bincount(answers, minlength=len(split.class_counts)).tolist()
    error = (answers != labels).double().mean().item()
    return EpochValidation(functional.cross_entropy(logits, labels).item(), error, counts, split.class_counts)


def small(**changes) -> Recipe:
    """The recipe for few images, in batches that one core does in a moment."""
    return recipes()["small"].override({"batch_size": 32, **changes})


# A healthy training, and the same with labels out of step.


def test_a_training_that_learns_has_no_finding_but_shuffled_validation_labels(solar):
    training, validation = solar.split("train"), solar.split("val")
    recipe = small(epochs=4)
    healthy = Patient(recipe, training, validation)
    wrong = Patient(recipe, training, out_of_step(validation))
    train(solar, healthy, wrong)
    assert healthy.findings == []
    assert wrong.named() == [("labels-shuffled", "val")]


def test_shuffled_training_labels_are_a_finding(solar):
    shuffled = Patient(small(epochs=4), *(out_of_step(solar.split(name)) for name in ("train", "val")))
    train(solar, shuffled)
    assert shuffled.named() == [("labels-shuffled", "train")]


# Trainings that can't learn.


def test_weights_drawn_as_in_the_paper_stay_on_the_plateau_of_few_images(solar):
    stuck = Patient(recipes()["paper"].override({"batch_size": 32, "epochs": 4}), solar.split("train"))
    train(solar, stuck)
    assert ("plateau", "loss") in stuck.named()
    assert "--recipe small" in stuck.findings[0].remedy


def test_the_first_steps_of_the_paper_recipe_leave_dead_feature_maps_with_few_classes(tmp_path):
    data = prepare_cells(tmp_path, train=(40, 60), val=(1, 1))
    killed = Patient(recipes()["paper"].override({"batch_size": 16, "epochs": 1}), data.split("train"))
    train(data, killed, whole=True)
    assert "dead-units" in dict(killed.named())
    assert "--recipe small" in killed.findings[0].remedy


def test_a_learning_rate_far_too_large_is_a_finding(solar):
    wild = Patient(small(lr=0.05, epochs=3), solar.split("val"))
    train(solar, wild)
    assert "exploding-updates" in dict(wild.named())
    assert f"--lr {recipes()['small'].lr:g}`" in wild.findings[0].remedy


def test_a_learning_rate_far_too_small_is_a_finding(solar):
    asleep = Patient(small(lr=1e-8, epochs=2), solar.split("val"))
    train(solar, asleep)
    assert ("vanishing-updates", "all layers") in asleep.named()
    assert all(f"--lr {recipes()['small'].lr:g}`" in finding.remedy for finding in asleep.findings)


def test_a_class_that_is_never_predicted_is_a_finding(tmp_path):
    data = prepare_cells(tmp_path, train=(10, 190), val=(30, 60))
    rare = Patient(small(epochs=10), data.split("train"), data.split("val"))
    train(data, rare)
    assert rare.named() == [("class-never-predicted", "class 0")]
    assert "30 of 90" in rare.findings[0].message
    assert "10 of 200" in rare.findings[0].remedy


# Findings, and how often they are reported.


@pytest.mark.parametrize(("counts", "message"), [([50, 50], "ln(2) = 0.693"), ([95, 5], "(0.199)")])
def test_a_plateau_is_where_guessing_by_frequency_is(counts, message):
    recipe = recipes()["paper"].override({"epochs": 300, "batch_size": 100})
    health = Diagnostics(["a", "b"], counts, recipe, 1)
    guess = entropy(counts)
    findings = [health.after_step(step, guess * (1 + 0.01 * (-1) ** step)) for step in range(1, 301)]
    said = [finding for new in findings for finding in new]
    assert [finding.kind for finding in said] == ["plateau"]
    assert message in said[0].message


@pytest.mark.parametrize("level", [0.97, 0.6])
def test_a_loss_below_guessing_is_no_plateau_nor_is_one_on_its_way_down(level):
    recipe = recipes()["paper"].override({"epochs": 300, "batch_size": 100})
    low, falling = (Diagnostics(["a", "b"], [50, 50], recipe, 1) for _ in range(2))
    for step in range(1, 301):
        assert not low.after_step(step, level * np.log(2))
        assert not falling.after_step(step, 3.0 * 0.99**step)


def test_a_loss_that_returns_to_guessing_is_a_collapse():
    health = Diagnostics(["a", "b"], [50, 50], small(epochs=300), 1)
    said = [f for step in range(1, 301) for f in health.after_step(step, 0.3 if step < 200 else 0.7)]
    assert [finding.kind for finding in said] == ["collapse"]
    assert "0.300" in said[0].message


def ill_epoch(epoch: int) -> dict:
    """An epoch of a training with much wrong, the dead units only now and then."""
    learning = epoch > 5
    return {
        "train_loss": 0.5 if learning else 0.7,
        "train_error": 0.2,
        "validation": EpochValidation(0.9, 0.3, [100, 0], [70, 30]),
        "layers": [LayerUpdate("conv1", 0.01, 0.002), LayerUpdate("logits", 0.01, 0.002)],
        "dead": {"conv1": 0.2, "conv2": 0.8 if epoch % 3 else 0.3, "fc6": 0.8},
    }


def test_each_finding_is_reported_once():
    health = Diagnostics(["a", "b"], [70, 30], small(epochs=20), 10)
    said = [finding for epoch in range(1, 21) for finding in health.after_epoch(epoch, **ill_epoch(epoch))]
    assert sorted((finding.kind, finding.where) for finding in said) == [
        ("class-never-predicted", "b"),
        ("dead-units", "conv2"),
        ("exploding-updates", "conv1"),
    ]
    assert all("\n" not in finding.message + finding.remedy for finding in said)


def test_a_finding_that_had_disappeared_is_reported_again():
    health = Diagnostics(["a", "b"], [70, 30], small(epochs=40), 10)
    said = []
    for epoch in range(1, 31):
        dead = {"conv2": 0.3 if 10 < epoch < 20 else 0.8}
        said += health.after_epoch(epoch, **{**ill_epoch(epoch), "validation": None, "layers": [], "dead": dead})
    assert [finding.kind for finding in said] == ["dead-units", "dead-units"]


def test_a_resumed_training_reports_the_same_findings():
    def course(resumed: bool) -> list[tuple[int, Finding]]:
        health, said = Diagnostics(["a", "b"], [70, 30], small(epochs=20), 10), []
        for step in range(1, 201):
            said += [(step, finding) for finding in health.after_step(step, 0.7 if step < 120 else 0.2)]
            if step % 10 == 0:
                said += [(step, finding) for finding in health.after_epoch(step // 10, **ill_epoch(step // 10))]
            if resumed and step % 7 == 0:
                state = json.loads(json.dumps(health.state_dict()))
                health = Diagnostics(["a", "b"], [70, 30], small(epochs=20), 10)
                health.load_state_dict(state)
        return said

    assert course(resumed=True) == course(resumed=False) != []


# The measurements behind the findings.


@pytest.mark.parametrize("counts", [[1, 1], [95, 5], [3, 2, 1], [7, 0, 7]])
def test_guessing_loss_without_smoothing_is_the_entropy_of_the_classes(counts):
    assert guessing_loss(counts) == pytest.approx(entropy(counts), rel=1e-12)


def test_guessing_loss_with_smoothing_is_the_least_that_a_constant_answer_reaches():
    counts = [30, 9, 1]
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    answer = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([answer], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(answer.expand(len(labels), 3), labels, label_smoothing=0.1)
        value.backward()
        return value

    optimizer.step(loss)
    assert guessing_loss(counts, 0.1) == pytest.approx(loss().item(), rel=1e-8)


def test_agreement_by_chance_is_that_of_random_pairings():
    rng = np.random.default_rng(0)
    answers, labels = rng.choice(3, 80, p=[0.6, 0.3, 0.1]), rng.choice(3, 80, p=[0.3, 0.3, 0.4])
    found = agreement(*(np.bincount(x, minlength=3).tolist() for x in (answers, labels)), int(sum(answers == labels)))
    matches = [(answers == rng.permutation(labels)).sum() for _ in range(20_000)]
    assert found.expected == pytest.approx(np.mean(matches), rel=0.01)
    assert found.deviation == pytest.approx(np.std(matches), rel=0.02)
    assert found.kappa == pytest.approx(cohen_kappa_score(answers, labels), rel=1e-12)


def test_neighbors_have_the_same_label_unless_labels_are_shuffled(tiny):
    training, validation = tiny.split("train"), tiny.split("val")
    assert neighbors_agree(training).score > 8
    assert neighbors_agree(validation, training).score > 4
    assert neighbors_agree(out_of_step(training)).is_chance(0.15)
    assert neighbors_agree(out_of_step(validation), training).is_chance(0.15)


def test_few_images_do_not_distinguish_chance_from_weak_agreement():
    assert not agreement([10, 10], [10, 10], 10).is_chance(0.2)
    assert agreement([500, 500], [500, 500], 500).is_chance(0.2)


def test_images_in_both_splits_are_found(tmp_path):
    files = cells()[1]
    for split, chosen in (("train", files[:40]), ("val", files[40:60])):
        for number, file in enumerate(chosen):
            (tmp_path / "cells" / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            (tmp_path / "cells" / split / "ab"[number % 2] / f"{number:02}.png").symlink_to(file)
    for number in (3, 4, 5):
        (tmp_path / f"cells/val/a/copy{number}.png").symlink_to(files[number])
    for number in (6, 7):
        Image.open(files[number]).resize((280, 280)).save(tmp_path / f"cells/val/b/anew{number}.jpg", quality=80)
    data = prepare(tmp_path / "cells", tmp_path / "data", size=SIDE, progress=False)
    (finding,) = overlap(data.split("train"), data.split("val"))
    assert (finding.kind, finding.where) == ("overlap", "val")
    assert "5 of 25 val images are in train too, 2 of them with small differences" in finding.message
    assert "val/a/copy3.png is train/b/03.png" in finding.message
    (sampled,) = overlap(data.split("train"), data.split("val"), budget=50)
    assert "in a sample of 25 of 40" in sampled.message


def test_splits_without_common_images_have_no_finding(solar, tiny):
    for data in (solar, tiny):
        assert overlap(data.split("train"), data.split("val")) == []


@pytest.mark.parametrize("variant", ["paper", "released-2012", "one-weird-trick"])
def test_dead_units(variant):
    torch.manual_seed(0)
    network = thin(AlexNet(variant, 2, init="he")).train()
    maps = network.conv3.weight.shape[0]
    with torch.no_grad():
        network.conv3.bias[: maps // 4] = -1e9
        network.fc7.bias[:] = -1e9
    batch = torch.randn(4, 3, CROP, CROP)
    shares = dead_units(network, batch)
    assert list(shares) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
    assert network.training
    assert shares["fc7"] == 1
    assert shares["conv3"] >= 0.25
    network.eval()
    for layer in ("conv3", "conv4", "fc6"):
        units = network.features(batch, layer).detach().flatten(2) if layer != "fc6" else network.features(batch, layer)
        silent = [bool((units[:, i] == 0).all()) for i in range(units.shape[1])]
        assert shares[layer] == pytest.approx(np.mean(silent))


def test_tanh_has_no_dead_units():
    assert dead_units(thin(AlexNet("paper", 2, activation="tanh")), torch.zeros(1, 3, CROP, CROP)) == {}
