"""Trials: trainings that run once, resume after an interruption, and whose measurements are stored."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from alexnet.data.dataset import INDEX_NAME, PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.report.style import Figure, png
from alexnet.runs.run import Run, is_free
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import date_and_machine, read_result, write_result
from alexnet.training.train import train


def prepare_once(source: Any, data: Path, **options: Any) -> PreparedDataset:
    """Return the dataset in the folder `data`; prepare it from `source` first if the folder does not exist.

    `source` can be a function that returns a source, which is called only if it is needed.
    """
    if (data / INDEX_NAME).exists():
        dataset = PreparedDataset.open(data)
        notify(f"{data} is already prepared: {sum(dataset.counts.values()):,} images")
        return dataset
    return prepare(source() if callable(source) else source, data, **options)


def train_once(data: Path, run: Path, **options: Any) -> Run:
    """Train a run, resume it if it was interrupted, or return it if it is finished.

    Parameters
    ----------
    data : Path
        A prepared dataset.
    run : Path
        The run folder.
    **options
        Options of `alexnet.train`.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        If the run folder has a run with other recipe values.
    """
    if is_free(run):
        run.parent.mkdir(parents=True, exist_ok=True)
        return train(data, run, **options)
    existing, recipe = Run.open(run), options.pop("recipe", None)
    if isinstance(recipe, str) and recipe != existing.config.recipe.name:
        raise UsageError(
            f"{run} has the recipe {existing.config.recipe.name}, not {recipe}; choose another folder with --out"
        )
    if other := existing.config.recipe.differing(options):
        raise UsageError(f"{run} has another {', '.join(other)}; choose another folder with --out")
    epochs = existing.metrics("epoch")
    if epochs and epochs[-1]["epoch"] == existing.config.recipe.epochs:
        notify(f"{run} is already trained: {len(epochs)} epochs")
        return existing
    return train(data, run, resume=True)


def is_selected(name: str, only: Sequence[str]) -> bool:
    """Return whether the name of a trial starts with one of the prefixes `only`. An empty list selects every trial."""
    return not only or name.startswith(tuple(only))


def place_of(work: Path, name: str, ending: str = ".json") -> Path:
    """The file of a trial, such as ``solar-hog-0.json`` of "solar/hog/0"; without an ending, its folder."""
    return work / f"{name.replace('/', '-')}{ending}"


def measure_once(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the measurement stored in `file`, or call `measure` and store its result, date and machine."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({**measure(), **date_and_machine()}).encode())
    return dict(json.loads(file.read_text(encoding="utf-8")))


class Named(Protocol):
    """A trial with a name, such as ``"solar/hog/0"``; it can be a key of a dict."""

    @property
    def name(self) -> str:
        """The name, by which its measurement is stored."""
        ...

    def __hash__(self) -> int: ...


AnyTrial = TypeVar("AnyTrial", bound=Named)
Written = TypeVar("Written")


def run_trials(
    trials: Sequence[AnyTrial],
    work: Path,
    only: Sequence[str],
    measure: Callable[[AnyTrial], dict[str, Any]],
    write: Callable[[dict[AnyTrial, dict[str, Any]]], Written],
    earlier: Mapping[str, dict[str, Any]] | None = None,
) -> Written:
    """Measure the trials that are not stored yet, and write all measurements so far after each.

    An interruption loses nothing but the trial that it interrupts.

    Parameters
    ----------
    trials : sequence
        In the order in which they are measured.
    work : Path
        Folder of the stored measurements (`place_of`).
    only : sequence of str
        Prefixes of the names of the trials that are measured; empty for all. Stored ones are written in any case.
    measure : callable
        Measures a trial.
    write : callable
        Writes the results, given the measurements by trial.
    earlier : mapping, optional
        Measurements of an earlier result, by the names of their trials, which are not repeated.

    Returns
    -------
    object
        What the last call of `write` returns.

    Raises
    ------
    AlexNetError
        If `only` selects no trial and none is stored.
    """
    found = _stored(trials, work, earlier or {})
    for trial in trials:
        if is_selected(trial.name, only) and trial not in found:
            notify(f"{trial.name}:")
            measure_once(place_of(work, trial.name), partial(measure, trial))
            found = _stored(trials, work, earlier or {})
            write(found)
    if not found:
        raise AlexNetError(f"no trial starts with {' or '.join(only)}; a name is like {trials[0].name}")
    return write(found)


def _stored(
    trials: Sequence[AnyTrial], work: Path, earlier: Mapping[str, dict[str, Any]]
) -> dict[AnyTrial, dict[str, Any]]:
    """The measurements by trial: those stored in the folder `work`, and `earlier` ones by name."""
    files = {trial: place_of(work, trial.name) for trial in trials}
    return {
        trial: json.loads(file.read_text(encoding="utf-8")) if file.exists() else earlier[trial.name]
        for trial, file in files.items()
        if file.exists() or trial.name in earlier
    }


def with_earlier(
    results: Path,
    found: Mapping[AnyTrial, dict[str, Any]],
    command: str,
    renamed: Callable[[str], str] = str,
) -> dict[str, dict[str, Any]]:
    """The trials of an existing results file and those found now, by name, each with the command that measured it.

    A trial that the file has already, with the same measurement, keeps its command. `renamed` maps the names in the
    file to those under which they are kept.
    """
    report = read_result(results)
    trials = report.get("trials", {}).items()
    earlier = {renamed(name): {"command": report["command"], **entry} for name, entry in trials}
    now = {trial.name: {"command": command, **json.loads(json.dumps(entry))} for trial, entry in found.items()}
    for name, entry in now.items():
        if {**earlier.get(name, {}), "command": command} == entry:  # measured before, and stored
            entry["command"] = earlier[name]["command"]
    return earlier | now


def write_with_figure(results: Path, report: dict[str, Any], figure: Figure) -> None:
    """Write a result as JSON, and its figure as PNG next to it."""
    write_result(results, report)
    write_atomic(results.with_suffix(".png"), png(figure))


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, the sample standard deviation (None for one value) and the values."""
    return {
        "mean": statistics.mean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


ONE_SEED = "one seed: the seed-to-seed standard deviation is unknown"
NO_VARIANCE = "they have no variance to test against"
ROUNDING = 1e-9
"""A standard error below this is the rounding of equal numbers."""
SIGNIFICANCE_LEVEL = 0.05


def compare(differences: Sequence[float], others: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
    """Test whether the mean of paired differences differs from zero (Student's t-test).

    Parameters
    ----------
    differences : sequence of float
        One difference per seed, as a fraction of 1.
    others : sequence of sequences of float
        Differences of other comparisons. Their variance over the seeds is assumed to be the same and is pooled,
        because a few seeds alone estimate it poorly.

    Returns
    -------
    dict
        `summarize(differences)` with ``standard_error``, ``interval`` (95%), ``degrees_of_freedom``, two-sided ``p``
        and ``verdict``. The verdict is "within noise" if ``p`` is above 0.05. Without a variance, of one seed or of
        differences that are equal with every seed, there is no test: these values are None, and the verdict says why.
    """
    from scipy.special import stdtr, stdtrit

    summary, mean = summarize(differences), statistics.mean(differences)
    points = f"{round(mean * 100, 1) + 0:+.1f}"  # adding 0 turns -0.0 into 0.0
    groups = [group for group in (differences, *others) if len(group) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    pooled = sum((len(group) - 1) * statistics.variance(group) for group in groups) / degrees if degrees else 0.0
    error = math.sqrt(pooled / len(differences))
    if error < ROUNDING:  # accuracies are counts: a few seeds may agree to the image, which does not make them exact
        equal = f"equal with each of {len(differences)} seeds: {NO_VARIANCE}" if degrees else ONE_SEED
        return {
            **summary,
            "standard_error": None,
            "interval": None,
            "p": None,
            "verdict": f"{points} points; {equal}",
        }
    p = 2 * float(stdtr(degrees, -abs(mean) / error))
    half = float(stdtrit(degrees, 1 - SIGNIFICANCE_LEVEL / 2)) * error
    direction = "increase" if mean > 0 else "decrease"
    verdict = "within noise" if p > SIGNIFICANCE_LEVEL else f"statistically significant {direction}"
    return {
        **summary,
        "standard_error": error,
        "interval": [mean - half, mean + half],
        "degrees_of_freedom": degrees,
        "p": p,
        "verdict": f"{points} ± {error * 100:.1f} points: {verdict}",
    }
