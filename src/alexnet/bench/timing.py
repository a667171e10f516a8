"""Two ways of doing one thing, timed in turn: machines change their speed, ratios within a round do so less."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """What was timed against what. `ratio`: how many times as good ours is; `at_least`: what it should be.

    spread: least and greatest of the ratios of the rounds. figures: what else was measured, by name.
    """

    what: str
    against: str
    ratio: float
    spread: tuple[float, float]
    at_least: float | None
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As the JSON file has it."""
        return {
            "what": self.what,
            "against": self.against,
            "ratio": _short(self.ratio),
            "spread": [_short(value) for value in self.spread],
            "at_least": self.at_least,
            **{name: _short(value) for name, value in self.figures.items()},
        }


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Seconds that each of `sides` took, one value a round; before the first round each runs once unseen."""
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
    what: str, against: str, ours: list[float], theirs: list[float], at_least: float | None, **figures: Any
) -> Comparison:
    """The comparison of seconds (or bytes): less is better."""
    ratios = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    return Comparison(what, against, statistics.median(ratios), (ratios[0], ratios[-1]), at_least, figures)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
