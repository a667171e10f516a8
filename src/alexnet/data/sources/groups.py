"""Counts of the items of a source, and groups of images: found in names, kept in one split, and drawn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from alexnet.data.sources.items import Item, Source
from alexnet.data.sources.names import SPLITS, first_names
from alexnet.data.sources.plan import count
from alexnet.data.sources.sample_columns import CONFIDENCE
from alexnet.runtime.errors import AlexNetError, UsageError

_NAMED = 5


class GroupedItems:
    """The items of a source with a group each, by the first capturing group of a regular expression.

    It is searched in the file name, or, where it contains a slash, in the whole path of the image in its source. An
    image that does not match is a group of its own.
    """

    def __init__(self, items: Iterable[Item], pattern: re.Pattern[str]) -> None:
        self._items, self._pattern = items, pattern

    def __iter__(self) -> Iterator[Item]:
        for item in self._items:
            if item.sample.group is not None:
                raise UsageError(
                    f"the source has a column group ({item.name}: {item.sample.group}): leave out --group-regex, or "
                    "leave out the column with --ignore-columns group"
                )
            yield item._replace(sample=item.sample._replace(group=self._group(item)))

    def _group(self, item: Item) -> str | None:
        name = item.name.replace("\\", "/")
        match = self._pattern.search(name if "/" in self._pattern.pattern else name.rpartition("/")[2])
        return match[1] if match is not None else None


def parse_group_regex(text: str) -> re.Pattern[str]:
    """Compile the argument of --group-regex.

    Raises
    ------
    UsageError
        When it is no regular expression, or has no capturing group.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"--group-regex {text!r} is not a regular expression: {error}") from None
    if not pattern.groups:
        raise UsageError(
            f"--group-regex {text!r} has no capturing group: put the part of the file name that names the group in "
            "parentheses, such as '^([^_]+)_' for module12_cell3.png"
        )
    return pattern


def with_groups(source: Source, regex: str | None) -> Source:
    """The source, with the groups that a regular expression finds in the names of its images."""
    if regex is None:
        return source
    items = GroupedItems(source.items, parse_group_regex(regex))
    return Source(**{**source.__dict__, "items": items})


@dataclass
class ItemCounts:
    """Counts of the items of a source, made while they are listed.

    Attributes
    ----------
    classes
        Number of images by split and class.
    groups
        Group → number of its images by split and class.
    singles
        Number of images by split and class that have no group: each is one of its own.
    first_singles
        Names of the first of them.
    weights
        Number of images by weight; None counts those without one.
    confidences
        Number of images by the probability of their class; None counts those without one.
    unlikely
        Number of images of which another class is more probable than their own.
    soft_form
        "confidence", "probabilities", or None: no image has a soft label.
    """

    classes: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    groups: dict[str, Counter[tuple[str | None, str]]] = field(default_factory=dict)
    singles: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    first_singles: list[str] = field(default_factory=list)
    weights: Counter[float | None] = field(default_factory=Counter)
    confidences: Counter[float | None] = field(default_factory=Counter)
    unlikely: int = 0
    soft_form: str | None = None

    @classmethod
    def of(cls, items: Iterable[Item]) -> ItemCounts:
        """The counts of items."""
        counts = cls()
        for item in items:
            counts.add(item)
        return counts

    def add(self, item: Item) -> None:
        """Count an item."""
        where, sample = (item.split, item.label), item.sample
        self.classes[where] += 1
        self.weights[sample.weight] += 1
        confidence = sample.confidence
        if confidence is not None:
            self.soft_form = CONFIDENCE
        if sample.probabilities is not None:
            self.soft_form = "probabilities"
            confidence = sample.probabilities.get(item.label, 0.0)
            self.unlikely += confidence < max(sample.probabilities.values())
        self.confidences[confidence] += 1
        if sample.group is not None:
            self.groups.setdefault(sample.group, Counter())[where] += 1
            return
        self.singles[where] += 1
        if len(self.first_singles) < _NAMED:
            self.first_singles.append(item.name)

    @property
    def has_weights(self) -> bool:
        """Whether any image counts more or less than another one would without a weight."""
        return any(weight not in (None, 1.0) for weight in self.weights)

    @property
    def has_soft_labels(self) -> bool:
        """Whether the class of any image is uncertain."""
        return any(confidence not in (None, 1.0) for confidence in self.confidences)

    @property
    def has_groups(self) -> bool:
        """Whether any image has a group."""
        return bool(self.groups)


