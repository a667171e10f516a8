"""A source → a prepared dataset: bitwise identical however it was made, and a clear message when it cannot be made."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.cli.main import main
from alexnet.data import shards
from alexnet.data.dataset import PreparedDataset
from alexnet.data.preparation import parse_share, prepare
from alexnet.data.resize import square
from alexnet.data.sources.names import SPLITS
from alexnet.data.splitting import parse_split, stratified_split
from alexnet.runtime.errors import AlexNetError, UsageError

SAMPLES = Path(__file__).parents[2] / "../shared/data/imagenet-samples.zip"
COMMAND = [sys.executable, "-m", "alexnet", "prepare"]


def write_images(root: Path, counts: dict[str, int], seed: int = 0, size: int = 24) -> Path:
    """Noise of a color, one folder per class with `counts` images each."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            tint = rng.integers(0, 200, 3)
            image = (tint + rng.integers(0, 56, (size, size + number % 5, 3))).astype(np.uint8)
            Image.fromarray(image).save(root / name / f"{number:05}.png", compress_level=1)
    return root


def quietly(source: Any, data: Path, **options: Any) -> PreparedDataset:
    return prepare(source, data, **{"size": 16, "progress": False, "workers": 1, **options})


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(one: Path, other: Path) -> bool:
    """Whether two datasets are bitwise identical, but for the name of their source."""
    ours, theirs = content(one), content(other)
    sources = [json.loads(files["dataset.json"])["source"] for files in (ours, theirs)]
    ours["dataset.json"] = ours["dataset.json"].replace(sources[0].encode(), sources[1].encode())
    return ours == theirs


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,400 images, six shards."""
    return write_images(tmp_path_factory.mktemp("many") / "images", {"a": 600, "b": 500, "c": 300})


@pytest.fixture(scope="module")
def undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their dataset, made by one worker without interruption."""
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    quietly(many, data, size=32)
    return data


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_images(tmp_path / "few", {"cats": 12, "dogs": 8})


# The dataset


def test_images_are_the_scaled_centers_in_the_order_of_their_names(few: Path, tmp_path: Path) -> None:
    dataset = quietly(few, tmp_path / "data")
    assert dataset.classes == ["cats", "dogs"]
    assert [len(dataset.split(name)) for name in ("train", "val")] == [16, 4]
    for name in dataset.splits:
        split = dataset.split(name)
        paths = [split.paths(i) for i in range(len(split))]
        assert paths == sorted(paths)
        for path, (image, label) in zip(paths, split, strict=True):
            assert dataset.classes[label] == path.split("/")[0]
            assert (image == square(np.asarray(Image.open(few / path)), 16)).all()


def test_mean_image_and_pca_are_those_of_the_training_split(undisturbed: Path) -> None:
    dataset = PreparedDataset.open(undisturbed)
    split = dataset.split("train")
    images = split.gather(np.arange(len(split))).astype(np.float64)
    assert np.abs(dataset.mean_image - images.mean(axis=0)).max() < 1e-5
    pixels = images.reshape(-1, 3)
    assert np.allclose(dataset.mean_rgb, pixels.mean(axis=0), rtol=1e-12)
    covariance = np.cov(pixels.T, bias=True)
    vectors, values = dataset.pca_eigenvectors, dataset.pca_eigenvalues
    assert (np.diff(values) <= 0).all()
    assert np.allclose(vectors @ np.diag(values) @ vectors.T, covariance, rtol=1e-9)
    assert np.allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)


def test_class_counts_add_up(undisturbed: Path) -> None:
    dataset = PreparedDataset.open(undisturbed)
    assert dataset.split("train").class_counts == [480, 400, 240]
    assert dataset.split("val").class_counts == [120, 100, 60]
    for name in dataset.splits:
        split = dataset.split(name)
        assert np.bincount(split.labels).tolist() == split.class_counts


