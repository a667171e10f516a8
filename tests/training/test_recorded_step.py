"""A recorded step against the same step launched. What a CUDA graph does to a step on a GPU, a traced graph does here:
Python runs once, and what it decided then is what is replayed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from alexnet.data import augmentation
from alexnet.runtime.errors import AlexNetError
from alexnet.training import steps
from alexnet.training.recorded_step import (
    MAX_RECORDINGS,
    WARM_UP_STEPS,
    RecordedStep,
    Recording,
    Work,
    capture_cuda_graph,
)
from alexnet.training.train import set_up_training

# in float64 the network runs nothing in machine code, which a tracer can't see
PAPER = {
    **{
        "recipe": "paper",
        "variant": "convolutions",
        "init": "he",
        "pixel_scaling": "std",
        "crop_size": 64,
        "epochs": 4,
    },
    **{"batch_size": 4, "lr": 0.001, "seed": 3, "precision": "float64", "patience": 1},
}


def traced(work: Work, inputs: list[Tensor]) -> Recording:
    """A recording of what the tracer saw of one run."""
    graph = make_fx(lambda *tensors: work(*tensors))(*inputs)
    result = torch.zeros(2, dtype=torch.float64)

    @torch.no_grad()
    def replay() -> None:
        result.copy_(graph(*inputs))

    return Recording(inputs, result, replay)


class Counter:
    """A step on a single weight, with dropout's kind of randomness, and how often Python has run it."""

    def __init__(self) -> None:
        self.weight, self.runs, self.rate = torch.ones(1000, dtype=torch.float64), 0, 0.1

    def step(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.weight -= self.rate * x * (torch.rand(1000) < 0.5)
        return torch.stack([self.weight.sum(), x.sum().double()])


def replayed(steps: int, record=traced, *, kind=lambda number, counter: 0) -> tuple[Counter, list[str], list[Tensor]]:
    counter, notes = Counter(), []
    replay = RecordedStep(torch.device("cpu"), record, lambda: [counter.weight], notes.append)
    results = []
    for number in range(steps):
        x = torch.full((1000,), float(number + 1))
        results.append(replay(kind(number, counter), counter.step, [x], seed=number).clone())
    return counter, notes, results


def launched(steps: int) -> tuple[Tensor, list[Tensor]]:
    counter, results = Counter(), []
    for number in range(steps):
        torch.manual_seed(number)
        results.append(counter.step(torch.full((1000,), float(number + 1))))
    return counter.weight, results


def test_a_step_is_recorded_after_the_warm_up_with_the_same_result() -> None:
    counter, notes, results = replayed(10)
    weight, expected = launched(10)
    assert counter.runs == WARM_UP_STEPS + 2  # once more to be recorded, once to be compared
    assert not notes
    assert torch.equal(counter.weight, weight)
    assert all(map(torch.equal, results, expected))


def test_a_new_kind_is_a_new_recording_and_old_ones_are_removed() -> None:
    def kind(number: int, counter: Counter) -> float:
        counter.rate = 0.1 * (1 + number // 6)
        return counter.rate

    counter, notes, _ = replayed(6 * (MAX_RECORDINGS + 2), kind=kind)
    assert not notes
    assert counter.runs == (MAX_RECORDINGS + 2) * (WARM_UP_STEPS + 2)


def test_a_recording_that_differs_is_not_used() -> None:
    def wrong(work: Work, inputs: list[Tensor]) -> Recording:
        graph = traced(work, inputs)

        def replay() -> None:
            torch.manual_seed(1234)  # another dropout mask
            graph.replay()

        return graph._replace(replay=replay)

    counter, notes, results = replayed(10, wrong)
    weight, expected = launched(10)
    assert len(notes) == 1
    assert "computes something else" in notes[0]
    assert torch.equal(counter.weight, weight)
    assert all(map(torch.equal, results, expected))


def test_where_recording_fails_training_continues_with_a_message() -> None:
    def failing(work: Work, inputs: list[Tensor]) -> Recording:
        work(*inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    counter, notes, _ = replayed(10, failing)
    assert len(notes) == 1
    assert notes[0].endswith("operation not permitted when stream is capturing")
    assert torch.equal(counter.weight, launched(10)[0])


def run(data: Path, out: Path, last_step: int | None = None, **changes) -> Path:
    training = set_up_training(
        data, out, device="cpu", keep_checkpoint=True, **({"resume": True} if out.exists() else PAPER | changes)
    )
    training.train(last_step)
    return out


def lines(out: Path) -> list[tuple]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(r["event"], r["step"], r.get("loss"), r.get("train_loss"), r.get("lr")) for r in records]


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """Trainings record their steps; the steps recorded."""
    recorded: list[Work] = []

    def record(work: Work, inputs: list[Tensor]) -> Recording:
        recorded.append(work)
        return traced(work, inputs)

    monkeypatch.setattr(steps, "capture_for", lambda device: record)
    monkeypatch.setattr(augmentation, "can_cut", lambda *_: False)
    return recorded


@pytest.mark.long
def test_a_training_with_recorded_steps_is_the_training(striped_data, tmp_path, recording, capsys) -> None:
    ours = run(striped_data, tmp_path / "recorded")
    assert "cannot be recorded" not in capsys.readouterr().err
    rates = [lr for event, _, _, _, lr in lines(ours) if event == "epoch"]
    assert rates[0] > rates[-1]
    assert len(recording) >= 2  # at one rate and at another
    run(striped_data, tmp_path / "resumed", last_step=9)
    run(striped_data, tmp_path / "resumed")
    with pytest.MonkeyPatch.context() as crop:
        crop.setattr(steps, "capture_for", lambda device: None)
        plain = run(striped_data, tmp_path / "plain")
    for other in (ours, tmp_path / "resumed"):
        assert lines(other) == lines(plain)
        for name in ("model.safetensors", "last.safetensors"):
            one, two = load_file(other / name), load_file(plain / name)
            assert all(torch.equal(one[key], two[key]) for key in two)


def test_an_interrupt_during_a_step_loses_no_step(striped_data, tmp_path, recording, monkeypatch) -> None:
    first = steps.capture_for(torch.device("cpu"))

    def interrupting(work: Work, inputs: list[Tensor]) -> Recording:
        if not recording:
            signal.raise_signal(signal.SIGINT)
        return first(work, inputs)

    undisturbed = run(striped_data, tmp_path / "undisturbed", epochs=2)
    recording.clear()
    monkeypatch.setattr(steps, "capture_for", lambda device: interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(striped_data, tmp_path / "run", epochs=2)
    ours = run(striped_data, tmp_path / "run")
    assert lines(ours) == lines(undisturbed)
    one, two = (load_file(out / "last.safetensors") for out in (ours, undisturbed))
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_a_loss_of_nan_is_noticed_one_step_later(striped_data, tmp_path, recording, capsys) -> None:
    with pytest.raises(AlexNetError, match="first in the loss"):
        run(striped_data, tmp_path / "run", lr=1e150)
    assert "first in the loss; rolled back to step 0, with a tenth" in capsys.readouterr().err


def test_a_recording_that_fails_half_way_leaves_nothing(striped_data, tmp_path, monkeypatch, capsys) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("not while capturing")

    def record(work: Work, inputs: list[Tensor]) -> Recording:
        with pytest.MonkeyPatch.context() as crop:
            crop.setattr(steps, "update_all", failing)
            work(*inputs)
        raise AssertionError("it did not fail")

    plain = run(striped_data, tmp_path / "plain", epochs=1)
    monkeypatch.setattr(steps, "capture_for", lambda device: record)
    ours = run(striped_data, tmp_path / "ours", epochs=1)
    assert capsys.readouterr().err.count("runs eagerly: not while capturing") == 1
    one, two = (load_file(out / "last.safetensors") for out in (ours, plain))
    assert all(torch.equal(one[key], two[key]) for key in two)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_a_graph_has_the_same_result() -> None:
    x, weight = torch.ones(1000, device="cuda"), torch.zeros(1000, device="cuda")
    notes: list[str] = []

    def step(x: Tensor) -> Tensor:
        weight.add_(x * (torch.rand(1000, device="cuda") < 0.5))
        return torch.stack([weight.sum().double(), x.sum().double()])

    replay = RecordedStep(x.device, capture_cuda_graph, lambda: [weight], notes.append)
    found = [replay(0, step, [x * number], seed=number).clone() for number in range(10)]
    assert not notes
    assert len(replay.recordings) == 1
    weight.zero_()
    for number, result in enumerate(found):
        torch.manual_seed(number)
        torch.testing.assert_close(step(x * number), result)
