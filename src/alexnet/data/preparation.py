"""A source of images → a prepared dataset (paper, section 2), on all CPUs; after an interruption it is continued.

While a preparation is running, the folder holds `prepare.json`, which records source and options, and `.prepare/`, with
the list of the images and a record of each shard that is complete. List, split and shards are determined by source and
options alone: the finished dataset is bitwise identical however often the preparation was interrupted and however many
workers ran it. `dataset.json` is written last.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from alexnet.data.columns import numbers, texts, values
from alexnet.data.corrections import Corrected, Correction, apply_corrections, read_corrections
from alexnet.data.dataset import (
    FORMAT_VERSION,
    INDEX_NAME,
    MEAN_NAME,
    PLAN_NAME,
    SHARD_ROWS,
    PreparedDataset,
    images_of,
    read_shard,
    sha256_of,
)
from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.duplicates import (
    DROP,
    ERROR,
    KEEP,
    POLICIES,
    Dropped,
    copies_to_drop,
    find_duplicates,
    notes,
    refuse,
    to_index,
)
from alexnet.data.pixel_range import FoundRange, PixelRange, chosen_range
from alexnet.data.range_survey import survey
from alexnet.data.remarks import to_remarks
from alexnet.data.resolution import describe_scaling, shorter_sides
from alexnet.data.shards import (
    WORK_FOLDER,
    Job,
    SampleFlags,
    digest,
    forget_result,
    make_shards,
    read_pixel_sum,
    read_result,
    read_thumbnails,
)
from alexnet.data.sources.groups import GroupDraw, ItemCounts, draw_groups
from alexnet.data.sources.interpretation import interpret, make_plan, source_name
from alexnet.data.sources.items import Item, ItemList, Source
from alexnet.data.sources.names import SPLITS, first_names
from alexnet.data.sources.plan import SourcePlan, count, printable, split_sizes
from alexnet.data.statistics import statistics
from alexnet.kernels.rgb_products import rgb_products
from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import format_duration, notify
from alexnet.runtime.progress import progress as show_progress

_LIST_NAME = "items.arrow"
_NOTES_NAME = "notes.json"
_RANGE_NAME = "pixel_range.json"
_LEFT_OUT_NAME = "left_out.txt"
ROWS_NAME = "train.npy"  # rows of the training split, where duplicates were dropped
_LISTED = 20  # unreadable files that an error lists; the others are written to a file


class _Shards(NamedTuple):
    """The images, their classes, and which images each shard holds."""

    items: ItemList
    classes: list[str]
    descriptions: dict[str, str]
    shards: dict[str, np.ndarray]
    split: dict[str, float] | None
    columns: SampleFlags
    corrected: dict[int, str | None]

    def take(self, indices: np.ndarray) -> list[Item]:
        """The items of `indices`, with corrected labels."""
        items = self.items.take(indices)
        if not self.corrected:
            return items
        labels = [self.corrected.get(index) for index in indices.tolist()]
        return [
            item if label in (None, item.label) else _with_label(item, str(label))
            for item, label in zip(items, labels, strict=True)
        ]


def _with_label(item: Item, label: str) -> Item:
    """An item with a corrected label, which is certain: a soft label was about the one before."""
    return item._replace(label=label, sample=item.sample._replace(confidence=None, probabilities=None))


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
    reading: dict[str, Any] = {"root": root, "splits": dict(splits) if splits else None}
    reading |= {"classes_from": classes_from, "encoding": encoding, "group_regex": group_regex}
    reading["ignore_columns"] = list(ignore_columns) or None
    options: dict[str, Any] = {"size": size, "split": dict(split) if split is not None else None, "seed": seed}
    options |= {name: value for name, value in reading.items() if value is not None}
    chosen = chosen_range(black, white)
    if chosen is not None:
        options["pixel_range"] = chosen.to_dict()
    if max_pixels != MAX_PIXELS:
        options["max_pixels"] = max_pixels
    corrections = read_corrections(labels) if labels is not None else []
    if labels is not None:
        options["labels"] = {"file": str(labels), "sha256": sha256_of(Path(labels))}
    with _claimed(folder, _name_of(source, absolute=True), options):
        plan, counts, descriptions, changes = _list_images(source, folder, split, reading, seed)
        if progress:
            for note in [*plan.notes(), *changes]:
                notify(note)
        shards, corrected = _shards(folder, plan, counts, descriptions, seed, corrections, str(labels))
        if progress:
            for note in corrected:
                notify(note)
        workers = workers or available_cpus()
        found = _pixel_range(folder, shards, workers, max_pixels, chosen)
        sides = shorter_sides(shards.items)
        if progress:
            for note in [*found.notes, *describe_scaling(sides, size)]:
                notify(note)
        _make(folder, shards, size, workers, progress, max_pixels, found.pixel_range)
        options["split"] = shards.split
        options |= {"duplicates": duplicates} if duplicates != KEEP else {}
        about = _finish(folder, shards, _name_of(source), options, max_bad, found, plan.samples, sides)
    dataset = PreparedDataset.open(folder)
    if progress:
        for note in about:
            notify(note)
        notify(_closing_line(dataset, time.monotonic() - started))
    return dataset


def parse_split(text: str) -> dict[str, float]:
    """Read the shares of splits from an argument such as "val=0.2,test=0.1".

    Raises
    ------
    UsageError
        When it has another form, or the shares are out of range.
    """
    try:
        shares = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(",") if part)}
    except ValueError:
        raise UsageError(f"--split {text!r} is not of the form val=0.2,test=0.1") from None
    _check_split(shares)
    return shares


def parse_folders(text: str) -> dict[str, list[str]]:
    """Read the folders of splits from an argument such as "train=seg_train,val=seg_test".

    A folder with a comma in its name is in quotation marks: train="cats, dogs".

    Raises
    ------
    UsageError
        When it has another form, or names no folder to train on.
    """
    folders: dict[str, list[str]] = {}
    for part in re.findall(r'(?:"[^"]*"|[^,])+', text):
        name, equals, folder = part.replace('"', "").partition("=")
        if not equals or not folder.strip():
            raise UsageError(f"--splits {text!r} is not of the form train=DIR,val=DIR")
        if name.strip() not in SPLITS:
            raise UsageError(f"--splits: split {name.strip()!r} does not exist: the splits are train, val and test")
        folders.setdefault(name.strip(), []).append(folder.strip())
    if "train" not in folders:
        raise UsageError(f"--splits {text!r} names no folder to train on: add train=DIR")
    return folders


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


def stratified_split(labels: np.ndarray, classes: list[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Draw a split for each image, per class.

    Every split gets its share of each class, rounded, and at least one image where there are enough, "train" first.
    The images drawn of a class depend on its name, its number of images and the seed, not on the other classes.

    Parameters
    ----------
    labels
        Labels, (n,) integers: positions in `classes`.
    classes
        Class names.
    shares
        Share of "val" and "test", 0 to 1.
    seed
        Seed.

    Returns
    -------
    numpy.ndarray
        Positions in `SPLITS`, (n,) int8.
    """
    splits = np.zeros(len(labels), dtype=np.int8)
    order = np.argsort(labels, kind="stable")
    members_of = np.split(order, np.searchsorted(labels[order], np.arange(1, len(classes))))
    for name, members in zip(classes, members_of, strict=True):
        drawn = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(members)
        start = 0
        for split, size in split_sizes(len(members), shares).items():
            splits[drawn[start : start + size]] = SPLITS.index(split)
            start += size
    return splits


