"""Costs of decisions: what each predicted class costs for each true class."""

from __future__ import annotations

import math
import os

import numpy as np

from alexnet.data.sources.table_files import read_spreadsheet
from alexnet.runtime.errors import AlexNetError

UNSURE_COLUMN = "unsure"


def read_costs(file: str | os.PathLike[str], classes: list[str]) -> np.ndarray:
    """Read a cost matrix.

    The first row of the CSV has an empty cell and the predicted classes; each other row a true class and the cost of
    each prediction for it, 0 or more. A last column `unsure` is the cost of handing an image to a person.

    Parameters
    ----------
    file : str or path
        The file.
    classes : list of str
        The classes of the run.

    Returns
    -------
    ndarray
        (classes, classes), or (classes, classes + 1) with `unsure`; float64, in the order of `classes`.

    Raises
    ------
    AlexNetError
        If it cannot be read, or a class or a cost is missing, doubled, unknown or no number.
    """
    separator, numbered = read_spreadsheet(file)
    rows = [row for _, row in numbered]
    if not rows:
        raise AlexNetError(f"{file} is empty: the first row names the predicted classes")
    columns, names = [cell.strip() for cell in rows[0][1:]], [row[0].strip() for row in rows[1:]]
    with_unsure = UNSURE_COLUMN not in classes and UNSURE_COLUMN in columns
    wanted = [*classes, UNSURE_COLUMN] if with_unsure else list(classes)
    for found, expected, place in ((columns, wanted, "columns"), (names, list(classes), "rows")):
        if sorted(found) != sorted(expected):
            raise AlexNetError(f"the {place} of {file} are {', '.join(found)}; they must be {', '.join(expected)}")
    matrix = np.empty((len(classes), len(wanted)))
    for name, row in zip(names, rows[1:], strict=True):
        if len(row) != len(rows[0]):
            raise AlexNetError(f"{file}, row {name!r}: {len(row) - 1} costs for {len(columns)} columns")
        for column, cell in zip(columns, row[1:], strict=True):
            try:
                value = float(cell.replace(",", ".") if separator != "," else cell)
            except ValueError:
                value = math.nan
            if not 0 <= value < math.inf:
                raise AlexNetError(f"{file}, row {name!r}, column {column!r}: {cell!r} is no cost (a number from 0)")
            matrix[classes.index(name), wanted.index(column)] = value
    return matrix


def image_costs(
    costs: np.ndarray, labels: np.ndarray, decided: np.ndarray, kind: np.ndarray | None = None
) -> np.ndarray:
    """The cost of each decision, (n,) float64.

    Images that are unsure or unknown (`kind` above 0) cost what the column `unsure` says; NaN without that column.
    """
    found: np.ndarray = costs[labels, decided]
    if kind is not None:
        has_unsure = costs.shape[1] > len(costs)
        found = np.where(kind == 0, found, costs[labels, -1] if has_unsure else np.nan)
    return found


def mean_cost(
    costs: np.ndarray, labels: np.ndarray, decided: np.ndarray, kind: np.ndarray | None = None
) -> float | None:
    """The mean cost of decisions; without a column `unsure`, of the images that were answered. None if none was."""
    each = image_costs(costs, labels, decided, kind)
    known = np.isfinite(each)
    return float(each[known].mean()) if known.any() else None
