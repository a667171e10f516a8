"""What a JPEG copy of CIFAR-10 costs, and bfloat16: cuda-convnet's 18pct on images compressed once more.

Who has some images of the original tells how much the copy lost; then there are trials that lose as much once more.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.experiments.cifar import SIDE, cifar10
from alexnet.experiments.cifar_networks import Trials, changes, curves
from alexnet.experiments.trials import compared, prepared, write_with_figure
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.provenance import provenance
from alexnet.search.exact import nearest

NETWORK = "cifar-18pct"
EPOCHS = 20
"""Of the published 140, unless the experiment is run in full."""

QUALITY = 75
SLOW_SEEDS = 2
"""Of the seeds so many are trained in float32 too, which takes twice as long."""
EDGE = 4
"""Pixels repeated on each side before compressing, half a block: a copy's own blocks would lose nothing more."""


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    quick: bool = False,
    full: bool = False,
) -> str:
    """Train cuda-convnet's 18pct on the images as given, on the same compressed again, and in float32; same seeds.

    Images compressed again are both learned from and tested on. `data`: the copy, and perhaps some images of the
    original, each of any form that `prepare` takes. Returns the differences, each in a line.
    """
    if len(data) > 2:
        raise UsageError("--data names one copy of CIFAR-10, and perhaps some images of the original")
    dataset, lost = cifar10(work, data[:1], quick), None
    if len(data) > 1:
        whole = cifar10(work, data[:1]) if quick else dataset
        lost = lost_by_copying(whole, prepared(data[1], work / "originals", size=SIDE))
    qualities = {"again": QUALITY, **({} if lost is None else {"as_much": _quality(dataset, lost["mean_square"])})}
    values, suffix = changes(NETWORK, full, quick, EPOCHS), "-quick" * quick
    of: dict[str, tuple[PreparedDataset, str, Sequence[int]]] = {"given": (dataset, "bfloat16", seeds)}
    for name, quality in qualities.items():
        images = partial(_compressed, dataset, quality)
        copy = prepared(images, work / f"compressed-{quality}{'-few' * quick}", size=SIDE, progress=not quick)
        of[name] = (copy, "bfloat16", seeds)
    of["float32"] = (dataset, "float32", seeds[:SLOW_SEEDS])
    trials = {
        name: Trials(images, NETWORK, some, {**values, "precision": precision}, f"{NETWORK}-copy-{name}{suffix}")
        for name, (images, precision, some) in of.items()
    }
    found = {name: some.measure(work) for name, some in trials.items()}
    base = found["given"]["test_error"]["values"]
    words = {
        "given": "as given",
        "again": "compressed again",
        "as_much": "compressed again, losing as much as the copy lost",
        "float32": "as given, float32",
    }
    others = [name for name in of if name != "given"]
    for name in others:
        pairs = zip(found[name]["test_error"]["values"], base, strict=False)
        found[name]["difference"] = compared([error - given for error, given in pairs])
    for name, quality in qualities.items():
        found[name] |= {"quality": quality, "decibels": _decibels(_mean_square(dataset, quality))}
    report = {
        "what": "error on the test images of CIFAR-10 as given; with every image, learned from or tested on, "
        f"compressed once more as JPEG of quality {QUALITY} with colors at half the width and height, or of the "
        "quality that loses as much as the copy did; and as given, in float32 instead of bfloat16; weights of the last "
        "epoch",
        **trials["given"].about(data),
        "lost_by_the_copy": lost,
        **found,
        **provenance(command),
    }
    write_with_figure(results, report, curves({words[name]: some["trials"] for name, some in found.items()}))
    return "\n".join(f"{words[name]}: {found[name]['difference']['verdict']}" for name in others)


def compress(image: np.ndarray, quality: int = QUALITY) -> np.ndarray:
    """An image, uint8 (H, W, 3), out of a JPEG of it whose blocks lie half a block beside the image's own."""
    edged = np.pad(image, ((EDGE, EDGE), (EDGE, EDGE), (0, 0)), mode="edge")
    file = io.BytesIO()
    Image.fromarray(edged).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))[EDGE:-EDGE, EDGE:-EDGE]


def _compressed(dataset: PreparedDataset, quality: int) -> Iterator[tuple[np.ndarray, str, str]]:
    for name in dataset.splits:
        split = dataset.split(name)
        for index in range(len(split)):
            image, label = split[index]
            yield compress(image, quality), dataset.classes[label], name


def _mean_square(dataset: PreparedDataset, quality: int, images: int = 1000) -> float:
    """Between a value of the first test images and what it is when they are compressed so."""
    split = dataset.split("test")
    some = [split[index][0] for index in range(min(images, len(split)))]
    return float(np.mean([np.square(compress(one, quality) - one.astype(np.float64)).mean() for one in some]))


def _quality(dataset: PreparedDataset, mean_square: float) -> int:
    """The quality at which compressing again loses so much."""
    return min(range(5, 96), key=lambda quality: abs(_mean_square(dataset, quality, 200) - mean_square))


def _decibels(mean_square: float) -> float:
    """The peak signal-to-noise ratio of values from 0 to 255."""
    return 10 * math.log10(255**2 / mean_square)


def lost_by_copying(dataset: PreparedDataset, originals: PreparedDataset) -> dict[str, Any]:
    """How far a copy is from those of the original images that are there; which are whose is seen by their likeness.

    Raises `AlexNetError` where more than one in a hundred has no copy.
    """
    found = [_found(originals.split(name), dataset.split(name)) for name in originals.splits]
    images, copies = (np.concatenate(each) for each in zip(*found, strict=True))
    mean = float(np.square(copies - images.astype(np.float64)).mean())
    return {"originals": len(images), "mean_square": mean, "decibels": _decibels(mean)}


def _found(originals: Split, copies: Split) -> tuple[np.ndarray, np.ndarray]:
    """The original images that have a copy, and their copies, both (n, 32, 32, 3) uint8."""
    images = originals.gather(np.arange(len(originals)))
    of_copies = np.concatenate([_small(copies.gather(rows)) for rows in np.array_split(np.arange(len(copies)), 20)])
    distances, rows = nearest(_small(images), of_copies, 2)
    sure = distances[:, 0] < distances[:, 1] / 2
    if sure.mean() < 0.99:
        raise AlexNetError(
            f"of {len(sure):,} images given as originals {sure.sum():,} have a copy; the first --data is the copy of "
            "CIFAR-10, the second some of its original images"
        )
    return images[sure], copies.gather(rows[sure, 0])


def _small(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) uint8 → their means over 4×4 pixels (n, 192) float32, which compressing hardly changes."""
    blocks = images.reshape(len(images), SIDE // 4, 4, SIDE // 4, 4, 3)
    return blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(images), -1)
