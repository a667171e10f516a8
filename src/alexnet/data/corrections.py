"""Corrections of labels: a CSV of decisions about images, which `prepare` applies; the originals are not touched."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alexnet.data.sources.names import first_names
from alexnet.data.sources.plan import count
from alexnet.data.sources.table_files import read_spreadsheet
from alexnet.runtime.errors import AlexNetError, UsageError

COLUMNS = ("path", "given", "decision", "label")
"""The columns of the file: the image, its class in the source, the decision, and its class from now on."""
KEEP, CHANGE, DROP = "keep", "change", "drop"


class Correction(NamedTuple):
    """A decision about an image.

    Attributes
    ----------
    path
        Name of the image in the source.
    given
        Its class in the source; empty if the file does not say.
    decision
        "keep", "change" or "drop".
    label
        Its class from now on; empty if it is dropped.
    """

    path: str
    given: str
    decision: str
    label: str


@dataclass(frozen=True)
class Corrected:
    """Labels after corrections.

    Attributes
    ----------
    labels
        Position of an image in the list → its new class, or None where the image is dropped.
    notes
        What was done, a line each.
    """

    labels: dict[int, str | None]
    notes: list[str]


def read_corrections(path: str | os.PathLike[str]) -> list[Correction]:
    """Read a file of decisions.

    It has the columns path and label, and may have given and decision; without a decision a row changes the class, and
    an empty class drops the image.

    Raises
    ------
    AlexNetError
        When it cannot be read, or a row is not a decision.
    """
    file = os.fspath(path)
    _, lines = read_spreadsheet(path)
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        raise AlexNetError(f"{file} has no column {missing[0]!r}: a file of corrections has {', '.join(COLUMNS)}")
    found: dict[str, Correction] = {}
    for number, cells in lines[1:]:
        where = f"{file}, line {number}"
        row = dict(zip(header, [*cells, *[""] * len(header)], strict=False))
        name, label = row["path"], row["label"].strip()
        decision = (row.get("decision") or (CHANGE if label else DROP)).strip()
        if not name:
            raise AlexNetError(f"{where}: no path")
        if decision not in (KEEP, CHANGE, DROP):
            raise AlexNetError(f"{where}: decision {decision!r} does not exist; it is {KEEP}, {CHANGE} or {DROP}")
        if decision == CHANGE and not label:
            raise AlexNetError(f"{where}: no class to change to; write it in the column label, or the decision {DROP}")
        if name in found:
            raise AlexNetError(f"{where}: {name} was decided in an earlier line; remove one of them")
        found[name] = Correction(name, (row.get("given") or "").strip(), decision, label)
    return list(found.values())


def apply_corrections(
    corrections: Sequence[Correction], names: Sequence[str], labels: Sequence[str], file: str
) -> Corrected:
    """Find the images of corrections in a list.

    Parameters
    ----------
    corrections
        The decisions.
    names, labels
        Name and class of each image in the source.
    file
        The file of the corrections, for messages.

    Raises
    ------
    UsageError
        When a class does not exist in the source.
    AlexNetError
        When no image is found, a name is that of several images, or an image has another class than the one that was
        corrected.
    """
    positions: dict[str, int] = {}
    wanted = {one.path for one in corrections}
    for position, name in enumerate(names):
        if name in wanted:
            if name in positions:
                raise AlexNetError(f"{file}: the source has several images named {name}; they cannot be told apart")
            positions[name] = position
    absent = [one.path for one in corrections if one.path not in positions]
    if corrections and len(absent) == len(corrections):
        raise AlexNetError(f"{file}: none of its {len(absent):,} images is in the source, such as {absent[0]}")
    classes = set(labels)
    changed: dict[int, str | None] = {}
    done: Counter[str] = Counter()
    for one in corrections:
        if one.path not in positions:
            continue
        position = positions[one.path]
        now = labels[position]
        if one.decision == CHANGE and one.label not in classes:
            raise UsageError(
                f"{file}: {one.path} is to be of class {one.label!r}, which the source does not have; "
                f"its classes: {first_names(sorted(classes))}"
            )
        if one.given and now not in (one.given, one.label):
            raise AlexNetError(
                f"{file}: {one.path} was of class {one.given!r} when it was decided, and is of class {now!r} in the "
                "source: decide it again, or remove its row"
            )
        done[one.decision] += 1
        if one.decision == DROP:
            changed[position] = None
        elif one.decision == CHANGE and one.label != now:
            changed[position] = one.label
    notes = [
        f"{file}: {count(done[CHANGE], 'label')} changed, {count(done[DROP], 'image')} dropped, "
        f"{done[KEEP]:,} confirmed"
    ]
    if absent:
        notes.append(f"warning: {count(len(absent), 'image')} of {file} not in the source ({first_names(absent)})")
    return Corrected(changed, notes)
