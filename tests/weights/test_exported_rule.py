"""The decision rule of a run travels with its export: to OpenVINO, ONNX Runtime, C++ and back."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_runs import make_run
from stripes import striped_image

from alexnet import AlexNetError, Classifier, export
from alexnet.data.preparation import prepare
from alexnet.inspection.decide import decide
from alexnet.runs.decision import KINDS, DecisionRule
from alexnet.runs.run import Run
from alexnet.weights.importing import import_weights
from alexnet.weights.model_card import model_card

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp" / "classify.cpp"


@pytest.fixture(scope="module")
def data(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rule") / "data"
    prepare(striped_folder(20, 20), out, size=72, progress=False)
    return out


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A run with random weights, thresholds, an unsure band and a distance."""
    made = make_run(data.parent / "run", data, seed=1, variant="convolutions")
    decide(made, data, recall={"lying": 0.8}, confidence=0.8, unsure=0.2, unknown_rate=0.1)
    return made


def images() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([np.asarray(striped_image(rng, i % 2 == 0, 72)) for i in range(20)])


def decided(run: Path, found: dict[str, np.ndarray], folder: Path) -> None:
    """Compare the rule of the exported folder, applied to outputs of the exported model, with the run's answers."""
    rule = DecisionRule.load(folder)
    assert rule is not None
    shares = torch.from_numpy(found["logits"]).double().softmax(1).numpy()
    answers = Classifier.load(run).answers(images())
    decisions = rule.apply(shares, found["features"])
    assert [KINDS[kind] for kind in decisions.kind] == [answer.decision for answer in answers]
    assert {"class", "unsure"} <= {answer.decision for answer in answers}
    np.testing.assert_allclose(decisions.probabilities, [answer.probabilities for answer in answers], atol=1e-6)
    assert decisions.distance is not None
    np.testing.assert_allclose(decisions.distance, [answer.distance for answer in answers], rtol=1e-3, atol=1e-5)


def test_the_model_card_states_guarantees_of_every_kind(run: Path) -> None:
    shared = {"confidence": 0.9, "images": 50, "errors": 1}
    guarantees = [{"class": "lying", "precision": 0.95, **shared}, {"accuracy": 0.8, **shared}]
    rule = DecisionRule.load(run)
    assert rule is not None
    with_others = replace(rule, record={**rule.record, "guarantees": [*rule.record["guarantees"], *guarantees]})
    card = model_card(Run.open(run), "safetensors", "inside", None, False, None, with_others)
    assert "Recall of “lying” at least 0.8 with 0.8 confidence" in card
    assert "Precision of “lying” at least 0.95 with 0.9 confidence" in card
    assert "Accuracy among the answered at least 0.8 with 0.9 confidence" in card


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_rule_gives_the_answers_of_predict_on_the_outputs_of_the_export(
    to: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(run, to, tmp_path / to)
    err = capsys.readouterr().err
    assert "its probabilities differ from those of the run by at most" in err or "bitwise identical" in err
    assert "unknown: the distance is computed from the output features and decision.safetensors" in err
    text = (folder / "decision.json").read_text(encoding="utf-8")
    assert "null" not in text
    if to == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        assert session.get_modelmeta().custom_metadata_map["alexnet.decision"] == text
        found = dict(zip(("logits", "features"), session.run(None, {"images": images()}), strict=True))
    else:
        openvino = pytest.importorskip("openvino")
        model = openvino.Core().read_model(folder / "model.xml")
        assert json.loads(model.get_rt_info(["alexnet", "decision"]).astype(str)) == json.loads(text)
        compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outputs = compiled(images())
        found = {name: outputs[name] for name in ("logits", "features")}
    decided(run, found, folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "“lying” is decided from a probability of" in card
    assert "calibrated only with the temperature" in card


def test_the_rule_comes_back_with_the_weights_it_belongs_to(run: Path, tmp_path: Path) -> None:
    folder = export(run, "safetensors", tmp_path / "out")
    again = import_weights(folder, tmp_path / "again")
    assert [a.decision for a in Classifier.load(again.path).answers(images())] == [
        a.decision for a in Classifier.load(run).answers(images())
    ]
    text = json.loads((folder / "decision.json").read_text(encoding="utf-8"))
    (folder / "decision.json").write_text(json.dumps({**text, "weights": "others"}), encoding="utf-8")
    assert not (import_weights(folder, tmp_path / "third").path / "decision.json").exists()


def test_without_openvino_the_extra_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(AlexNetError, match=r"pip install 'alexnet\[openvino\]'"):
        export(run, "openvino", tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of C++, compiled with Debian's OpenCV."""
    headers = Path("/usr/include/opencv4/opencv2")
    if shutil.which("g++") is None or not all((headers / f"{part}.hpp").exists() for part in ("dnn", "imgcodecs")):
        pytest.skip("no OpenCV: apt-get install g++ libopencv-dnn-dev libopencv-imgcodecs-dev")
    target = tmp_path_factory.mktemp("cpp") / "classify"
    libraries = [f"-lopencv_{part}" for part in ("dnn", "imgcodecs", "imgproc", "core")]
    options = ["-std=c++17", "-Wall", "-Werror", "-O1", "-I/usr/include/opencv4", *libraries, "-o", str(target)]
    subprocess.run(["g++", str(EXAMPLE), *options], check=True)
    return target


@pytest.mark.long
@pytest.mark.parametrize("rule", ["none", "thresholds", "costs"])
def test_the_cpp_example_answers_as_predict(
    rule: str, program: Path, run: Path, data: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess]
) -> None:
    made = shutil.copytree(run, tmp_path / "run")
    if rule == "none":
        (made / "decision.json").unlink()
    if rule == "costs":
        costs = tmp_path / "costs.csv"
        costs.write_text(",lying,standing,unsure\nlying,0,3,0.5\nstanding,1,0,0.5\n")
        decide(made, data, costs=costs, unsure=0.1, unknown_rate=0.2, unknown_method="mahalanobis")
    rng = np.random.default_rng(2)
    sizes = [(72, 72)] * 12 + [(72, 100), (150, 72), (301, 217), (40, 60), (500, 73), (227, 227)]
    names = []
    for number, (width, height) in enumerate(sizes):
        image = striped_image(rng, number % 2 == 0, max(width, height)).crop((0, 0, width, height))
        names.append(str(tmp_path / f"{number}.{'jpg' if number % 4 == 3 else 'png'}"))
        image.save(names[-1])
    Image.open(names[0]).convert("L").save(tmp_path / "gray.png")
    names.append(str(tmp_path / "gray.png"))
    folder = export(made, "onnx", tmp_path / "out")
    found = subprocess.run([str(program), str(folder), *names], check=True, capture_output=True, text=True)
    expected = command("predict", made, *names, "--csv", "--top", 1)
    rows = zip(csv.DictReader(found.stdout.splitlines()), csv.DictReader(expected.stdout.splitlines()), strict=True)
    for ours, theirs in rows:
        assert [ours[name] for name in ("source", "decision", "label")] == [
            theirs[name] for name in ("source", "decision", "label")
        ]
        assert float(ours["probability"]) == pytest.approx(float(theirs["probability"]), abs=2e-3)
