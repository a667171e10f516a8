"""The training curves against the lines of metrics.jsonl."""

import json

import numpy as np
import pytest

from alexnet import AlexNetError, Run
from alexnet.report import curves
from alexnet.runs.run import METRICS


def records(run: Run, event: str) -> list[dict]:
    lines = (run.path / METRICS).read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def test_losses_are_those_recorded(run: Run) -> None:
    upper, lower = curves.losses(run).axes
    by_step, training, validation = upper.lines[:3]
    steps, epochs = records(run, "step"), records(run, "epoch")
    np.testing.assert_array_equal(by_step.get_ydata(), [step["loss"] for step in steps])
    np.testing.assert_allclose(by_step.get_xdata(), [step["step"] / 4 for step in steps])
    np.testing.assert_array_equal(training.get_ydata(), [epoch["train_loss"] for epoch in epochs])
    np.testing.assert_array_equal(validation.get_ydata(), [epoch["validation_loss"] for epoch in epochs])
    np.testing.assert_array_equal(training.get_xdata(), [1, 2])
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), [step["lr"] for step in steps])


def test_the_learning_rate_drop_is_marked_at_its_time(run: Run) -> None:
    assert curves.learning_rate_drops(run) == [(1.0, 0.0001)]
    upper, _ = curves.losses(run).axes
    assert [line.get_xdata()[0] for line in upper.lines[3:]] == [1.0]
    assert "0.0001" in [text.get_text() for text in upper.texts]


def test_error_rates_are_those_recorded(run: Run) -> None:
    upper, lower = curves.error_rates(run).axes
    epochs = records(run, "epoch")
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), [epoch["train_error"] for epoch in epochs])
    np.testing.assert_array_equal(upper.lines[1].get_ydata(), [epoch["validation_error"] for epoch in epochs])
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), [epoch["images_per_second"] for epoch in epochs])


@pytest.mark.parametrize(("draw", "quantity"), [(curves.layer_weights, "weight"), (curves.layer_updates, "update")])
def test_every_layer_has_a_line(run: Run, draw, quantity: str) -> None:
    (axes,) = draw(run).axes
    epochs = records(run, "epoch")
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "logits"]
    lines = {line.get_label(): line for line in axes.lines if line.get_label() in names}
    assert list(lines) == names
    for name, line in lines.items():
        np.testing.assert_array_equal(line.get_ydata(), [epoch["layers"][name][quantity] for epoch in epochs])


def test_an_incomplete_last_line_of_a_training_in_progress_is_ignored(run: Run, tmp_path) -> None:
    (tmp_path / "config.json").write_bytes((run.path / "config.json").read_bytes())
    lines = (run.path / METRICS).read_bytes().splitlines(keepends=True)
    (tmp_path / METRICS).write_bytes(b"".join(lines[:3]) + lines[3][:20])
    begun = Run.open(tmp_path)
    assert len(begun.metrics()) == 3
    assert len(curves.losses(begun).axes[0].lines[0].get_ydata()) == 3
    with pytest.raises(AlexNetError, match="no epoch has been completed yet"):
        curves.error_rates(begun)
    with pytest.raises(AlexNetError, match="no epoch has been completed yet"):
        curves.layer_weights(begun)


def test_a_training_without_steps_has_no_curve(run: Run, tmp_path) -> None:
    (tmp_path / "config.json").write_bytes((run.path / "config.json").read_bytes())
    with pytest.raises(AlexNetError, match="no step has been recorded yet"):
        curves.losses(Run.open(tmp_path))
