"""The plan of a preparation: what a source was understood to be, before any image is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from alexnet.data.sources.items import Origin
from alexnet.data.sources.names import SPLITS
from alexnet.data.sources.walking import Ignored

_CLASSES_SHOWN = 20


@dataclass(frozen=True)
class SourcePlan:
    """The reading of a source.

    Attributes
    ----------
    source
        The source, as it was named.
    kind
        What it is, such as "folder" or "zip file".
    classes
        Class names, sorted.
    counts
        Split → class → number of images, after the splits of `drawn` were taken from training.
    origins
        From which folder, table or column each split comes.
    drawn
        Shares drawn from the training images, as in {"val": 0.2}; None where the source has all splits itself.
    ignored
        What is not read, and why.
    assumptions
        How the source was understood where it does not say so itself.
    warnings
        What is likely not intended.
    weights
        {"smallest", "largest", "zero"}: the weights of the images, and how many are 0; None: all count alike.
    soft_labels
        {"form", "smallest", "doubtful"}: "confidence" or "probabilities", the smallest probability of a label, and the
        number of images whose class is not certain; None: all are certain.
    groups
        {"groups", "largest", "without"}: number of groups, images of the largest, and images without one; None: no
        groups.
    """

    source: str
    kind: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    origins: list[Origin] = field(default_factory=list)
    drawn: dict[str, float] | None = None
    ignored: list[Ignored] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    weights: dict[str, Any] | None = None
    soft_labels: dict[str, Any] | None = None
    groups: dict[str, Any] | None = None

    @property
    def samples(self) -> dict[str, Any]:
        """Weights, soft labels and groups, those that there are, as `dataset.json` has them."""
        known = {"weights": self.weights, "soft_labels": self.soft_labels, "groups": self.groups}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(sum(counts.values()) for counts in self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        return {
            **asdict(self),
            "images": self.images,
            "origins": [origin._asdict() for origin in self.origins],
            "ignored": [left._asdict() for left in self.ignored],
        }

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        totals = {split: sum(counts.values()) for split, counts in self.counts.items()}
        shown = [f"{self.source} ({self.kind}): {count(self.images, 'image')}, {count(len(self.classes), 'class')}"]
        for split, total in totals.items():
            share = (self.drawn or {}).get(split)
            places = [origin.place for origin in self.origins if origin.split == split]
            if share and not places:
                how = "drawn by whole groups" if self.groups else "drawn per class"
                where = f"{share:.4g} of the training images, {how}"
            else:
                where = "from " + ", ".join(places or [origin.place for origin in self.origins] or ["the source"])
            shown.append(f"  {split:<5} {total:>10,}  {where}")
        for name in self.classes[:_CLASSES_SHOWN]:
            per_split = " + ".join(f"{self.counts[split].get(name, 0):,} {split}" for split in self.counts)
            shown.append(f"  class {printable(name)}: {per_split}")
        if len(self.classes) > _CLASSES_SHOWN:
            shown.append(f"  and {len(self.classes) - _CLASSES_SHOWN:,} more classes (all of them with --json)")
        shown += [f"  {line}" for line in self._samples()]
        shown += [f"  ignored: {describe(left)}" for left in self.ignored]
        shown += [f"  assumed: {printable(text)}" for text in self.assumptions]
        shown += [f"  warning: {printable(text)}" for text in self.warnings]
        return shown

    def _samples(self) -> list[str]:
        """Lines about weights, soft labels and groups."""
        lines = []
        if self.weights:
            zero = f", {count(self.weights['zero'], 'image')} of weight 0" if self.weights["zero"] else ""
            lines.append(f"weights: {self.weights['smallest']:.4g} to {self.weights['largest']:.4g}{zero}")
        if self.soft_labels:
            by = "confidence of the label" if self.soft_labels["form"] == "confidence" else "a probability per class"
            doubtful, least = count(self.soft_labels["doubtful"], "image"), self.soft_labels["smallest"]
            lines.append(f"soft labels ({by}): {doubtful} with an uncertain label, of a probability from {least:.4g}")
        if self.groups:
            largest = count(self.groups["largest"], "image")
            lines.append(f"groups: {self.groups['groups']:,} of up to {largest}; each is in one split")
        return lines

    def notes(self) -> list[str]:
        """The lines of a preparation that goes on: one of counts, then what was assumed, ignored or is unusual."""
        totals = ", ".join(f"{split} {sum(counts.values()):,}" for split, counts in self.counts.items())
        first = f"{self.source} ({self.kind}): {count(self.images, 'image')} of {count(len(self.classes), 'class')}"
        notes = [f"{first} ({totals})", *self._samples()]
        notes += [f"ignored: {describe(left)}" for left in self.ignored]
        notes += [f"assumed: {printable(text)}" for text in self.assumptions]
        return notes + [f"warning: {printable(text)}" for text in self.warnings]


def describe(left: Ignored) -> str:
    """A line about files that are ignored."""
    first = printable(left.first)
    return f"{first} ({left.reason})" if left.files == 1 else f"{left.files:,} ({left.reason}), {first} first"


def count(number: int, name: str) -> str:
    """A number with its noun: 1 image, 2 images, 3 classes."""
    if number == 1:
        return f"1 {name}"
    return f"{number:,} {name}{'es' if name.endswith('s') else 's'}"


def printable(text: str) -> str:
    """A text for one line of UTF-8 output: bytes that are not UTF-8, and control characters, are replaced."""
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in decoded)


def split_sizes(members: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of the images of a class are drawn for "val" and "test".

    Every split gets its share, rounded, and at least one image where there are enough; "train" keeps at least one.
    """
    sizes: dict[str, int] = {}
    taken = 0
    for position, split in enumerate(SPLITS[1:], start=1):
        share = shares.get(split, 0.0)
        room = members - 1 - taken
        if share > 0 and room > 0:
            later = sum(shares.get(other, 0.0) > 0 for other in SPLITS[position + 1 :])
            sizes[split] = max(min(math.floor(share * members + 0.5), room - later), 1)
            taken += sizes[split]
    return sizes
