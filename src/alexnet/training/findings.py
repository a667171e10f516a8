"""Findings: problems of a training, and those that are looked for once, before its first step or after its last."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from alexnet.data.dataset import Split
from alexnet.runs.recipe import Recipe
from alexnet.training.agreement import BATCH_SIZE, CHANCE, evenly


@dataclass(frozen=True)
class Finding:
    """A problem of a training.

    Attributes
    ----------
    kind : str
        Such as "plateau" or "dead-units".
    where : str
        The layer, class or split.
    message : str
        The problem, with its numbers.
    remedy : str
        What to do about it.
    """

    kind: str
    where: str
    message: str
    remedy: str


def overlap(train: Split, validation: Split, budget: int = 30_000) -> list[Finding]:
    """Images that are in both splits: identical, or nearly so (saved again, or resized and back).

    At most `budget` images are read, evenly spaced; the finding names their number when there are more.
    """
    if not len(train) or not len(validation):
        return []
    fewer = min(len(train), len(validation), budget // 2)
    known = evenly(len(train), max(fewer, budget - fewer))
    asked = evenly(len(validation), max(fewer, budget - fewer))
    known_prints, known_thumbnails = _fingerprints(train, known)
    asked_prints, asked_thumbnails = _fingerprints(validation, asked)
    where = {fingerprint: row for row, fingerprint in enumerate(known_prints)}
    copies = {row: where[fingerprint] for row, fingerprint in enumerate(asked_prints) if fingerprint in where}
    nearly = _nearly_equal(asked_thumbnails, known_thumbnails)
    nearly = {row: other for row, other in nearly.items() if row not in copies}
    # A few pairs in a thousand are similar without being copies, such as blank images.
    if len(nearly) < 0.01 * len(asked):
        nearly = {}
    pairs = {**copies, **nearly}
    if not pairs:
        return []
    first = min(pairs)
    name = validation.name
    message = f"{len(pairs):,} of {len(asked):,} {name} images {'is' if len(pairs) == 1 else 'are'} in {train.name} too"
    message += f", {len(nearly):,} of them with small differences" if nearly else ""
    message += f" ({validation.paths(int(asked[first]))} is {train.paths(int(known[pairs[first]]))})"
    if len(known) < len(train):
        share = min(1.0, len(pairs) / len(asked) * len(train) / len(known))
        message += f", in a sample of {len(known):,} of {len(train):,}, so about {share:.1%} in all"
    message += f": the {name} error is underestimated"
    remedy = "prepare again with `--duplicates drop`, which leaves copies out of train, or remove them from one split"
    return [Finding("overlap", name, message, remedy)]


def _fingerprints(split: Split, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """A hash of every image's pixels, and its gray thumbnail of 16 × 16: (n, 256) float32."""
    prints: list[bytes] = []
    thumbnails = []
    for _, images in split.batches(indices, BATCH_SIZE):
        prints += [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().mean(1, keepdim=True)
        thumbnails.append(functional.adaptive_avg_pool2d(x, 16).flatten(1))
    return prints, torch.cat(thumbnails).numpy()


def _nearly_equal(queries: np.ndarray, known: np.ndarray) -> dict[int, int]:
    """From each thumbnail of `queries` to the nearest of `known` where they differ by less than 2% of the usual."""
    middle = known.mean(0)
    usual = float(np.sqrt(((known - middle) ** 2).mean()))
    queries, known = queries - middle, known - middle
    pairs = {}
    norms = (known**2).sum(1)
    for start in range(0, len(queries), 1024):
        block = queries[start : start + 1024]
        nearest = (norms[None, :] - 2 * block @ known.T).argmin(1)
        differences = np.sqrt(((block - known[nearest]) ** 2).mean(1))
        for number in np.flatnonzero(differences < 0.02 * usual):
            pairs[start + int(number)] = int(nearest[number])
    return pairs


def worse_than_pretrained(record: Mapping[str, Any], error: float, recipe: Recipe) -> list[Finding]:
    """A training that ended with a significantly higher validation error than a linear probe on its pretrained weights.

    `record` is the probe's, as metrics.jsonl has it (event "probe").
    """
    before, after, images = record["accuracy"], 1 - error, record["measured"]
    mean = (before + after) / 2
    if record["split"] != "val" or before - after <= CHANCE * math.sqrt(2 * mean * (1 - mean) / images):
        return []
    message = f"the validation accuracy is {after:.1%} at the end, and was {before:.1%} before the training"
    message += f", by a linear probe on {record['layer']}"
    remedy = f"train longer, such as `--epochs {3 * recipe.epochs}`"
    if recipe.pretrained_lr_scale:
        scale = recipe.pretrained_lr_scale / 10
        remedy += f", or train the loaded layers more slowly: `--pretrained-lr-scale {scale:g}`"
    return [Finding("worse-than-pretrained", record["layer"], message, remedy)]


def single_step(recipe: Recipe, images: int) -> Finding:
    """A training of one step in all: the batch holds all images, and there is one epoch."""
    return Finding(
        "single-step",
        "schedule",
        f"one batch holds all {images:,} training images: the whole training is one step",
        f"train longer, such as `--epochs 100`, or with smaller batches, `--batch-size {max(1, min(images // 4, 64))}`"
        if recipe.epochs == 1
        else "train longer",
    )
