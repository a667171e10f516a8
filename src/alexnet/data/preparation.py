"""A source of images → a prepared dataset (paper, section 2), on all cores; interrupted, it goes on where it was.

While it is at work, the folder has `prepare.json`, which says from what and how it is made, and `.prepare/`, with the
list of the images and, for every shard that stands, what is known of it. List, split and shards are determined by
source and options alone, so that the finished dataset is the same to the byte however often it was interrupted and
however many workers made it. `dataset.json` is written last.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import time
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from alexnet.data.columns import texts, values
from alexnet.data.dataset import (
    FORMAT_VERSION,
    INDEX_NAME,
    MEAN_NAME,
    PLAN_NAME,
    SHARD_ROWS,
    PreparedDataset,
    sha256_of,
)
from alexnet.data.decoding import MAX_PIXELS
from alexnet.data.pixel_range import PixelRange, chosen_range
from alexnet.data.range_survey import survey
from alexnet.data.shards import (
    WORK_FOLDER,
    Job,
    Result,
    digest,
    forget_result,
    make_shards,
    read_pixel_sum,
    read_result,
)
from alexnet.data.sources.items import ItemList
from alexnet.data.sources.opening import open_source
from alexnet.data.statistics import statistics
from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import Progress, format_duration
from alexnet.runtime.progress import progress as show_progress

SPLITS = ("train", "val", "test")
DEFAULT_SPLIT = {"val": 0.2}
"""What a source without splits is divided into; the rest is for training."""

_LIST_NAME = "items.arrow"
_NOTES_NAME = "notes.json"
_RANGE_NAME = "pixel_range.json"
_LEFT_OUT_NAME = "left_out.txt"
_LISTED = 20  # unreadable files that an error lists; the others stand in a file


class _Plan(NamedTuple):
    """What is to be made: the images, their classes, and which images each shard holds."""

    items: ItemList
    classes: list[str]
    descriptions: dict[str, str]
    shards: dict[str, np.ndarray]
    split: dict[str, float] | None


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
    progress: bool = True,
) -> PreparedDataset:
    """Prepare the images of `source` in the folder `data`: shorter side to `size` pixels, center cut, RGB.

    source: a path or "hf:NAME" (a folder with one folder a class, a zip or tar of it, ImageNet's tar files, a CSV,
    parquet or Arrow files), or an iterable of (image, label) or (image, label, split), image being a path, the
    bytes of a file, an array or a PIL image. split: share of the images for "val" and "test", drawn class by class
    with `seed`; by default the splits of the source, and where it has none 0.2 for "val". max_bad: share of the
    images that may be unreadable. workers: processes, by default one a core. black, white: values of images with more
    than 8 bits that become black and white; by default found for all of them together and stored. max_pixels: limit
    of the pixels of an image. progress: say on stderr how far it is.

    Interrupted, it goes on when called again with the same source and options. Raises AlexNetError when the source or
    the folder is not right, a disk is full, or too many images can't be read; UsageError when an option is not.
    """
    _check_options(size, split, max_bad, workers)
    started = time.monotonic()
    folder = Path(data)
    chosen = chosen_range(black, white)
    options = {"size": size, "split": dict(split) if split is not None else None, "seed": seed}
    if chosen is not None:
        options["pixel_range"] = chosen.to_dict()
    if max_pixels != MAX_PIXELS:
        options["max_pixels"] = max_pixels
    with _claimed(folder, _name_of(source, absolute=True), options):
        notes = _list_images(source, folder)
        plan = _plan(folder, split, seed)
        workers = workers or available_cpus()
        found, range_notes = _pixel_range(folder, plan, workers, max_pixels, chosen)
        if progress:
            for note in (*notes, *range_notes):
                Progress(None, "", 0).note(note)
        _make(folder, plan, size, workers, progress, max_pixels, found)
        _finish(folder, plan, _name_of(source), {**options, "split": plan.split}, max_bad, found)
    dataset = PreparedDataset.open(folder)
    if progress:
        Progress(None, "", 0).note(_closing_line(dataset, time.monotonic() - started))
    return dataset


def parse_split(text: str) -> dict[str, float]:
    """Read the shares of splits from words like "val=0.2,test=0.1". Raises UsageError."""
    try:
        shares = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(",") if part)}
    except ValueError:
        raise UsageError(f"split {text!r} is not of the form val=0.2,test=0.1") from None
    _check_split(shares)
    return shares


def parse_share(text: str) -> float:
    """Read a share such as "0.01" or "1%". Raises UsageError."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a share such as 0.01 or 1%") from None


