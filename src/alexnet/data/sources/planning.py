"""The dataset that a source becomes: its classes, its splits, those that are drawn, and what is likely not intended."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet.data.sources.groups import ItemCounts, check_groups, draw_groups
from alexnet.data.sources.interpretation import interpret, source_name
from alexnet.data.sources.items import Source
from alexnet.data.sources.names import SPLITS, comparable, first_names
from alexnet.data.sources.plan import SourcePlan, count, printable, split_sizes
from alexnet.data.sources.registry import SourceOptions
from alexnet.runtime.errors import AlexNetError, UsageError

DEFAULT_SPLIT = {"val": 0.2}
"""Shares drawn from the training images where the source has neither a validation nor a test split."""

_ABSENT = ("na", "n/a", "#n/a", "null", "<na>", "-1", "?", "unlabeled", "unlabelled")
"""Labels, in lower case, that may mark images without one."""

_NO_CLASSES = (
    (re.compile(r"(19|20)\d\d([-_. ]?[01]?\d([-_. ]?[0-3]?\d([-_. T].*)?)?)?"), "dates"),
    (re.compile(r"\d{3}([A-Z_]{5}|[A-Z]{2,4}\d{1,3}|_\d{4})"), "folders of a camera"),
)


def plan_source(
    source: Any,
    *,
    split: Mapping[str, float] | None = None,
    output: str | os.PathLike[str] | None = None,
    root: str | None = None,
    splits: Mapping[str, list[str]] | None = None,
    classes_from: str | None = None,
    encoding: str | None = None,
    group_regex: str | None = None,
    ignore_columns: Sequence[str] = (),
    seed: int = 0,
) -> SourcePlan:
    """Show what `alexnet prepare` would make of a source, without reading an image or writing a file.

    Parameters are those of `alexnet.prepare`.

    Returns
    -------
    SourcePlan
        The plan.

    Raises
    ------
    AlexNetError
        As `interpret`, and when the images cannot train a classifier.
    """
    options = SourceOptions(
        root=root,
        splits=splits or {},
        classes_from=classes_from,
        encoding=encoding,
        group_regex=group_regex,
        ignore_columns=ignore_columns,
    )
    with tempfile.TemporaryDirectory(prefix="alexnet-") as spool:
        found = interpret(source, Path(spool), options, output=Path(output) if output is not None else None)
        return make_plan(source_name(source), found, ItemCounts.of(found.items), split, seed)


def make_plan(
    name: str, source: Source, counts: ItemCounts, shares: Mapping[str, float] | None, seed: int = 0
) -> SourcePlan:
    """Check what was found and decide the splits.

    Parameters
    ----------
    name
        The source, as it was named.
    source
        What was found.
    counts
        What was counted of its images.
    shares
        Shares for "val" and "test" that are to be drawn; None draws validation images where the source has neither a
        validation nor a test split.
    seed
        Seed of the draw.

    Raises
    ------
    AlexNetError
        When there are no images or only one class, two classes have one name, a class has no image to train on, only
        some images have a split, or a group has images in two splits.
    UsageError
        When `shares` names a split that the source has.
    """
    if not counts.classes:
        raise AlexNetError(f"no images in {name}")
    classes = sorted({label for _, label in counts.classes})
    check_classes(classes, name)
    own = {split for split, _ in counts.classes}
    if None in own and len(own) > 1:
        without = sum(number for (split, _), number in counts.classes.items() if split is None)
        raise AlexNetError(f"{without:,} images of {name} have no split, the others have one: name it for all")
    drawn = _shares(own, shares)
    check_groups(counts, name, "leave the groups out (--ignore-columns group, or no --group-regex)")
    per_split: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    by_group = _sizes_by_group(counts, drawn, seed) if drawn and counts.has_groups else None
    for (split, label), number in sorted(counts.classes.items(), key=str):
        if split in (None, "train"):
            sizes = split_sizes(number, drawn or {}) if by_group is None else by_group.get(label, {})
            per_split["train"][label] = number - sum(sizes.values())
            for other, size in sizes.items():
                per_split[other][label] = per_split[other].get(label, 0) + size
        else:
            per_split[str(split)][label] = number
    untaught = [label for label in classes if not per_split["train"].get(label)]
    if untaught:
        raise AlexNetError(
            f"{count(len(untaught), 'class')} of {name} without an image to train on ({first_names(untaught)}): add "
            "some, or remove the class from the other splits"
        )
    per_split = {split: per_split[split] for split in SPLITS if per_split[split]}
    return SourcePlan(
        name,
        source.kind,
        classes,
        per_split,
        source.origins,
        drawn,
        source.ignored,
        list(source.assumptions),
        [*source.warnings, *_sample_warnings(counts), *_warnings(classes, per_split, drawn)],
        *_sample_summaries(counts),
    )


def _shares(own: set[str | None], shares: Mapping[str, float] | None) -> dict[str, float] | None:
    if own in ({None}, {"train"}):
        return dict(DEFAULT_SPLIT if shares is None else shares)
    if shares is None:
        return None
    if taken := [split for split in SPLITS[1:] if shares.get(split) and split in own]:
        raise UsageError(f"the source has a split {taken[0]!r} of its own: leave {taken[0]} out of --split")
    return dict(shares)


def _sizes_by_group(counts: ItemCounts, shares: Mapping[str, float], seed: int) -> dict[str, dict[str, int]]:
    """Class → number of images of each split that are drawn by whole groups."""
    split_of, singles = draw_groups(counts, shares, seed)
    sizes: dict[str, Counter[str]] = {label: Counter(per_split) for label, per_split in singles.items()}
    for group, split in split_of.items():
        for (own, label), number in counts.groups[group].items():
            if split != "train" and own in (None, "train"):
                sizes.setdefault(label, Counter())[split] += number
    return {label: dict(per_split) for label, per_split in sizes.items()}


def _sample_summaries(counts: ItemCounts) -> tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any] | None]:
    """Weights, soft labels and groups of a source, each None where it has none."""
    weights = soft_labels = groups = None
    if counts.has_weights:
        values = [1.0 if weight is None else weight for weight in counts.weights]
        weights = {"smallest": min(values), "largest": max(values), "zero": counts.weights[0.0]}
    if counts.has_soft_labels:
        values = [confidence for confidence in counts.confidences if confidence is not None]
        doubtful = sum(number for value, number in counts.confidences.items() if value not in (None, 1.0))
        soft_labels = {"form": counts.soft_form, "smallest": min(values), "doubtful": doubtful}
    if counts.has_groups:
        sizes = [per_class.total() for per_class in counts.groups.values()]
        groups = {"groups": len(sizes), "largest": max(sizes), "without": counts.singles.total()}
    return weights, soft_labels, groups


def _sample_warnings(counts: ItemCounts) -> list[str]:
    """Sentences about weights, soft labels and groups that are likely not intended."""
    warnings = []
    if counts.has_weights and (number := counts.weights[None]):
        warnings.append(f"{count(number, 'image')} without a weight counts 1 each")
    if counts.has_soft_labels and (number := counts.confidences[None]):
        warnings.append(f"{count(number, 'image')} without a confidence: taken as certain")
    if counts.unlikely:
        warnings.append(f"another class is more probable than the label of {count(counts.unlikely, 'image')}")
    if counts.has_groups and counts.singles:
        names = ", ".join(map(printable, counts.first_singles))
        warnings.append(f"{count(counts.singles.total(), 'image')} without a group, each one of its own, first {names}")
    return warnings


def _warnings(classes: list[str], counts: dict[str, dict[str, int]], drawn: dict[str, float] | None) -> list[str]:
    """Sentences about splits and classes that are likely not intended."""
    warnings = []
    if "val" not in counts and drawn and drawn.get("val"):
        warnings.append("no validation split: no class has two images to train on, of which one could be drawn")
    elif "val" not in counts:
        what = "no validation split: training cannot choose or stop by it"
        warnings.append(f"{what}; draw one from the training images with --split val=0.1")
    for split in SPLITS[1:]:
        missing = [label for label in classes if label not in counts.get(split, {})]
        if split in counts and missing:
            warnings.append(f"split {split} has no image of {count(len(missing), 'class')} ({first_names(missing)})")
    if absent := [label for label in classes if label.casefold() in _ABSENT]:
        warnings.append(f"class {first_names(absent)}: if that marks a missing label, remove its images")
    if spaced := [label for label in classes if label != label.strip()]:
        warnings.append(f"class {first_names(spaced)} has spaces around its name: rename it if that is not intended")
    if len(classes) > 1 and (
        kind := next((kind for kind in _NO_CLASSES if all(map(kind[0].fullmatch, classes))), None)
    ):
        warnings.append(f"the classes {first_names(classes, 3)} look like {kind[1]}: are they classes?")
    images = sum(sum(per_class.values()) for per_class in counts.values())
    if len(classes) > 2 and len(classes) * 2 > images:
        warnings.append(
            f"{len(classes):,} classes for {count(images, 'image')}: nearly every image has a class of its own; is "
            "that the class, or a name or number of the image? Another column or folder is chosen by --classes-from"
        )
    return warnings


def check_classes(classes: list[str], source: str) -> None:
    """Raise AlexNetError when there are fewer than two classes, or two differ only by case or spaces."""
    if len(classes) == 1:
        raise AlexNetError(f"only one class in {source}, {classes[0]!r}: a classifier needs at least two")
    seen: dict[str, str] = {}
    for name in classes:
        plain = comparable(name)
        if plain in seen:
            raise AlexNetError(
                f"two classes of {source} have one name, {seen[plain]!r} and {name!r}: rename one, or make them one"
            )
        seen[plain] = name
