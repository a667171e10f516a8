"""`examples/inspection.sh`: the whole inspection through the shell, as a user runs it."""

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "inspection.sh"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as text:
        return list(csv.DictReader(text))


def check_decisions(out: Path) -> dict[str, str]:
    """The decision on each arrival; each has the least expected cost, by the costs of the script."""
    rule = json.loads((out / "run" / "decision.json").read_text())
    found = json.loads((out / "decisions.json").read_text())
    for one in found:
        share = {entry["label"]: entry["probability"] for entry in one["top"]}
        assert sum(share.values()) == pytest.approx(1)
        # A false positive costs 1, a missed defect 10, a person 0.5.
        expected = {"defective": share["functional"], "functional": 10 * share["defective"], "unsure": 0.5}
        is_unknown = one["distance"] > rule["distance"]["limit"]
        answer = one["label"] if one["decision"] == "class" else one["decision"]
        assert answer == ("unknown" if is_unknown else min(expected, key=expected.__getitem__))
    return {Path(one["source"]).name: one["decision"] for one in found}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="the solar cells are not installed")
def test_the_inspection_of_the_solar_cells_runs_through_the_shell(tmp_path: Path) -> None:
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "RECIPE": "--epochs 2", "PATH": os.pathsep.join(paths)}
    command = ["bash", str(SCRIPT), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    assert "± " in (out / "crossval.txt").read_text()
    suspects = rows_of(out / "suspects.csv")
    assert [int(row["rank"]) for row in suspects] == list(range(1, 51))
    assert all(row["suggested"] != row["label"] for row in suspects if row["confident"] == "true")
    assert {row["path"] for row in suspects} <= {row["path"] for row in rows_of(out / "cells.csv")}
    costs = json.loads((out / "costs.json").read_text())
    assert costs["decision"]["expected_cost"] <= costs["expected_cost"]
    recall = json.loads((out / "recall.json").read_text())["decision"]["classes"]["defective"]
    assert recall["recall"] > 0.8
    assert (out / "unknown.txt").read_text().count("unknown") >= 1
    decided = check_decisions(out)
    assert {Path(row["source"]).name: row["decision"] for row in rows_of(out / "sorted.csv")} == decided
    assert {path.name for path in (out / "arrivals").iterdir()} == set(decided)  # undone
    assert not [path for path in (out / "sorted").glob("*/*") if path.is_file()]
    assert not (out / "recall-run").exists()
    assert "95% interval" in (out / "compare.txt").read_text()
    # Once more: nothing is trained again.
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    assert len(trained) == 6
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == trained