def test_nothing_of_the_making_is_left(undisturbed: Path) -> None:
    names = [*(f"train-0000{n}.arrow" for n in range(5)), "val-00000.arrow", "val-00001.arrow"]
    assert sorted(path.name for path in undisturbed.iterdir()) == ["dataset.json", "mean.npy", *names]
    PreparedDataset.open(undisturbed).verify()


def test_the_number_of_workers_changes_nothing(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    quietly(many, tmp_path / "data", size=32, workers=3)
    assert content(tmp_path / "data") == content(undisturbed)


def test_a_zip_gives_the_same_images_as_the_folder(few: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "few"), "zip", few)
    folder, archive = quietly(few, tmp_path / "one"), quietly(tmp_path / "few.zip", tmp_path / "two")
    assert folder.checksums() == archive.checksums()


@pytest.mark.skipif(not SAMPLES.exists(), reason="no ../shared/data/imagenet-samples.zip")
def test_every_imagenet_photograph_is_readable(tmp_path: Path) -> None:
    with zipfile.ZipFile(SAMPLES) as samples:
        samples.extractall(tmp_path / "images")
    with (tmp_path / "images.csv").open("w") as file:
        rows = ((f"images/{p.name}", p.stem.partition("_")[2]) for p in sorted((tmp_path / "images").iterdir()))
        csv.writer(file).writerows([("path", "label"), *rows])
    dataset = prepare(tmp_path / "images.csv", tmp_path / "data", progress=False)
    assert dataset.left_out == []
    assert len(dataset.classes) == 250
    assert len(dataset.split("train")) == 250
    assert 100 < dataset.mean_rgb[2] < dataset.mean_rgb[0] < 130  # of photographs: a little brown


# Splits


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    val=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
    test=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_a_split_is_stratified(counts: list[int], val: float, test: float, seed: int) -> None:
    classes = [f"class {n}" for n in range(len(counts))]
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    splits = stratified_split(labels, classes, {"val": val, "test": test}, seed)
    for label, count in enumerate(counts):
        got = np.bincount(splits[labels == label], minlength=3)
        assert got[0] >= 1
        for code, share in ((1, val), (2, test)):
            if share == 0:
                assert got[code] == 0
            elif count > 2:
                assert got[code] >= 1
                assert abs(got[code] - share * count) <= 1
    assert (splits == stratified_split(labels, classes, {"val": val, "test": test}, seed)).all()


def test_the_seed_draws_another_split() -> None:
    labels = np.zeros(100, int)
    drawn = [stratified_split(labels, ["a"], {"val": 0.2}, seed) for seed in (0, 1)]
    assert (drawn[0] != drawn[1]).any()


def test_another_class_does_not_change_what_is_drawn() -> None:
    alone = stratified_split(np.zeros(50, int), ["b"], {"val": 0.2}, 0)
    beside = stratified_split(np.repeat([0, 1], 50), ["a", "b"], {"val": 0.2}, 0)
    assert (beside[50:] == alone).all()


def test_shares_of_splits(few: Path, tmp_path: Path) -> None:
    dataset = quietly(few, tmp_path / "data", split={"val": 0.25, "test": 0.25})
    assert [dataset.split(name).class_counts for name in SPLITS] == [[6, 4], [3, 2], [3, 2]]
    assert dataset.options["split"] == {"val": 0.25, "test": 0.25}


def test_the_splits_of_the_source_are_kept_and_a_missing_one_drawn(tmp_path: Path) -> None:
    write_images(tmp_path / "source/train", {"a": 10, "b": 20})
    write_images(tmp_path / "source/test", {"a": 3, "b": 4})
    dataset = quietly(tmp_path / "source", tmp_path / "one")
    assert dataset.splits == ["train", "test"]
    dataset = quietly(tmp_path / "source", tmp_path / "two", split={"val": 0.1})
    assert [dataset.split(name).class_counts for name in SPLITS] == [[9, 18], [1, 2], [3, 4]]
    with pytest.raises(UsageError, match="has a split 'test' of its own"):
        quietly(tmp_path / "source", tmp_path / "three", split={"test": 0.1})
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize(
    ("text", "shares"),
    [("val=0.2,test=0.1", {"val": 0.2, "test": 0.1}), ("train=0.7, val=0.3", {"train": 0.7, "val": 0.3})],
)
def test_shares_of_splits_as_an_argument(text: str, shares: dict[str, float]) -> None:
    assert parse_split(text) == shares


