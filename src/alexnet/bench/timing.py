"""Alternating timings of two implementations: a machine's speed varies, ratios within a round vary less."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """One implementation compared with another.

    Attributes
    ----------
    description : str
        The measurement.
    against : str
        The peer.
    ratio : float
        The peer's time (or bytes) divided by this package's; more is better.
    spread : (float, float)
        Minimum and maximum of the ratios of the rounds.
    at_least : float or None
        The target of the ratio.
    figures : dict
        Other values that were measured, by name.
    """

    description: str
    against: str
    ratio: float
    spread: tuple[float, float]
    at_least: float | None
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in its JSON form, floating-point values with four significant digits."""
        return {
            "description": self.description,
            "against": self.against,
            "ratio": _rounded(self.ratio),
            "spread": [_rounded(value) for value in self.spread],
            "at_least": self.at_least,
            **{name: _rounded(value) for name, value in self.figures.items()},
        }


def in_turn(
    sides: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1, pause: float = 0.0
) -> dict[str, list[float]]:
    """Time functions in turn, after one call of each that is not timed.

    Parameters
    ----------
    sides : mapping of str to callable
        The functions by name.
    rounds : int
        Timings of each function.
    repeats : int
        Calls per timing.
    pause : float
        Seconds before each timing, and then a call that is not timed: for engines with threads of their own, which wait
        actively for some milliseconds after a call and would slow down the next side.

    Returns
    -------
    dict of str to list of float
        Seconds per call, one value per round.
    """
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            if pause:
                time.sleep(pause)
                run()
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def compared(
    description: str, against: str, ours: list[float], theirs: list[float], at_least: float | None, **figures: Any
) -> Comparison:
    """Compare seconds (or bytes) of the same rounds: the median of the ratios, and their range."""
    ratios = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    return Comparison(description, against, statistics.median(ratios), (ratios[0], ratios[-1]), at_least, figures)


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