def _check_options(size: int, split: Mapping[str, float] | None, max_bad: float, workers: int | None) -> None:
    if not 1 <= size <= 4096:
        raise UsageError(f"size is {size}; it must be 1 to 4096 pixels")
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max_bad is {max_bad}; it must be a share, 0 to 1")
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; it must be at least 1")
    if split is not None:
        _check_split(split)


def _check_split(shares: Mapping[str, float]) -> None:
    if unknown := [name for name in shares if name not in SPLITS]:
        raise UsageError(f"split {unknown[0]!r} does not exist: the splits are train, val and test")
    rest = 1 - sum(share for name, share in shares.items() if name != "train")
    if any(not 0 <= share < 1 for name, share in shares.items() if name != "train") or rest <= 0:
        raise UsageError("the shares of val and test must be 0 to 1 and leave something to train")
    if "train" in shares and abs(shares["train"] - rest) > 1e-6:
        raise UsageError(f"the shares of the splits add up to {1 - rest + shares['train']:g}, not to 1")


def _name_of(source: Any, absolute: bool = False) -> str:
    if not isinstance(source, str | os.PathLike):
        return "images from Python"
    name = source_name(source) if not absolute else os.fspath(source)
    return os.path.abspath(name) if absolute and not name.startswith("hf:") else name


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
                    _clean(folder)
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
    source: Any, folder: Path, shares: Mapping[str, float] | None, reading: Mapping[str, Any], seed: int
) -> tuple[SourcePlan, ItemCounts, dict[str, str], list[str]]:
    """List the images in the folder: the plan, the counts, the descriptions of the classes, and what has changed since.

    A path is listed again when the preparation continues, so that files added or removed meanwhile are noticed; an
    iterable can be read only once.
    """
    place = folder / WORK_FOLDER
    listed = place / _LIST_NAME
    if listed.exists() and not isinstance(source, str | os.PathLike):
        notes = _read_json(place / _NOTES_NAME) or {}
        found = Source([], notes.get("descriptions", {}), kind="Python")
        counts = ItemCounts.of(ItemList(listed))
        return make_plan(_name_of(source), found, counts, shares, seed), counts, found.descriptions, []
    found = interpret(source, place, output=folder, **{name: value for name, value in reading.items() if value})
    counts = ItemCounts()

    def counted() -> Iterator[Item]:
        for item in found.items:
            counts.add(item)
            yield item

    before = set(ItemList(listed).names()) if listed.exists() else None
    renewed = place / f"new-{_LIST_NAME}"
    ItemList.write(renewed, counted())
    plan = make_plan(_name_of(source), found, counts, shares, seed)
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