@pytest.mark.parametrize(
    "text", ["0.2", "val", "val=x", "val=1", "val=-0.1", "val=0.5,test=0.5", "dev=0.1", "train=0.5"]
)
def test_shares_of_splits_that_are_not_valid(text: str) -> None:
    with pytest.raises(UsageError):
        parse_split(text)


def test_a_share_as_an_argument() -> None:
    assert parse_share("1%") == parse_share("0.01") == 0.01
    with pytest.raises(UsageError, match="is not a share"):
        parse_share("many")


def test_pandas_is_not_looked_for(tmp_path: Path) -> None:
    """pyarrow imports it wherever it is, at a second or so for each process; ours asks pyarrow for nothing of that."""
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text(f"open({str(tmp_path / 'looked-for')!r}, 'w'); raise ImportError")
    images = write_images(tmp_path / "images", {"a": 6, "b": 6})
    arguments = [*COMMAND, str(images), str(tmp_path / "data"), "--size", "16"]
    read = (
        "import sys; from alexnet.data.dataset import PreparedDataset as D; D.open(sys.argv[1]).split('train').labels"
    )
    for command in (arguments, [sys.executable, "-c", read, str(tmp_path / "data")]):
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True, capture_output=True)
    assert len(PreparedDataset.open(tmp_path / "data").split("train")) > 0
    assert not (tmp_path / "looked-for").exists()


# Interruptions


def start(source: Path, data: Path, *options: str) -> subprocess.Popen[str]:
    """A preparation in a process of its own."""
    arguments = [*COMMAND, str(source), str(data), "--size", "32", "--workers", "2", *options]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def wait_for_a_shard(data: Path, process: subprocess.Popen[str]) -> None:
    while not any(data.glob("*.arrow")) and process.poll() is None:
        time.sleep(0.01)


_WAITING_OPEN = """
import os, sys, time

_open = os.open

def _waiting_open(path, *arguments, **options):
    while str(path).endswith({name!r}) and os.path.exists({mark!r}):
        time.sleep(0.01)
    return _open(path, *arguments, **options)

if "work()" in " ".join(sys.orig_argv):  # in the workers: the main process reads the sides of some images before
    os.open = _waiting_open
"""


