"""Sort the images of a folder into one folder per class, and undo that."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from alexnet.data.sources.walking import Tally, Walk, other_reason
from alexnet.inspection.journal import JOURNAL, Placement
from alexnet.inspection.result_post import POSTED
from alexnet.inspection.sort_session import (
    LINKED,
    SUMMARY,
    SortResult,
    SortSession,
    SortSettings,
    is_linked,
    open_session,
    sort_journal,
    write_summary,
)
from alexnet.prediction.classifier import Classifier, Prediction
from alexnet.prediction.inputs import partly_read
from alexnet.runs.decision import UNKNOWN
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.progress import progress


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
    settings = SortSettings(run, folder, out, mode, unsure, unsure_below, views, raw, precision, device, log, post)
    with open_session(settings, write=not dry_run) as session:
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
    with sort_journal(destination, write=True) as journal:
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
            write_summary(destination, journal, [])
        else:
            (destination / SUMMARY).unlink(missing_ok=True)
            (destination / POSTED).unlink(missing_ok=True)
            journal.close()
            journal.path.unlink()
    _remove_if_empty(str(destination))
    return undone, messages


def _find(session: SortSession) -> list[str]:
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
        elif session.mode == "move" and is_linked(session.source, entry.parts):
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


class _Planned:
    """The names that a dry run would give."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def place(self, session: SortSession, source: str, prediction: Prediction) -> Placement:
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


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)