def _shards(
    folder: Path,
    plan: SourcePlan,
    counts: ItemCounts,
    descriptions: dict[str, str],
    seed: int,
    corrections: Sequence[Correction],
    corrections_name: str,
) -> tuple[_Shards, list[str]]:
    """The shards and notes about corrected labels; the split is drawn by the labels of the source."""
    items = ItemList(folder / WORK_FOLDER / _LIST_NAME)
    coded = items.labels.combine_chunks().dictionary_encode()
    label_of = {name: label for label, name in enumerate(plan.classes)}
    labels = np.array([label_of[name] for name in coded.dictionary.to_pylist()])[values(coded.indices, np.int32)]
    if items.splits.null_count:
        splits = np.zeros(len(items), dtype=np.int8)
    else:
        splits = values(pc.index_in(items.splits, texts(SPLITS)), np.int32).astype(np.int8)
    if plan.drawn:
        training = np.flatnonzero(splits == 0)
        if counts.has_groups:
            draw = draw_groups(counts, plan.drawn, seed)
            groups = items.groups.take(numbers(training, np.int64)).to_pylist()
            splits[training] = _grouped_split(labels[training], groups, plan.classes, draw, seed)
        else:
            splits[training] = stratified_split(labels[training], plan.classes, plan.drawn, seed)
    corrected = Corrected({}, [])
    if corrections:
        corrected = apply_corrections(corrections, items.names(), items.labels.to_pylist(), corrections_name)
        splits[[position for position, label in corrected.labels.items() if label is None]] = -1  # in no shard
    shards = {}
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(splits == code)
        for number, start in enumerate(range(0, len(members), SHARD_ROWS)):
            shards[f"{name}-{number:05}.arrow"] = members[start : start + SHARD_ROWS]
    flags = SampleFlags(counts.has_weights, counts.has_soft_labels, counts.has_groups)
    return _Shards(items, plan.classes, descriptions, shards, plan.drawn, flags, corrected.labels), corrected.notes


def _grouped_split(
    labels: np.ndarray, groups: list[str | None], classes: list[str], draw: GroupDraw, seed: int
) -> np.ndarray:
    """The split of each training image as positions in `SPLITS`, (n,) int8, from a draw of groups."""
    splits = np.array(
        [SPLITS.index(draw.split_of[group]) if group is not None else 0 for group in groups], dtype=np.int8
    )
    single = np.array([group is None for group in groups])
    for label, name in enumerate(classes):
        members = np.flatnonzero(single & (labels == label))
        drawn = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(members)
        start = 0
        for split, size in draw.singles.get(name, {}).items():
            splits[drawn[start : start + size]] = SPLITS.index(split)
            start += size
    return splits


