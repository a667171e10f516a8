"""What a JPEG copy of CIFAR-10 costs, and bfloat16: cuda-convnet's 18pct on pictures compressed once more."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data.dataset import PreparedDataset
from alexnet.provenance import provenance
from alexnet.reproduce.arms import compared, prepared, write_with_figure
from alexnet.reproduce.cifar import SIDE, cifar10
from alexnet.reproduce.cifar_networks import Arms, changes, curves

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
    """Train cuda-convnet's 18pct on the pictures as given, on the same compressed again, and in float32; same seeds.

    Pictures compressed again are both learned from and tested on. Returns the two differences in a line.
    """
    dataset = cifar10(work, data, quick)
    again = prepared(partial(_compressed, dataset), work / f"again{'-few' * quick}", size=SIDE, progress=not quick)
    values, suffix = changes(NETWORK, full, quick, EPOCHS), "-quick" * quick
    of: dict[str, tuple[PreparedDataset, str, Sequence[int]]] = {
        "given": (dataset, "bfloat16", seeds),
        "again": (again, "bfloat16", seeds),
        "float32": (dataset, "float32", seeds[:SLOW_SEEDS]),
    }
    arms = {
        name: Arms(pictures, NETWORK, some, {**values, "precision": precision}, f"{NETWORK}-copy-{name}{suffix}")
        for name, (pictures, precision, some) in of.items()
    }
    found = {name: some.measure(work) for name, some in arms.items()}
    base = found["given"]["test_error"]["values"]
    for name in ("again", "float32"):
        pairs = zip(found[name]["test_error"]["values"], base, strict=False)
        found[name]["difference"] = compared([error - given for error, given in pairs])
    report = {
        "what": "error on the test pictures of CIFAR-10 as given; with every picture, learned from or tested on, "
        f"compressed once more as JPEG of quality {QUALITY} with colours at half the width and height; and as given, "
        "in float32 instead of bfloat16; weights of the last epoch",
        **arms["given"].about(data),
        "decibels_of_compressing_again": _decibels(dataset),
        **found,
        **provenance(command),
    }
    words = {"given": "as given", "again": "compressed again", "float32": "as given, float32"}
    write_with_figure(results, report, curves({words[name]: some["arms"] for name, some in found.items()}))
    return "; ".join(f"{words[name]}: {found[name]['difference']['verdict']}" for name in ("again", "float32"))


def compress(picture: np.ndarray) -> np.ndarray:
    """A picture, uint8 (H, W, 3), out of a JPEG of it whose blocks lie half a block beside the picture's own."""
    edged = np.pad(picture, ((EDGE, EDGE), (EDGE, EDGE), (0, 0)), mode="edge")
    file = io.BytesIO()
    Image.fromarray(edged).save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return np.asarray(Image.open(file))[EDGE:-EDGE, EDGE:-EDGE]


def _compressed(dataset: PreparedDataset) -> Iterator[tuple[np.ndarray, str, str]]:
    for name in dataset.splits:
        split = dataset.split(name)
        for index in range(len(split)):
            picture, label = split[index]
            yield compress(picture), dataset.classes[label], name


def _decibels(dataset: PreparedDataset, pictures: int = 1000) -> float:
    """The peak signal-to-noise ratio of the first test pictures compressed, against themselves."""
    split = dataset.split("test")
    some = [split[index][0] for index in range(min(pictures, len(split)))]
    return 10 * math.log10(255**2 / np.mean([np.square(compress(one) - one.astype(np.float64)).mean() for one in some]))
