"""`alexnet export`: each format, run or read again by its own tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_runs import make_run

from alexnet import AlexNetError, Classifier, Run, UsageError, export
from alexnet.cli.main import main
from alexnet.data.preparation import prepare
from alexnet.weights.importing import import_weights


@pytest.fixture(scope="module")
def run(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights, recorded validation errors, and a dataset."""
    folder = tmp_path_factory.mktemp("run")
    prepare(striped_folder(12, 12), folder / "data", size=72, progress=False)
    made = make_run(folder / "run", folder / "data", seed=0, variant="convolutions")
    epochs = [
        {"event": "epoch", "epoch": i, "validation_loss": 0.5, "validation_error": e} for i, e in ((1, 0.5), (2, 0.25))
    ]
    (made / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs), encoding="utf-8")
    return made


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 72, 72, 3), dtype=np.uint8)


def probabilities(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).double().softmax(1).numpy()


def test_onnx_has_the_preprocessing_inside_and_the_card_has_the_loss_by_8_bits(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    expected = Classifier.load(run).probabilities(images())
    whole = export(run, "onnx", tmp_path / "whole")
    session = onnxruntime.InferenceSession(whole / "model.onnx", providers=["CPUExecutionProvider"])
    found = probabilities(session.run(None, {"images": images()})[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    again = import_weights(whole, tmp_path / "again")
    np.testing.assert_array_equal(Classifier.load(again.path).probabilities(images()), expected)
    for file in whole.glob("model.*"):
        size = file.stat().st_size
        file.unlink()
    small = export(run, "onnx", tmp_path / "small", int8=True, preprocessing="beside")
    assert (small / "model.onnx").stat().st_size < 0.3 * size
    card = (small / "README.md").read_text(encoding="utf-8")
    assert "8-bit weights: accuracy " in card
    assert "of the answers are the same" in card
    assert "75.00% on the validation images (epoch 2, log loss 0.5000)" in card
    assert {path.name for path in small.iterdir()} == {
        *("model.onnx", "config.json", "classes.json", "mean.npy", "README.md")
    }


def test_the_exported_program_gives_the_runs_probabilities(run: Path, tmp_path: Path) -> None:
    folder = export(run, "torch-export", tmp_path / "out")
    module = torch.export.load(folder / "model.pt2").module()
    found = probabilities(module(torch.from_numpy(images())).detach().numpy())
    np.testing.assert_allclose(found, Classifier.load(run).probabilities(images()), atol=1e-5)
    with pytest.raises(AlexNetError, match=r"model\.pt2 is a program of torch\.export, which can only be run"):
        import_weights(folder / "model.pt2", tmp_path / "again")


def test_the_folder_for_the_hub_is_imported_as_the_same_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--to", "hub", "--out", str(tmp_path / "hub")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'hub'}\n"
    card = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: alexnet\n")
    for heading in ("## Data", "## Recipe", "## Accuracy", "## License", "## Limits"):
        assert heading in card
    again = import_weights(tmp_path / "hub", tmp_path / "again")
    expected = Classifier.load(run).probabilities(images())
    np.testing.assert_array_equal(Classifier.load(again.path).probabilities(images()), expected)
    assert again.config == Run.open(run).config
    # The file alone is described by its header; a file without a description needs --variant.
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "hub" / "model.safetensors")
    alone = tmp_path / "alone.safetensors"
    (tmp_path / "hub" / "model.safetensors").rename(alone)
    assert main(["import", str(alone), "--out", str(tmp_path / "third")]) == 0
    save_file({"conv1.weight": state["conv1.weight"]}, alone)
    assert main(["import", str(alone), "--out", str(tmp_path / "fourth")]) == 1
    assert "name it with --variant" in capsys.readouterr().err
    assert not (tmp_path / "fourth").exists()


def test_options_that_exclude_each_other_and_existing_folders_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="8-bit weights are for --to onnx"):
        export(run, "hub", tmp_path / "out", int8=True)
    with pytest.raises(UsageError, match="unknown format 'caffe'"):
        export(run, "caffe", tmp_path / "out")
    with pytest.raises(AlexNetError, match="exists already"):
        export(run, "onnx", tmp_path)
    with pytest.raises(AlexNetError, match="not a run folder"):
        export(tmp_path, "onnx", tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "preprocessing"),
    [("onnx", "inside"), ("onnx", "beside"), ("torch-export", "inside"), ("torch-export", "beside")],
)
def test_the_example_of_the_model_card_gives_the_runs_answer(
    to: str, preprocessing: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    folder = export(run, to, tmp_path / "out", preprocessing=preprocessing)
    Image.fromarray(images()[0]).save(folder / "photograph.png")
    (folder / "photograph.png").rename(folder / "photograph.jpg")
    (prediction,) = Classifier.load(run).predict(folder / "photograph.jpg", top=1)
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code, {})
    label, probability = capsys.readouterr().out.rsplit(maxsplit=1)
    assert label == prediction.label
    assert float(probability) == pytest.approx(prediction.probability, abs=1e-5)
