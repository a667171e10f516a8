"""`alexnet bench` on small batches: its output, not its speed."""

import json
import re
import statistics
from pathlib import Path

import pytest
import torch

import alexnet.bench as bench_package
from alexnet.bench.lrn import normalization
from alexnet.bench.parts import PARTS, Settings
from alexnet.bench.peers import TextbookTraining, common_loader
from alexnet.bench.steps import OurTraining
from alexnet.bench.synthetic import photographs
from alexnet.bench.timing import compared, in_turn
from alexnet.cli.main import main
from alexnet.runtime.provenance import machine_slug


def test_a_part_is_written_as_json_and_parts_that_are_not_measured_stay_in_the_file(
    capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "shutil.which", lambda _: None
    )  # a compiler, with which the peer would be compiled for a minute
    file = tmp_path / f"bench-{machine_slug()}.json"
    stored = {"train-step": {"images_per_second": 0}, "lrn": {"milliseconds": 2}}
    file.write_text(json.dumps(stored), encoding="utf-8")
    arguments = ["bench", "--only", "train-step", "--batch-size", "2", "--rounds", "1", "--json"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    out = capsys.readouterr()
    report = json.loads(out.out)
    assert report["train-step"]["images_per_second"] > 0
    assert [row["at_least"] for row in report["train-step"]["comparisons"]] == [7.0, 1.3, 0.7]
    assert "textbook" in out.err
    written = json.loads(file.read_text(encoding="utf-8"))
    assert list(written) == ["train-step", "lrn"]
    assert written["lrn"] == {"milliseconds": 2}
    measured = written["train-step"]
    assert measured["images_per_second"] > 0
    assert measured["command"] == "alexnet bench --only train-step --batch-size 2 --rounds 1"
    assert {"machine", "date", "versions"} <= set(measured)


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
def test_every_part_of_the_table_has_a_function(part) -> None:
    module, function = part.function.split(".")
    source = Path(bench_package.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(\s*settings: Settings\b", source, re.MULTILINE)


def test_the_help_of_only_describes_every_part(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # a line may end after a hyphen
    assert all(f"{part.name}: {part.description}" in text for part in PARTS.values())


def test_a_part_without_its_extra_names_it(monkeypatch, capsys) -> None:
    monkeypatch.setattr("alexnet.bench.run.find_spec", lambda name: None)
    assert main(["bench", "--only", "inference-paper"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("alexnet: the benchmark inference-paper requires onnx, onnxruntime, openvino: pip install ")
    assert line.endswith("'alexnet[onnx,openvino]'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "warp"], "unknown bench 'warp'; choose from: train-step"),
        (["--batch-size", "0"], "batch size is 0"),
        (["--rounds", "0"], "rounds is 0"),
        (["--images", "/nowhere"], "/nowhere is not a folder"),
    ],
)
def test_invalid_usage_is_reported_in_one_line(arguments, message, capsys) -> None:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_unreadable_photograph_is_named_before_anything_is_timed(tmp_path, capsys) -> None:
    good, bad = photographs(tmp_path, 2)
    bad.write_bytes(bad.read_bytes()[:3000])
    assert main(["bench", "--only", "prepare", "--images", str(good.parents[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"alexnet: {bad} cannot be read: truncated; remove it from {good.parents[1]}"


def test_the_ratio_is_the_median_of_the_ratios_within_a_round() -> None:
    row = compared("a", "b", [1.0, 2.0, 4.0], [3.0, 4.0, 4.0], 1.5)
    assert (row.ratio, row.spread) == (2.0, (1.0, 3.0))


def test_sides_are_timed_in_turn() -> None:
    calls: list[str] = []
    seconds = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert all(len(values) == 2 and statistics.median(values) >= 0 for values in seconds.values())


def test_both_training_steps_change_the_weights() -> None:
    for training in (OurTraining(4, dtype=torch.float32), TextbookTraining(4)):
        before = [p.detach().clone() for p in training.network.parameters()]
        training.step()
        assert any(not torch.equal(p, b) for p, b in zip(training.network.parameters(), before, strict=True))


def test_a_step_has_three_times_the_multiply_adds_of_the_paper_without_the_gradient_of_the_images() -> None:
    # paper.md, section 1: 724,406,816 multiply-adds, of which conv1 has 105,415,200.
    assert OurTraining(1).operations() == 2 * (3 * 724_406_816 - 105_415_200)


def test_normalization_is_compared_in_both_precisions(tmp_path) -> None:
    rows = normalization(Settings(tmp_path, batch_size=1, rounds=1))
    assert [row.at_least for row in rows] == [30.0, 0.5] * 4


def test_the_usual_loader_yields_crops(tmp_path) -> None:
    files = photographs(tmp_path, 4)
    images, labels = next(iter(common_loader(files, 4, 1)))
    assert images.shape == (4, 3, 224, 224)
    assert 0.5 < float(images.std()) < 2
    assert len(labels) == 4


def test_the_layers_of_a_step_are_measured_and_drawn(capsys, tmp_path) -> None:
    arguments = ["bench", "--only", "layers", "--batch-size", "2", "--rounds", "1", "--device", "cpu"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    file = tmp_path / f"layers-{machine_slug()}.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    measured = result["devices"]["cpu"]
    rows = {row["name"].partition(" ")[0]: row for row in measured["layers"]}
    assert sum(row["parameters"] for row in measured["layers"]) == 60_965_224
    assert sum(row["multiply_adds"] for row in measured["layers"]) == 724_406_816
    assert rows["conv1"]["forward_flop"] == 2 * 2 * 105_415_200
    assert rows["conv1"]["backward_flop"] == rows["conv1"]["forward_flop"], "the input has no gradient"
    assert rows["fc6"]["backward_flop"] == 2 * rows["fc6"]["forward_flop"]
    size = 2 if measured["precision"] == "bfloat16" else 4
    assert rows["fc6"]["forward_bytes"] == size * (2 * 9216 + 2 * 4096 + 37_752_832)
    assert all(row["forward_ms"] > 0 and row["backward_ms"] > 0 for row in rows.values())
    assert sum(kind["time"] for kind in measured["kinds"].values()) == pytest.approx(1)
    assert measured["kinds"]["convolutions"]["multiply_adds"] == pytest.approx(0.919, abs=0.001)
    assert set(result["data_sheets"]) == {"GTX 580", "K20"}


def test_a_step_in_parts_gives_the_gradients_of_a_whole_step(monkeypatch) -> None:
    from alexnet.bench.layers import timed_step
    from alexnet.network.segments import segments

    for module in ("steps", "layers"):  # the update would clear the gradients
        monkeypatch.setattr(f"alexnet.bench.{module}.update_all", lambda *arguments: None)
    training = OurTraining(2, dtype=torch.float32)
    for module in training.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    training.step()
    whole = {name: parameter.grad.clone() for name, parameter in training.network.named_parameters()}
    timed_step(training, segments(training.working))
    for name, parameter in training.network.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-7)
