"""A source of images → a prepared dataset (paper, section 2), on all CPUs; after an interruption it is continued.

While a preparation is running, the folder holds `prepare.json`, which records source and options, and `.prepare/`, with
the list of the images and a record of each shard that is complete. List, split and shards are determined by source and
options alone: the finished dataset is bitwise identical however often the preparation was interrupted and however many
workers ran it. `dataset.json` is written last.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alexnet.data.completion import complete, remove_work_files
from alexnet.data.corrections import read_corrections
from alexnet.data.dataset import FORMAT_VERSION, INDEX_NAME, PLAN_NAME, SHARD_ROWS, PreparedDataset
from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.duplicates import KEEP, POLICIES
from alexnet.data.pixel_range import FoundRange, PixelRange, chosen_range
from alexnet.data.range_survey import survey
from alexnet.data.resolution import describe_scaling, shorter_sides
from alexnet.data.shard_plan import LIST_NAME, ShardPlan, plan_shards
from alexnet.data.shards import WORK_FOLDER, Job, digest, forget_result, make_shards, read_result
from alexnet.data.sources.groups import ItemCounts
from alexnet.data.sources.interpretation import interpret, source_name
from alexnet.data.sources.item_list import ItemList
from alexnet.data.sources.items import Item, Source
from alexnet.data.sources.plan import SourcePlan, count
from alexnet.data.sources.planning import make_plan
from alexnet.data.sources.registry import SourceOptions
from alexnet.data.splitting import check_shares
from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import sha256_of, write_atomic
from alexnet.runtime.progress import format_duration, notify
from alexnet.runtime.progress import progress as show_progress

_NOTES_NAME = "notes.json"
_RANGE_NAME = "pixel_range.json"


def prepare(
    source: Any,
    data: str | os.PathLike[str],
    *,
    size: int = 256,
    split: Mapping[str, float] | None = None,
    seed: int = 0,
    max_bad: float = 0.01,
    workers: int | None = None,
    black: float | None = None,
    white: float | None = None,
    max_pixels: int = MAX_PIXELS,
    root: str | None = None,
    splits: Mapping[str, list[str]] | None = None,
    classes_from: str | None = None,
    encoding: str | None = None,
    group_regex: str | None = None,
    ignore_columns: Sequence[str] = (),
    labels: str | os.PathLike[str] | None = None,
    duplicates: str = KEEP,
    progress: bool = True,
) -> PreparedDataset:
    """Prepare the images of a source: shorter side to `size` pixels, center crop, RGB.

    An interrupted preparation continues when it is called again with the same source and options.
    `alexnet.plan_source` shows what a source is understood to be, without reading it.

    Parameters
    ----------
    source
        A path or "hf:NAME": a folder with one folder per class, a zip or tar file of one, the ILSVRC tar files, a CSV,
        parquet or Arrow files. Or an iterable of (image, label) or (image, label, split), image being a path, the bytes
        of a file, an array or a PIL image.
    data
        The folder to create.
    size
        Side of the stored images in pixels, 1 to 4096.
    split
        Shares of the training images for "val" and "test", drawn per class; by default the splits of the source, and
        where it has neither a validation nor a test split, {"val": 0.2}.
    seed
        Seed of the drawn split.
    max_bad
        Largest share of images that may be unreadable, 0 to 1.
    workers
        Processes; by default one per available CPU.
    black, white
        Values that become black and white in images with more than 8 bits; by default they are found for all images
        together. The dataset stores them, and images that are classified later get the same.
    max_pixels
        Limit of the pixels of an image; a larger one is not decoded.
    root
        Folder of the source in which the interpretation begins.
    splits
        Folders of each split, such as {"train": ["seg_train"], "val": ["seg_test"]}.
    classes_from
        What says the class of an image: "folder" (the first folder), "parent" (the folder that the image lies in),
        "name" (the file name), or a table as FILE or FILE:COLUMN. By default it is decided by what is there.
    encoding
        Encoding of names and tables that are not UTF-8, such as "cp949".
    group_regex
        Regular expression whose first capturing group, in the file name, names the group of an image (its part, module,
        lot or patient); all images of a group are in one split. In the path in the source where it contains a slash.
    ignore_columns
        Columns of tables that are not read, such as a column weight that holds grams.
    labels
        A CSV of corrected labels, such as the ``labels.csv`` of `alexnet labels`. A corrected image stays in the split
        that it had without it, so that accuracies can be compared.
    duplicates
        Images that are equal or nearly so, in two splits or under two classes, are named. "keep" changes nothing,
        "drop" leaves out the training image that is a copy of a validation or test image of the same class, "error"
        raises AlexNetError.
    progress
        Whether to print what the source was understood to be, and a progress bar, on stderr.

    Returns
    -------
    PreparedDataset
        The dataset in `data`.

    Raises
    ------
    AlexNetError
        When the source is no source of images, the folder holds other files, the disk is full, or more images are
        unreadable than `max_bad` allows.
    UsageError
        When an option is out of range, or the source can be understood in several ways.
    """
    _check_options(size, split, max_bad, workers)
    check_choice(duplicates, POLICIES, "duplicates")
    started = time.monotonic()
    folder = Path(data)
    reading = SourceOptions(
        root=root,
        splits=splits or {},
        classes_from=classes_from,
        encoding=encoding,
        group_regex=group_regex,
        ignore_columns=ignore_columns,
    )
    options: dict[str, Any] = {"size": size, "split": dict(split) if split is not None else None, "seed": seed}
    options |= reading.given()
    chosen = chosen_range(black, white)
    if chosen is not None:
        options["pixel_range"] = chosen.to_dict()
    if max_pixels != MAX_PIXELS:
        options["max_pixels"] = max_pixels
    corrections = read_corrections(labels) if labels is not None else []
    if labels is not None:
        options["labels"] = {"file": str(labels), "sha256": sha256_of(Path(labels))}

    def say(*notes: str) -> None:
        for note in notes if progress else ():
            notify(note)

    with _claimed(folder, _absolute_name(source), options):
        plan, counts, descriptions, changes = _list_images(source, folder, split, reading, seed)
        say(*plan.notes(), *changes)
        shards, corrected = plan_shards(folder, plan, counts, descriptions, seed, corrections, str(labels))
        say(*corrected)
        workers = workers or available_cpus()
        found = _pixel_range(folder, shards, workers, max_pixels, chosen)
        sides = shorter_sides(shards.items)
        say(*found.notes, *describe_scaling(sides, size))
        _make(folder, shards, size, workers, progress, max_pixels, found.pixel_range)
        options["split"] = shards.split
        options |= {"duplicates": duplicates} if duplicates != KEEP else {}
        about = complete(folder, shards, source_name(source), options, max_bad, found, plan.samples, sides)
    dataset = PreparedDataset.open(folder)
    say(*about, _closing_line(dataset, time.monotonic() - started))
    return dataset


def parse_share(text: str) -> float:
    """Read a share such as "0.01" or "1%".

    Raises
    ------
    UsageError
        When it is no number.
    """
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a share such as 0.01 or 1%") from None


def _check_options(size: int, split: Mapping[str, float] | None, max_bad: float, workers: int | None) -> None:
    if not 1 <= size <= 4096:
        raise UsageError(f"size is {size}; it must be 1 to 4096 pixels")
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max_bad is {max_bad}; it must be a share, 0 to 1")
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; it must be at least 1")
    if split is not None:
        check_shares(split)


def _absolute_name(source: Any) -> str:
    """The name of a source that stays the same in another working directory."""
    if not isinstance(source, str | os.PathLike):
        return source_name(source)
    name = os.fspath(source)
    return name if name.startswith("hf:") else os.path.abspath(name)


@contextmanager
def _claimed(folder: Path, source: str, options: dict[str, Any]) -> Iterator[None]:
    """Create the folder, or continue an unfinished one; remove what was created when no shard was made."""
    plan = {"format_version": FORMAT_VERSION, "source": source, "options": options}
    if (folder / INDEX_NAME).is_file():
        raise AlexNetError(f"{folder} is a prepared dataset already: use it, or name another folder")
    if folder.exists() and not folder.is_dir():
        raise AlexNetError(f"{folder} is a file: name a folder for the dataset")
    begun = _read_json(folder / PLAN_NAME)
    if begun is not None and begun != plan:
        was = {**(begun.get("options") or {}), "source": begun.get("source")}
        differing = [
            f"{key} {was.get(key)}" for key, value in {**options, "source": source}.items() if was.get(key) != value
        ]
        raise AlexNetError(
            f"{folder} is an unfinished dataset of another source or options ({', '.join(differing)}): "
            "run that command again to finish it, remove the folder, or name another"
        )
    if begun is None and folder.exists() and any(not _is_ours(path) for path in folder.iterdir()):
        raise AlexNetError(f"{folder} exists and holds other files: name a folder that does not exist")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        (folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / WORK_FOLDER / "lock", timeout=0):
            _remove_unfinished_files(folder)
            write_atomic(folder / PLAN_NAME, (json.dumps(plan, indent=1, ensure_ascii=False) + "\n").encode())
            try:
                yield
            except BaseException:
                _remove_unfinished_files(folder)  # of workers that were killed
                if not any(folder.glob("*.arrow")):  # nothing was made yet
                    remove_work_files(folder)
                    with suppress(OSError):
                        for path in missing:
                            path.rmdir()
                raise
    except Timeout:
        raise AlexNetError(f"another process prepares {folder}: wait for it to end, or name another folder") from None
    except OSError as error:
        raise AlexNetError(f"{folder} cannot be written: {error.strerror or error}") from error


def _remove_unfinished_files(folder: Path) -> None:
    for path in [*folder.glob(".*.tmp"), *(folder / WORK_FOLDER).glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def _list_images(
    source: Any, folder: Path, shares: Mapping[str, float] | None, reading: SourceOptions, seed: int
) -> tuple[SourcePlan, ItemCounts, dict[str, str], list[str]]:
    """List the images in the folder: the plan, the counts, the descriptions of the classes, and what has changed since.

    A path is listed again when the preparation continues, so that files added or removed meanwhile are noticed; an
    iterable can be read only once.
    """
    place = folder / WORK_FOLDER
    listed = place / LIST_NAME
    if listed.exists() and not isinstance(source, str | os.PathLike):
        notes = _read_json(place / _NOTES_NAME) or {}
        found = Source([], notes.get("descriptions", {}), kind="Python")
        counts = ItemCounts.of(ItemList(listed))
        return make_plan(source_name(source), found, counts, shares, seed), counts, found.descriptions, []
    found = interpret(source, place, reading, output=folder)
    counts = ItemCounts()

    def counted() -> Iterator[Item]:
        for item in found.items:
            counts.add(item)
            yield item

    before = set(ItemList(listed).names()) if listed.exists() else None
    renewed = place / f"new-{LIST_NAME}"
    ItemList.write(renewed, counted())
    plan = make_plan(source_name(source), found, counts, shares, seed)
    write_atomic(place / _NOTES_NAME, json.dumps({"descriptions": found.descriptions}).encode())
    changes = []
    if before is not None:
        now = set(ItemList(renewed).names())
        if before != now:
            changes.append(
                f"the source has changed since the preparation began ({count(len(now - before), 'image')} added, "
                f"{count(len(before - now), 'image')} removed): it was listed again, and finished shards of the same "
                "images are kept"
            )
    renewed.replace(listed)
    return plan, counts, found.descriptions, changes


def _pixel_range(folder: Path, plan: ShardPlan, workers: int, max_pixels: int, chosen: PixelRange | None) -> FoundRange:
    """The range of the images with more than 8 bits, with what was found: once for a list of images, and kept.

    A range that was chosen is used instead of one that was found.
    """
    place, listed = folder / WORK_FOLDER / _RANGE_NAME, (folder / WORK_FOLDER / LIST_NAME).stat().st_mtime_ns
    known = _read_json(place)
    if known is None or known["listed"] != listed:
        found = FoundRange(chosen, [], []) if chosen is not None else survey(plan.items, workers, max_pixels)
        new: dict[str, Any] = {"listed": listed, **found._asdict()}
        new["pixel_range"] = found.pixel_range.to_dict() if found.pixel_range else None
        if known is not None and known["pixel_range"] != new["pixel_range"]:
            for shard in plan.shards:  # made with another range
                if read_result(folder, shard) is not None:
                    forget_result(folder, shard)
        write_atomic(place, json.dumps(new).encode())
        known = new
    return FoundRange(PixelRange.from_dict(known["pixel_range"]), known["notes"], known["remarks"])


def _make(
    folder: Path,
    plan: ShardPlan,
    size: int,
    workers: int,
    progress: bool,
    max_pixels: int,
    pixel_range: PixelRange | None,
) -> None:
    for path in folder.glob("*.arrow"):
        if path.name not in plan.shards:  # of a list that was longer
            path.unlink()
    todo = [shard for shard in plan.shards if not _is_complete(folder, plan, shard)]
    total = sum(map(len, plan.shards.values()))
    left = sum(len(plan.shards[shard]) for shard in todo)
    _check_space(folder, left, size)
    jobs = (Job(shard, plan.take(plan.shards[shard])) for shard in todo)
    if not todo:
        return
    try:
        with show_progress(total, "images", total - left, silent=not progress) as bar:
            make_shards(
                *(folder, plan.classes, size, jobs, min(workers, len(todo)), bar.advance),
                max_pixels=max_pixels,
                pixel_range=pixel_range,
                flags=plan.columns,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: run the same command again to continue") from None


def _is_complete(folder: Path, plan: ShardPlan, shard: str) -> bool:
    """Whether a shard was made of the same items, and none of their files has changed since."""
    result = read_result(folder, shard)
    if result is None or not (folder / shard).is_file():
        return False
    items = plan.take(plan.shards[shard])
    made = (folder / shard).stat().st_mtime
    files = {item.file for item in items} if result.items == digest(items, plan.classes, plan.columns) else None
    if files is None or any(_changed_since(file, made) for file in files):
        forget_result(folder, shard)
        return False
    return True


def _changed_since(file: str, moment: float) -> bool:
    try:
        status = os.stat(file)
    except OSError:
        return False
    return max(status.st_mtime, status.st_ctime) > moment


def _check_space(folder: Path, images: int, size: int) -> None:
    needed = images * (size * size * 3 + 256) + -(-images // SHARD_ROWS) * size * size * 6
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AlexNetError(
            f"the disk of {folder} is too full: {_bytes(needed)} are needed and {_bytes(free)} are free; free some "
            "space, or name a folder on another disk"
        )


def _bytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _closing_line(dataset: PreparedDataset, seconds: float) -> str:
    counts = dataset.counts
    splits = ", ".join(f"{name} {number:,}" for name, number in counts.items())
    images = f"{count(sum(counts.values()), 'image')} of {count(len(dataset.classes), 'class')}"
    line = f"prepared {images} ({splits}) in {format_duration(seconds)}"
    return f"{line}; {len(dataset.left_out):,} left out (see {dataset.path / INDEX_NAME})" if dataset.left_out else line


def _is_ours(path: Path) -> bool:
    return path.name in (PLAN_NAME, WORK_FOLDER) or (path.name.startswith(".") and path.name.endswith(".tmp"))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
