"""The end of a preparation: checks of what was read, statistics of the training images, and `dataset.json`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.columns import values
from alexnet.data.dataset import (
    FORMAT_VERSION,
    PLAN_NAME,
    images_of,
    read_shard,
    write_index,
    write_statistics,
)
from alexnet.data.duplicates import DROP, ERROR, KEEP, Dropped, copies_to_drop, find_duplicates, notes, refuse, to_index
from alexnet.data.pixel_range import FoundRange
from alexnet.data.remarks import to_remarks
from alexnet.data.shard_plan import LIST_NAME, ShardPlan
from alexnet.data.shards import WORK_FOLDER, read_pixel_sum, read_result, read_thumbnails
from alexnet.data.sources.names import first_names
from alexnet.data.sources.plan import count, printable
from alexnet.data.statistics import statistics
from alexnet.kernels.rgb_products import rgb_products
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import sha256_of, write_array, write_atomic

ROWS_NAME = "train.npy"  # rows of the training split, where duplicates were dropped
_LEFT_OUT_NAME = "left_out.txt"
_LISTED = 20  # unreadable files that an error lists; the others are written to a file


def complete(
    folder: Path,
    plan: ShardPlan,
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

    index = {
        "format_version": FORMAT_VERSION,
        "classes": plan.classes,
        "descriptions": [plan.descriptions.get(name, name) for name in plan.classes] if plan.descriptions else None,
        "size": size,
        "splits": splits,
        **write_statistics(folder, statistics(pixel_sums, products, splits["train"]["count"])),
        "left_out": left_out,
        **to_index(duplicates, dropped),
        "source": source,
        "options": options,
        "pixel_range": found_range.pixel_range.to_dict() if found_range.pixel_range else None,
        **({"source_side": int(np.median(sides))} if len(sides) else {}),
        "remarks": [*found_range.remarks, *remarks],
        **({"samples": samples} if samples else {}),
    }
    write_index(folder, index)
    remove_work_files(folder)
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
    write_array(folder / ROWS_NAME, np.setdiff1d(np.arange(starts[-1]), out))
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
    (folder / WORK_FOLDER / LIST_NAME).unlink()  # an iterable is read again too
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


def remove_work_files(folder: Path) -> None:
    """Remove the files of a preparation that are not part of the dataset."""
    (folder / PLAN_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _remarks(plan: ShardPlan, remarked: list[tuple[int, str]]) -> list[dict[str, Any]]:
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
