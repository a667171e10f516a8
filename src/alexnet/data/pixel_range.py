"""The one range of pixel values of a dataset whose images have more than 8 bits.

A camera of 12 bits writes files of 16: the greatest value is then 4095 and not 65535. Nothing in the file says so, and
one image alone does not show it, so the range is that of all images of a dataset; it is stored and applies to every
image that is prepared or classified afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from alexnet.runtime.errors import UsageError

BIT_DEPTHS = (8, 10, 12, 14, 16)
OUTLIERS = 1e-4
"""Share of pixels that may lie above a bit depth, such as hot pixels of a camera, without making it the next."""
_SAMPLED = 4_000_000  # pixels of all images together that quantiles are computed from
_NO_DATA = (-9999.0, -99999.0, -32768.0)
"""Values that mark missing data where they are the smallest of an image, besides NaN, Inf and values beyond 1e30."""


class Interval(NamedTuple):
    """The values that become black (0) and white (255)."""

    black: float
    white: float


@dataclass(frozen=True)
class PixelRange:
    """Black and white of images with more than 8 bits, for integers and for floating point; None: not known.

    Images of 8 bits are never changed.
    """

    integer: Interval | None = None
    floating: Interval | None = None

    def of(self, values: np.ndarray) -> Interval | None:
        """Return the interval for an array of pixels; None: it has 8 bits, or its kind has no interval."""
        if values.dtype.kind in "ui":
            return None if values.dtype == np.uint8 else self.integer
        return self.floating if values.dtype.kind == "f" else None

    def __bool__(self) -> bool:
        return self.integer is not None or self.floating is not None

    def to_dict(self) -> dict[str, Any] | None:
        """Return the form for JSON; None for no range at all."""
        if not self:
            return None
        return {
            "integer": None if self.integer is None else list(self.integer),
            "floating": None if self.floating is None else list(self.floating),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> PixelRange | None:
        """Reverse `to_dict`."""
        if values is None:
            return None
        integer, floating = (
            None if (pair := values.get(k)) is None else Interval(*pair) for k in ("integer", "floating")
        )
        return cls(integer, floating)


def chosen_range(black: float | None, white: float | None) -> PixelRange | None:
    """Turn the options `black` and `white` into a range; None where neither is given.

    Raises
    ------
    UsageError
        Only black is given, or white is not above black.
    """
    if black is None and white is None:
        return None
    if white is None:
        raise UsageError(f"black is {black:g}, and white is not given: both make a range, as --black 0 --white 4095")
    interval = Interval(0.0 if black is None else float(black), float(white))
    if not interval.white > interval.black or not np.isfinite(interval).all():
        raise UsageError(f"white is {interval.white:g} and black {interval.black:g}; white must be above black")
    return PixelRange(interval, interval)


def missing(values: np.ndarray, no_data: float | None = None) -> np.ndarray | None:
    """Find the pixels without data; None where all have some.

    Parameters
    ----------
    values : numpy.ndarray
        Integers or floating point.
    no_data : float, optional
        Value that the file itself names.
    """
    found = None
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # 1e30 is infinite in float16
            found = ~(np.abs(values) < 1e30)  # NaN compares false
        if not found.any():
            found = None
    for value in (no_data, *_NO_DATA):
        # A value of the list counts only where no other is near it: in an image of -20000 to 20000, -9999 is data.
        if value is None or not np.isfinite(value):
            continue
        with np.errstate(over="ignore"):
            equal = values == value
        if not equal.any():
            continue
        rest = values[~equal] if found is None else values[~(equal | found)]
        if value == no_data or (rest.size and float(rest.min()) > value / 4):
            found = equal if found is None else found | equal
    return found


@dataclass
class _Kind:
    """Statistics of the images of one kind of number so far."""

    least: float = np.inf
    greatest: float = -np.inf
    images: int = 0
    samples: list[np.ndarray] = field(default_factory=list)


class RangeFinder:
    """Finds the range of a dataset from the values of its images.

    Parameters
    ----------
    images : int
        Largest number of images that will be added; it limits the pixels kept of each, so that all fit in memory.
    """

    def __init__(self, images: int) -> None:
        self._per_image = max(64, _SAMPLED // max(images, 1))
        self._kinds = {"integer": _Kind(), "floating": _Kind()}

    def add(self, values: np.ndarray, no_data: float | None = None) -> None:
        """Add the values of an image with more than 8 bits, an integer or floating point array."""
        absent = missing(values, no_data)
        flat = values.reshape(-1) if absent is None else values[~absent]
        if not flat.size:
            return
        kind = self._kinds["floating" if values.dtype.kind == "f" else "integer"]
        kind.images += 1
        kind.least, kind.greatest = min(kind.least, float(flat.min())), max(kind.greatest, float(flat.max()))
        step = max(1, flat.size // self._per_image)
        kind.samples.append(flat[:: step + 1 - step % 2].astype(np.float64))  # an odd step meets every column

    @property
    def images(self) -> int:
        """Number of images added that have data."""
        return sum(kind.images for kind in self._kinds.values())

    def result(self) -> tuple[PixelRange | None, list[str]]:
        """Return the range, None where no image was added, and a line about each kind of number."""
        found: dict[str, Interval] = {}
        notes = []
        for name, kind in self._kinds.items():
            if not kind.images:
                continue
            values = np.concatenate(kind.samples)
            interval, description = (_integers if name == "integer" else _floats)(kind, values)
            found[name] = interval
            beyond = float(np.mean((values < interval.black) | (values > interval.white)))
            outside = kind.least < interval.black or kind.greatest > interval.white
            clipped = f"; {max(beyond, 1e-6):.2g} of the pixels lie outside and are clipped" if outside else ""
            notes.append(
                f"{kind.images:,} {'image has' if kind.images == 1 else 'images have'} {description}: for all of them "
                f"{interval.black:,.6g} is black and {interval.white:,.6g} white{clipped}; "
                "--black and --white set other values"
            )
        return (PixelRange(**found) if found else None), notes


def _integers(kind: _Kind, values: np.ndarray) -> tuple[Interval, str]:
    if kind.least >= 0 and kind.greatest <= 65535:
        for bits in BIT_DEPTHS:
            white = 2**bits - 1
            if kind.greatest <= white or np.mean(values > white) < OUTLIERS:
                return Interval(0.0, float(white)), f"values of {bits} bits"
    return _spread(kind, values), "integer values"


def _floats(kind: _Kind, values: np.ndarray) -> tuple[Interval, str]:
    for white in (1.0, 255.0):
        if kind.least >= 0 and kind.greatest <= white:
            return Interval(0.0, white), "floating point values"
    return _spread(kind, values), "floating point values"


def _spread(kind: _Kind, values: np.ndarray) -> Interval:
    """Least to greatest, without outliers: values farther out than the inner 99.8% are wide."""
    low, high = (float(value) for value in np.quantile(values, (0.001, 0.999)))
    width = high - low
    black = kind.least if kind.least >= low - width else low
    white = kind.greatest if kind.greatest <= high + width else high
    return Interval(black, white) if white > black else Interval(black, black + 1.0)