def stratified_split(labels: np.ndarray, classes: list[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Draw a split for each of `labels` (n,), class by class: positions in SPLITS, (n,) int8.

    Every split gets its share of each class, rounded, and at least one image where there are enough, "train" first.
    What is drawn for a class depends on its name, its images and the seed, not on the other classes.
    """
    splits = np.zeros(len(labels), dtype=np.int8)
    order = np.argsort(labels, kind="stable")
    members_of = np.split(order, np.searchsorted(labels[order], np.arange(1, len(classes))))
    for name, members in zip(classes, members_of, strict=True):
        drawn = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(members)
        start = 0
        for split in SPLITS[1:]:
            share = shares.get(split, 0.0)
            if share > 0 and (room := len(members) - 1 - start) > 0:
                later = sum(shares.get(other, 0.0) > 0 for other in SPLITS[SPLITS.index(split) + 1 :])
                count = max(min(math.floor(share * len(members) + 0.5), room - later), 1)
                splits[drawn[start : start + count]] = SPLITS.index(split)
                start += count
    return splits


# What is to be done


def _check_options(size: int, split: Mapping[str, float] | None, max_bad: float, workers: int | None) -> None:
    if not 1 <= size <= 4096:
        raise UsageError(f"size is {size}; it must be 1 to 4096 pixels")
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max bad is {max_bad}; it must be a share, 0 to 1")
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
    name = os.fspath(source)
    return os.path.abspath(name) if absolute and not name.startswith("hf:") else name


@contextmanager
def _claimed(folder: Path, source: str, options: dict[str, Any]) -> Iterator[None]:
    """Make the folder, or take one up that was left unfinished; give it back as it was when nothing was made in it."""
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
            f"{folder} is half made from something else ({', '.join(differing)}): "
            "run that command again to finish it, remove the folder, or name another"
        )
    if begun is None and folder.exists() and any(not _is_ours(path) for path in folder.iterdir()):
        raise AlexNetError(f"{folder} exists and has other files in it: name a folder that does not")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        (folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / WORK_FOLDER / "lock", timeout=0):
            for path in [*folder.glob(".*.tmp"), *(folder / WORK_FOLDER).glob(".*.tmp")]:
                path.unlink(missing_ok=True)
            write_atomic(folder / PLAN_NAME, (json.dumps(plan, indent=1, ensure_ascii=False) + "\n").encode())
            try:
                yield
            except BaseException:
                if not any(folder.glob("*.arrow")):  # nothing was made yet
                    _clean(folder)
                    with suppress(OSError):
                        for path in missing:
                            path.rmdir()
                raise
    except Timeout:
        raise AlexNetError(f"another alexnet prepares {folder} just now") from None
    except OSError as error:
        raise AlexNetError(f"{folder} can't be written: {error.strerror or error}") from error


def _list_images(source: Any, folder: Path) -> list[str]:
    """List the images in the folder, unless they were listed before; returns what is to be said about the source."""
    place = folder / WORK_FOLDER
    if not (place / _LIST_NAME).exists():
        found = open_source(source, place)
        _check_classes(sorted({item.label for item in found.items}), _name_of(source))
        notes = {"notes": found.notes, "descriptions": found.descriptions}
        write_atomic(place / _NOTES_NAME, json.dumps(notes).encode())
        ItemList.write(place / _LIST_NAME, found.items)
    return (_read_json(place / _NOTES_NAME) or {}).get("notes", [])


def _check_classes(classes: list[str], source: str) -> None:
    if len(classes) == 1:
        raise AlexNetError(f"only one class in {source}, {classes[0]!r}: a classifier needs at least two")
    seen: dict[str, str] = {}
    for name in classes:
        plain = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if plain in seen:
            raise AlexNetError(
                f"two classes of {source} have one name, {seen[plain]!r} and {name!r}: rename one, or make them one"
            )
        seen[plain] = name


def _plan(folder: Path, shares: Mapping[str, float] | None, seed: int) -> _Plan:
    items = ItemList(folder / WORK_FOLDER / _LIST_NAME)
    coded = items.labels.combine_chunks().dictionary_encode()
    found = coded.dictionary.to_pylist()
    classes = sorted(found)
    labels = np.array([classes.index(name) for name in found])[values(coded.indices, np.int32)]
    splits, shares = _splits(items, labels, classes, shares, seed)
    shards = {}
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(splits == code)
        for number, start in enumerate(range(0, len(members), SHARD_ROWS)):
            shards[f"{name}-{number:05}.arrow"] = members[start : start + SHARD_ROWS]
    untaught = set(labels[splits != 0].tolist()) - set(labels[splits == 0].tolist())
    if untaught:
        names = ", ".join(repr(classes[label]) for label in sorted(untaught)[:5])
        raise AlexNetError(
            f"{len(untaught)} classes have no image to train on ({names}): add some, or remove the class"
        )
    descriptions = (_read_json(folder / WORK_FOLDER / _NOTES_NAME) or {}).get("descriptions", {})
    return _Plan(items, classes, descriptions, shards, shares)


def _splits(
    items: ItemList, labels: np.ndarray, classes: list[str], shares: Mapping[str, float] | None, seed: int
) -> tuple[np.ndarray, dict[str, float] | None]:
    """Position in SPLITS of every item, and the shares that were drawn; None where the source had all splits itself."""
    if items.splits.null_count == len(items):
        shares = dict(DEFAULT_SPLIT if shares is None else shares)
        return stratified_split(labels, classes, shares, seed), shares
    if items.splits.null_count:
        raise AlexNetError(f"{items.splits.null_count:,} images of the source have no split, the others have one")
    splits = values(pc.index_in(items.splits, texts(SPLITS)), np.int32).astype(np.int8)
    if shares is None:
        return splits, None
    present = {SPLITS[code] for code in np.unique(splits)}
    if taken := [name for name in SPLITS[1:] if shares.get(name) and name in present]:
        raise UsageError(f"the source has a split {taken[0]!r} of its own: leave {taken[0]} out of the split")
    training = np.flatnonzero(splits == 0)
    splits[training] = stratified_split(labels[training], classes, shares, seed)
    return splits, dict(shares)


# Doing it


def _pixel_range(
    folder: Path, plan: _Plan, workers: int, max_pixels: int, chosen: PixelRange | None
) -> tuple[PixelRange | None, list[str]]:
    """The range of the images with more than 8 bits and the notes about it: found once for a list of images, and kept.

    A range that was chosen is used instead of one that was found.
    """
    place, listed = folder / WORK_FOLDER / _RANGE_NAME, (folder / WORK_FOLDER / _LIST_NAME).stat().st_mtime_ns
    known = _read_json(place)
    if known is None or known["listed"] != listed:
        found, notes = (chosen, []) if chosen is not None else survey(plan.items, workers, max_pixels)
        new: dict[str, Any] = {"listed": listed, "pixel_range": found.to_dict() if found else None, "notes": notes}
        if known is not None and known["pixel_range"] != new["pixel_range"]:
            for shard in plan.shards:  # made with another range
                if read_result(folder, shard) is not None:
                    forget_result(folder, shard)
        write_atomic(place, json.dumps(new).encode())
        known = new
    return PixelRange.from_dict(known["pixel_range"]), known["notes"]


def _make(
    folder: Path,
    plan: _Plan,
    size: int,
    workers: int,
    progress: bool,
    max_pixels: int,
    pixel_range: PixelRange | None,
) -> None:
    todo = [shard for shard in plan.shards if not _stands(folder, plan, shard)]
    total = len(plan.items)
    left = sum(len(plan.shards[shard]) for shard in todo)
    _check_space(folder, left, size)
    jobs = (Job(shard, plan.items.take(plan.shards[shard])) for shard in todo)
    if not todo:
        return
    shown = show_progress(total, "images", total - left) if progress else nullcontext()
    try:
        with shown as bar:
            make_shards(
                *(folder, plan.classes, size, jobs, min(workers, len(todo)), bar.advance if bar else _nothing),
                max_pixels=max_pixels,
                pixel_range=pixel_range,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: run the same command again, it goes on where it was") from None


def _stands(folder: Path, plan: _Plan, shard: str) -> bool:
    """Whether a shard was made of the same items, and none of the files that it misses was mended since."""
    result = read_result(folder, shard)
    if result is None or not (folder / shard).is_file():
        return False
    items = plan.items.take(plan.shards[shard])
    made = (folder / shard).stat().st_mtime
    missed = [items[position] for position, _ in result.left_out] if result.items == digest(items) else None
    if missed is None or any(item.length < 0 and _changed_since(item.file, made) for item in missed):
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
            f"the disk of {folder} is too full: {needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB free"
        )


def _finish(
    folder: Path,
    plan: _Plan,
    source: str,
    options: dict[str, Any],
    max_bad: float,
    pixel_range: PixelRange | None,
) -> None:
    size = options["size"]
    pixel_sums = np.zeros((size, size, 3), dtype=np.int64)
    products = np.zeros((3, 3), dtype=np.int64)
    splits: dict[str, Any] = {}
    left_out: list[dict[str, str]] = []
    for shard, members in plan.shards.items():
        result = read_result(folder, shard)
        assert result is not None
        left_out += _left_out(plan, members, result)
        if not result.rows:
            (folder / shard).unlink()
            continue
        name = shard.rpartition("-")[0]
        entry = splits.setdefault(name, {"count": 0, "class_counts": [0] * len(plan.classes), "shards": []})
        entry["count"] += result.rows
        entry["class_counts"] = [a + b for a, b in zip(entry["class_counts"], result.class_counts, strict=True)]
        entry["shards"].append({"file": shard, "rows": result.rows, "sha256": result.sha256})
        if name == "train":
            pixel_sums += read_pixel_sum(folder, shard)
            products += np.array(result.rgb_products)
    _check_left_out(folder, left_out, len(plan.items), max_bad)
    if "train" not in splits:
        raise AlexNetError(f"{source}: no image to train on can be read")

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
        "source": source,
        "options": options,
        "pixel_range": pixel_range.to_dict() if pixel_range else None,
    }
    write_atomic(folder / INDEX_NAME, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    _clean(folder)


def _left_out(plan: _Plan, members: np.ndarray, result: Result) -> list[dict[str, str]]:
    items = plan.items.take(members[[position for position, _ in result.left_out]])
    return [{"path": item.name, "reason": reason} for item, (_, reason) in zip(items, result.left_out, strict=True)]


def _check_left_out(folder: Path, left_out: list[dict[str, str]], total: int, max_bad: float) -> None:
    if len(left_out) <= max_bad * total:
        return
    (folder / WORK_FOLDER / _LIST_NAME).unlink()  # bad files may be removed before it goes on: list the source anew
    lines = [f"  {entry['path']}: {entry['reason']}" for entry in left_out]
    if len(lines) > _LISTED:
        place = folder / WORK_FOLDER / _LEFT_OUT_NAME
        write_atomic(place, ("\n".join(lines) + "\n").encode())
        lines[_LISTED:] = [f"  … and {len(lines) - _LISTED:,} more, all in {place}"]
    raise AlexNetError(
        f"{len(left_out):,} of {total:,} images can't be read, more than the {max_bad:.3g} that --max-bad allows; "
        "mend or remove them, or allow more, and run the same command again, it goes on where it was:\n"
        + "\n".join(lines)
    )


def _clean(folder: Path) -> None:
    """Remove what a preparation has for itself."""
    (folder / PLAN_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _closing_line(dataset: PreparedDataset, seconds: float) -> str:
    counts = dataset.counts
    splits = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    images = f"{sum(counts.values()):,} images of {len(dataset.classes):,} classes"
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
