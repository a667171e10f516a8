"""The one range of pixel values of a dataset whose images have more than 8 bits.

A camera of 12 bits writes files of 16: the greatest value is then 4095 and not 65535. Nothing in the file says so, and
one image alone does not show it, so the range is that of all images of a dataset; it is stored and applies to every
image that is prepared or classified afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from alexnet.data.remarks import remark
from alexnet.runtime.errors import UsageError

BIT_DEPTHS = (8, 10, 12, 14, 16)
OUTLIERS = 1e-4
"""Share of pixels that may lie above a bit depth, such as hot pixels of a camera, without making it the next."""
_SAMPLED = 4_000_000  # pixels of all images together that quantiles are computed from
_FEW = 0.05
"""Share of images that may lie far outside the range of the others without widening it; at least one image counts."""
_JUDGED = 5
"""Fewest images of which one can lie outside the range of the others."""
_NARROW = 16
"""An image whose values fill less than this part of the range comes out with few gray levels."""
_NAMED = 20  # images outside, each with its values
_EXAMPLES = 3
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


class FoundRange(NamedTuple):
    """The result of a `RangeFinder`.

    Attributes
    ----------
    pixel_range
        The range; None where no image was added.
    notes
        Lines about each kind of number.
    remarks
        The images that lie outside the range or come out nearly black, as `dataset.json` has them.
    """

    pixel_range: PixelRange | None
    notes: list[str]
    remarks: list[dict[str, Any]]


class _Image(NamedTuple):
    """Statistics of the values of an image."""

    name: str
    least: float
    greatest: float
    low: float
    high: float
    sample: np.ndarray


class RangeFinder:
    """Finds the range of a dataset from the values of its images.

    A few images far outside the range of all others, such as damaged files that can still be decoded, do not widen it.

    Parameters
    ----------
    images : int
        Largest number of images that will be added; it limits the pixels kept of each, so that all fit in memory.
    """

    def __init__(self, images: int) -> None:
        self._per_image = max(64, _SAMPLED // max(images, 1))
        self._kinds: dict[str, list[_Image]] = {"integer": [], "floating": []}

    def add(self, values: np.ndarray, no_data: float | None = None, name: str = "") -> None:
        """Add the values of an image with more than 8 bits, an integer or floating point array, and its name."""
        absent = missing(values, no_data)
        flat = values.reshape(-1) if absent is None else values[~absent]
        if not flat.size:
            return
        step = max(1, flat.size // self._per_image)
        sample = flat[:: step + 1 - step % 2].astype(np.float64)  # an odd step meets every column
        low, high = np.quantile(sample, (0.001, 0.999))
        image = _Image(name, float(flat.min()), float(flat.max()), float(low), float(high), sample)
        self._kinds["floating" if values.dtype.kind == "f" else "integer"].append(image)

    @property
    def images(self) -> int:
        """Number of images added that have data."""
        return sum(map(len, self._kinds.values()))

    def result(self) -> FoundRange:
        """Return the range, and which images do not fit in it."""
        found: dict[str, Interval] = {}
        notes, remarks = [], []
        for name, images in self._kinds.items():
            if not images:
                continue
            rule = _integers if name == "integer" else _floats
            outside = _outside(images, rule)
            names = {id(image) for image in outside}
            inside = [image for image in images if id(image) not in names]
            found[name], description = rule(inside)
            notes.append(_about_range(images, inside, found[name], description))
            if outside:
                notes.append(_about_outside(outside, found[name]))
                values = [{"path": image.name, "low": image.low, "high": image.high} for image in outside]
                remarks.append(remark("values far outside the range", values))
            narrow = [image for image in inside if _share(image, found[name]) * _NARROW < 1]
            if narrow:
                notes.append(_about_narrow(narrow, len(images)))
                greatest = [{"path": image.name, "greatest": image.greatest} for image in narrow]
                remarks.append(remark(f"values below 1/{_NARROW} of the range, nearly black", greatest))
        return FoundRange(PixelRange(**found) if found else None, notes, remarks)


_Rule = Callable[[Sequence[_Image]], tuple[Interval, str]]


def _outside(images: Sequence[_Image], rule: _Rule) -> list[_Image]:
    """Return the few images that reach farther beyond the range of the others than that range is wide."""
    if len(images) < _JUDGED:
        return []
    few = max(1, int(_FEW * len(images)))
    by_high = sorted(range(len(images)), key=lambda i: images[i].high)
    by_low = sorted(range(len(images)), key=lambda i: images[i].low)
    extreme = {*by_high[-few:], *by_low[:few]}
    black, white = rule([image for i, image in enumerate(images) if i not in extreme])[0]
    width = white - black
    found = [image for image in images if image.high > white + width or image.low < black - width]
    return found if len(found) <= few else []


def _share(image: _Image, interval: Interval) -> float:
    """Return the part of the interval that the values of an image reach, from black."""
    return (image.greatest - interval.black) / (interval.white - interval.black)


def _about_range(images: Sequence[_Image], inside: Sequence[_Image], interval: Interval, description: str) -> str:
    values = np.concatenate([image.sample for image in inside])
    beyond = float(np.mean((values < interval.black) | (values > interval.white)))
    clips = any(image.least < interval.black or image.greatest > interval.white for image in inside)
    clipped = f"; {max(beyond, 1e-6):.2g} of the pixels lie outside and are clipped" if clips else ""
    return (
        f"{len(images):,} {'image has' if len(images) == 1 else 'images have'} {description}: for all of them "
        f"{interval.black:,.6g} is black and {interval.white:,.6g} white{clipped}; "
        "--black and --white set other values"
    )


def _about_outside(images: Sequence[_Image], interval: Interval) -> str:
    one = len(images) == 1
    least, greatest = min(image.low for image in images), max(image.high for image in images)
    listed = ", ".join(f"{image.name} ({image.low:,.6g} to {image.high:,.6g})" for image in images[:_NAMED])
    listed += f" and {len(images) - _NAMED:,} more" if len(images) > _NAMED else ""
    return (
        f"{len(images):,} {'image lies' if one else 'images lie'} far outside this range and {'is' if one else 'are'} "
        f"clipped: {listed}. {'It is' if one else 'They are'} "
        f"damaged or from another camera; if not, --black {min(least, interval.black):.6g} "
        f"--white {max(greatest, interval.white):.6g} includes {'it' if one else 'them'}"
    )


def _about_narrow(images: Sequence[_Image], count: int) -> str:
    one = len(images) == 1
    return (
        f"{len(images):,} of {count:,} images {'stays' if one else 'stay'} below 1/{_NARROW} of this range and "
        f"{'comes' if one else 'come'} out nearly black: {_names(images)}. If cameras differ, prepare the images of "
        "each with a range of their own (--black, --white), or convert them to one range"
    )


def _names(images: Sequence[_Image]) -> str:
    names = ", ".join(image.name for image in images[:_EXAMPLES])
    return names + (", ..." if len(images) > _EXAMPLES else "")


def _integers(images: Sequence[_Image]) -> tuple[Interval, str]:
    values = np.concatenate([image.sample for image in images])
    least, greatest = min(image.least for image in images), max(image.greatest for image in images)
    if least >= 0 and greatest <= 65535:
        for bits in BIT_DEPTHS:
            white = 2**bits - 1
            if greatest <= white or np.mean(values > white) < OUTLIERS:
                return Interval(0.0, float(white)), f"values of {bits} bits"
    return _spread(least, greatest, values), "integer values"


def _floats(images: Sequence[_Image]) -> tuple[Interval, str]:
    values = np.concatenate([image.sample for image in images])
    least, greatest = min(image.least for image in images), max(image.greatest for image in images)
    for white in (1.0, 255.0):
        if least >= 0 and greatest <= white:
            return Interval(0.0, white), "floating point values"
    return _spread(least, greatest, values), "floating point values"


def _spread(least: float, greatest: float, values: np.ndarray) -> Interval:
    """Least to greatest, without outliers: values farther out than the inner 99.8% are wide."""
    low, high = (float(value) for value in np.quantile(values, (0.001, 0.999)))
    width = high - low
    black = least if least >= low - width else low
    white = greatest if greatest <= high + width else high
    return Interval(black, white) if white > black else Interval(black, black + 1.0)
