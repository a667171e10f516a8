"""`alexnet import`: a run that predicts; for bad files one line, exit code 1, and nothing left."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import caffe_files
import numpy as np
import pytest
import torch
from PIL import Image
from test_torchvision import TorchvisionLayout

from alexnet import AlexNetError, Classifier
from alexnet.cli.main import main
from alexnet.runs.config import Config
from alexnet.runs.recipe import recipes
from alexnet.weights.imagenet import imagenet_classes
from alexnet.weights.importing import fetch, find_weights, import_weights
from alexnet.weights.pytorch import read_pytorch


@pytest.fixture(scope="module")
def theirs() -> TorchvisionLayout:
    """torchvision's layout for 1000 classes, with weights that keep the activations of all layers in range."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = TorchvisionLayout(1000)
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            bound = (6 / module.weight[0].numel()) ** 0.5
            torch.nn.init.uniform_(module.weight, -bound, bound)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.eval()


@torch.no_grad()
def test_predictions_of_an_imported_network_are_those_of_torchvision(
    theirs: TorchvisionLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run, photograph = tmp_path / "alexnet.pth", tmp_path / "run", tmp_path / "one.png"
    torch.save(theirs.state_dict(), file)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).save(photograph)
    assert main(["import", str(file), "--out", str(run)]) == 0
    file.unlink()
    assert main(["predict", str(run), str(photograph), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)

    # torchvision's transforms of such an image: the center 224 pixels, 0 to 1, minus the mean, divided by the std.
    crop = torch.from_numpy(np.array(Image.open(photograph))[16:240, 16:240].copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = theirs(((crop - mean) / std)[None]).softmax(1)[0].topk(5)
    _, descriptions = imagenet_classes()
    assert [one["label"] for one in answer["top"]] == [descriptions[i] for i in expected.indices]
    np.testing.assert_allclose([one["probability"] for one in answer["top"]], expected.values, atol=1e-5)
    classifier = Classifier.load(run)
    assert classifier.classes[0] == "n01440764"
    assert classifier.labels[0] == "tench, Tinca tinca"


def test_each_of_the_1000_classes_has_its_own_description() -> None:
    ids, descriptions = imagenet_classes()
    assert len(set(ids)) == len(set(descriptions)) == 1000
    assert ids == sorted(ids)
    assert descriptions[207] == "golden retriever"
    assert descriptions[999] == "toilet tissue, toilet paper, bathroom tissue"


def test_descriptions_that_two_classes_share_are_distinguished_by_name() -> None:
    recipe = recipes()["paper"]
    config = Config(recipe, ["n1", "n2", "n3"], 256, 227, 227, 1.0, {}, descriptions=["crane", "kite", "crane"])
    assert config.labels == ["crane (n1)", "kite", "crane (n3)"]
    assert dataclasses.replace(config, descriptions=None).labels == ["n1", "n2", "n3"]


def test_a_missing_file_and_an_existing_folder_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(tmp_path / "no.pth"), "--out", str(tmp_path / "run")]) == 1
    assert "no.pth can't be read: No such file" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    assert main(["import", str(tmp_path / "no.pth"), "--out", str(tmp_path / "run")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "run" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_download_must_have_the_checksum_in_its_name(tmp_path: Path) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    for name in (f"alexnet-{digest}.pth", "alexnet-00000000.pth"):
        (tmp_path / "there" / name).write_bytes(content)
    good = fetch((tmp_path / "there" / f"alexnet-{digest}.pth").as_uri(), tmp_path / "here")
    assert good.read_bytes() == content
    with pytest.raises(AlexNetError, match="can't be downloaded: invalid hash value"):
        fetch((tmp_path / "there" / "alexnet-00000000.pth").as_uri(), tmp_path / "here")
    with pytest.raises(AlexNetError, match=r"can't be downloaded: .*No such file.*; download it elsewhere"):
        fetch((tmp_path / "there" / "alexnet-11111111.pth").as_uri(), tmp_path / "here")


def test_names_of_repositories_are_checked_before_the_request(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="write hf:owner/name"):
        import_weights("hf:nobody", tmp_path / "run")


def test_a_renamed_file_is_recognized_by_its_content(tmp_path: Path) -> None:
    few = {name: [a[:1] for a in arrays] for name, arrays in caffe_files.arrays(0, 3).items()}
    file = tmp_path / "alexnet.pth"
    file.write_bytes(caffe_files.caffemodel(caffe_files.rows(True, 3), few, old=True))
    with pytest.raises(AlexNetError, match="not Caffe's bvlc_reference_caffenet"):
        import_weights(file, tmp_path / "run")


def test_weights_of_the_package_are_found_whatever_the_working_directory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = find_weights("starter").weights
    assert not capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    Path("starter").mkdir()
    found = find_weights("starter").weights
    assert all(torch.equal(array, packaged[name]) for name, array in found.items())
    assert (
        "starter: the pretrained weights of this name are read; the path in the working directory is ./starter"
        in capsys.readouterr().err
    )
    find_weights("starter")
    assert not capsys.readouterr().err  # said once
    with pytest.raises(AlexNetError, match="starter holds neither"):
        find_weights("./starter")


def test_arrays_with_nan_are_named(tmp_path: Path, theirs: TorchvisionLayout) -> None:
    state = {f"module.{name}": array for name, array in theirs.state_dict().items()}
    state["module.features.3.bias"] = torch.full((192,), float("nan"))
    file = tmp_path / "x.pth"
    torch.save({"epoch": 1, "state_dict": state}, file)
    with pytest.raises(AlexNetError, match=r"conv2\.bias has NaN or Inf values"):
        import_weights(file, tmp_path / "run")
    assert read_pytorch(file).variant == "one-weird-trick"
    assert not (tmp_path / "run").exists()
