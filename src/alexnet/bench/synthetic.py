"""Synthetic photographs, prepared datasets and networks, which the parts of the benchmark measure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch

from alexnet.data.dataset import FORMAT_VERSION, SHARD_ROWS, write_index, write_shard, write_statistics
from alexnet.data.statistics import Statistics
from alexnet.runs.config import Config
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run
from alexnet.runtime.errors import UsageError

DISTINCT = 256
"""Photographs of different noise; the others are these, flipped and with other orders of the colors."""


def photographs(
    folder: Path, count: int, width: int = 500, height: int = 375, *, distinct: int = DISTINCT
) -> list[Path]:
    """Write JPEG files with the size and the detail of photographs: noise with the power spectrum of natural images.

    Parameters
    ----------
    folder : Path
        The files go to its subfolders "a" and "b" in turn.
    count : int
        Number of files, at most 24 × `distinct`. No two have equal pixels.
    width, height : int
        Pixels.
    distinct : int
        Photographs of different noise.

    Returns
    -------
    list of Path
        The files.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / width
    falloff = (frequency**-1.2)[..., None]
    forms = list(itertools.product(itertools.permutations(range(3)), (1, -1), (1, -1)))
    if count > distinct * len(forms):
        raise UsageError(f"{count:,} photographs; at most {distinct * len(forms):,} can be written")
    files = [folder / "ab"[number % 2] / f"{number:05}.jpg" for number in range(count)]
    for name in "ab":
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(min(count, distinct)):
        spectrum = falloff * (rng.normal(size=(*frequency.shape, 3)) + 1j * rng.normal(size=(*frequency.shape, 3)))
        mix = np.array([[1.0, 0.15, 0.05], [1.0, -0.1, 0.1], [1.0, -0.1, -0.15]])
        colors = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1)) @ mix.T
        pixels = np.clip(colors / colors.std() * 55 + 118, 0, 255).astype(np.uint8)
        for file, (order, down, right) in zip(files[number::distinct], forms, strict=False):
            form = np.ascontiguousarray(pixels[::down, ::right, order])
            file.write_bytes(simplejpeg.encode_jpeg(form, quality=92, colorspace="RGB", colorsubsampling="420"))
    return files


def write_dataset(folder: Path, images: int, classes: int, side: int) -> Path:
    """Write a prepared dataset of noise, half of it to train on, without files; return its folder.

    Parameters
    ----------
    folder : Path
        The folder to create.
    images : int
        Images of both splits together.
    classes : int
        Classes, which have equal numbers of images.
    side : int
        Pixels.
    """
    folder.mkdir(parents=True)
    names = [f"class {number:05}" for number in range(classes)]
    splits: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    for split, count in (("train", images - images // 2), ("val", images // 2)):
        labels = np.arange(count) % classes
        shards = []
        for number, start in enumerate(range(0, count, SHARD_ROWS)):
            part = labels[start : start + SHARD_ROWS].tolist()
            pixels = rng.integers(0, 256, (len(part), side, side, 3), dtype=np.uint8)
            file = f"{split}-{number:05}.arrow"
            paths = [f"{names[label]}/{start + row}.png" for row, label in enumerate(part)]
            checksum = write_shard(folder / file, pixels, part, paths, names)
            shards.append({"file": file, "rows": len(part), "sha256": checksum})
        counts = np.bincount(labels, minlength=classes).tolist()
        splits[split] = {"count": count, "class_counts": counts, "shards": shards}
    mean = np.full((side, side, 3), 127.5, dtype=np.float32)
    index = {
        "format_version": FORMAT_VERSION,
        "classes": names,
        "descriptions": None,
        "size": side,
        "splits": splits,
        **write_statistics(folder, Statistics(mean, np.full(3, 127.5), np.full(3, 5418.0), np.eye(3))),
        "left_out": [],
        "source": "noise",
        "options": {"size": side},
        "pixel_range": None,
        "remarks": [],
    }
    write_index(folder, index)
    return folder


def random_run(
    path: Path,
    variant: str = "paper",
    *,
    recipe: str = "paper",
    classes: int | Sequence[str] = 1000,
    size: int = 256,
    crop_size: int | None = None,
    input_size: int = 224,
) -> Path:
    """Write a run folder with random weights and return its path.

    Parameters
    ----------
    path : Path
        The folder.
    variant : str
        The network.
    recipe : str
        The recipe, with its normalization.
    classes : int or sequence of str
        Its classes, by their number or by their names.
    size, input_size : int
        Sides of the prepared images and of the input of the network.
    crop_size : int, optional
        Side of the crops that are scaled to the input. Default: that of the input.
    """
    changed = recipes()[recipe].override({"init": "he", "variant": variant})
    names = [f"class {number:05}" for number in range(classes)] if isinstance(classes, int) else list(classes)
    config = Config(
        changed, names, size=size, crop_size=crop_size or input_size, input_size=input_size, scale=1 / 64, dataset={}
    )
    run = Run.create(path, config)
    torch.manual_seed(0)
    network = config.network()
    torch.nn.init.normal_(network.get_parameter(f"{network.output_layer}.weight"), 0, 0.01)
    run.save_weights(changed.keep, network.state_dict(), torch.full((size, size, 3), 120.0))
    return path
