"""Ensembles: the averaged probabilities of several trained networks (paper, section 5.1)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.inference import probabilities
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.run import CROSS_VALIDATION, Run
from alexnet.runtime.errors import AlexNetError


@dataclass(frozen=True)
class Member:
    """One trained network of an ensemble.

    Parameters
    ----------
    run : Run
        Its run folder.
    network : AlexNet
        The network, in evaluation mode.
    preprocess : Preprocessing
        The preprocessing of its images.
    """

    run: Run
    network: AlexNet
    preprocess: Preprocessing


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


def load_members(runs: Sequence[str | os.PathLike[str] | Member], device: torch.device) -> list[Member]:
    """Load the runs of an ensemble.

    Parameters
    ----------
    runs : sequence of path or Member
        Run folders; a member is returned as it is.
    device : torch.device
        Device of the networks that are loaded.

    Raises
    ------
    AlexNetError
        If a run can't be read, or the runs differ in their classes or image sizes.
    """
    opened = [run.run if isinstance(run, Member) else Run.open(run) for run in runs]
    first = opened[0]
    for other in opened[1:]:
        require_same_classes(
            first.config.classes, str(first.path), other.config.classes, str(other.path), "they can't be averaged"
        )
        if other.config.size != first.config.size:
            raise AlexNetError(
                f"{first.path} takes images of {first.config.size} pixels, {other.path} of {other.config.size}: "
                "they can't be averaged on one dataset"
            )
    return [
        given if isinstance(given, Member) else Member(run, *run.load(device))
        for given, run in zip(runs, opened, strict=True)
    ]


def require_same_classes(
    classes: list[str], name: str, other_classes: list[str], other_name: str, purpose: str
) -> None:
    """Check that two lists of classes are the same, in the same order.

    Parameters
    ----------
    classes, other_classes : list of str
        The classes.
    name, other_name : str
        Where they are from, for the message.
    purpose : str
        End of the message: what is not possible.

    Raises
    ------
    AlexNetError
        If they differ; the message says in which classes.
    """
    if classes == other_classes:
        return
    if sorted(classes) == sorted(other_classes):
        difference = "the same classes in another order"
    else:
        extra = [
            (name, sorted(set(classes) - set(other_classes))),
            (other_name, sorted(set(other_classes) - set(classes))),
        ]
        difference = ", ".join(f"only {where} has {_listed(names)}" for where, names in extra if names)
    raise AlexNetError(f"{name} and {other_name} have different classes ({difference}): {purpose}")


def member_probabilities(
    members: Sequence[Member], networks: Sequence[OptimizedNetwork], images: Tensor, views: int
) -> np.ndarray:
    """The probabilities of each member.

    Parameters
    ----------
    members : sequence of Member
        The members.
    networks : sequence of OptimizedNetwork
        Their networks, in the form and precision in which they run.
    images : Tensor
        (N, size, size, 3) uint8
    views : int
        Number of test views.

    Returns
    -------
    ndarray
        (members, N, classes) float64
    """
    results = []
    for member, network in zip(members, networks, strict=True):
        try:
            results.append(probabilities(network, member.preprocess, images, views).numpy())
        except AlexNetError as error:
            raise AlexNetError(f"{member.run.path}: {error}") from error
    return np.stack(results)


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


def _listed(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
