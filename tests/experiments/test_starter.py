"""`alexnet reproduce starter` on a tree laid out as Tiny ImageNet, from images to the file and its card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stripes import striped_image

from alexnet.cli.main import main
from alexnet.experiments import starter
from alexnet.weights.importing import find_weights

CLASSES = ("n00000001", "n00000002")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Two classes of six training and two validation images, and one that is kept for measuring."""
    root, rng = tmp_path / "tiny-imagenet-200", np.random.default_rng(0)
    kept = starter.HELD_OUT[0]
    (root / "val" / "images").mkdir(parents=True)
    truth = []
    for number, name in enumerate((*CLASSES, kept)):
        images = root / "train" / name / "images"
        images.mkdir(parents=True)
        for count in range(6):
            striped_image(rng, number == 0, 64).save(images / f"{name}_{count}.JPEG")
        for count in range(2):
            file = f"val_{number}{count}.JPEG"
            striped_image(rng, number == 0, 64).save(root / "val" / "images" / file)
            truth.append(f"{file}\t{name}\t0\t0\t62\t62")
    (root / "val" / "val_annotations.txt").write_text("\n".join(truth) + "\n", encoding="utf-8")
    (root / "wnids.txt").write_text("\n".join((*CLASSES, kept)) + "\n", encoding="utf-8")
    return root


def test_from_tiny_imagenet_to_weights_model_card_and_results(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(starter.CHANGES, "epochs", 1)
    out, results = tmp_path / "out", tmp_path / "results" / "starter.json"
    arguments = [
        "reproduce",
        "starter",
        "--data",
        str(tiny),
        "--seeds",
        "0",
        "--out",
        str(out),
        "--results",
        str(results),
    ]
    assert main(arguments) == 0
    report = json.loads(results.read_text(encoding="utf-8"))
    assert report["images"] == {"train": 12, "val": 4}
    assert report["classes"] == 2
    assert 0 <= report["runs"][0]["views_10"]["top1"] <= 1
    assert report["command"] == "alexnet reproduce starter --seeds 0 --data tiny-imagenet-200"
    features = find_weights(str(out / starter.FILE))
    assert features.config is not None
    assert features.config.classes == list(CLASSES)
    assert str(tmp_path) not in (out / starter.FILE).read_bytes()[:20_000].decode(errors="ignore")
    assert results.with_name("starter-kernels.png").read_bytes().startswith(b"\x89PNG")
    card = (out / starter.CARD).read_text(encoding="utf-8")
    assert starter.HELD_OUT[0] in card
    assert "12 training and 4 validation images" in card
    capsys.readouterr()
    assert main(arguments) == 0
    assert "training: " not in capsys.readouterr().err
    again = find_weights(str(out / starter.FILE)).weights
    assert all(torch.equal(array, features.weights[name]) for name, array in again.items())


@pytest.mark.parametrize("given", [[], ["--data", "{tmp}"], ["--data", "{tmp}", "--only", "solar"]])
def test_another_folder_than_tiny_imagenet_is_refused(given, tmp_path: Path, capsys):
    arguments = [argument.format(tmp=tmp_path) for argument in given]
    assert main(["reproduce", "starter", *arguments, "--out", str(tmp_path / "out")]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("alexnet: ")
    assert error.count("\n") == 1
