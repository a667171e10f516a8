"""`alexnet reproduce imagenet` on ILSVRC-2012's own files in small, from the tar files to the numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from ilsvrc_tree import ilsvrc

from alexnet.cli.main import main
from alexnet.data.dataset import PreparedDataset
from alexnet.experiments import imagenet
from alexnet.experiments.catalog import rows
from alexnet.runs import recipe
from alexnet.runs.run import Run

VALIDATION = 104  # four more than --quick takes


class Tree(NamedTuple):
    root: Path
    truth: list[str]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("ilsvrc") / "ILSVRC2012"
    return Tree(root, ilsvrc(root, 2012, 1000, VALIDATION))


@pytest.mark.long
def test_from_the_tar_files_to_the_numbers(command, tree: Tree, tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "imagenet.json"
    results.write_text(json.dumps({"2012": {"released-2012": {"trials": []}}}), encoding="utf-8")
    arguments = [
        "reproduce",
        "imagenet",
        "--data",
        str(tree.root),
        "--quick",
        "--out",
        str(out),
        "--results",
        str(results),
    ]
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "train 1,000, val 104 images; 0.2 GB prepared and 1.5 GB of runs" in done.stderr
    assert "hours per seed: 90 epochs" in done.stderr
    assert done.stdout.startswith("paper, ILSVRC-2012, val: top-1 error ")

    report = json.loads(results.read_text(encoding="utf-8"))
    assert report["2012"]["released-2012"] == {"trials": []}
    section = report["2012"]["paper"]
    assert section["classes"] == 1000
    assert section["images"] == {"train": 1000, "val": 100}
    assert section["recipe"]["name"] == "paper"
    assert (section["recipe"]["batch_size"], section["recipe"]["epochs"]) == (128, 1)
    scores = {name: found["mean"] for name, found in section["val"]["views_1"].items()}
    assert 0 < scores["top5_error"] <= scores["top1_error"] <= 1
    assert scores["log_loss"] == pytest.approx(math.log(1000), rel=0.2)  # nothing can be learned in eight steps
    assert [len(curve) for curve in section["trials"][0]["curves"].values()] == [1] * 5
    (published,) = section["published"]
    assert (published["top1_error"], published["top5_error"]) == (0.407, 0.182)
    assert section["command"] == "alexnet reproduce imagenet --seeds 0 --data ILSVRC2012 --quick"
    assert {"machine", "versions", "date"} <= section.keys()
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    # The network is that of the paper, trained on the labels of the devkit.
    run = Run.open(out / "paper-quick" / "seed-0")
    assert sum(parameter.numel() for parameter in run.load()[0].parameters()) == 60_965_224
    assert run.config.descriptions is not None
    assert run.config.descriptions[0] == f"thing {run.config.classes[0][1:]}"
    validation = PreparedDataset.open(out / "imagenet-few").split("val")
    named = {validation.paths(index): run.config.classes[validation.labels[index]] for index in range(100)}
    assert named == {f"val/ILSVRC2012_val_{n:08}.JPEG": wnid for n, wnid in enumerate(tree.truth[:100], 1)}

    weights = run.weights_file()
    before = weights.stat().st_mtime_ns
    shutil.rmtree(run.path / "tensorboard")
    again = command(*arguments)
    assert again.returncode == 0
    assert weights.stat().st_mtime_ns == before
    assert not (run.path / "tensorboard").exists()
    assert json.loads(results.read_text(encoding="utf-8"))["2012"]["paper"]["val"] == section["val"]
    assert "epoch 1/1" not in again.stderr


@pytest.mark.long
def test_2010_two_seeds_ten_views_and_what_was_prepared_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, but for fewer classes and epochs, and a network without its fully connected layers."""
    shorter = tuple(dataclasses.replace(known, epochs=1) for known in recipe._RECIPES)
    monkeypatch.setattr(recipe, "_RECIPES", shorter)
    monkeypatch.setitem(imagenet.RECIPES, "convolutions", "released-2012")
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    monkeypatch.setattr(imagenet, "BATCH_SIZE", 2)
    monkeypatch.setattr(imagenet, "RATE_SECONDS", 0.0)
    ilsvrc(tmp_path / "ILSVRC2010", 2010, 3, 4, test=5)
    out, results = tmp_path / "out", tmp_path / "imagenet.json"
    arguments = ["reproduce", "imagenet", "--variant", "convolutions", "--out", str(out), "--results", str(results)]
    both = [*arguments, "--data", str(tmp_path / "ILSVRC2010"), "--seeds", "0", "1"]
    assert main(both) == 0
    assert "train 3, val 4, test 5 images: 0.0 GB prepared and 3.0 GB of runs" in capsys.readouterr().err
    section = json.loads(results.read_text(encoding="utf-8"))["2010"]["convolutions"]
    assert section["images"] == {"train": 3, "val": 4, "test": 5}
    assert section["recipe"]["name"] == "released-2012"
    assert section["command"].endswith("--seeds 0 1 --data ILSVRC2010 --variant convolutions")
    for split in ("val", "test"):
        for views in ("views_1", "views_10"):
            losses = section[split][views]["log_loss"]
            assert losses["values"] == [trial[split][views]["log_loss"] for trial in section["trials"]]
            # The average of two is never worse than the mean of their losses: −ln is convex.
            assert 0 < section["average"][split][views]["log_loss"] <= losses["mean"] + 1e-6

    # The dataset is prepared, so the tar files are no longer needed; those of another folder are refused.
    for file in (tmp_path / "ILSVRC2010").iterdir():
        file.unlink()
    assert main(both) == 0
    assert json.loads(results.read_text(encoding="utf-8"))["2010"]["convolutions"]["val"] == section["val"]
    assert main([*arguments, "--data", str(tmp_path)]) == 1
    assert "out/imagenet was prepared of " in capsys.readouterr().err
    few = imagenet._few(out / "imagenet")
    assert sorted((label, split) for _, label, split in few if split == "train") == [
        (name, "train") for name in PreparedDataset.open(out / "imagenet").classes
    ]
    assert sum(split == "test" for _, _, split in few) == 5


