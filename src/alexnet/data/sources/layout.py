"""The layout of a source: which folders hold the images of which split, and what says the class of an image."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from alexnet.data.sources.names import composed
from alexnet.data.sources.plan import printable
from alexnet.data.sources.tree import Parts


class Place(NamedTuple):
    """A folder whose images are taken: the split they belong to, and their class where the folder says it."""

    split: str | None
    label: str | None = None


@dataclass
class Layout:
    """Which folders hold the images of which split, and what says their class."""

    places: dict[Parts, Place]
    classes_from: str = "folder"
    assumptions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._depths = sorted({len(parts) for parts in self.places}, reverse=True)

    def assign(self, parts: Parts) -> tuple[str, str | None] | None:
        """Class and split of a file by its path; None when it belongs to none."""
        for depth in self._depths:
            place = self.places.get(parts[:depth]) if len(parts) > depth else None
            if place is None:
                continue
            folders = parts[depth:-1]
            if place.label is not None:
                label: str | None = place.label
            elif self.classes_from == "name":
                label = class_in_name(parts[-1])
            else:
                label = (folders[0] if self.classes_from == "folder" else folders[-1]) if folders else None
            return None if label is None else (label, place.split)
        return None


def class_in_name(name: str) -> str | None:
    """The class in a file name that ends or begins with a number: cat.0.jpg, crazing_12.jpg, 7-dog.png; else None."""
    stem = composed(printable(os.path.splitext(name)[0])).strip()
    for pattern in (r"(.+?)(?:[\s._-]+\(?\d+\)?|\s*\(\d+\))+", r"(.*[^\W\d])\d+", r"\d+[\s._-]+(.+)"):
        match = re.fullmatch(pattern, stem)
        if match and re.search(r"[^\W\d_]", match[1]):
            return match[1].strip(" ._-")
    return None
