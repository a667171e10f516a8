"""What every experiment is made of: trials that are trained once and go on after a stop, and numbers that are kept."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alexnet.data.dataset import INDEX_NAME, PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.report.style import Figure, png
from alexnet.runs.run import Run, is_free
from alexnet.runtime.errors import UsageError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.provenance import date_and_machine, write_result
from alexnet.training.train import train


def prepared(source: Any, data: Path, **options: Any) -> PreparedDataset:
    """What `alexnet prepare` makes of `source`, unless it is in `data` already."""
    if (data / INDEX_NAME).exists():
        dataset = PreparedDataset.open(data)
        print(f"{data} is prepared already: {sum(dataset.counts.values()):,} images", file=sys.stderr)
        return dataset
    return prepare(source() if callable(source) else source, data, **options)


def trained(data: Path, run: Path, **how: Any) -> Run:
    """What `alexnet train` leaves in `run`: one that is done stays as it is, one that was stopped goes on.

    `how`: as for `train`. Raises `UsageError` for a run that was begun with other values.
    """
    if is_free(run):
        run.parent.mkdir(parents=True, exist_ok=True)
        return train(data, run, **how)
    found, recipe = Run.open(run), how.pop("recipe", None)
    if isinstance(recipe, str) and recipe != found.config.recipe.name:
        raise UsageError(f"{run} is of the recipe {found.config.recipe.name}, not {recipe}; name another --out")
    if other := found.config.recipe.differing(how):
        raise UsageError(f"{run} was begun with another {', '.join(other)}; name another --out")
    epochs = found.metrics("epoch")
    if epochs and epochs[-1]["epoch"] == found.config.recipe.epochs:
        print(f"{run} is trained already: {len(epochs)} epochs", file=sys.stderr)
        return found
    return train(data, run, resume=True)


def is_asked(name: str, only: Sequence[str]) -> bool:
    """Whether the name of a trial begins with one of `only`, or all are asked for."""
    return not only or name.startswith(tuple(only))


def measured(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` returns, and on which machine and day: measured once, and kept as JSON."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({**measure(), **date_and_machine()}).encode())
    return dict(json.loads(file.read_text()))


def write_with_figure(results: Path, report: dict[str, Any], figure: Figure) -> None:
    """Write the results as JSON and, beside them, the figure drawn from them as PNG."""
    write_result(results, report)
    write_atomic(results.with_suffix(".png"), png(figure))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None of a single one) and the values themselves, as JSON has it."""
    return {
        "mean": statistics.mean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


ONE_SEED = "one seed: says nothing about luck"
LUCK = 0.05


def compared(differences: Sequence[float], others: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
    """A difference of two trials, one value a seed as a share of 1: its `spread`, its standard error and a verdict.

    `others`: differences of other trials, whose spread over the seeds is taken to be the same: of few seeds alone it is
    hardly known. `p` says in how many cases luck alone would make a mean as large (Student's t); where that is more
    than one in twenty, the difference is inside the noise.
    """
    from scipy.special import stdtr

    found, mean = spread(differences), statistics.mean(differences)
    points = f"{round(mean * 100, 1) + 0:+.1f}"  # none has no minus sign
    groups = [group for group in (differences, *others) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return {**found, "standard_error": None, "p": None, "verdict": f"{points} points; {ONE_SEED}"}
    pooled = sum((len(group) - 1) * statistics.variance(group) for group in groups) / freedom
    error = math.sqrt(pooled / len(differences))
    p = 2 * float(stdtr(freedom, -abs(mean) / error)) if error else float(mean == 0)
    words = f"{points} ± {error * 100:.1f} points"
    return {
        **found,
        "standard_error": error,
        "degrees_of_freedom": freedom,
        "p": p,
        "verdict": f"{words}: {'inside the noise' if p > LUCK else 'worse' if mean > 0 else 'better'}",
    }