def check_groups(counts: ItemCounts, name: str, remedy: str) -> None:
    """Raise AlexNetError when a group has images in two splits of the source."""
    torn = []
    for group, per_class in counts.groups.items():
        splits = {split for split, _ in per_class}
        if len(splits) > 1:
            torn.append(f"{group} in {' and '.join(split for split in SPLITS if split in splits)}")
    if torn:
        raise AlexNetError(
            f"{count(len(torn), 'group')} of {name} in two splits ({first_names(torn)}): images of one group would be "
            f"trained on and tested with; move each group to one split, or {remedy}"
        )


class GroupDraw(NamedTuple):
    """A draw of groups: group → its split, and class → number of images without a group that each split gets."""

    split_of: dict[str, str]
    singles: dict[str, dict[str, int]]


def draw_groups(counts: ItemCounts, shares: Mapping[str, float], seed: int) -> GroupDraw:
    """Draw validation and test images from the training images by whole groups.

    Group by group, the largest first and those of one size in random order, each goes to the split whose numbers of
    images of each class come closest to its shares (as scikit-learn's `StratifiedGroupKFold` does for folds). "train"
    keeps an image of each class, and every split gets a group where there are enough.

    Parameters
    ----------
    counts
        The counts of all images; those of the splits "val" and "test" are not drawn.
    shares
        Share of "val" and "test", 0 to 1.
    seed
        Seed of the order.

    Returns
    -------
    GroupDraw
        The splits.
    """
    drawn = {
        group: {label: number for (split, label), number in per_class.items() if split in (None, "train")}
        for group, per_class in counts.groups.items()
    }
    drawn = {group: per_class for group, per_class in drawn.items() if per_class}
    singles = {label: number for (split, label), number in counts.singles.items() if split in (None, "train")}
    labels = sorted({label for per_class in [*drawn.values(), singles] for label in per_class})
    position = {label: index for index, label in enumerate(labels)}
    totals, holders = np.zeros(len(labels)), np.zeros(len(labels), dtype=np.int64)
    for per_class in drawn.values():
        for label, number in per_class.items():
            totals[position[label]] += number
            holders[position[label]] += 1
    for label, number in singles.items():
        totals[position[label]] += number
        holders[position[label]] += number
    share = np.array([0.0, *(shares.get(split, 0.0) for split in SPLITS[1:])])
    share[0] = 1 - share.sum()
    wished, given = share[:, None] * totals, np.zeros((len(SPLITS), len(labels)))
    order = [sorted(drawn)[index] for index in np.random.default_rng(seed).permutation(len(drawn))]
    order.sort(key=lambda group: -sum(drawn[group].values()))
    split_of: dict[str, str] = {}
    for group in order:
        at = np.array([position[label] for label in drawn[group]])
        numbers = np.array(list(drawn[group].values()), dtype=np.float64)
        needed = ((given[0, at] == 0) & (holders[at] == 1)).any()  # the last that has a class not trained on yet
        cost = (
            ((given[:, at] + numbers - wished[:, at]) ** 2 - (given[:, at] - wished[:, at]) ** 2) / totals[at] ** 2
        ).sum(1)
        split = 0 if needed else int(np.where(share > 0, cost, np.inf).argmin())
        given[split, at] += numbers
        holders[at] -= 1
        split_of[group] = SPLITS[split]
    sizes = {
        label: _sizes_of_singles(singles[label], wished[:, position[label]], given[:, position[label]])
        for label in singles
    }
    _fill_empty(split_of, sizes, drawn, share)
    return GroupDraw(split_of, sizes)


def _sizes_of_singles(available: int, wished: np.ndarray, given: np.ndarray) -> dict[str, int]:
    """How many images of a class without a group go to "val" and "test", to come closest to what is wished."""
    left, sizes = available - (given[0] == 0), {}
    for index, split in enumerate(SPLITS[1:], 1):
        size = int(min(max(np.floor(wished[index] - given[index] + 0.5), 0), max(left, 0)))
        if size:
            sizes[split] = size
            left -= size
    return sizes


def _fill_empty(
    split_of: dict[str, str], sizes: dict[str, dict[str, int]], drawn: dict[str, dict[str, int]], share: np.ndarray
) -> None:
    """Move the smallest group that "train" can spare to each split that has no image."""
    for split, wished in zip(SPLITS[1:], share[1:], strict=True):
        if not wished or split in split_of.values() or any(split in per_split for per_split in sizes.values()):
            continue
        holders = Counter(label for group, own in split_of.items() if own == "train" for label in drawn[group])
        spare = [
            group
            for group, own in split_of.items()
            if own == "train" and all(holders[label] > 1 for label in drawn[group])
        ]
        if spare:
            split_of[min(spare, key=lambda group: (sum(drawn[group].values()), group))] = split