def _pixel_range(folder: Path, plan: _Shards, workers: int, max_pixels: int, chosen: PixelRange | None) -> FoundRange:
    """The range of the images with more than 8 bits, with what was found: once for a list of images, and kept.

    A range that was chosen is used instead of one that was found.
    """
    place, listed = folder / WORK_FOLDER / _RANGE_NAME, (folder / WORK_FOLDER / _LIST_NAME).stat().st_mtime_ns
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
    plan: _Shards,
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
    shown = show_progress(total, "images", total - left) if progress else nullcontext()
    try:
        with shown as bar:
            make_shards(
                *(folder, plan.classes, size, jobs, min(workers, len(todo)), bar.advance if bar else _nothing),
                max_pixels=max_pixels,
                pixel_range=pixel_range,
                flags=plan.columns,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: run the same command again to continue") from None


def _is_complete(folder: Path, plan: _Shards, shard: str) -> bool:
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


def _finish(
    folder: Path,
    plan: _Shards,
    source: str,
    options: dict[str, Any],
    max_bad: float,
    found_range: FoundRange,
    samples: dict[str, Any],
    sides: np.ndarray,
) -> list[str]:
    """Write `dataset.json`; returns notes about images that are not whole or blank, and about duplicates."""
    size = options["size"]
    pixel_sums = np.zeros((size, size, 3), dtype=np.int64)
    products = np.zeros((3, 3), dtype=np.int64)
    splits: dict[str, Any] = {}
    unread: list[tuple[int, str]] = []
    remarked: list[tuple[int, str]] = []
    checksums: dict[str, list[int]] = {}
    for shard, members in plan.shards.items():
        result = read_result(folder, shard)
        assert result is not None
        unread += [(int(members[position]), reason) for position, reason in result.left_out]
        remarked += [(int(members[position]), reason) for position, reason in result.remarks]
        if not result.rows:
            (folder / shard).unlink()
            continue
        name = shard.rpartition("-")[0]
        entry = splits.setdefault(name, {"count": 0, "class_counts": [0] * len(plan.classes), "shards": []})
        checksums[shard] = result.checksums
        entry["count"] += result.rows
        entry["class_counts"] = [a + b for a, b in zip(entry["class_counts"], result.class_counts, strict=True)]
        entry["shards"].append({"file": shard, "rows": result.rows, "sha256": result.sha256})
        if name == "train":
            pixel_sums += read_pixel_sum(folder, shard)
            products += np.array(result.rgb_products)
    policy = options.get("duplicates", KEEP)
    thumbnails = read_thumbnails(folder, {shard: len(sums) for shard, sums in checksums.items()})
    duplicates = find_duplicates(folder, checksums, thumbnails, size, plan.classes)
    if policy == ERROR:
        refuse(duplicates)
    dropped = copies_to_drop(duplicates) if policy == DROP else []
    unread.sort()
    remarks = _remarks(plan, remarked)
    items = plan.take(np.array([position for position, _ in unread], dtype=np.int64))
    left_out = [{"path": item.name, "reason": reason} for item, (_, reason) in zip(items, unread, strict=True)]
    _check_left_out(folder, left_out, len(plan.items), max_bad)
    if "train" not in splits:
        raise AlexNetError(f"{source}: no image to train on can be read")
    _check_taught(plan.classes, splits["train"]["class_counts"], [item.label for item in items], left_out)
    if dropped:
        sums = _leave_out(folder, splits["train"], dropped, size, plan.classes)
        pixel_sums, products = pixel_sums - sums[0], products - sums[1]

    found = statistics(pixel_sums, products, splits["train"]["count"])
    array = io.BytesIO()
    np.save(array, found.mean_image)
    write_atomic(folder / MEAN_NAME, array.getvalue())
    index = {
        "format_version": FORMAT_VERSION,
        "classes": plan.classes,
        "descriptions": [plan.descriptions.get(name, name) for name in plan.classes] if plan.descriptions else None,
        "size": size,
        "splits": splits,
        "mean_image": MEAN_NAME,
        "mean_image_sha256": sha256_of(folder / MEAN_NAME),
        "mean_rgb": found.mean_rgb.tolist(),
        "pca": {"eigenvalues": found.eigenvalues.tolist(), "eigenvectors": found.eigenvectors.tolist()},
        "left_out": left_out,
        **to_index(duplicates, dropped),
        "source": source,
        "options": options,
        "pixel_range": found_range.pixel_range.to_dict() if found_range.pixel_range else None,
        **({"source_side": int(np.median(sides))} if len(sides) else {}),
        "remarks": [*found_range.remarks, *remarks],
        **({"samples": samples} if samples else {}),
    }
    write_atomic(folder / INDEX_NAME, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    _clean(folder)
    total = sum(entry["count"] for entry in splits.values())
    return [*_remark_notes(remarks, total), *notes(duplicates, dropped, policy)]


def _leave_out(
    folder: Path, train: dict[str, Any], dropped: Sequence[Dropped], size: int, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Take images out of the entry of the training split, whose shards come first.

    The shards stay as they are: the split gets a list of its rows. Returns what the sums of the pixels and of the
    products of the channels lose.
    """
    out = np.array([one.position for one in dropped], dtype=np.int64)
    starts = np.cumsum([0, *(shard["rows"] for shard in train["shards"])])
    pixel_sums, products = np.zeros((size, size, 3), dtype=np.int64), np.zeros((3, 3), dtype=np.int64)
    counts = np.array(train["class_counts"])
    for shard, start, end in zip(train["shards"], starts, starts[1:], strict=False):
        rows = out[(out >= start) & (out < end)] - start
        if len(rows):
            batch = read_shard(folder / shard["file"])
            images = images_of(batch, size)[rows]
            pixel_sums += images.sum(axis=0, dtype=np.int64)
            products += rgb_products(images)
            counts -= np.bincount(values(batch.column("label"), np.int32)[rows], minlength=len(classes))
    if (counts == 0).any():
        raise AlexNetError(
            f"every training image of class {classes[int(np.argmin(counts))]!r} is a copy of a validation or test "
            "image: divide the images anew, or use --duplicates keep"
        )
    array = io.BytesIO()
    np.save(array, np.setdiff1d(np.arange(starts[-1]), out))
    write_atomic(folder / ROWS_NAME, array.getvalue())
    train |= {"count": int(starts[-1]) - len(out), "class_counts": counts.tolist()}
    train |= {"rows": ROWS_NAME, "rows_sha256": sha256_of(folder / ROWS_NAME)}
    return pixel_sums, products


def _check_taught(classes: list[str], training: list[int], labels: list[str], left_out: list[dict[str, str]]) -> None:
    """Raise AlexNetError when no training image of a class could be read."""
    untaught = [name for name, images in zip(classes, training, strict=True) if not images]
    if untaught:
        unread = [entry for entry, label in zip(left_out, labels, strict=True) if label == untaught[0]]
        example = f", such as {unread[0]['path']}: {unread[0]['reason']}" if unread else ""
        raise AlexNetError(
            f"{count(len(untaught), 'class')} without a training image that can be read ({first_names(untaught)})"
            f"{example}; convert or replace these files, or remove the class, and run the same command again"
        )


def _check_left_out(folder: Path, left_out: list[dict[str, str]], total: int, max_bad: float) -> None:
    if len(left_out) <= max_bad * total:
        return
    (folder / WORK_FOLDER / _LIST_NAME).unlink()  # an iterable is read again too
    lines = [f"  {entry['path']}: {entry['reason']}" for entry in left_out]
    if len(lines) > _LISTED:
        place = folder / WORK_FOLDER / _LEFT_OUT_NAME
        write_atomic(place, ("\n".join(lines) + "\n").encode())
        lines[_LISTED:] = [f"  … and {len(lines) - _LISTED:,} more, all in {place}"]
    raise AlexNetError(
        f"{len(left_out):,} of {count(total, 'image')} cannot be read, more than the {max_bad * 100:.3g}% that "
        "--max-bad allows; replace or remove them, or allow more, and run the same command again to continue:\n"
        + "\n".join(lines)
    )


def _clean(folder: Path) -> None:
    """Remove the files of a preparation that are not part of the dataset."""
    (folder / PLAN_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _remarks(plan: _Shards, remarked: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """The remarks of positions in the list and reasons, as `dataset.json` has them."""
    remarked = sorted(remarked)
    items = plan.take(np.array([position for position, _ in remarked], dtype=np.int64))
    return to_remarks((reason, item.name) for (_, reason), item in zip(remarked, items, strict=True))


def _remark_notes(remarks: Sequence[Mapping[str, Any]], total: int) -> list[str]:
    """The remarks for people, a line each."""
    return [
        f"{one['count']:,} of {count(total, 'image')} {'has' if one['count'] == 1 else 'have'} {one['reason']}, such "
        f"as {printable(one['images'][0]['path'])}"
        for one in remarks
    ]


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


def _nothing(_: int) -> None:
    pass
