"""What every experiment is made of: arms that are trained once and go on after a stop, and numbers that are kept."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alexnet.data.dataset import INDEX_NAME, PreparedDataset
from alexnet.data.prepare import prepare
from alexnet.errors import UsageError
from alexnet.files import write_whole
from alexnet.provenance import write_result
from alexnet.run import Run, is_free
from alexnet.show.style import Figure, png
from alexnet.training.loop import train


def prepared(source: Any, data: Path, **options: Any) -> PreparedDataset:
    """What `alexnet prepare` makes of `source`, unless it is in `data` already."""
    if (data / INDEX_NAME).exists():
        dataset = PreparedDataset.open(data)
        print(f"{data} is prepared already: {sum(dataset.counts.values()):,} pictures", file=sys.stderr)
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


def measured(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` returns: measured once, and kept as JSON."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(measure()).encode())
    return dict(json.loads(file.read_text()))


def write_with_figure(results: Path, report: dict[str, Any], figure: Figure) -> None:
    """Write the results as JSON and, beside them, the figure drawn from them as PNG."""
    write_result(results, report)
    write_whole(results.with_suffix(".png"), png(figure))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None of a single one) and the values themselves, as JSON has it."""
    return {
        "mean": statistics.mean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


ONE_SEED = "one seed: says nothing about luck"


def compared(differences: Sequence[float]) -> dict[str, Any]:
    """A difference of two arms, one value a seed as a share of 1: its `spread`, its standard error and a verdict.

    A mean of less than two standard errors is inside the noise. Of three seeds that is said too seldom: differences of
    luck alone are outside in 18 of 100 cases, and `p` says in how many they would be as large as this one.
    """
    from scipy.special import stdtr

    found = spread(differences)
    deviation, mean = found["standard_deviation"], found["mean"]
    if deviation is None:
        return {**found, "standard_error": None, "p": None, "verdict": f"{mean * 100:+.1f} points; {ONE_SEED}"}
    error = deviation / math.sqrt(len(differences))
    inside = abs(mean) <= 2 * error
    words = f"{mean * 100:+.1f} ± {error * 100:.1f} points"
    return {
        **found,
        "standard_error": error,
        "p": 2 * float(stdtr(len(differences) - 1, -abs(mean) / error)) if error else float(mean == 0),
        "verdict": f"{words}: inside the noise" if inside else f"{words}: {'worse' if mean > 0 else 'better'}",
    }
