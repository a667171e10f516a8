"""How the images of each day compare with those on which the decision rule was found.

A camera that ages, another lamp or a new product changes the images before anybody sees it; confidences fall, and more
images are *unsure* or *unknown* than on the validation images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.inspection.journal import Journal, Placement
from alexnet.runs.decision import UNKNOWN, UNSURE, DecisionRule
from alexnet.runtime.errors import AlexNetError

SIGNIFICANCE_LEVEL = 0.001
"""A day without drift is marked about once in a thousand days for each of its values."""
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Validation:
    """The images on which the decision rule was found.

    Attributes
    ----------
    confidences : ndarray
        Calibrated probability of the class, of all images or of up to a thousand of them evenly spread in rank.
    unsure, unknown : float
        Shares of the images, 0 to 1.
    images : int
        Number of images.
    """

    confidences: np.ndarray
    unsure: float
    unknown: float
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "images": self.images,
            "confidence": _quantiles(self.confidences),
            "unsure": self.unsure,
            "unknown": self.unknown,
        }


@dataclass(frozen=True)
class Day:
    """The images that were sorted on one day.

    Attributes
    ----------
    day : str
        Year, month and day in the time zone of this machine.
    images : int
        Number of images.
    confidence : tuple of (float, float, float)
        The 10%, 50% and 90% quantiles of the probability of the class.
    unsure, unknown : float
        Shares of the images, 0 to 1.
    classes : mapping of str to int
        Number of images decided as each class.
    differs : tuple of str
        Those of "confidence", "unsure" and "unknown" that differ from the validation images (p < 0.001): Kolmogorov
        and Smirnov's test of the confidences, Fisher's exact test of the shares.
    """

    day: str
    images: int
    confidence: tuple[float, ...]
    unsure: float
    unknown: float
    classes: Mapping[str, int]
    differs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "day": self.day,
            "images": self.images,
            "confidence": dict(zip(("q10", "q50", "q90"), self.confidence, strict=True)),
            "unsure": self.unsure,
            "unknown": self.unknown,
            "classes": dict(self.classes),
            "differs": list(self.differs),
        }


def day_of(seconds: float) -> str:
    """The day of a time (seconds since 1970) in the time zone of this machine."""
    return datetime.fromtimestamp(seconds).astimezone().date().isoformat()


def read_days(journal: Journal) -> tuple[Validation | None, list[Day]]:
    """The days of a journal, and the validation images of the run that sorted last; None if it has no rule."""
    validation = None
    run = journal.sessions[-1].get("run") if journal.sessions else None
    if run is not None and journal.sessions[-1].get("rule") is not None:
        validation = read_validation(Path(run))
    return validation, summarize_days(journal.placements.values(), validation)


def read_validation(run: Path) -> Validation | None:
    """Read the images on which the decision rule of a run was found from its record; None where there is none."""
    try:
        rule = DecisionRule.load(run)
    except AlexNetError:
        return None
    if rule is None or "confidences" not in rule.record:
        return None
    record = rule.record
    return Validation(
        np.array(record["confidences"], dtype=np.float64),
        float(record["shares"][UNSURE]),
        float(record["shares"][UNKNOWN]),
        int(record["images"]),
    )


def summarize_days(placements: Iterable[Placement], validation: Validation | None) -> list[Day]:
    """Summarize the placements of each day, in the order of the days. Those without a time are left out."""
    days: defaultdict[str, list[Placement]] = defaultdict(list)
    for placement in placements:
        if placement.time:
            days[day_of(placement.time)].append(placement)
    return [_summarize(day, days[day], validation) for day in sorted(days)]


def describe_day(day: Day, validation: Validation | None) -> str:
    """A day in a line."""
    shares = [f"{name} {_compared(getattr(day, name), validation, name)}" for name in (UNSURE, UNKNOWN)]
    median = f"{day.confidence[1]:.1%}"
    if validation is not None:
        median += f" (validation: {float(np.median(validation.confidences)):.1%})"
    images = f"{day.images:,} {'image' if day.images == 1 else 'images'}"
    line = f"{day.day}: {images}; median confidence {median}, {', '.join(shares)}"
    return line + (f"; differs from validation: {', '.join(day.differs)}" if day.differs else "")


def _compared(share: float, validation: Validation | None, name: str) -> str:
    return f"{share:.1%}" + ("" if validation is None else f" ({getattr(validation, name):.1%})")


def _summarize(day: str, placements: list[Placement], validation: Validation | None) -> Day:
    confidences = np.array([placement.probability for placement in placements])
    counts = {name: sum(placement.decision == name for placement in placements) for name in (UNSURE, UNKNOWN)}
    classes: defaultdict[str, int] = defaultdict(int)
    for placement in placements:
        if placement.decision not in counts:
            classes[placement.label] += 1
    return Day(
        day=day,
        images=len(placements),
        confidence=_quantiles(confidences),
        unsure=counts[UNSURE] / len(placements),
        unknown=counts[UNKNOWN] / len(placements),
        classes=dict(sorted(classes.items())),
        differs=() if validation is None else tuple(_differing(confidences, counts, validation)),
    )


def _differing(confidences: np.ndarray, counts: Mapping[str, int], validation: Validation) -> Iterable[str]:
    from scipy.stats import fisher_exact, ks_2samp

    if ks_2samp(confidences, validation.confidences).pvalue < SIGNIFICANCE_LEVEL:
        yield "confidence"
    for name, count in counts.items():
        known = round(getattr(validation, name) * validation.images)
        table = [[count, len(confidences) - count], [known, validation.images - known]]
        if fisher_exact(table)[1] < SIGNIFICANCE_LEVEL:
            yield name


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES))
