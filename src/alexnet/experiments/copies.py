"""Copies of images: how many are found as near duplicates, which other pairs are named, and what the search costs."""

from __future__ import annotations

import io
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from alexnet.data.dataset import PreparedDataset
from alexnet.data.near_duplicates import SIDE, find_near_duplicates, thumbnails
from alexnet.data.preparation import prepare
from alexnet.experiments import solar_cells
from alexnet.experiments.catalog import SOLAR, named_sources
from alexnet.experiments.trials import is_selected, measure_once, summarize
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import provenance, read_result, write_result

COPIES = 80
"""Images of a set that are copied, for each kind of copy and seed."""
COUNTS = (10_000, 100_000, 1_000_000)
"""Numbers of synthetic images with which the growth of the search is measured."""
COPIED = 100
"""One of this number of synthetic images has a copy, with noise of two gray levels."""
GRAIN = 12
"""Side of the noise, in pixels, of which a synthetic image is interpolated."""


def _compressed(image: Image.Image, quality: int = 30) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def _rescaled(image: Image.Image, share: float) -> Image.Image:
    side = round(image.width * share)
    return image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Without a share of the width, of which two thirds on the left, and of the height."""
    side, cut = image.width, image.width * share
    box = (cut * 2 / 3, cut / 3, side - cut / 3, side - cut * 2 / 3)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def _brightened(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 30": _compressed,
    "scaled to a third": partial(_rescaled, share=1 / 3),
    "25% brighter": partial(_brightened, factor=1.25),
    "30% darker": partial(_brightened, factor=0.7),
    "cropped by 3%": partial(_cropped, share=0.03),
    "cropped by 6%": partial(_cropped, share=0.06),
    "cropped by 3%, 15% brighter, JPEG": lambda image: _compressed(_brightened(_cropped(image, 0.03), 1.15), 50),
}
"""Kinds of copies."""


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
) -> str:
    """Copy images of the solar cells and of the sets in `data` in several ways, and search for near duplicates.

    `only` leaves out one of the parts "sets" and "growth" (synthetic images, up to a million); an earlier result of
    that part is kept. Returns a summary of a line per set.
    """
    earlier = read_result(results)
    table, rows = earlier.get("table", []), earlier.get("growth", [])
    if is_selected("sets", only):
        sources: dict[str, Any] = {SOLAR: partial(solar_cells.write_source, work / "cells.csv")}
        sources |= named_sources(data)
        table = [
            measure_once(work / f"{name}.json", partial(_measure, name, source, seeds))
            for name, source in sources.items()
        ]
    if is_selected("growth", only):
        rows = [measure_once(work / f"growth-{count}.json", partial(growth, count)) for count in COUNTS]
    report = {
        "description": f"{COPIES} images of a set copied in one way and added to it: the share of the copies that are "
        "paired with their original; `named`: pairs found in the set itself, in all and in two splits or "
        "under two classes; seconds of the search, with the thumbnails, as a share of the preparation with one worker; "
        f"`growth`: the search alone on thumbnails of synthetic images, of which one in {COPIED} has a copy: seconds "
        "of CPU time, and the peak of the memory that it allocates, without the thumbnails",
        "table": table,
        "growth": rows,
        **provenance(command),
    }
    write_result(results, report)
    return "\n".join(
        f"{row['set']}: {row['found']['JPEG, quality 30']['mean']:.0%} of compressed and "
        f"{row['found']['cropped by 3%']['mean']:.0%} of cropped copies found; {row['named_across']:,} pairs in two "
        f"splits or under two classes; {row['share_of_preparation']:.1%} of the preparation"
        for row in table
    )


def _measure(name: str, source: Any, seeds: Sequence[int]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        listed = source() if callable(source) else source
        start = time.perf_counter()
        dataset = prepare(listed, Path(folder) / "data", workers=1)
        seconds = time.perf_counter() - start
        images, kind = _images(dataset)
        return {"set": name, **measure(images, kind, seconds, seeds)}


def growth(count: int) -> dict[str, Any]:
    """Search among thumbnails of `count` synthetic images, of which some are copies."""
    notify(f"near duplicates among {count:,} synthetic images")
    rng = np.random.default_rng(0)
    small = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    pixels = np.eye(GRAIN, dtype=np.float32)
    lines = np.stack(
        [np.asarray(Image.fromarray(row[None]).resize((SIDE, 1), Image.Resampling.BICUBIC))[0] for row in pixels]
    )
    for image in small:
        noise = rng.standard_normal((GRAIN, GRAIN), dtype=np.float32)
        image[:] = (128 + 48 * lines.T @ noise @ lines).clip(0, 255)
    copies = count // COPIED
    originals = small[:copies].astype(np.float32)
    small[-copies:] = (originals + rng.normal(0, 2, originals.shape)).clip(0, 255)
    tracemalloc.start()
    start = time.process_time()
    found = find_near_duplicates(small, np.arange(count))
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    true = sum(other - one == count - copies for one, other, _ in found)
    return {
        "images": count,
        "cpu_seconds": seconds,
        "microseconds_per_image": seconds / count * 1e6,
        "peak_bytes_per_image": peak / count,
        "copies": copies,
        "found": true,
        "others": len(found) - true,
    }


def _images(dataset: PreparedDataset) -> tuple[np.ndarray, np.ndarray]:
    """The images of all splits, and a number for each combination of split and class."""
    splits = [dataset.split(name) for name in dataset.splits]
    images = np.concatenate([split.gather(np.arange(len(split))) for split in splits])
    kinds = [number * len(dataset.classes) + split.labels for number, split in enumerate(splits)]
    return images, np.concatenate(kinds)


def measure(images: np.ndarray, kind: np.ndarray, seconds: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Measure the search on images (n, size, size, 3) of kinds (n,), whose preparation took `seconds`."""
    count = len(images)
    start = time.perf_counter()
    small = thumbnails(images)
    find_near_duplicates(small, kind)
    search = time.perf_counter() - start
    named = find_near_duplicates(small, np.arange(count))
    found: dict[str, list[float]] = {}
    for seed in seeds:
        chosen = np.random.default_rng(seed).choice(count, min(COPIES, count), replace=False)
        for name, change in KINDS.items():
            copies = np.stack([np.asarray(change(Image.fromarray(images[i]))) for i in chosen])
            is_copy = np.repeat([0, 1], [count, len(chosen)])
            pairs = find_near_duplicates(np.concatenate([small, thumbnails(copies)]), is_copy)
            hits = {(pair.first, pair.second) for pair in pairs}
            shares = [(original, count + number) in hits for number, original in enumerate(chosen.tolist())]
            found.setdefault(name, []).append(float(np.mean(shares)))
    return {
        "images": count,
        "found": {name: summarize(values) for name, values in found.items()},
        "named": len(named),
        "named_across": sum(bool(kind[pair.first] != kind[pair.second]) for pair in named),
        "most_alike": round(named[0].similarity, 4) if named else None,
        "microseconds_per_image": 1e6 * search / count,
        "share_of_preparation": search / seconds,
    }
