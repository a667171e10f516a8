"""A sort in progress: its arguments, where images and their results go, and what it did."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.data.sources.walking import Ignored, Walk, archive_kind
from alexnet.inspection.journal import JOURNAL, MODES, Journal, Placement, open_journal
from alexnet.inspection.result_log import ResultLog, check_log, open_log
from alexnet.inspection.result_post import POSTED, ResultPost, check_address
from alexnet.prediction.classifier import Classifier, Prediction
from alexnet.prediction.ensemble import load_classifier
from alexnet.runs.decision import CLASS, UNKNOWN, UNSURE
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_csv

SUMMARY = "sort.csv"
SHARING_VIOLATION = 32  # the error of Windows for a file that another program has open
LINKED = "reached through a symbolic link, which is not moved; use --copy"
SEND_FOR = 5.0
"""Seconds for which the end of a command waits for results that are being sent."""


@dataclass
class SortResult:
    """The result of `sort_images`.

    Attributes
    ----------
    placements : list of Placement
        What this call placed (with a dry run: would place), in order.
    counts : dict of str to int
        Number of files that this call placed in each folder.
    renamed : list of Placement
        Those whose name existed; they have a numbered suffix.
    unsorted : list of (str, str)
        Path and reason of each image that stays where it is, because it cannot be read or moved.
    already : int
        Number of images that an earlier call placed.
    ignored : list of Ignored
        Files and folders that are no images, by reason.
    notes : list of str
        Of which kinds of files only a page or some bands were read.
    not_sent : int
        Number of results that the server of `post` has not received yet.
    """

    placements: list[Placement] = field(default_factory=list)
    unsorted: list[tuple[str, str]] = field(default_factory=list)
    already: int = 0
    ignored: list[Ignored] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_sent: int = 0

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(os.path.dirname(placement.target) for placement in self.placements).items()))

    @property
    def renamed(self) -> list[Placement]:
        return [p for p in self.placements if os.path.basename(p.source) != os.path.basename(p.target)]


@dataclass(frozen=True)
class SortSettings:
    """The arguments of `sort_images`."""

    run: str | os.PathLike[str] | Classifier
    folder: str | os.PathLike[str]
    out: str | os.PathLike[str]
    mode: str
    unsure: str | os.PathLike[str] | None
    unsure_below: float | None
    views: int | None
    raw: bool
    precision: str
    device: str | None
    log: str | os.PathLike[str] | None
    post: str | None


@dataclass
class SortSession:
    """A sort in progress: where images go, and where their results go."""

    classifier: Classifier
    views: int
    source: Path
    destination: Path
    folders: Mapping[str, str]
    unsure: str
    unsure_below: float | None
    mode: str
    journal: Journal
    log: ResultLog | None = None
    post: ResultPost | None = None
    result: SortResult = field(default_factory=SortResult)

    @property
    def unknown(self) -> str:
        return str(self.destination / UNKNOWN)

    @property
    def leave(self) -> list[str]:
        """Folders that are not searched."""
        own = [str(self.destination)] * (self.destination != self.source)
        return [*self.folders.values(), self.unsure, self.unknown, *own]

    def classify(self, files: Sequence[str]) -> Iterator[Any]:
        return self.classifier.stream(iter(files), 1, self.views)

    def decide(self, prediction: Prediction) -> tuple[str, str]:
        """The decision on an image, and the folder for it."""
        decision = prediction.decision
        if decision == CLASS and self.unsure_below is not None and prediction.probability < self.unsure_below:
            decision = UNSURE
        folder = {UNSURE: self.unsure, UNKNOWN: self.unknown}.get(decision)
        return decision, folder or self.folders[prediction.label]

    def place(self, path: str, prediction: Prediction, wait_for_others: bool = False) -> Placement | None:
        """Place an image and tell of it.

        None if it no longer exists or, with `wait_for_others`, if another program of Windows has it open.
        """
        decision, folder = self.decide(prediction)
        try:
            placement = self.journal.place(
                self.mode, path, folder, prediction.label, prediction.probability, decision, prediction.distance
            )
        except FileNotFoundError as error:
            if os.path.exists(path):
                raise AlexNetError(f"{path} cannot be placed in {folder}: {error.strerror}") from error
            self.result.unsorted.append((path, "no longer exists"))
            return None
        except OSError as error:
            if getattr(error, "winerror", None) == SHARING_VIOLATION and wait_for_others:
                return None
            raise AlexNetError(f"{path} cannot be placed in {folder}: {error.strerror}") from error
        self.result.placements.append(placement)
        if self.log is not None:
            self.log.append(placement)
        if self.post is not None:
            self.post.send(placement)
        return placement


@contextmanager
def open_session(settings: SortSettings, write: bool, arriving: bool = False) -> Iterator[SortSession]:
    """Check the arguments, load the classifier, and open the journal, the log and the connection of `post`."""
    check_choice(settings.mode, MODES, "mode")
    below = settings.unsure_below
    if below is not None and not 0 < below <= 1:
        raise UsageError(f"unsure_below is {below:g}; it is a probability above 0, up to 1")
    source, destination = Path(settings.folder).absolute(), Path(settings.out).absolute()
    _check_source(source, settings.folder)
    log = None if settings.log is None else check_log(settings.log)
    address = None if settings.post is None else check_address(settings.post)
    given = settings.run
    classifier = (
        given
        if isinstance(given, Classifier)
        else load_classifier(given, device=settings.device, precision=settings.precision, raw=settings.raw)
    )
    rule = None if settings.raw else classifier.rule
    if settings.unsure is not None and below is None and rule is None:
        raise UsageError(
            "a folder for unsure images needs a probability (--unsure-below) or a run with a decision rule"
        )
    names = class_folders(classifier.classes)
    folders = {label: str(destination / name) for label, name in zip(classifier.labels, names, strict=True)}
    unsure = str(Path(settings.unsure).absolute() if settings.unsure is not None else destination / UNSURE)
    taken = [unsure] * (below is not None or rule is not None) + [str(destination / UNKNOWN)] * (rule is not None)
    for folder in taken:
        if folder in folders.values():
            remedy = "choose another with --unsure" if folder == unsure else "use --raw, or another class name"
            raise UsageError(f"{folder} is the folder of a class; {remedy}")
    if source == destination and not arriving:
        _check_in_place(source, [*folders.values(), *taken])
    views = classifier.choose_views(settings.views)
    record = {
        "run": None if isinstance(given, Classifier) else str(Path(given).absolute()),
        "folder": str(source),
        "mode": settings.mode,
        "unsure": unsure if below is not None or rule is not None else None,
        "unsure_below": below,
        "views": views,
        "rule": None if rule is None else _checksum({**rule.to_dict(), "record": None}),
    }
    session = None
    with ExitStack() as stack:
        journal = stack.enter_context(sort_journal(destination, write))
        _check_settings(journal, record, destination)
        session = SortSession(classifier, views, source, destination, folders, unsure, below, settings.mode, journal)
        if not write:
            yield session
            return
        journal.begin_session(record)
        stack.callback(lambda: write_summary(destination, journal, session.result.unsorted))
        if log is not None:
            session.log = stack.enter_context(open_log(log, journal))
        if address is not None:
            session.post = stack.enter_context(ResultPost(address, destination, journal))
        yield session
        if session.post is not None:
            session.result.not_sent = session.post.finish(SEND_FOR)


def class_folders(classes: list[str]) -> list[str]:
    """Return a folder name for each class: its name, without what a file system does not allow.

    Parameters
    ----------
    classes : list of str
        Class names.

    Returns
    -------
    list of str
        Distinct also where a file system ignores case.
    """
    names: list[str] = []
    taken: set[str] = set()
    for label in classes:
        base = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", label).strip().rstrip(".") or "_"
        base = f"_{base[1:]}" if base.startswith(".") else base
        name, number = base, 2
        while name.casefold() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _check_source(source: Path, folder: str | os.PathLike[str]) -> None:
    """Raise AlexNetError when the source is no folder."""
    if source.is_dir():
        return
    if (kind := archive_kind(source)) is not None:
        raise AlexNetError(f"{folder} is an archive: {_unpacking(Path(folder), kind)}, then sort that folder")
    raise AlexNetError(f"{folder} is not a folder; give the folder with the images to sort")


def _unpacking(archive: Path, kind: str) -> str:
    file, target = (shlex.quote(str(path)) for path in (archive, archive.with_name(archive.name.partition(".")[0])))
    command = f"unzip -d {target} {file}" if kind == "zip" else f"mkdir {target} && tar -C {target} -xf {file}"
    return f"unpack it with `{command}`"


def _check_in_place(folder: Path, class_folders: Sequence[str]) -> None:
    """Raise AlexNetError where a folder is sorted into itself, and has images only in the folders of the classes."""
    if (folder / JOURNAL).is_file() or not any(map(os.path.isdir, class_folders)):
        return
    if not any(entry.image for entry in Walk(folder, leave=class_folders)):
        raise AlexNetError(
            f"{folder} is sorted into itself, where the folders of the classes are not searched, and has no other "
            "images: choose another folder with --to"
        )


def _check_settings(journal: Journal, settings: Mapping[str, object], destination: Path) -> None:
    """Raise `AlexNetError` where images of the same folder were sorted with other settings and can be found again."""
    inside = os.path.join(str(settings["folder"]), "")
    if not any(placement.source.startswith(inside) for placement in journal.placements.values()):
        return
    earlier = [session for session in journal.sessions if session["folder"] == settings["folder"]][-1:]
    for session in earlier:
        if session["mode"] == settings["mode"] == "move":
            return  # moved images are no longer in the folder
        different = [name for name in settings if session.get(name) != settings[name]]
        if different:
            raise AlexNetError(
                f"{destination} holds images of {settings['folder']} that were sorted with another "
                f"{', '.join(different)}: undo that with `alexnet sort --undo --to {shlex.quote(str(destination))}`, "
                "or choose another folder"
            )


@contextmanager
def sort_journal(destination: Path, write: bool) -> Iterator[Journal]:
    if not write:
        yield Journal(destination, write=False)
        return
    with open_journal(destination) as journal:
        _remove_leftovers(destination)
        yield journal


def _remove_leftovers(destination: Path) -> None:
    """Remove what a kill left of an atomic write of the summary."""
    for name in (SUMMARY, POSTED):
        for file in destination.glob(f".{name}.*.tmp"):
            file.unlink()


def write_summary(destination: Path, journal: Journal, unsorted: list[tuple[str, str]]) -> None:
    """Write the CSV of what is where."""
    rows = [["source", "target", "decision", "class", "probability", "action", "reason"]]
    for p in journal.placements.values():
        rows.append([p.source, p.target, p.decision, p.label, f"{p.probability:.6g}", p.mode, ""])
    rows += [[path, "", "", "", "", "none", reason] for path, reason in unsorted]
    write_csv(destination / SUMMARY, rows)


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def is_linked(root: Path, parts: Sequence[str]) -> bool:
    """Whether the file or a folder on its path below the root is a symbolic link."""
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            return True
    return False
