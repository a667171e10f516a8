"""Timing of two implementations in turn: the speed of a machine varies, ratios within a round vary less."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """A timing of this package against a peer.

    Attributes
    ----------
    description, against : str
        The operation, and the peer.
    ratio : float
        The peer's time (or memory) divided by ours: median over the rounds.
    spread : tuple of float
        Smallest and largest ratio of the rounds.
    at_least : float, optional
        Target of the ratio.
    figures : dict
        Further measurements by name.
    """

    description: str
    against: str
    ratio: float
    spread: tuple[float, float]
    at_least: float | None
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON file."""
        return {
            "description": self.description,
            "against": self.against,
            "ratio": _short(self.ratio),
            "spread": [_short(value) for value in self.spread],
            "at_least": self.at_least,
            **{name: _short(value) for name, value in self.figures.items()},
        }


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Return the seconds of each of `sides`, one value per round; before the first round each runs once untimed."""
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def compared(
    description: str, against: str, ours: list[float], theirs: list[float], at_least: float | None, **figures: Any
) -> Comparison:
    """Return the comparison of seconds (or bytes): less is better."""
    ratios = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    return Comparison(description, against, statistics.median(ratios), (ratios[0], ratios[-1]), at_least, figures)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
