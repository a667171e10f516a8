"""An ensemble trained by one command: several networks that differ in their seed (paper, section 6, table 2)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation import metrics
from alexnet.evaluation.ensemble import TRAINING, read_ensemble, write_ensemble
from alexnet.evaluation.evaluate import probabilities_by_member
from alexnet.evaluation.metrics import Predictions
from alexnet.runs.recipe import recipes
from alexnet.runs.run import ENSEMBLE, Run, is_free, is_of_another_dataset
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.progress import notify
from alexnet.training.train import train

LEAST_SHARE = 0.5
"""Least budget of a network, as a share of an equal part, where the networks before it took longer."""


@dataclass(frozen=True)
class _Settings:
    """How the networks of an ensemble are trained, as its folder stores it.

    Attributes
    ----------
    networks : int
        Number of networks.
    recipe : str
        Name of the recipe, or "auto".
    changes : dict
        Values of the recipe to override; the seed is that of the first network, the budget that of all of them.
    seconds : list of float
        Wall time of each finished network.
    """

    networks: int
    recipe: str
    changes: dict[str, Any]
    seconds: list[float]

    def changes_of(self, number: int) -> dict[str, Any]:
        """The values of the recipe of a network, numbered from 1: with its seed, and its part of the budget."""
        changes = {**self.changes, "seed": self.changes.get("seed", 0) + number - 1}
        if (budget := changes.get("budget")) is not None:
            left = (budget - sum(self.seconds)) / (self.networks - number + 1)
            changes["budget"] = max(left, LEAST_SHARE * budget / self.networks)
        return changes


def train_ensemble(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    networks: int | None = None,
    recipe: str = "auto",
    resume: bool = False,
    device: str | None = None,
    checkpoint_interval: float = 120.0,
    keep_checkpoint: bool = False,
    safe: bool = False,
    **changes: Any,
) -> list[Path]:
    """Train several networks that differ in their seed, one after the other, as an ensemble.

    The networks are the runs ``network-1``, ``network-2``, ... in the folder `out`, which represents the mean of their
    probabilities (paper, section 6, table 2) wherever a folder of `alexnet ensemble` is taken.

    Parameters
    ----------
    data : path
        The prepared dataset.
    out : path
        The folder; it must not exist yet, except with `resume`.
    networks : int, optional
        Number of networks, at least 2. With `resume` by default as before; a larger number adds networks.
    recipe : str
        As in `alexnet.train`.
    resume : bool
        Continue after an interruption. The settings are those of the beginning.
    device, checkpoint_interval, keep_checkpoint, safe
        As in `alexnet.train`.
    **changes
        Values of the recipe to override. `seed` is that of the first network, the others have those that follow it; a
        `budget` is that of all networks together.

    Returns
    -------
    list of Path
        The run folders.

    Raises
    ------
    UsageError
        If a value is invalid, or differs from that of the beginning.
    AlexNetError
        If a training fails, or `out` is not free or, with `resume`, no such ensemble.
    KeyboardInterrupt
        After Ctrl-C, with everything saved.
    """
    folder = Path(out)
    settings = (_reopen if resume else _begin)(folder, networks, recipe, changes)
    runs = [folder / f"network-{number}" for number in range(1, settings.networks + 1)]
    dataset = PreparedDataset.open(data)
    _write(folder, settings)
    options: dict[str, Any] = {
        "device": device,
        "checkpoint_interval": checkpoint_interval,
        "keep_checkpoint": keep_checkpoint,
        "safe": safe,
    }
    for number, run in enumerate(runs, start=1):
        if number <= len(settings.seconds):
            continue
        if number > 1 and is_of_another_dataset(Run.open(runs[0]), dataset):
            raise AlexNetError(f"{data} is not the dataset that {runs[0]} was trained on; resume with that one")
        own = settings.changes_of(number)
        notify(f"network {number} of {len(runs)}: seed {own['seed']}")
        start = time.monotonic()
        try:
            if is_free(run):
                train(data, run, recipe=settings.recipe, **options, **own)
            elif not Run.open(run).finished:
                train(data, run, resume=True, **options)
        except KeyboardInterrupt:
            again = shlex.join(["alexnet", "train", os.fspath(data), "--out", os.fspath(out), "--resume"])
            raise KeyboardInterrupt(
                f"interrupted in network {number} of {len(runs)}; continue with `{again}`"
            ) from None
        finally:
            if is_free(runs[0]):  # refused before its first step: nothing can be resumed
                _remove(folder, runs[0])
        settings = replace(settings, seconds=[*settings.seconds, time.monotonic() - start])
        _write(folder, settings)
    notify(f"{out}: the mean of {len(runs)} networks{_validated(runs, dataset, device, safe)}")
    return runs


def begun_with_networks(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is an ensemble that `train_ensemble` began."""
    try:
        return TRAINING in json.loads((Path(folder) / ENSEMBLE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _begin(folder: Path, networks: int | None, recipe: str, changes: Mapping[str, Any]) -> _Settings:
    """The settings of a new ensemble."""
    if networks is None or networks < 2:
        raise UsageError(f"networks is {networks}; an ensemble has at least 2")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        again = "continue it with --resume, or " if begun_with_networks(folder) else ""
        raise AlexNetError(f"{folder} exists already; {again}name another folder with --out")
    return _Settings(networks, recipe, _as_stored(recipe, changes), [])


def _reopen(folder: Path, networks: int | None, recipe: str, changes: Mapping[str, Any]) -> _Settings:
    """The settings of an ensemble that is continued, with the number of networks that it shall have now."""
    if not begun_with_networks(folder):
        raise AlexNetError(
            f"{folder} is not an ensemble that `alexnet train --networks` began: leave out --resume, or --networks to "
            "continue a run"
        )
    try:
        stored = _Settings(**read_ensemble(folder)[TRAINING])
    except TypeError as error:
        raise AlexNetError(f"{folder / ENSEMBLE} cannot be read: {error}") from error
    given = _as_stored(stored.recipe, changes)
    different = ["recipe"] * (recipe not in ("auto", stored.recipe))
    different += [name for name, value in given.items() if stored.changes.get(name) != value]
    if different:
        raise UsageError(
            f"{folder} was begun with another {', '.join(different)}: leave out these options, or name another folder"
        )
    if networks is not None and networks < max(len(stored.seconds), 2):
        raise UsageError(
            f"networks is {networks}, and {folder} has {len(stored.seconds)} finished ones; give at least that number"
        )
    return replace(stored, networks=networks or stored.networks)


def _as_stored(recipe: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a recipe as they are stored and read again.

    Raises
    ------
    UsageError
        If there is no such recipe, or a value is invalid.
    """
    check_choice(recipe, ("auto", *recipes()), "recipe")
    values = recipes()["small" if recipe == "auto" else recipe].override(changes).to_dict()
    return dict(json.loads(json.dumps({name: values[name] for name in changes})))


def _write(folder: Path, settings: _Settings) -> None:
    """Write the list of the finished networks, and the settings."""
    folder.mkdir(parents=True, exist_ok=True)
    finished = [f"network-{number}" for number in range(1, len(settings.seconds) + 1)]
    write_ensemble(folder, finished, {TRAINING: vars(settings)})


def _remove(folder: Path, run: Path) -> None:
    """Remove the folder of an ensemble whose first network was never begun."""
    shutil.rmtree(run, ignore_errors=True)
    (folder / ENSEMBLE).unlink()
    folder.rmdir()


def _validated(runs: list[Path], dataset: PreparedDataset, device: str | None, safe: bool) -> str:
    """The validation error of the mean, and those of the networks, for people; empty without validation images."""
    if "val" not in dataset.splits or not len(split := dataset.split("val")):
        return ""
    found = probabilities_by_member(runs, split, views=1, device=device, safe=safe)
    errors = [_error(one, split) for one in found]
    return (
        f"; validation error {_error(found.mean(axis=0), split):.2%}, of the single networks {min(errors):.2%} to "
        f"{max(errors):.2%}"
    )


def _error(probabilities: np.ndarray, split: Split) -> float:
    return 1 - metrics.accuracy(Predictions.from_probabilities(probabilities, split.labels))
