"""The experiments on CIFAR-10: tried quickly on made images; and what is computed from what they measure."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import recipes
from alexnet.cli.main import main
from alexnet.data.preparation import prepare
from alexnet.experiments import cifar, cifar_copy, cifar_networks, figure_1
from alexnet.experiments.catalog import experiments, rows
from alexnet.experiments.figure_1 import RATES, Trials, crossing
from alexnet.experiments.trials import train_once
from alexnet.runs.recipe import Event
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.training.train import set_up_training


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as CIFAR-10's copies have it: ten classes of 32×32, each of its own color, in train and test."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for split, count in (("train", 13), ("test", 4)):
        for label in range(10):
            (folder / split / f"class-{label}").mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(128, 40, (32, 32, 3)) + 60 * np.array([label % 2, label // 2 % 2, label // 4])
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / split / f"class-{label}" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def originals(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of what those could be copies of: every value of an image is off by 8."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(1)
    for file in [*images.glob("train/*/3.png"), *images.glob("test/*/2.png")]:
        pixels = np.asarray(Image.open(file)).astype(int)
        away = np.where((rng.random(pixels.shape) < 0.5) & (pixels < 248) | (pixels < 8), 8, -8)
        place = folder / file.relative_to(images)
        place.parent.mkdir(parents=True)
        Image.fromarray((pixels + away).astype(np.uint8)).save(place)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quick")


@pytest.mark.parametrize(
    "name",
    [
        *("figure-1", "cifar-18pct", "cifar-lrn", "cifar-copy"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("cifar-13pct", "cifar-11pct")),
    ],
)
def test_each_experiment_tried_quickly_writes_its_numbers_and_its_figure(
    name: str, images: Path, originals: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [images, originals] if name == "cifar-copy" else [images]
    arguments = ["reproduce", name, "--quick", "--out", str(out)]
    arguments += [argument for source in sources for argument in ("--data", str(source))]
    assert main(arguments) == 0
    report = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    named = " ".join(f"--data {source.name}" for source in sources)
    assert report["command"] == f"alexnet reproduce {name} --seeds 0 {named} --quick"
    assert report["images"] == f"a copy: {images.name}"
    assert Image.open(out / f"{name}.png").width > 300
    measured = [row.measured for row in rows(out) if row.experiment == name]
    assert len(measured) == len(experiments()[name].claims)
    assert None not in measured
    capsys.readouterr()
    assert main(arguments) == 0  # nothing is trained again
    assert "epoch 1/" not in capsys.readouterr().err


def test_the_list_has_published_and_measured_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "figure-1.json").write_text(json.dumps({"ratio": 4.5}), encoding="utf-8")
    (tmp_path / "cifar-18pct.json").write_text(json.dumps({"test_error": {"mean": 0.19}}), encoding="utf-8")
    assert main(["reproduce", "--list", "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    figure, pct = (
        next(line for line in text.splitlines() if line.startswith(name)) for name in ("figure-1", "cifar-18")
    )
    assert figure.split()[-3:] == ["6.0×", "4.5×", "0.75×"]
    assert pct.split()[-4:] == ["18.0%", "19.0%", "+1.0", "points"]
    assert all(name in text for name in experiments())


def test_an_unknown_experiment_or_another_dataset_is_one_line(
    striped_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "figure-2"]) == 2
    assert "unknown experiment 'figure-2'; choose from: figure-1," in capsys.readouterr().err
    assert main(["reproduce", "solar", "--full"]) == 2
    assert "--full is not an option of solar" in capsys.readouterr().err
    arguments = [
        "reproduce",
        "cifar-18pct",
        "--quick",
        "--data",
        str(striped_folder(3, 3)),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 1
    assert "is not CIFAR-10: it has 2 classes in train and val" in capsys.readouterr().err
    arguments = ["reproduce", "cifar-18pct", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "new/out")]
    assert main(arguments) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("errors", "epochs"),
    [([0.6, 0.4, 0.2], 2.25), ([0.6, 0.25], 1.5), ([0.2], 0.5), ([0.6, 0.3], None), ([], None), ([0.2, 0.1], 0.5)],
)
def test_an_error_is_crossed_between_the_middles_of_two_epochs(errors: list[float], epochs: float | None) -> None:
    assert crossing(errors, 0.25) == (None if epochs is None else pytest.approx(epochs))


@pytest.mark.parametrize(
    ("best", "tried"),
    [(1e-3, {3e-4, 1e-3, 3e-3}), (1e-2, {1e-3, 3e-3, 1e-2, 3e-2}), (1e-4, {3e-5, 1e-4, 3e-4, 1e-3, 3e-3})],
)
def test_the_search_finds_the_learning_rate_that_reaches_the_target_first(
    best: float, tried: set[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curve(self: Trials, rate: float, seed: int, rival: list[float]) -> dict[str, object]:
        epochs = 5 + 4 * abs(RATES.index(rate) - RATES.index(best))
        return {"epochs": epochs if not rival or epochs < len(rival) else None, "errors": [0.0] * epochs}

    monkeypatch.setattr(figure_1.Trials, "curve", curve)
    rate, found = Trials(tmp_path, tmp_path, "tanh", 0.25, 60).best_rate(0)
    assert rate == best
    assert {float(rate) for rate in found} == tried


def test_a_shorter_training_drops_its_rate_in_proportion() -> None:
    values = cifar_networks.changes("cifar-13pct", full=False, quick=False)
    assert values["epochs"] == 40
    assert [(event.epoch, event.lr) for event in values["events"]] == [(31, 1e-4), (36, 1e-5)]
    assert cifar_networks.changes("cifar-13pct", full=True, quick=False) == {}
    assert recipes()["cifar-18pct"].events[0].epoch == 121  # after 120 epochs, as published


def test_an_image_that_was_compressed_before_loses_more() -> None:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    rough.save(file, "JPEG", quality=75, subsampling="4:2:0")
    copy = np.asarray(Image.open(file))
    again = cifar_copy.compress(copy)
    assert again.shape == copy.shape
    lost = [float(np.square(one.astype(float) - other).mean()) for one, other in ((copy, again), (copy, rough))]
    assert 0.3 * lost[1] < lost[0] < 3 * lost[1]  # as much as the first time, roughly


def test_what_a_copy_lost_is_measured_on_the_originals_that_are_there(
    images: Path, originals: Path, tmp_path: Path
) -> None:
    copy, few = (prepare(source, tmp_path / source.name, size=32, progress=False) for source in (images, originals))
    lost = cifar_copy.loss_of_the_copy(copy, few)
    assert lost == {"originals": 20, "mean_square": 64, "psnr_db": pytest.approx(30.07, abs=0.01)}
    rng = np.random.default_rng(2)
    others = [(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), f"class-{n % 2}", "train") for n in range(20)]
    with pytest.raises(
        AlexNetError, match="the first --data is the copy of CIFAR-10, the second holds original images"
    ):
        cifar_copy.loss_of_the_copy(copy, prepare(others, tmp_path / "others", size=32, progress=False))


def test_the_original_is_read_from_its_binary_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    names = [f"class-{label}" for label in range(10)]
    red_green_blue = rng.integers(0, 256, (6, 10, 3, 32, 32), dtype=np.uint8)
    with tarfile.open(tmp_path / Path(cifar.ADDRESS).name, "w:gz") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        add("batches.meta.txt", ("\n".join(names) + "\n\n").encode())
        files = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
        for file, images in zip(files, red_green_blue, strict=True):
            add(file, b"".join(bytes([label]) + image.tobytes() for label, image in enumerate(images)))
    dataset = cifar.cifar10(tmp_path, [])
    assert dataset.classes == names
    assert {name: len(dataset.split(name)) for name in dataset.splits} == {"train": 50, "test": 10}
    for index in range(10):
        image, label = dataset.split("test")[index]
        np.testing.assert_array_equal(image, red_green_blue[5, label].transpose(1, 2, 0))

    def fetch(address: str, file: str, progress: bool) -> None:
        Path(file).write_bytes(b"something else")

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    with pytest.raises(AlexNetError, match=r"MD5 checksum of .* differs"):
        cifar.cifar10(tmp_path / "other", [])
    assert not (tmp_path / "other").exists()


def test_a_run_with_events_resumes_after_an_interruption(images: Path, tmp_path: Path) -> None:
    data = prepare(images, tmp_path / "data", size=32, progress=False).path
    how = {
        "recipe": "cifar-18pct",
        "epochs": 2,
        "events": (Event(2, lr=1e-4),),
        "layer_weight_decay": (("logits", 0.5),),
    }
    begun = set_up_training(data, tmp_path / "run", **how)
    begun.train(begun.steps_per_epoch)
    rates = [epoch["lr"] for epoch in train_once(data, tmp_path / "run", **how).metrics("epoch")]
    assert rates == [0.001, 1e-4]
    with pytest.raises(UsageError, match="has another events"):
        train_once(data, tmp_path / "run", **{**how, "events": (Event(2, lr=1e-5),)})
    with pytest.raises(UsageError, match="keeps its own recipe: leave out events"):
        set_up_training(data, tmp_path / "run", resume=True, events=())


def test_a_run_with_other_options_is_refused(images: Path, tmp_path: Path) -> None:
    data = prepare(images, tmp_path / "data", size=32, progress=False).path
    how = {"recipe": "cifar-18pct", "epochs": 1, "events": ()}
    first = train_once(data, tmp_path / "run", seed=0, **how)
    assert [epoch["epoch"] for epoch in train_once(data, tmp_path / "run", seed=0, **how).metrics("epoch")] == [1]
    assert len(first.metrics("epoch")) == 1
    with pytest.raises(UsageError, match="has another seed"):
        train_once(data, tmp_path / "run", seed=1, **how)
    with pytest.raises(UsageError, match="has the recipe cifar-18pct, not small"):
        train_once(data, tmp_path / "run", recipe="small")
