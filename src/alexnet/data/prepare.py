"""A source of pictures → a prepared dataset (paper, section 2), on all cores; interrupted, it goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import (
    FORMAT_VERSION,
    INDEX_NAME,
    MEAN_NAME,
    PLAN_NAME,
    SHARD_ROWS,
    PreparedDataset,
    sha256_of,
    write_whole,
)
from alexnet.data.shards import WORK_FOLDER, make_shards, result_path, sums_path
from alexnet.data.sources import Source, open_source
from alexnet.errors import AlexNetError, UsageError

SPLITS = ("train", "val", "test")
DEFAULT_SPLIT = {"val": 0.2}


def prepare(
    source: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    size: int = 256,
    split: Mapping[str, float] | None = None,
    seed: int = 0,
    max_bad: float = 0.01,
    workers: int | None = None,
    progress: bool = True,
) -> PreparedDataset:
    """Prepare the pictures of `source` in the folder `data`."""
    folder = Path(data)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / INDEX_NAME).exists():
        raise AlexNetError(f"{folder} is a prepared dataset already: use it, or name another folder")
    (folder / WORK_FOLDER).mkdir(exist_ok=True)
    pictures = open_source(source)
    options = {"size": size, "split": dict(split) if split is not None else None, "seed": seed}
    write_whole(folder / PLAN_NAME, json.dumps({"source": pictures.name, "options": options}).encode())
    classes = sorted({item.label for item in pictures.items})
    shards = _plan(pictures, classes, split, seed)
    todo = [shard for shard in shards if not result_path(folder, shard).exists()]
    setup = {"folder": str(folder), "classes": classes, "size": size}
    jobs = ({"shard": shard, "items": [pictures.items[i] for i in shards[shard].tolist()]} for shard in todo)
    with _progress(progress, sum(map(len, shards.values()))) as advance:
        advance(sum(len(shards[shard]) for shard in shards if shard not in todo))
        make_shards(setup, jobs, min(workers or _cores(), max(len(todo), 1)), advance)
    _finish(folder, pictures.name, classes, size, options, list(shards), max_bad)
    return PreparedDataset.open(folder)


def _plan(
    pictures: Source, classes: list[str], fractions: Mapping[str, float] | None, seed: int
) -> dict[str, np.ndarray]:
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[item.label] for item in pictures.items])
    given = [item.split for item in pictures.items]
    if all(name is None for name in given):
        splits = stratified_split(labels, DEFAULT_SPLIT if fractions is None else fractions, seed)
    else:
        splits = np.array([SPLITS.index(name or "train") for name in given])
    shards = {}
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(splits == code)
        for number, start in enumerate(range(0, len(members), SHARD_ROWS)):
            shards[f"{name}-{number:05}.arrow"] = members[start : start + SHARD_ROWS]
    return shards


def stratified_split(labels: np.ndarray, fractions: Mapping[str, float], seed: int) -> np.ndarray:
    """Draw a split for each of `labels` (n,), class by class. Returns positions in SPLITS, (n,) int8."""
    splits = np.zeros(len(labels), dtype=np.int8)
    for label in np.unique(labels):
        members = np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(labels == label))
        start = 0
        for name, fraction in fractions.items():
            count = min(max(round(fraction * len(members)), 1), len(members) - start - 1)
            splits[members[start : start + count]] = SPLITS.index(name)
            start += count
    return splits


def parse_split(text: str) -> dict[str, float]:
    """Read "val=0.2,test=0.1". Raises UsageError."""
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UsageError(f"--split {text!r} is not of the form val=0.2,test=0.1") from None


def _finish(
    folder: Path, source: str, classes: list[str], size: int, options: dict[str, Any], shards: list[str], max_bad: float
) -> None:
    results = {shard: json.loads(result_path(folder, shard).read_bytes()) for shard in shards}
    left_out = [entry for result in results.values() for entry in result["left_out"]]
    total = sum(result["rows"] for result in results.values()) + len(left_out)
    if len(left_out) > max_bad * total:
        listed = "\n".join(f"  {entry['path']}: {entry['reason']}" for entry in left_out)
        raise AlexNetError(
            f"{len(left_out)} of {total} pictures can't be read, more than --max-bad {max_bad}:\n{listed}"
        )
    pixel_sum = np.zeros((size, size, 3), dtype=np.int64)
    products = np.zeros((3, 3), dtype=np.int64)
    count = 0
    splits: dict[str, Any] = {}
    for shard, result in results.items():
        name = shard.rsplit("-", 1)[0]
        entry = splits.setdefault(name, {"count": 0, "class_counts": [0] * len(classes), "shards": []})
        if name == "train":
            pixel_sum += np.load(sums_path(folder, shard))
            products += np.array(result["rgb_products"])
            count += result["rows"]
        entry["count"] += result["rows"]
        entry["class_counts"] = [a + b for a, b in zip(entry["class_counts"], result["class_counts"], strict=True)]
        entry["shards"].append({"file": shard, "rows": result["rows"], "sha256": result["sha256"]})
    np.save(folder / MEAN_NAME, (pixel_sum / count).astype(np.float32))
    mean_rgb, eigenvalues, eigenvectors = _rgb_statistics(pixel_sum, products, count)
    index = {
        "format_version": FORMAT_VERSION,
        "classes": classes,
        "size": size,
        "splits": splits,
        "mean_image": MEAN_NAME,
        "mean_image_sha256": sha256_of(folder / MEAN_NAME),
        "mean_rgb": mean_rgb.tolist(),
        "pca": {"eigenvalues": eigenvalues.tolist(), "eigenvectors": eigenvectors.tolist()},
        "left_out": left_out,
        "source": source,
        "options": options,
    }
    write_whole(folder / INDEX_NAME, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    (folder / PLAN_NAME).unlink()
    shutil.rmtree(folder / WORK_FOLDER)


def _rgb_statistics(
    pixel_sum: np.ndarray, products: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels = count * pixel_sum.shape[0] * pixel_sum.shape[1]
    sums = [int(value) for value in pixel_sum.sum(axis=(0, 1))]
    covariance = np.array(
        [[(pixels * int(products[i, j]) - sums[i] * sums[j]) / pixels**2 for j in range(3)] for i in range(3)]
    )
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1]
    largest = np.abs(eigenvectors).argmax(axis=0)
    signs = np.sign(eigenvectors[largest, range(3)])
    return np.array([value / pixels for value in sums]), eigenvalues, eigenvectors * signs


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(shown: bool, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("preparing", total=total)
        yield lambda n: bar.advance(task, n)
