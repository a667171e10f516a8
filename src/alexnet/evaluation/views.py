"""The test views of an image: one table that evaluation, the command line, the report, the server and the docs read.

This module does not import torch, so that the command line can list the views at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet.runtime.errors import UsageError

if TYPE_CHECKING:
    from alexnet.runs.decision import DecisionRule

LOW, MIDDLE, HIGH = 0.0, 0.5, 1.0

Flips = tuple[bool, bool, bool]
"""Whether a crop is flipped horizontally, flipped vertically, then transposed."""

UNFLIPPED: Flips = (False, False, False)
HORIZONTAL: tuple[Flips, ...] = (UNFLIPPED, (True, False, False))
_SQUARE: tuple[Flips, ...] = tuple(
    (across, down, transposed) for across, down, transposed in itertools.product((False, True), repeat=3)
)


@dataclass(frozen=True)
class ViewSet:
    """The crops of an image whose predictions are averaged.

    Parameters
    ----------
    name : str
        A short name: "center crop".
    description : str
        The crops, in one phrase.
    positions : tuple of (float, float)
        Top-left corners as shares (top, left) of the margin, which is the image's side minus the crop's.
    flips : tuple of (bool, bool, bool)
        The forms of each crop, one after the other: flipped horizontally, vertically, then transposed.
    """

    name: str
    description: str
    positions: tuple[tuple[float, float], ...]
    flips: tuple[Flips, ...] = (UNFLIPPED,)

    @property
    def count(self) -> int:
        """Number of views."""
        return len(self.positions) * len(self.flips)

    def offsets(self, size: int, crop_size: int) -> list[tuple[int, int]]:
        """Top-left corners (top, left) in pixels of crops of side `crop_size` in an image of side `size`.

        Without a margin all crops are one, and it is listed once.
        """
        margin = size - crop_size
        if margin == 0:
            return [(0, 0)]
        return [(int(margin * top), int(margin * left)) for top, left in self.positions]


_CENTER = (MIDDLE, MIDDLE)
_CORNERS = ((LOW, LOW), (LOW, HIGH), (HIGH, LOW), (HIGH, HIGH))
_GRID = tuple((top, left) for top in (LOW, MIDDLE, HIGH) for left in (LOW, MIDDLE, HIGH))

VIEWS = {
    1: ViewSet("center crop", "the center crop", (_CENTER,)),
    8: ViewSet(
        "symmetries of a square",
        "the center crop in the eight symmetries of a square, for images without a preferred orientation",
        (_CENTER,),
        _SQUARE,
    ),
    9: ViewSet("3×3 grid", "a 3×3 grid of crops, as cuda-convnet tests on CIFAR-10", _GRID),
    10: ViewSet(
        "ten views",
        "the four corners and the center, each with its horizontal flip (paper, section 4.1)",
        (*_CORNERS, _CENTER),
        HORIZONTAL,
    ),
}
"""Every set of test views, by the number of views."""


def check_views(views: int) -> None:
    """Raise `UsageError` unless `views` is a number of views in `VIEWS`."""
    if views not in VIEWS:
        raise UsageError(f"views is {views}; the choices are: {list_views()}")


def rule_views(rule: DecisionRule, views: int | None) -> int:
    """The number of views of a decision rule; `UsageError` if another one is given."""
    if views not in (None, rule.views):
        check_views(views)
        raise UsageError(
            f"views is {views}, but the decision rule was found with {rule.views}: leave out --views, use --raw, or "
            f"find another rule with `alexnet decide --views {views}`"
        )
    return rule.views


def describe_views(views: int) -> str:
    """A set of views for people: "10 views: the four corners and …"."""
    return f"{views} view{'s' * (views != 1)}: {VIEWS[views].description}"


def list_views() -> str:
    """Every set of views for people: "1: the center crop; 9: …"."""
    return "; ".join(f"{number}: {views.description}" for number, views in VIEWS.items())
