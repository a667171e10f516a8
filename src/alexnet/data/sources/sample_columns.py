"""Columns of a table beside path and class: weight, confidence and group, or a probability of each class."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from alexnet.data.sources.items import Sample
from alexnet.data.sources.names import composed, first_names
from alexnet.runtime.errors import AlexNetError

WEIGHT, CONFIDENCE, GROUP = "weight", "confidence", "group"
SAMPLE_COLUMNS = (WEIGHT, CONFIDENCE, GROUP)
PROBABILITY_PREFIXES = ("", "p_", "prob_", "probability_")
"""Prefixes of the name of a class in the name of the column of its probabilities."""
SUM_TOLERANCE = 0.01
"""Largest difference from 1 of the sum of an image's probabilities; they are divided by their sum."""


class SampleColumns(NamedTuple):
    """Positions of columns in the rows of a table; None: it has no such column."""

    weight: int | None = None
    confidence: int | None = None
    group: int | None = None

    def positions(self) -> set[int]:
        """The positions of those that are there."""
        return {position for position in self if position is not None}

    def read(self, cells: Sequence[Any], where: str) -> Sample:
        """Weight, confidence and group of a row; AlexNetError, naming `where`, for a value that is none."""
        weight = confidence = group = None
        if self.weight is not None:
            weight = _number(cells[self.weight], WEIGHT, where, math.inf)
        if self.confidence is not None:
            confidence = _number(cells[self.confidence], CONFIDENCE, where, 1.0)
        if self.group is not None:
            group = _group(cells[self.group])
        return Sample(weight, confidence, None, group)


def find_sample_columns(names: Sequence[str], taken: Collection[int]) -> SampleColumns:
    """The columns weight, confidence and group among column names, without those that are used otherwise."""
    found = {
        name: position
        for position, name in reversed(list(enumerate(names)))
        if name in SAMPLE_COLUMNS and position not in taken
    }
    return SampleColumns(found.get(WEIGHT), found.get(CONFIDENCE), found.get(GROUP))


def probability_columns(names: Sequence[str], classes: Iterable[str], taken: Collection[int]) -> dict[str, int]:
    """Class → position of the column of its probabilities; empty unless each class has one."""
    free = {composed(name).strip(): position for position, name in enumerate(names) if position not in taken}
    for prefix in PROBABILITY_PREFIXES:
        found = {label: free[prefix + label] for label in classes if prefix + label in free}
        if len(found) == len(set(classes)) and len(found) > 1:
            return found
    return {}


def read_probabilities(cells: Sequence[Any], columns: Mapping[str, int], where: str) -> dict[str, float]:
    """The probabilities of a row, with the sum 1; AlexNetError, naming `where`, when they are none."""
    remedy = (
        f"if the columns are something else, leave them out with --ignore-columns {','.join(map(str, columns))}"
        if len(columns) < 10
        else "if the columns are something else, leave them out with --ignore-columns"
    )
    given = {label: _number(cells[position], label, where, 1.0, remedy) for label, position in columns.items()}
    total = math.fsum(given.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise AlexNetError(f"{where}: the probabilities of the classes add up to {total:.4g}, not to 1; {remedy}")
    return {label: value / total for label, value in given.items()}


def are_probabilities(cells: Sequence[Any]) -> bool:
    """Whether cells can be the probabilities of the classes."""
    try:
        values = [float(cell) for cell in cells]
    except (TypeError, ValueError):
        return False
    return len(values) > 1 and all(0 <= value <= 1 for value in values) and abs(sum(values) - 1) <= SUM_TOLERANCE


def most_probable(probabilities: Mapping[str, float], where: str) -> str:
    """The most probable class; AlexNetError when there are several."""
    most = max(probabilities.values())
    best = [label for label, value in probabilities.items() if value == most]
    if len(best) > 1:
        raise AlexNetError(
            f"{where}: {first_names(best)} are equally probable: add a column label with the class of each image"
        )
    return best[0]


def refuse_both(sample: SampleColumns, probabilities: Mapping[str, int], name: str) -> None:
    """Raise AlexNetError when a table has a column confidence and one of probabilities for each class."""
    if sample.confidence is not None and probabilities:
        raise AlexNetError(
            f"{name} has a column confidence and a column of probabilities for each class: leave out the first with "
            "--ignore-columns confidence"
        )


def refuse_unequal(one: Sample, other: Sample, where: str) -> None:
    """Raise AlexNetError when two rows say different things of one image."""
    for column in Sample._fields:
        first, second = getattr(one, column), getattr(other, column)
        if first != second:
            raise AlexNetError(f"{where}: {column} is {first}, and {second} in another row of the image: keep one row")


def _number(value: Any, column: str, where: str, most: float, remedy: str = "") -> float:
    allowed = "a number of 0 or more" if most == math.inf else f"a number from 0 to {most:g}"
    remedy = remedy or f"correct it, or leave the column out with --ignore-columns {column}"
    text = "" if value is None else str(value).strip()
    try:
        number = float(text)
    except ValueError:
        what = f"is {text!r}" if text else "is missing"
        raise AlexNetError(f"{where}: the {column} {what}; it must be {allowed}: {remedy}") from None
    if not (math.isfinite(number) and 0 <= number <= most):
        raise AlexNetError(f"{where}: the {column} is {text}; it must be {allowed}: {remedy}")
    return number


def _group(value: Any) -> str | None:
    """The name of a group; None where the cell is empty. A number that pandas wrote as 3.0 is 3."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = composed(str(value)).strip()
    if text.lower() in ("", "nan"):
        return None
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text
