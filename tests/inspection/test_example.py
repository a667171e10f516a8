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
    with (out / "suspects.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 50
    costs = json.loads((out / "costs.json").read_text())
    assert costs["decision"]["expected_cost"] <= costs["expected_cost"]
    recall = json.loads((out / "recall.json").read_text())["decision"]["classes"]["defective"]
    assert recall["recall"] > 0.8
    assert (out / "unknown.txt").read_text().count("unknown") >= 1
    assert sum(path.is_file() for path in (out / "arrivals").iterdir()) == 60
    assert "95% interval" in (out / "compare.txt").read_text()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