@pytest.fixture
def stuck(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The many images, of which one cannot be opened by a worker before the function is called."""
    source, mark = tmp_path / "stuck" / "images", tmp_path / "stuck" / "waiting"
    shutil.copytree(many, source)
    mark.touch()
    (tmp_path / "hook").mkdir()
    hook = _WAITING_OPEN.format(name=str(source / "c/00299.png"), mark=str(mark))
    (tmp_path / "hook/sitecustomize.py").write_text(hook, encoding="utf-8")
    paths = [str(tmp_path / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    yield source, mark.unlink
    mark.unlink(missing_ok=True)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_killed_at_any_moment_it_ends_the_same(many: Path, undisturbed: Path, tmp_path: Path, kills: int) -> None:
    data = tmp_path / "data"
    begun = time.monotonic()
    start(many, tmp_path / "timed").communicate()
    whole = time.monotonic() - begun
    moments = random.Random(0)
    for _ in range(kills):
        process = start(many, data)
        time.sleep(moments.uniform(0, whole))
        process.kill()
        process.communicate()
        if (data / "dataset.json").exists():
            assert (data / ".prepare").exists() or same(data, undisturbed)
            shutil.rmtree(data)
    assert start(many, data).wait() == 0
    assert same(data, undisturbed)


def test_killed_between_shards_it_keeps_them(
    stuck: tuple[Path, Callable[[], None]], undisturbed: Path, tmp_path: Path
) -> None:
    source, release = stuck
    process = start(source, tmp_path / "data")
    wait_for_a_shard(tmp_path / "data", process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    time.sleep(0.5)  # the workers have noticed
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/.prepare").glob("*.arrow.json")}
    assert made
    shards = {tmp_path / "data" / path.stem: (tmp_path / "data" / path.stem).stat().st_mtime_ns for path in made}
    release()
    assert start(source, tmp_path / "data").wait() == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert same(tmp_path / "data", undisturbed)


def test_ctrl_c_stops_with_a_message_and_the_preparation_continues(
    stuck: tuple[Path, Callable[[], None]], undisturbed: Path, tmp_path: Path
) -> None:
    source, release = stuck
    process = start(source, tmp_path / "data")
    wait_for_a_shard(tmp_path / "data", process)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: run the same command again to continue" in message
    assert "Traceback" not in message
    assert not (tmp_path / "data/dataset.json").exists()
    with pytest.raises(AlexNetError, match="is not finished"):
        PreparedDataset.open(tmp_path / "data")
    release()
    assert start(source, tmp_path / "data").wait() == 0
    assert same(tmp_path / "data", undisturbed)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_killed_worker_is_an_error_and_no_loss(
    stuck: tuple[Path, Callable[[], None]], undisturbed: Path, tmp_path: Path
) -> None:
    source, release = stuck
    process = start(source, tmp_path / "data")
    wait_for_a_shard(tmp_path / "data", process)
    workers = [
        int(pid)
        for path in Path(f"/proc/{process.pid}/task").glob("*/children")
        for pid in path.read_text(encoding="utf-8").split()
    ]
    os.kill(workers[0], signal.SIGKILL)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker was killed, most likely for want of memory" in message
    release()
    assert start(source, tmp_path / "data").wait() == 0
    assert same(tmp_path / "data", undisturbed)


def test_two_at_once_do_not_mix(stuck: tuple[Path, Callable[[], None]], tmp_path: Path) -> None:
    source, _ = stuck
    first = start(source, tmp_path / "data")
    wait_for_a_shard(tmp_path / "data", first)
    with pytest.raises(AlexNetError, match="another process prepares"):
        quietly(source, tmp_path / "data", size=32)
    first.kill()
    first.communicate()


def test_another_source_or_option_does_not_go_on(
    stuck: tuple[Path, Callable[[], None]], few: Path, tmp_path: Path
) -> None:
    source, _ = stuck
    process = start(source, tmp_path / "data")
    wait_for_a_shard(tmp_path / "data", process)
    process.kill()
    process.communicate()
    with pytest.raises(AlexNetError, match=r"an unfinished dataset of another source or options .*stuck"):
        quietly(few, tmp_path / "data", size=32)
    with pytest.raises(AlexNetError, match=r"an unfinished dataset of another source or options \(size 32\)"):
        quietly(source, tmp_path / "data", size=33)


def test_a_python_iterator_is_read_once(tmp_path: Path) -> None:
    asked = 0

    def images() -> Iterator[tuple[np.ndarray, str]]:
        nonlocal asked
        for number in range(300):
            asked += 1
            yield np.full((9, 9, 3), number % 256, np.uint8), "ab"[number % 2]

    dataset = quietly(images(), tmp_path / "data", split={"val": 0.0})
    assert asked == 300
    assert dataset.split("train").gather(np.arange(300))[:, 8, 8, 0].tolist() == [n % 256 for n in range(300)]


def test_a_script_without_a_main_guard_can_prepare(few: Path, tmp_path: Path) -> None:
    script = f"import alexnet; alexnet.prepare({str(few)!r}, {str(tmp_path / 'data')!r}, size=16, workers=2)"
    done = subprocess.run([sys.executable, "-"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "prepared 20 images of 2 classes (train 16, val 4) in" in done.stderr


# Images that cannot be read


def damage(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.write_bytes([b"", b"this is text", path.read_bytes()[:100]][number % 3])


def test_bad_files_are_left_out_with_their_reason(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    source = shutil.copytree(many, tmp_path / "source")
    bad = ["a/00003.png", "a/00300.png", "c/00000.png"]
    damage(source, bad)
    dataset = quietly(source, tmp_path / "data", size=32)
    assert dataset.left_out == [
        {"path": "a/00003.png", "reason": "empty file"},
        {"path": "a/00300.png", "reason": "text, not an image"},
        {"path": "c/00000.png", "reason": "truncated"},
    ]
    whole = PreparedDataset.open(undisturbed)
    for name in whole.splits:
        split, sound = dataset.split(name), whole.split(name)
        kept = [i for i in range(len(sound)) if sound.paths(i) not in bad]
        assert [split.paths(i) for i in range(len(split))] == [sound.paths(i) for i in kept]
        assert (split.gather(np.arange(len(split))) == sound.gather(np.array(kept))).all()
    unshifted = [shard for shard, checksum in whole.checksums().items() if dataset.checksums()[shard] == checksum]
    assert len([shard for shard in unshifted if shard.endswith(".arrow")]) >= 4


def test_too_many_bad_files_end_it_and_more_may_be_allowed(few: Path, tmp_path: Path, capsys: Any) -> None:
    damage(few, ["cats/00000.png", "dogs/00001.png"])
    arguments = ["prepare", str(few), str(tmp_path / "data"), "--size", "16"]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "2 of 20 images cannot be read, more than the 1% that --max-bad allows" in message
    assert "  cats/00000.png: empty file\n  dogs/00001.png: text, not an image\n" in message
    assert not (tmp_path / "data/dataset.json").exists()
    made = (tmp_path / "data/train-00000.arrow").stat().st_mtime_ns
    assert main([*arguments, "--max-bad", "10%"]) == 0
    assert (tmp_path / "data/train-00000.arrow").stat().st_mtime_ns == made
    message = capsys.readouterr().err
    assert "prepared 18 images of 2 classes" in message
    assert f"; 2 left out (see {tmp_path / 'data/dataset.json'})" in message


def test_mended_and_removed_files_are_seen_when_it_continues(few: Path, tmp_path: Path) -> None:
    sound = (few / "cats/00000.png").read_bytes()
    damage(few, ["cats/00000.png", "dogs/00001.png"])
    with pytest.raises(AlexNetError, match="2 of 20 images cannot be read"):
        quietly(few, tmp_path / "data")
    (few / "cats/00000.png").write_bytes(sound)
    (few / "dogs/00001.png").unlink()
    dataset = quietly(few, tmp_path / "data")
    assert dataset.left_out == []
    paths = {split.paths(i) for split in map(dataset.split, dataset.splits) for i in range(len(split))}
    assert len(paths) == 19
    assert "cats/00000.png" in paths


def test_no_image_can_be_read(few: Path, tmp_path: Path) -> None:
    damage(few, [str(path.relative_to(few)) for path in few.rglob("*.png")])
    with pytest.raises(AlexNetError, match="20 of 20 images cannot be read"):
        quietly(few, tmp_path / "data")
    with pytest.raises(AlexNetError, match="no image to train on can be read"):
        quietly(few, tmp_path / "data", max_bad=1.0)


# Sources and options that are wrong


def test_two_classes_with_one_name(tmp_path: Path) -> None:
    for one, other in (("Cats", "cats"), ("black cat", "black  cat")):
        images = [(np.zeros((4, 4), np.uint8), name) for name in (one, other, "dogs")]
        with pytest.raises(AlexNetError, match=r"two classes of .* have one name") as error:
            quietly(images, tmp_path / "data")
        assert repr(one) in str(error.value)
    assert not (tmp_path / "data").exists()


def test_a_class_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    names = ("caf\u00e9", "cafe\u0301", "dogs", "dogs")
    dataset = quietly([(np.zeros((4, 4), np.uint8), name) for name in names], tmp_path / "data")
    assert dataset.classes == ["caf\u00e9", "dogs"]


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"only one class in .*, 'cats': a classifier needs at least two"):
        quietly(write_images(tmp_path / "source", {"cats": 2}), tmp_path / "data")


def test_no_classes_and_no_images(tmp_path: Path) -> None:
    source = write_images(tmp_path / "source", {"cats": 2}) / "cats"
    with pytest.raises(AlexNetError, match="no classes in"):
        quietly(source, tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlexNetError, match="no images in"):
        quietly(tmp_path / "empty", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_class_without_an_image_to_train_on(tmp_path: Path) -> None:
    write_images(tmp_path / "source/train", {"a": 2, "b": 2})
    write_images(tmp_path / "source/val", {"a": 2, "bb": 2})
    with pytest.raises(AlexNetError, match=r"1 class of .* without an image to train on \('bb'\)"):
        quietly(tmp_path / "source", tmp_path / "data")


def test_an_output_that_exists(few: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(AlexNetError, match="exists and holds other files"):
        quietly(few, tmp_path / "mine")
    with pytest.raises(AlexNetError, match="is a file: name a folder"):
        quietly(few, tmp_path / "mine/thesis.txt")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    quietly(few, tmp_path / "empty")
    before = content(tmp_path / "empty")
    with pytest.raises(AlexNetError, match="is a prepared dataset already"):
        quietly(few, tmp_path / "empty")
    assert content(tmp_path / "empty") == before


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text", encoding="utf-8")
    with pytest.raises(AlexNetError, match="damaged"):
        quietly(tmp_path / "text.zip", tmp_path / "new/data")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("options", [{"size": 0}, {"max_bad": 2}, {"workers": 0}, {"split": {"val": 1.0}}])
def test_options_that_are_not_right(options: dict[str, Any], few: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        quietly(few, tmp_path / "data", **options)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that mounts a disk of a size in kilobytes."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        disk = tmp_path / f"disk{kilobytes}"
        disk.mkdir()
        arguments = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
        if subprocess.run(arguments, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk is not permitted here")
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_will_be_too_small(many: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2000)
    with pytest.raises(AlexNetError, match=r"the disk of .* is too full: .* are needed"):
        quietly(many, disk / "data", size=32)
    assert list(disk.iterdir()) == []


def test_a_disk_that_becomes_full(many: Path, undisturbed: Path, small_disk: Callable[[int], Path]) -> None:
    """Another program fills the disk meanwhile; when there is room again, the preparation continues."""
    disk = small_disk(8000)
    process = start(many, disk / "data", "--workers", "1")
    wait_for_a_shard(disk / "data", process)
    with (disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
        while True:
            fill.write(bytes(4096))
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"alexnet: the disk of .*data is full: free some space and run the same command again", message)
    assert "Traceback" not in message
    assert not any(path.name.endswith(".tmp") for path in (disk / "data").iterdir())
    (disk / "fill").unlink()
    assert start(many, disk / "data").wait() == 0
    assert content(disk / "data") == content(undisturbed)


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Peak of the preparing process and of its workers, for N and for 4 N images."""
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(image)

    def peak(count: int) -> int:
        (tmp_path / f"{count}").mkdir()
        for number in range(count):
            (tmp_path / f"{count}" / f"{number}.png").hardlink_to(image)
        rows = (f"{tmp_path}/{count}/{number}.png,{'ab'[number % 2]}\n" for number in range(count))
        (tmp_path / f"{count}.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
        script = (
            "import resource, sys, alexnet;"
            "alexnet.prepare(sys.argv[1], sys.argv[2], size=64, workers=1, progress=False);"
            "print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))"
        )
        arguments = [sys.executable, "-c", script, str(tmp_path / f"{count}.csv"), str(tmp_path / f"data{count}")]
        return sum(map(int, subprocess.run(arguments, capture_output=True, check=True, text=True).stdout.split()))

    assert peak(8000) < peak(2000) * 1.1


def test_the_record_of_a_shard_by_another_version_is_not_used(tmp_path: Path) -> None:
    record = tmp_path / shards.WORK_FOLDER / "train-00000.arrow.json"
    record.parent.mkdir()
    record.write_text('{"items": "", "rows": 1}', encoding="utf-8")
    assert shards.read_result(tmp_path, "train-00000.arrow") is None
