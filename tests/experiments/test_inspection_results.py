"""The inspection of the solar cells: its costs, and what it includes of other results."""

from pathlib import Path

import numpy as np

from alexnet.evaluation.costs import read_costs
from alexnet.experiments import solar_cells
from alexnet.experiments.inspection import COSTS, _table, write_costs


def test_the_costs_are_those_that_decide_reads(tmp_path: Path) -> None:
    matrix = read_costs(write_costs(tmp_path / "costs.csv"), list(solar_cells.CLASSES))
    np.testing.assert_array_equal(matrix, [[0, 10, 0.5], [1, 0, 0.5]])
    assert list(COSTS) == list(solar_cells.CLASSES)


def test_the_table_of_another_result_is_included() -> None:
    assert {row["set"] for row in _table("label-errors")} >= {"solar"}
    assert _table("no-such-result") is None
