"""The trials of an experiment: measured once, written after each, kept beside those of an earlier results file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet.experiments.budgets import Trial
from alexnet.experiments.trials import place_of, run_trials, with_earlier
from alexnet.runtime.errors import AlexNetError

TRIALS = [Trial("1m", 0), Trial("5m", 0)]


def measure_as(value: int, measured: list[str]) -> Callable[[Trial], dict[str, Any]]:
    def measure(trial: Trial) -> dict[str, Any]:
        if trial.budget == "5m" and value == 0:
            raise KeyboardInterrupt
        measured.append(trial.name)
        return {"accuracy": value}

    return measure


def test_an_interrupted_experiment_has_written_its_trials_and_goes_on_with_the_others(tmp_path: Path) -> None:
    measured: list[str] = []
    written: list[dict[str, int]] = []

    def write(found: dict[Trial, dict[str, Any]]) -> int:
        written.append({trial.name: entry["accuracy"] for trial, entry in found.items()})
        return len(written)

    with pytest.raises(KeyboardInterrupt):
        run_trials(TRIALS, tmp_path, (), measure_as(0, measured), write)
    assert written == [{"1m/0": 0}]
    assert run_trials(TRIALS, tmp_path, (), measure_as(1, measured), write) == len(written)
    assert measured == ["1m/0", "5m/0"]  # none twice
    assert written[-1] == {"1m/0": 0, "5m/0": 1}


def test_a_prefix_selects_what_is_measured_not_what_is_written(tmp_path: Path) -> None:
    measured: list[str] = []
    with pytest.raises(AlexNetError, match="no trial starts with 8h; a name is like 1m/0"):
        run_trials(TRIALS, tmp_path, ("8h",), measure_as(1, measured), dict)
    assert list(run_trials(TRIALS, tmp_path, ("5m",), measure_as(1, measured), dict)) == TRIALS[1:]
    assert list(run_trials(TRIALS, tmp_path, ("1m",), measure_as(1, measured), dict)) == TRIALS
    assert {"date", "machine"} < json.loads(place_of(tmp_path, "1m/0").read_text()).keys()


def test_trials_of_an_earlier_file_keep_their_command(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    assert with_earlier(results, {TRIALS[0]: {"accuracy": 1}}, "first") == {"1m/0": {"command": "first", "accuracy": 1}}
    results.write_text(json.dumps({"command": "first", "trials": {"1m/0": {"accuracy": 1}, "2m/0": {"accuracy": 2}}}))
    assert with_earlier(results, {TRIALS[0]: {"accuracy": 3}}, "second") == {
        "1m/0": {"command": "second", "accuracy": 3},
        "2m/0": {"command": "first", "accuracy": 2},
    }
    assert with_earlier(results, {TRIALS[0]: {"accuracy": 1}}, "second")["1m/0"]["command"] == "first", "not repeated"
