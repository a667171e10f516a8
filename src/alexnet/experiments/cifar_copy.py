"""Cost of a JPEG copy of CIFAR-10, and of bfloat16: cuda-convnet's 18pct on images that are compressed once more.

With some images of the original, the loss of the copy is measured, and further trials lose the same amount once more.
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
from alexnet.experiments.trials import compare, prepare_once, write_with_figure
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.provenance import provenance
from alexnet.search.exact import nearest

NETWORK = "cifar-18pct"
EPOCHS = 20
"""Epochs instead of the published 140, without `--full`."""

QUALITY = 75
SLOW_SEEDS = 2
"""Number of seeds that are also trained in float32, which takes twice as long."""
EDGE = 4
"""Pixels repeated on each side before compression: half a JPEG block, so that the blocks differ from the copy's."""


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    quick: bool = False,
    full: bool = False,
) -> str:
    """Train cuda-convnet's 18pct on the given images, on images compressed again, and in float32, with the same seeds.

    Training and test images are both compressed. `data`: the copy, and optionally some images of the original, each any
    source that `prepare` takes. Returns a summary of one line per difference.
    """
    if len(data) > 2:
        raise UsageError(
            "this experiment takes one copy of CIFAR-10 and optionally images of the original: give --data once or "
            "twice"
        )
    dataset, lost = cifar10(work, data[:1], quick), None
    if len(data) > 1:
        whole = cifar10(work, data[:1]) if quick else dataset
        lost = loss_of_the_copy(whole, prepare_once(data[1], work / "originals", size=SIDE))
    qualities = {"again": QUALITY, **({} if lost is None else {"as_much": _quality(dataset, lost["mean_square"])})}
    values, suffix = changes(NETWORK, full, quick, EPOCHS), "-quick" * quick
    of: dict[str, tuple[PreparedDataset, str, Sequence[int]]] = {"given": (dataset, "bfloat16", seeds)}
    for name, quality in qualities.items():
        images = partial(_compressed, dataset, quality)
        copy = prepare_once(images, work / f"compressed-{quality}{'-few' * quick}", size=SIDE, progress=not quick)
        of[name] = (copy, "bfloat16", seeds)
    of["float32"] = (dataset, "float32", seeds[:SLOW_SEEDS])
    trials = {
        name: Trials(images, NETWORK, some, {**values, "precision": precision}, f"{NETWORK}-copy-{name}{suffix}")
        for name, (images, precision, some) in of.items()
    }
    found = {name: some.measure(work) for name, some in trials.items()}
    base = found["given"]["test_error"]["values"]
    labels = {
        "given": "as given",
        "again": "compressed again",
        "as_much": "compressed again with the loss of the copy",
        "float32": "as given, float32",
    }
    others = [name for name in of if name != "given"]
    for name in others:
        pairs = zip(found[name]["test_error"]["values"], base, strict=False)
        found[name]["difference"] = compare([error - given for error, given in pairs])
    for name, quality in qualities.items():
        found[name] |= {"quality": quality, "psnr_db": _psnr(_mean_square(dataset, quality))}
    report = {
        "description": "test error on CIFAR-10 as given; with every training and test image compressed once more as "
        f"JPEG (quality {QUALITY}, 4:2:0 chroma subsampling, or the quality with the loss of the copy); and as given "
        "in float32 instead of bfloat16; weights of the last epoch",
        **trials["given"].about(data),
        "lost_by_the_copy": lost,
        **found,
        **provenance(command),
    }
    write_with_figure(results, report, curves({labels[name]: some["trials"] for name, some in found.items()}))
    return "\n".join(f"{labels[name]}: {found[name]['difference']['verdict']}" for name in others)


def compress(image: np.ndarray, quality: int = QUALITY) -> np.ndarray:
    """Compress and decode an image, (H, W, 3) uint8, with JPEG blocks shifted by half a block."""
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
    """Mean squared error of the first test images after compression."""
    split = dataset.split("test")
    some = [split[index][0] for index in range(min(images, len(split)))]
    return float(np.mean([np.square(compress(one, quality) - one.astype(np.float64)).mean() for one in some]))


def _quality(dataset: PreparedDataset, mean_square: float) -> int:
    """JPEG quality whose mean squared error is nearest to `mean_square`."""
    return min(range(5, 96), key=lambda quality: abs(_mean_square(dataset, quality, 200) - mean_square))


def _psnr(mean_square: float) -> float:
    """Peak signal-to-noise ratio in dB for values from 0 to 255."""
    return 10 * math.log10(255**2 / mean_square)


def loss_of_the_copy(dataset: PreparedDataset, originals: PreparedDataset) -> dict[str, Any]:
    """Return the loss of a copy against some original images, which are matched to their copies by similarity.

    Raises `AlexNetError` if more than 1% of the original images have no copy.
    """
    found = [_found(originals.split(name), dataset.split(name)) for name in originals.splits]
    images, copies = (np.concatenate(each) for each in zip(*found, strict=True))
    mean = float(np.square(copies - images.astype(np.float64)).mean())
    return {"originals": len(images), "mean_square": mean, "psnr_db": _psnr(mean)}


def _found(originals: Split, copies: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the original images that have a copy, and their copies, both (n, 32, 32, 3) uint8."""
    images = originals.gather(np.arange(len(originals)))
    of_copies = np.concatenate([_small(copies.gather(rows)) for rows in np.array_split(np.arange(len(copies)), 20)])
    distances, rows = nearest(_small(images), of_copies, 2)
    sure = distances[:, 0] < distances[:, 1] / 2
    if sure.mean() < 0.99:
        raise AlexNetError(
            f"only {sure.sum():,} of {len(sure):,} original images have a copy; the first --data is the copy of "
            "CIFAR-10, the second holds original images"
        )
    return images[sure], copies.gather(rows[sure, 0])


def _small(images: np.ndarray) -> np.ndarray:
    """Means over 4×4 pixels, which compression hardly changes: (n, 32, 32, 3) uint8 → (n, 192) float32."""
    blocks = images.reshape(len(images), SIDE // 4, 4, SIDE // 4, 4, 3)
    return blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(images), -1)
