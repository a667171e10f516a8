"""Ensembles: their members, and the weights of the averaged probabilities (paper, section 5.1)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.evaluation.predictor import is_baseline, load_predictors, require_same_images
from alexnet.runs.run import BASELINE, CROSS_VALIDATION, ENSEMBLE, check_has_networks
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

FORMAT_VERSION = 1
TRAINING = "training"
"""The entry of the list that says how its networks are trained, where one command trains all of them."""


def members_of(folder: Path) -> list[Path]:
    """The folders whose probabilities are averaged: finished folds, or members of an ensemble; else `folder` alone.

    Raises
    ------
    AlexNetError
        If the folder is none of a run, a cross-validation, an ensemble and a baseline, or its list cannot be read.
    """
    check_has_networks(folder)
    if (folder / CROSS_VALIDATION).is_file():
        return fold_runs(folder)
    if (folder / ENSEMBLE).is_file():
        return _listed_members(folder)
    return [folder]


def make_ensemble(members: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[Path]:
    """Write an ensemble: a folder with the list of its members, which stay where they are.

    Parameters
    ----------
    members : sequence of path
        Run folders, baselines, cross-validations (their finished folds) and ensembles (their members).
    out : path
        The folder; it must not exist, or be empty.

    Returns
    -------
    list of Path
        The runs and baselines that are averaged, each once: networks first.

    Raises
    ------
    AlexNetError
        If there are fewer than two, one can't be read, they differ in their classes, image sizes or ranges of pixel
        values, or `out` is not free.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlexNetError(f"{folder} exists already: choose another folder with --out")
    found = list(dict.fromkeys(one.resolve() for member in members for one in members_of(Path(member))))
    if len(found) < 2:
        raise AlexNetError(f"an ensemble needs two different members; {found[0]} is the only one")
    found.sort(key=is_baseline)
    first, *others = load_predictors(found, choose_device("cpu"), torch.float32)
    for other in others:
        require_same_images(first.config, str(first.path), other.config, str(other.path))
    folder.mkdir(parents=True, exist_ok=True)
    write_ensemble(folder, [_relative(one, folder.resolve()) for one in found])
    return found


def write_ensemble(folder: Path, members: Sequence[str], values: Mapping[str, Any] | None = None) -> None:
    """Write the list of the members, which are relative to the folder, and further values."""
    listed = {"members": list(members), **(values or {}), "format_version": FORMAT_VERSION}
    write_atomic(folder / ENSEMBLE, (json.dumps(listed, indent=1, ensure_ascii=False) + "\n").encode())


def read_ensemble(folder: Path) -> dict[str, Any]:
    """Read the list that `write_ensemble` wrote, with its further values.

    Raises
    ------
    AlexNetError
        If the list is damaged, or has another format.
    """
    file = folder / ENSEMBLE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        version, _ = values["format_version"], [folder / member for member in values["members"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlexNetError(f"{file} cannot be read: {error}") from error
    if version != FORMAT_VERSION:
        raise AlexNetError(f"{file} has format {version}; this version reads {FORMAT_VERSION}")
    return dict(values)


def _relative(path: Path, folder: Path) -> str:
    """A path relative to a folder, so that both can be moved together; absolute on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return str(path)


def _listed_members(folder: Path) -> list[Path]:
    """The members of an ensemble.

    Raises
    ------
    AlexNetError
        If the list is damaged, has another format, or a member is not there any more.
    """
    values, file = read_ensemble(folder), folder / ENSEMBLE
    members = [folder / member for member in values["members"]]
    if not members and TRAINING in values:
        raise AlexNetError(
            f"no network of {folder} is finished; continue with `alexnet train DATA --out {folder} --resume`"
        )
    if not members:
        raise AlexNetError(f"{file} names no member; make it again with `alexnet ensemble`")
    for member in members:
        if not any((member / name).is_file() for name in ("config.json", BASELINE)):
            raise AlexNetError(f"{file} names {member}, which is not there; make it again with `alexnet ensemble`")
    return members


def fold_runs(folder: Path) -> list[Path]:
    """The run folders of the finished folds of a cross-validation.

    Raises
    ------
    AlexNetError
        If no fold is finished, or the folder cannot be read.
    """
    try:
        numbers = sorted(map(int, json.loads((folder / CROSS_VALIDATION).read_text(encoding="utf-8"))["folds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlexNetError(f"{folder / CROSS_VALIDATION} cannot be read: {error}") from error
    if not numbers:
        raise AlexNetError(f"no fold of {folder} is finished; continue with the same `alexnet crossval` command")
    return [folder / f"fold-{number}" for number in numbers]


def optimal_coefficients(label_probability: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """The coefficients of the weighted average with the smallest log loss.

    Expectation maximization from equal coefficients. The log loss is convex in them, so this is the global minimum.

    Parameters
    ----------
    label_probability : ndarray
        (n, members), the probability that each member gives to the label of each image; the log loss of an average
        depends on nothing else.
    tolerance : float
        Largest distance of the log loss from its minimum, in nats.

    Returns
    -------
    ndarray
        (members,) float64, at least 0 and with sum 1.
    """
    p = np.maximum(label_probability, np.finfo(np.float64).tiny)
    weights = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(10_000):
        gain = (p / (p @ weights)[:, None]).mean(axis=0)
        # By convexity the log loss is at most max(gain) - 1 above the minimum.
        if gain.max() - 1 <= tolerance:
            break
        weights = weights * gain
    return weights / weights.sum()
