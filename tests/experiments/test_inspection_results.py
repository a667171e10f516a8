"""The inspection of the solar cells: its costs, and what it reports."""

from pathlib import Path

import numpy as np

from alexnet.evaluation.costs import read_costs
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import shipped_results
from alexnet.experiments.inspection import COSTS, METRICS, OTHER_RESULTS, write_costs
from alexnet.inspection.crossval import _by_metric


def test_the_costs_are_those_that_decide_reads(tmp_path: Path) -> None:
    matrix = read_costs(write_costs(tmp_path / "costs.csv"), list(solar_cells.CLASSES))
    np.testing.assert_array_equal(matrix, [[0, 10, 0.5], [1, 0, 0.5]])
    assert list(COSTS) == list(solar_cells.CLASSES)


def test_every_metric_that_is_reported_is_one_of_a_cross_validation() -> None:
    row = {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    fold = {
        **dict.fromkeys(("accuracy", "macro_precision", "macro_recall", "macro_f1", "roc_auc", "log_loss"), 0.5),
        "classes": dict.fromkeys(solar_cells.CLASSES, row),
        "certainty": {"certain": {"accuracy": 0.5}, "doubtful": {"accuracy": 0.5}},
    }
    assert set(METRICS) <= set(_by_metric({"1": fold}))


def test_the_other_results_of_an_inspection_exist() -> None:
    assert all((shipped_results() / name).is_file() for name in OTHER_RESULTS.values())
