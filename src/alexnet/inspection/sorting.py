"""Sort the images of a folder into one folder per class, once or as they arrive."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.data.sources.walking import Ignored, Tally, Walk, archive_kind, other_reason
from alexnet.inspection.drift import day_of, describe_day, read_days
from alexnet.inspection.hot_folder import Arrivals, Signature, signature_of
from alexnet.inspection.journal import JOURNAL, MODES, Journal, Placement, open_journal
from alexnet.inspection.result_log import ResultLog, check_log, open_log
from alexnet.inspection.result_post import POSTED, ResultPost, check_address
from alexnet.prediction.classifier import Classifier, Prediction
from alexnet.prediction.ensemble import load_classifier
from alexnet.prediction.inputs import partly_read
from alexnet.runs.decision import CLASS, UNKNOWN, UNSURE
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import notify, progress

SUMMARY = "sort.csv"
SETTLE = 2.0
"""Seconds without a change after which a file that arrives is whole."""
WATCHED_BATCH = 64
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


def sort_images(
    run: str | os.PathLike[str] | Classifier,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    mode: str = "copy",
    unsure: str | os.PathLike[str] | None = None,
    unsure_below: float | None = None,
    views: int | None = None,
    raw: bool = False,
    precision: str = "float32",
    device: str | None = None,
    log: str | os.PathLike[str] | None = None,
    post: str | None = None,
    dry_run: bool = False,
) -> SortResult:
    """Classify the images of a folder and put each into the folder of its class, or of *unsure* or *unknown*.

    An existing file is never overwritten. A journal in `out` records every action before and after it: after a kill the
    same call continues, and `undo_sort` undoes it. An unreadable image stays where it is.

    Parameters
    ----------
    run : str, path or Classifier
        A run folder, a folder of `alexnet crossval`, or a loaded classifier. Its decision rule is obeyed.
    folder : str or path
        The folder with the images, searched at any depth.
    out : str or path
        The folder in which the class folders, the journal ``sort.jsonl`` and the summary ``sort.csv`` are created.
    mode : str
        "copy", "move" or "link" (a symbolic link to the original). An image that is reached through a symbolic link is
        not moved.
    unsure : str or path, optional
        The folder for unsure images: those of the decision rule, and those below `unsure_below`. Default:
        ``out/unsure``. Unknown images go to ``out/unknown``.
    unsure_below : float, optional
        A probability, 0 to 1: images whose class has a smaller one are unsure too.
    views : int, optional
        Number of crops per image whose probabilities are averaged. Default: that of the decision rule, else 1.
    raw : bool
        Ignore the decision rule of the run.
    precision, device : str
        As in `Classifier.load`.
    log : str or path, optional
        A file to which each result is appended, see `alexnet.inspection.result_log`.
    post : str, optional
        An address to which each result is sent, see `alexnet.inspection.result_post`.
    dry_run : bool
        Classify only; write nothing.

    Returns
    -------
    SortResult

    Raises
    ------
    AlexNetError
        If the folder or the run cannot be read, a file cannot be written, or `out` holds images of `folder` that were
        sorted with other settings.
    UsageError
        If an argument is out of range.
    """
    if dry_run and (log or post):
        raise UsageError("a dry run writes nothing: leave out --log and --post")
    settings = _Settings(run, folder, out, mode, unsure, unsure_below, views, raw, precision, device, log, post)
    with _session(settings, write=not dry_run) as session:
        result = session.result
        files = _find(session)
        planned = _Planned()
        with progress(len(files), "sort") as bar:
            for path, prediction in zip(files, session.classify(files), strict=True):
                if not isinstance(prediction, Prediction):
                    result.unsorted.append((path, prediction.reason))
                    bar.note(f"alexnet: {path}: {prediction.reason}")
                elif dry_run:
                    result.placements.append(planned.place(session, path, prediction))
                else:
                    session.place(path, prediction)
                bar.advance()
        result.notes = partly_read(session.classifier.partly, len(files))
    return result


def watch_folder(
    run: str | os.PathLike[str] | Classifier,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    stop: threading.Event,
    settle: float = SETTLE,
    placed: Callable[[Placement], object] = lambda _: None,
    note: Callable[[str], object] = notify,
    mode: str = "copy",
    unsure: str | os.PathLike[str] | None = None,
    unsure_below: float | None = None,
    views: int | None = None,
    raw: bool = False,
    precision: str = "float32",
    device: str | None = None,
    log: str | os.PathLike[str] | None = None,
    post: str | None = None,
) -> SortResult:
    """Sort the images of a folder, and those that arrive in it, until `stop` is set.

    The folder is listed again and again, which works on every file system, network drives included. A file is whole
    when neither its size nor its time of modification has changed for `settle` seconds. A file that cannot be read
    stays where it is, and is tried again when it changes. A folder that cannot be listed, such as a network drive that
    is away, is tried again too.

    Parameters
    ----------
    run, folder, out, mode, unsure, unsure_below, views, raw, precision, device, log, post
        As in `sort_images`.
    stop : threading.Event
        The call returns soon after another thread, or a signal handler, has set it.
    settle : float
        Seconds, above 0.
    placed : callable
        Called with each `Placement`.
    note : callable
        Called with messages for people: unreadable files, and at the end of a day its summary.

    Returns
    -------
    SortResult

    Raises
    ------
    AlexNetError, UsageError
        As in `sort_images`.
    """
    if not 0 < settle < float("inf"):
        raise UsageError(f"settle is {settle:g}; it is a number of seconds above 0")
    settings = _Settings(run, folder, out, mode, unsure, unsure_below, views, raw, precision, device, log, post)
    with _session(settings, write=True, arriving=True) as session:
        _Watch(session, stop, settle, placed, note).run()
    return session.result


@dataclass(frozen=True)
class _Settings:
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
class _Session:
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
def _session(settings: _Settings, write: bool, arriving: bool = False) -> Iterator[_Session]:
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
        journal = stack.enter_context(_journal(destination, write))
        _check_settings(journal, record, destination)
        session = _Session(classifier, views, source, destination, folders, unsure, below, settings.mode, journal)
        if not write:
            yield session
            return
        journal.begin_session(record)
        stack.callback(lambda: _write_summary(destination, journal, session.result.unsorted))
        if log is not None:
            session.log = stack.enter_context(open_log(log, journal))
        if address is not None:
            session.post = stack.enter_context(ResultPost(address, destination, journal))
        yield session
        if session.post is not None:
            session.result.not_sent = session.post.finish(SEND_FOR)


class _Watch:
    """The loop of `watch_folder`."""

    def __init__(
        self,
        session: _Session,
        stop: threading.Event,
        settle: float,
        placed: Callable[[Placement], object],
        note: Callable[[str], object],
    ) -> None:
        self.session, self.stop, self.placed, self.note = session, stop, placed, note
        self.arrivals = Arrivals(session.source, session.leave, settle, note)
        self.pause = max(0.05, min(1.0, settle / 4))
        self.links: set[str] = set()
        for p in session.journal.placements.values():
            if p.mode != "move":
                self.arrivals.finish(p.source, p.size, p.modified)
        self.day = day_of(time.time())

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            ready = self.arrivals.look()
            took = time.monotonic() - began
            if ready:
                self._sort(ready[:WATCHED_BATCH])
            if len(ready) <= WATCHED_BATCH:
                self.stop.wait(max(self.pause, took))  # at most half of the time is spent on listing the folder
            self._end_day()
        self._end_day(at_the_end=True)

    def _sort(self, ready: list[tuple[str, Signature]]) -> None:
        session = self.session
        if session.mode == "move":
            ready = [found for found in ready if not self._is_left(*found)]
        for (path, signature), prediction in zip(ready, session.classify([path for path, _ in ready]), strict=True):
            if self.stop.is_set():
                return
            if signature_of(path) != signature:
                continue  # it has changed while it was read: it is looked at again
            if not isinstance(prediction, Prediction):
                self.arrivals.fail(path, signature)
                self.note(f"alexnet: {path}: {prediction.reason}; it stays there, and is tried again when it changes")
                continue
            placement = session.place(path, prediction, wait_for_others=True)
            if placement is not None:
                if session.mode != "move":
                    self.arrivals.finish(path, placement.size, placement.modified)
                self.placed(placement)

    def _is_left(self, path: str, signature: Signature) -> bool:
        parts = Path(path).relative_to(self.session.source).parts
        if not _is_linked(self.session.source, parts):
            return False
        self.arrivals.fail(path, signature)
        self.note(f"alexnet: {path}: {LINKED}")
        return True

    def _end_day(self, at_the_end: bool = False) -> None:
        """Tell how the day was, when it is over or the sorting ends."""
        today = day_of(time.time())
        if today == self.day and not at_the_end:
            return
        validation, days = read_days(self.session.journal)
        for day in days:
            if day.day == self.day:
                self.note(describe_day(day, validation))
        self.day = today


def _check_source(source: Path, folder: str | os.PathLike[str]) -> None:
    """Raise AlexNetError when the source is no folder."""
    if source.is_dir():
        return
    if (kind := archive_kind(source)) is not None:
        raise AlexNetError(f"{folder} is an archive: {_unpacking(Path(folder), kind)}, then sort that folder")
    raise AlexNetError(f"{folder} is not a folder; give the folder with the images to sort")


def _check_in_place(folder: Path, class_folders: Sequence[str]) -> None:
    """Raise AlexNetError where a folder is sorted into itself, and has images only in the folders of the classes."""
    if (folder / JOURNAL).is_file() or not any(map(os.path.isdir, class_folders)):
        return
    if not any(entry.image for entry in Walk(folder, leave=class_folders)):
        raise AlexNetError(
            f"{folder} is sorted into itself, where the folders of the classes are not searched, and has no other "
            "images: choose another folder with --to"
        )


def _unpacking(archive: Path, kind: str) -> str:
    file, target = (shlex.quote(str(path)) for path in (archive, archive.with_name(archive.name.partition(".")[0])))
    command = f"unzip -d {target} {file}" if kind == "zip" else f"mkdir {target} && tar -C {target} -xf {file}"
    return f"unpack it with `{command}`"


def undo_sort(out: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> tuple[int, list[str]]:
    """Undo what `sort_images` did: move files back, remove copies and links.

    A copy is removed only if it is identical to its original; a file is moved back under a numbered suffix if its name
    exists again. After a kill the same call continues.

    Parameters
    ----------
    out : str or path
        The folder that was sorted into.
    folder : str or path, optional
        Undo only files that came from this folder.

    Returns
    -------
    undone : int
        Number of files.
    messages : list of str
        One for each file that was kept, or is not where it was before.

    Raises
    ------
    AlexNetError
        If `out` has no journal, or a file cannot be moved.
    """
    destination = Path(out).absolute()
    if not (destination / JOURNAL).is_file():
        raise AlexNetError(f"{out} has no journal ({JOURNAL}): there is nothing to undo")
    with _journal(destination, write=True) as journal:
        inside = os.path.join(os.path.abspath(folder), "") if folder is not None else ""
        chosen = [p for p in reversed(list(journal.placements.values())) if p.source.startswith(inside)]
        folders = {os.path.dirname(placement.target) for placement in journal.placements.values()}
        folders |= {session["unsure"] for session in journal.sessions if session.get("unsure")}
        folders.add(str(destination / UNKNOWN))
        messages = []
        with progress(len(chosen), "undo") as bar:
            for placement in chosen:
                try:
                    message = journal.undo(placement)
                except OSError as error:
                    raise AlexNetError(f"{placement.target} cannot be moved back: {error.strerror}") from error
                if message is not None:
                    messages.append(message)
                bar.advance()
        undone = len(chosen) - sum(placement.id in journal.placements for placement in chosen)
        for name in folders:
            _remove_if_empty(name)
        if journal.placements:
            _write_summary(destination, journal, [])
        else:
            (destination / SUMMARY).unlink(missing_ok=True)
            (destination / POSTED).unlink(missing_ok=True)
            journal.close()
            journal.path.unlink()
    _remove_if_empty(str(destination))
    return undone, messages


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


@contextmanager
def _journal(destination: Path, write: bool) -> Iterator[Journal]:
    if not write:
        yield Journal(destination, write=False)
        return
    with open_journal(destination) as journal:
        _remove_leftovers(destination)
        yield journal


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


def _find(session: _Session) -> list[str]:
    """The images to sort. What is not sorted is recorded in the result."""
    result = session.result
    known = {(p.source, p.size, p.modified) for p in session.journal.placements.values() if p.mode != "move"}
    walk = Walk(session.source, leave=session.leave)
    others = Tally()
    files = []
    for entry in walk:
        if not entry.image:
            others.add(other_reason(entry.parts[-1]), entry.file)
        elif _is_known(entry.file, known):
            result.already += 1
        elif session.mode == "move" and _is_linked(session.source, entry.parts):
            result.unsorted.append((entry.file, LINKED))
        else:
            files.append(entry.file)
    result.ignored = [*others.list(), *walk.tally.list()]
    return files


def _is_known(path: str, known: set[tuple[str, int, int]]) -> bool:
    if not known:
        return False
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (path, status.st_size, status.st_mtime_ns) in known


def _is_linked(root: Path, parts: Sequence[str]) -> bool:
    """Whether the file or a folder on its path below the root is a symbolic link."""
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            return True
    return False


class _Planned:
    """The names that a dry run would give."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def place(self, session: _Session, source: str, prediction: Prediction) -> Placement:
        """The placement that the real call would make."""
        decision, folder = session.decide(prediction)
        path = os.path.join(folder, os.path.basename(source))
        stem, ending = os.path.splitext(path)
        number = 2
        while path in self._taken or os.path.lexists(path):
            path, number = f"{stem}-{number}{ending}", number + 1
        self._taken.add(path)
        return Placement(
            id=len(self._taken) - 1,
            mode=session.mode,
            source=source,
            target=path,
            size=0,
            modified=0,
            label=prediction.label,
            probability=prediction.probability,
            decision=decision,
            distance=prediction.distance,
        )


def _write_summary(destination: Path, journal: Journal, unsorted: list[tuple[str, str]]) -> None:
    """Write the CSV of what is where."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["source", "target", "decision", "class", "probability", "action", "reason"])
    for p in journal.placements.values():
        out.writerow([p.source, p.target, p.decision, p.label, f"{p.probability:.6g}", p.mode, ""])
    for path, reason in unsorted:
        out.writerow([path, "", "", "", "", "none", reason])
    write_atomic(destination / SUMMARY, text.getvalue().encode(errors="surrogateescape"))


def _remove_leftovers(destination: Path) -> None:
    """Remove what a kill left of an atomic write of the summary."""
    for name in (SUMMARY, POSTED):
        for file in destination.glob(f".{name}.*.tmp"):
            file.unlink()


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)
