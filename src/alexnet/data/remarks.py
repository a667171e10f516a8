"""Remarks on images that were prepared and may not be what one thinks: read in part, blank, or out of the range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

BLANK = "one color only"
"""The remark on an image without any difference between its pixels."""
STORED = 100
"""Images of each remark in `dataset.json`; their number is always whole."""


def is_blank(image: np.ndarray) -> bool:
    """Whether all pixels of an image, (height, width, 3), are equal."""
    step = max(1, image.shape[0] // 8)
    return bool((image[::step, ::step] == image[0, 0]).all() and (image == image[0, 0]).all())


def remark(reason: str, images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A remark in the form of `dataset.json`: the reason, the number of images, and the first of them."""
    return {"reason": reason, "count": len(images), "images": [dict(image) for image in images[:STORED]]}


def to_remarks(found: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Remarks of pairs of a reason and the path of an image, the reasons sorted."""
    found = list(found)
    by_reason: dict[str, list[dict[str, str]]] = {}
    merged = merge_reasons(reason for reason, _ in found)
    for reason, path in found:
        by_reason.setdefault(merged[reason], []).append({"path": path})
    return [remark(reason, images) for reason, images in sorted(by_reason.items())]


def merge_reasons(reasons: Iterable[str]) -> dict[str, str]:
    """Reason → the reason for all that differ only in the number they begin with: 3 frames, 2 to 9 frames."""
    kinds: dict[str, dict[str, int]] = {}
    for reason in reasons:
        number, _, rest = reason.partition(" ")
        if number.isdigit():
            kinds.setdefault(rest, {})[reason] = int(number)
        else:
            kinds.setdefault(reason, {})[reason] = 0
    merged: dict[str, str] = {}
    for rest, numbers in kinds.items():
        least, greatest = min(numbers.values()), max(numbers.values())
        merged |= {reason: reason if least == greatest else f"{least} to {greatest} {rest}" for reason in numbers}
    return merged
