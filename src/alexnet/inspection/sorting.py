"""Sort the images of a folder into one folder per class."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.data.sources.walking import Entry, Ignored, Tally, Walk, archive_kind, other_reason
from alexnet.inspection.journal import JOURNAL, MODES, Journal, Placement, open_journal
from alexnet.prediction.classifier import Classifier, Prediction
from alexnet.prediction.ensemble import load_classifier
from alexnet.prediction.inputs import partly_read
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress

SUMMARY = "sort.csv"
UNSURE = "unsure"


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
    """

    placements: list[Placement] = field(default_factory=list)
    unsorted: list[tuple[str, str]] = field(default_factory=list)
    already: int = 0
    ignored: list[Ignored] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
    views: int = 1,
    precision: str = "float32",
    device: str | None = None,
    dry_run: bool = False,
) -> SortResult:
    """Classify the images of a folder and put each into the folder of its predicted class.

    An existing file is never overwritten. A journal in `out` records every action before and after it: after a kill the
    same call continues, and `undo_sort` undoes it. An unreadable image stays where it is.

    Parameters
    ----------
    run : str, path or Classifier
        A run folder, or a loaded classifier.
    folder : str or path
        The folder with the images, searched at any depth.
    out : str or path
        The folder in which the class folders, the journal ``sort.jsonl`` and the summary ``sort.csv`` are created.
    mode : str
        "copy", "move" or "link" (a symbolic link to the original). An image that is reached through a symbolic link is
        not moved.
    unsure : str or path, optional
        The folder for images whose class has a probability below `unsure_below`. Default: ``out/unsure``.
    unsure_below : float, optional
        A probability, 0 to 1. Default: every image goes to its most probable class.
    views : int
        Number of crops per image whose probabilities are averaged.
    precision, device : str
        As in `Classifier.load`.
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
    check_choice(mode, MODES, "mode")
    if unsure is not None and unsure_below is None:
        raise UsageError("a folder for unsure images needs a probability: give --unsure-below")
    if unsure_below is not None and not 0 < unsure_below <= 1:
        raise UsageError(f"unsure_below is {unsure_below:g}; it is a probability above 0, up to 1")
    source, destination = Path(folder).absolute(), Path(out).absolute()
    _check_source(source, folder)
    classifier = (
        run if isinstance(run, Classifier) else load_classifier(run, device=device, precision=precision, raw=True)
    )
    names = class_folders(classifier.classes)
    folders = {label: str(destination / name) for label, name in zip(classifier.labels, names, strict=True)}
    unsure_folder = str(Path(unsure).absolute() if unsure is not None else destination / UNSURE)
    if unsure_below is not None and unsure_folder in folders.values():
        raise UsageError(f"{unsure_folder} is the folder of a class; choose another with --unsure")
    settings = {
        "run": None if isinstance(run, Classifier) else str(Path(run).absolute()),
        "folder": str(source),
        "mode": mode,
        "unsure": unsure_folder if unsure_below is not None else None,
        "unsure_below": unsure_below,
        "views": views,
    }
    result = SortResult()
    with _journal(destination, write=not dry_run) as journal:
        _check_settings(journal, settings, destination)
        leave = [*folders.values(), unsure_folder] + [str(destination)] * (destination != source)
        files = _find(source, leave, mode, journal, result)
        if not dry_run:
            journal.begin_session(settings)
        planned = _Planned()
        try:
            with progress(len(files), "sort") as bar:
                for path, prediction in zip(files, classifier.stream(iter(files), 1, views), strict=True):
                    if not isinstance(prediction, Prediction):
                        result.unsorted.append((path, prediction.reason))
                        bar.note(f"alexnet: {path}: {prediction.reason}")
                    else:
                        sure = unsure_below is None or prediction.probability >= unsure_below
                        target = folders[prediction.label] if sure else unsure_folder
                        if dry_run:
                            result.placements.append(planned.place(mode, path, target, prediction))
                        else:
                            _place(journal, mode, path, target, prediction, result)
                    bar.advance()
            result.notes = partly_read(classifier.partly, len(files))
        finally:
            if not dry_run:
                _write_summary(destination, journal, result.unsorted)
    return result


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


def _find(source: Path, leave: list[str], mode: str, journal: Journal, result: SortResult) -> list[str]:
    """The images to sort. What is not sorted is recorded in the result."""
    known = {(p.source, p.size, p.modified) for p in journal.placements.values() if p.mode != "move"}
    walk = Walk(source, leave=leave)
    others = Tally()
    files = []
    for entry in walk:
        if not entry.image:
            others.add(other_reason(entry.parts[-1]), entry.file)
        elif _is_known(entry.file, known):
            result.already += 1
        elif mode == "move" and _is_linked(source, entry):
            result.unsorted.append((entry.file, "reached through a symbolic link, which is not moved; use --copy"))
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


def _is_linked(root: Path, entry: Entry) -> bool:
    """Whether the file or a folder on its path below the root is a symbolic link."""
    path = root
    for part in entry.parts:
        path = path / part
        if path.is_symlink():
            return True
    return False


class _Planned:
    """The names that a dry run would give."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def place(self, mode: str, source: str, folder: str, prediction: Prediction) -> Placement:
        """The placement that the real call would make."""
        path = os.path.join(folder, os.path.basename(source))
        stem, ending = os.path.splitext(path)
        number = 2
        while path in self._taken or os.path.lexists(path):
            path, number = f"{stem}-{number}{ending}", number + 1
        self._taken.add(path)
        return Placement(len(self._taken) - 1, mode, source, path, 0, 0, prediction.label, prediction.probability)


def _place(journal: Journal, mode: str, path: str, folder: str, prediction: Prediction, result: SortResult) -> None:
    try:
        placement = journal.place(mode, path, folder, prediction.label, prediction.probability)
    except FileNotFoundError as error:
        if os.path.exists(path):
            raise AlexNetError(f"{path} cannot be placed in {folder}: {error.strerror}") from error
        result.unsorted.append((path, "no longer exists"))
    except OSError as error:
        raise AlexNetError(f"{path} cannot be placed in {folder}: {error.strerror}") from error
    else:
        result.placements.append(placement)


def _write_summary(destination: Path, journal: Journal, unsorted: list[tuple[str, str]]) -> None:
    """Write the CSV of what is where."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["source", "target", "class", "probability", "action", "reason"])
    for p in journal.placements.values():
        out.writerow([p.source, p.target, p.label, f"{p.probability:.6g}", p.mode, ""])
    for path, reason in unsorted:
        out.writerow([path, "", "", "", "none", reason])
    write_atomic(destination / SUMMARY, text.getvalue().encode(errors="surrogateescape"))


def _remove_leftovers(destination: Path) -> None:
    """Remove what a kill left of an atomic write of the summary."""
    for file in destination.glob(f".{SUMMARY}.*.tmp"):
        file.unlink()


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)
