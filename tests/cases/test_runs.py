"""Situations that users met with run folders: where their dataset is, and in which encoding they are written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from random_runs import make_run

from alexnet import AlexNetError, PreparedDataset, Run
from alexnet.data.preparation import prepare
from alexnet.network.rows import Activation, Conv, FullyConnected
from alexnet.network.variants import Variant, register_variant
from alexnet.runs.config import Config
from alexnet.runs.recipe import recipes
from alexnet.runs.run import dataset_record


@pytest.fixture(scope="module")
def projects(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two projects, p1 and p2, each with a dataset `data` of the same classes and image size, but other images."""
    folder = tmp_path_factory.mktemp("projects")
    for number, name in ((3, "p1"), (4, "p2")):
        (folder / name).mkdir()
        prepare(striped_folder(number, number, 40, ("train", "val")), folder / name / "data", size=40, progress=False)
    return folder


def run_trained_in(project: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run folder as a training leaves it that was started in the folder of the project."""
    monkeypatch.chdir(project)
    dataset = PreparedDataset.open(data)
    config = Config(
        recipe=recipes()["small"],
        classes=dataset.classes,
        size=dataset.size,
        crop_size=32,
        input_size=32,
        scale=1.0,
        dataset=dataset_record(dataset),
    )
    return Run.create("run", config)


def test_e5_a_run_finds_its_own_dataset_from_another_project(projects: Path, monkeypatch, tmp_path: Path) -> None:
    """Both projects have a folder `data`; the run of p1 is opened in p2."""
    shutil.copytree(projects, tmp_path / "copy")
    p1, p2 = tmp_path / "copy" / "p1", tmp_path / "copy" / "p2"
    run_trained_in(p1, "data", monkeypatch)
    monkeypatch.chdir(p2)
    found = Run.open("../p1/run").find_data()
    assert found.path.resolve() == (p1 / "data").resolve()
    assert found.checksums() == PreparedDataset.open(p1 / "data").checksums()


def test_e5_another_dataset_in_the_place_is_refused(projects: Path, monkeypatch, tmp_path: Path) -> None:
    shutil.copytree(projects, tmp_path / "copy")
    p1, p2 = tmp_path / "copy" / "p1", tmp_path / "copy" / "p2"
    run_trained_in(p1, "data", monkeypatch)
    shutil.rmtree(p1 / "data")
    monkeypatch.chdir(p2)  # which has another dataset at the same relative path
    with pytest.raises(AlexNetError, match=r"data is not the dataset that .*run was trained on.*`--data`"):
        Run.open(p1 / "run").find_data()
    shutil.copytree(p2 / "data", p1 / "data")
    with pytest.raises(AlexNetError, match=r"data is not the dataset that .*run was trained on.*`--data`"):
        Run.open(p1 / "run").find_data()
    assert Run.open(p1 / "run").find_data(p2 / "data").path == p2 / "data"  # named explicitly


def test_e5_another_dataset_that_is_named_is_said_to_be_another(
    striped_folder: Callable[..., Path], striped_data: Path, command, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", striped_data, seed=0, variant="convolutions")
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["dataset"] = dataset_record(PreparedDataset.open(striped_data))
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    other = tmp_path / "other"
    prepare(striped_folder(3, 3, 72, ("train", "val")), other, size=72, progress=False)
    said = f"{other} is another dataset than the one that {run} was trained on"
    for data, expected in ((striped_data, 0), (other, 1)):
        done = command("evaluate", run, "--data", data, "--split", "val")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(said) == expected
    (other.parent / "renamed").mkdir()
    for path in (tmp_path / "renamed").parent.glob("other/*"):
        shutil.copy(path, tmp_path / "renamed")
    index = tmp_path / "renamed" / "dataset.json"
    index.write_text(index.read_text(encoding="utf-8").replace('"standing"', '"upright"'), encoding="utf-8")
    done = command("evaluate", run, "--data", tmp_path / "renamed", "--split", "val")
    assert done.returncode == 1
    assert "have different classes" in done.stderr
    assert "standing" in done.stderr
    assert "upright" in done.stderr


def test_e5_a_project_folder_can_be_moved_as_a_whole(projects: Path, monkeypatch, tmp_path: Path) -> None:
    shutil.copytree(projects, tmp_path / "copy")
    p1 = tmp_path / "copy" / "p1"
    run_trained_in(p1, "data", monkeypatch)
    moved = tmp_path / "elsewhere"
    p1.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert Run.open(moved / "run").find_data().path.resolve() == (moved / "data").resolve()


def test_e5_a_dataset_that_is_gone_is_named(projects: Path, monkeypatch, tmp_path: Path) -> None:
    shutil.copytree(projects / "p1", tmp_path / "p1")
    run_trained_in(tmp_path / "p1", "data", monkeypatch)
    shutil.rmtree(tmp_path / "p1" / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AlexNetError, match=rf"no longer at {tmp_path / 'p1' / 'data'}: name it with `--data`"):
        Run.open("p1/run").find_data()


def test_e5_the_report_does_not_use_the_dataset_of_another_project(projects: Path, command, monkeypatch, tmp_path):
    shutil.copytree(projects, tmp_path / "copy")
    p1, p2 = tmp_path / "copy" / "p1", tmp_path / "copy" / "p2"
    run_trained_in(p1, "data", monkeypatch)
    shutil.rmtree(p1 / "data")
    monkeypatch.chdir(p2)
    done = command("report", "../p1/run", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "is not the dataset that" in page


def test_e1_run_folders_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    """Names in Korean; the reader's process has the C locale without Python's UTF-8 mode, as Windows has its own."""
    config = Config(
        recipe=recipes()["small"],
        classes=["배", "사과"],
        size=40,
        crop_size=32,
        input_size=32,
        scale=1.0,
        dataset={},
        descriptions=["배 (과일)", "사과"],
    )
    Run.create(tmp_path / "run", config)
    code = "import sys; from alexnet import Run; print(ascii(Run.open(sys.argv[1]).config.classes))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ascii(config.classes)
    warnings = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and "src/alexnet" in line]
    assert warnings == []


def test_a9_a_path_that_is_not_utf8_is_stored_and_read_again(tmp_path: Path) -> None:
    path = os.fsdecode(b"/data/caf\xe9")
    config = Config(recipes()["small"], ["a", "b"], 40, 32, 32, 1.0, dataset={"path": path})
    Run.create(tmp_path / "run", config)
    json.loads((tmp_path / "run" / "config.json").read_bytes().decode("utf-8"))
    assert Run.open(tmp_path / "run").config.dataset["path"] == path


def test_a_registered_variant_is_trained_and_its_run_opened_by_another_process(
    striped_data: Path, command, tmp_path: Path
) -> None:
    from alexnet.network import variants

    own = Variant(
        name="own-tiny",
        description="A test's network.",
        input_size=32,
        init="he",
        layers=(Conv("stem", 8, 5, stride=2), Activation("act"), FullyConnected("head", None)),
    )
    register_variant(own)
    try:
        arguments = ("--variant", "own-tiny", "--recipe", "paper", "--crop-size", 32, "--epochs", 1, "--device", "cpu")
        done = command("train", striped_data, "--out", tmp_path / "run", *arguments)
        assert done.returncode == 0, done.stderr
    finally:
        del variants._registry["own-tiny"]
    code = "from alexnet.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    evaluate = ["evaluate", tmp_path / "run", "--data", striped_data, "--json", "--views", "1", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *evaluate], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_samples"] == 24


def test_imported_weights_have_no_dataset_and_the_message_says_so(striped_data: Path, tmp_path: Path) -> None:
    run = Run.open(make_run(tmp_path / "run", striped_data, seed=0, variant="convolutions"))
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    (run.path / "config.json").write_text(json.dumps({**config, "dataset": {"imported": "x.pth"}}), encoding="utf-8")
    (run.path / "model.safetensors").unlink()
    with pytest.raises(AlexNetError, match=r"no record of a prepared dataset.*`--data`"):
        Run.open(run.path).find_data()
