"""Section 6.1 of the paper, figure 3: of two towers one learns color and the other gray, in every run?"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import PreparedDataset
from alexnet.experiments.image_sets import few
from alexnet.experiments.trials import measured, prepared, spread, trained, write_with_figure
from alexnet.report.filters import COLUMNS, tiles_of
from alexnet.report.mosaic import mosaic
from alexnet.report.style import Figure, bare, drawn, new
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run
from alexnet.runtime.errors import UsageError
from alexnet.runtime.provenance import provenance

SIZE = 64
CHANGES: dict[str, Any] = {
    "variant": "convolutions",
    "init": "he",
    "pixel_scaling": "std",
    "crop_size": 56,
    "input_size": 67,
    "batch_size": 64,
    "epochs": 20,
    "lr": 0.03,
    "schedule": "cosine",
    "warmup": 0.05,
    "keep": "last",
}
"""Beside the recipe `paper`: small images make it cheap, and the kernels of 11×11 are the same."""
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 8}
DEALS = 100_000
CHANCE = 0.05
"""A difference that dealing kernels at random reaches more seldom is none of chance."""
UNTRAINED = (2 / 3) ** 0.5
"""The saturation of kernels of independent numbers: two of three directions of color are off the gray axis."""
KINDS = {"kernels": "kernels", "learned": "what training added", "untrained": "the first weights"}


def reproduce(
    work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = (), quick: bool = False
) -> str:
    """Train two towers on the color photographs `data` with each seed, and measure how colorful their kernels are.

    Returns the verdicts.
    """
    if len(data) != 1:
        raise UsageError("name one set of color photographs with --data: any source that `alexnet prepare` takes")
    dataset = _images(work, data[0], quick)
    values = CHANGES | QUICK if quick else CHANGES
    runs = {seed: work / f"seed-{seed}{'-quick' * quick}" for seed in seeds}
    entries = [_entry(dataset, run, seed, values) for seed, run in runs.items()]
    report = {
        "what": "saturation of a first-layer kernel: the root of the share of its sum of squares that is off the gray "
        "axis, where red, green and blue are the same; 0 is gray, 1 is nothing but color. Its mean over each tower, "
        "their difference, and how often (p) so large a one comes of dealing the kernels to two towers at random; of "
        "the kernels, of what training has added to their first weights, and of those",
        "saturation_of_independent_numbers": UNTRAINED,
        **{kind: _over_seeds([entry[kind] for entry in entries]) for kind in KINDS},
        "deals": DEALS,
        "images": {"from": Path(data[0]).name} | dataset.counts,
        "recipe": recipes()["paper"].override(values).to_dict(),
        "seeds": list(seeds),
        "runs": entries,
        **provenance(command),
    }
    write_with_figure(results, report, figure([_weights(Run.open(run)) for run in runs.values()], entries))
    return "\n".join(f"{words}: {report[kind]['verdict']}" for kind, words in KINDS.items())


def _images(work: Path, source: str, quick: bool) -> PreparedDataset:
    return few(lambda: Path(source), work / "few", SIZE) if quick else prepared(source, work / "data", size=SIZE)


def _entry(dataset: PreparedDataset, run: Path, seed: int, values: dict[str, Any]) -> dict[str, Any]:
    """What the training of a seed has come to; measured once."""

    def measure() -> dict[str, Any]:
        print(f"seed {seed}:", file=sys.stderr)
        done = trained(dataset.path, run, recipe="paper", seed=seed, **values)
        epochs = done.metrics("epoch")
        return {
            "seed": seed,
            **{kind: _of_towers(weight) for kind, weight in _weights(done).items()},
            "train_loss": [epoch["train_loss"] for epoch in epochs],
            "train_error": [epoch["train_error"] for epoch in epochs],
            "validation_error": [epoch.get("validation_error") for epoch in epochs],
            "seconds": sum(epoch["seconds"] for epoch in epochs),
        }

    return measured(run.with_suffix(".json"), measure)


def _weights(run: Run) -> dict[str, Tensor]:
    """The first layer of a trained network, less its first weights, and those."""
    kernels = run.load()[0].state_dict()["conv1.weight"]
    torch.manual_seed(run.config.recipe.seed)  # as the training drew them
    first = run.config.network().state_dict()["conv1.weight"]
    return {"kernels": kernels, "learned": kernels - first, "untrained": first}


def _of_towers(weight: Tensor) -> dict[str, Any]:
    """Saturation of every kernel and the mean of each half of them; their difference, and its chance."""
    kernels = saturation(weight)
    towers = [float(tower.mean()) for tower in np.split(kernels, 2)]
    return {
        "towers": towers,
        "difference": max(towers) - min(towers),
        "p": chance(kernels),
        "each": kernels.round(4).tolist(),
    }


def _over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    differences, chances = ([one[name] for one in found] for name in ("difference", "p"))
    return {
        "paler": spread([min(one["towers"]) for one in found]),
        "more_colorful": spread([max(one["towers"]) for one in found]),
        "difference": spread(differences),
        "p": chances,
        "verdict": verdict(differences, chances),
    }


def saturation(weight: Tensor) -> np.ndarray:
    """Kernels (n, 3, h, w) → (n,) float64: the root of the share of their energy that is off the gray axis."""
    kernels = weight.double()
    gray = kernels.mean(dim=1, keepdim=True)
    off = (kernels - gray).square().sum(dim=(1, 2, 3))
    return (off / kernels.square().sum(dim=(1, 2, 3))).sqrt().numpy()


def chance(kernels: np.ndarray, deals: int = DEALS) -> float:
    """How often the means of the halves differ as much when the values (n,) are dealt to two towers at random."""
    rng, half = np.random.default_rng(0), len(kernels) // 2
    total = kernels.sum()
    sums = np.concatenate(
        [rng.permuted(np.tile(kernels, (1000, 1)), axis=1)[:, :half].sum(axis=1) for _ in range(deals // 1000)]
    )
    reached = np.abs(2 * sums - total) >= abs(2 * kernels[:half].sum() - total) - 1e-9  # sums in another order
    return float((reached.sum() + 1) / (len(reached) + 1))


def verdict(differences: Sequence[float], chances: Sequence[float]) -> str:
    """Whether one tower is more colorful than chance makes it, in words."""
    apart = sum(p < CHANCE for p in chances)
    return (
        f"saturation of the towers differs by {statistics.mean(differences):.2f}, by more than chance in {apart} of "
        f"{len(chances)} seeds (p below {CHANCE:g})"
    )


@drawn
def figure(weights: Sequence[dict[str, Tensor]], entries: Sequence[dict[str, Any]]) -> Figure:
    """The kernels of each seed and what training added to them, a tower beside the other, with the mean saturation."""
    drawing = new(2.0 * len(entries), width=7)
    rows = [
        (kind, entry, np.split(tiles_of(found[kind]), 2))
        for found, entry in zip(weights, entries, strict=True)
        for kind in ("kernels", "learned")
    ]
    for row, (kind, entry, towers) in zip(drawing.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        for number, (axes, tower) in enumerate(zip(row, towers, strict=True)):
            bare(axes).imshow(mosaic(tower, COLUMNS, gap=2, enlarge=3))
            saturation = f"tower {number + 1}, saturation {entry[kind]['towers'][number]:.2f}"
            axes.set_title(f"Seed {entry['seed']}, {KINDS[kind]}: {saturation}", fontsize=7)
    return drawing
