"""Several trained networks as one: their probabilities averaged (paper, section 5.1)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.inference import probabilities
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError


@dataclass(frozen=True)
class Member:
    """One trained network with what its images go through first."""

    run: Run
    network: AlexNet
    preprocess: Preprocessing


def load_members(runs: Sequence[str | os.PathLike[str] | Member], device: torch.device) -> list[Member]:
    """Open the run folders; what is loaded already stays as it is.

    Raises `AlexNetError` when one can't be read, or they do not have the same classes.
    """
    opened = [given.run if isinstance(given, Member) else Run.open(given) for given in runs]
    first = opened[0]
    for other in opened[1:]:
        require_same_classes(
            first.config.classes, str(first.path), other.config.classes, str(other.path), "they can't be averaged"
        )
        if other.config.size != first.config.size:
            raise AlexNetError(
                f"{first.path} reads images of {first.config.size} pixels, {other.path} of {other.config.size}: "
                "they can't be averaged on one dataset"
            )
    return [
        given if isinstance(given, Member) else Member(run, *run.load(device))
        for given, run in zip(runs, opened, strict=True)
    ]


def require_same_classes(one: list[str], name: str, other: list[str], other_name: str, so: str) -> None:
    """Raise an `AlexNetError` that names the difference unless both have the same classes in the same order."""
    if one == other:
        return
    if sorted(one) == sorted(other):
        difference = "the same classes in another order"
    else:
        only = [(name, sorted(set(one) - set(other))), (other_name, sorted(set(other) - set(one)))]
        difference = ", ".join(f"only {who} has {_listed(names)}" for who, names in only if names)
    raise AlexNetError(f"{name} and {other_name} have different classes ({difference}): {so}")


def member_probabilities(
    members: Sequence[Member], networks: Sequence[OptimizedNetwork], images: Tensor, views: int
) -> np.ndarray:
    """What each member says of `images` (N, size, size, 3) uint8: (members, N, classes) float64.

    networks: those of the members, as they are to run.
    """
    results = []
    for member, network in zip(members, networks, strict=True):
        try:
            results.append(probabilities(network, member.preprocess, images, views).numpy())
        except AlexNetError as error:
            raise AlexNetError(f"{member.run.path}: {error}") from error
    return np.stack(results)


def search_coefficients(label_probability: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """The weights of the members, ≥ 0 and summing to 1, whose average has the smallest log-loss.

    `label_probability`: (n, members), the probability each member gives to the right class of each image; nothing
    else enters the log-loss of an average. Expectation maximization from equal weights: the log-loss is convex in the
    weights, so it is the minimum that is found, to within `tolerance` nats. Returns (members,) float64.
    """
    p = np.maximum(label_probability, np.finfo(np.float64).tiny)
    weights = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(10_000):
        gain = (p / (p @ weights)[:, None]).mean(axis=0)
        # By convexity the log-loss is at most max(gain) - 1 above the minimum.
        if gain.max() - 1 <= tolerance:
            break
        weights = weights * gain
    return weights / weights.sum()


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