def test_its_results_are_in_the_list(tmp_path: Path) -> None:
    score = {"top1_error": {"mean": 0.41}, "top5_error": {"mean": 0.19}}
    (tmp_path / "imagenet.json").write_text(
        json.dumps({"2012": {"paper": {"val": {"views_10": score}}}}), encoding="utf-8"
    )
    found = {row.claim.text: row.cells()[2:] for row in rows(tmp_path) if row.experiment == "imagenet"}
    assert found["ILSVRC-2012 val, top-1 error, paper"] == ("40.7%", "41.0%", "+0.3 points")
    assert found["ILSVRC-2012 val, top-5 error, paper"] == ("18.2%", "19.0%", "+0.8 points")
    assert found["ILSVRC-2010 test, top-1 error, released-2012"] == ("37.5%", "–", "–")


def test_a_disk_that_is_too_small(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    assert main(["reproduce", "imagenet", "--data", str(tree.root), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("alexnet: not enough disk space at ")
    assert error[-1].endswith("1.0 GB free; choose another folder with --out")
    assert "0.2 GB prepared and 1.5 GB of runs" in error[-1]
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("given", "missing", "code", "message"),
    [
        ([], "", 2, "the folder of the ILSVRC tar files"),
        (["--data", "{root}/nowhere"], "", 1, "nowhere is not a folder"),
        (["--data", "{root}/.."], "", 1, "has no ILSVRC2012_img_train.tar"),
        (["--data", "{root}"], "ILSVRC2012_devkit_t12.tar.gz", 1, "misses the devkit"),
        (["--data", "{root}"], "ILSVRC2012_img_val.tar", 1, "no val images with labels"),
        (
            ["--data", "{root}", "--variant", "caffe"],
            "",
            2,
            "unknown variant 'caffe'; choose from: paper, ",
        ),
        (["--data", "{root}", "--full"], "", 2, "--full is not an option of imagenet"),
    ],
)
def test_invalid_input_is_one_line(
    given: list[str],
    missing: str,
    code: int,
    message: str,
    tree: Tree,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "tree").mkdir()
    root = tmp_path / "tree" / "ILSVRC2012"
    root.mkdir()
    for file in tree.root.iterdir():
        if file.name != missing:
            (root / file.name).symlink_to(file)
    arguments = [argument.format(root=root) for argument in given]
    assert main(["reproduce", "imagenet", *arguments, "--out", str(tmp_path / "out")]) == code
    captured = capsys.readouterr().err
    errors = [line for line in captured.splitlines() if not line.startswith("listing ")]
    assert len(errors) == 1
    assert errors[0].startswith("alexnet: ")
    assert message in errors[0]
    assert not (tmp_path / "out").exists()


def test_another_experiment_has_no_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "solar", "--variant", "paper", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "alexnet: --variant is not an option of solar\n"


def test_every_published_score_is_of_a_variant_that_can_be_trained() -> None:
    assert {row.variant for row in imagenet.PUBLISHED} <= imagenet.RECIPES.keys()
