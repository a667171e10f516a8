"""Safe mode: plain PyTorch only, for machines on which this package's own code fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from alexnet.evaluation.evaluate import evaluate
from alexnet.kernels import cpu_norm
from alexnet.kernels.pool import can_pool
from alexnet.kernels.safe import VARIABLE, is_safe_mode, safe_mode
from alexnet.training import steps
from alexnet.training.train import set_up_training, train

HOW = {"recipe": "paper", "init": "he", "pixel_scaling": "std", "crop_size": 64, "epochs": 1, "batch_size": 8}


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("this package's own code fails on this machine")


def test_a_training_and_an_evaluation_use_none_of_our_machine_code(tmp_path: Path, striped_data: Path, monkeypatch):
    from alexnet.data import augmentation
    from alexnet.network import optimized
    from alexnet.training import optimizers

    for module, name in (
        (cpu_norm, "forward"),
        (cpu_norm, "backward"),
        (augmentation, "cut"),
        (optimized, "max_pool"),
        (optimizers, "update"),
    ):
        monkeypatch.setattr(module, name, broken)
    how = {**HOW, "lr": 1e-4, "precision": "float32"}
    with pytest.raises(RuntimeError, match="own code fails"):
        train(striped_data, tmp_path / "fast", **how)
    run = train(striped_data, tmp_path / "safe", safe=True, **how)
    assert run.finished
    evaluation = evaluate(run.path, striped_data, safe=True)
    assert len(evaluation.predictions) == 24
    assert VARIABLE not in os.environ  # only as long as it is asked for


def test_safe_mode_records_no_step(tmp_path: Path, striped_data: Path, monkeypatch):
    monkeypatch.setattr(steps, "capture_for", lambda device: broken)
    training = set_up_training(striped_data, tmp_path / "run", precision="float64", **HOW)
    arguments = (training.state, training.inputs, training.communicator, training.requests, print)
    assert isinstance(steps.step_executor(*arguments), steps.RecordedSteps)
    with safe_mode():
        assert isinstance(steps.step_executor(*arguments), steps.EagerSteps)


def test_the_environment_variable_and_the_context_manager_are_equivalent(monkeypatch):
    maps = torch.zeros(1, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    assert can_pool(maps)
    for value, safe in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv(VARIABLE, value)
        assert is_safe_mode() is safe
        assert can_pool(maps) is not safe
        with safe_mode(False):
            assert is_safe_mode() is safe
        with safe_mode():
            assert is_safe_mode()
        assert os.environ[VARIABLE] == value
