"""Specialization of the two towers: one learns color, the other gray? (paper, section 6.1, figure 3)"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import PreparedDataset
from alexnet.experiments.image_sets import subset
from alexnet.experiments.trials import measure_once, prepare_once, summarize, train_once, write_with_figure
from alexnet.report.filters import COLUMNS, tiles_of
from alexnet.report.mosaic import mosaic
from alexnet.report.style import Figure, bare, drawn, new
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run
from alexnet.runtime.errors import UsageError
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import provenance

SIZE = 64
EPOCHS = 20
CHANGES: dict[str, Any] = {
    "variant": "convolutions",
    "init": "he",
    "pixel_scaling": "std",
    "crop_size": 56,
    "input_size": 67,
    "batch_size": 64,
    "lr": 0.03,
    "schedule": "cosine",
    "warmup": 0.05,
    "keep": "last",
}
"""Changes to the recipe `paper`: small images make the training cheap; the kernels are 11×11 all the same."""
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 8}
PERMUTATIONS = 100_000
SIGNIFICANCE_LEVEL = 0.05
"""Level of the permutation test."""
UNTRAINED = (2 / 3) ** 0.5
"""Saturation of kernels of independent values: two of three color directions are orthogonal to the gray axis."""
KINDS = {"kernels": "kernels", "learned": "difference from the initial kernels", "untrained": "initial kernels"}


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    quick: bool = False,
    epochs: int = EPOCHS,
) -> str:
    """Train two towers on the color photographs `data` with each seed and measure the saturation of their kernels.

    Returns a summary of one line for each kind of kernel.
    """
    if len(data) != 1:
        raise UsageError("give one set of color photographs with --data: any source that `alexnet prepare` takes")
    dataset = _images(work, data[0], quick)
    values = CHANGES | (QUICK if quick else {"epochs": epochs})
    runs = {seed: work / f"seed-{seed}{'-quick' * quick}" for seed in seeds}
    entries = [_entry(dataset, run, seed, values) for seed, run in runs.items()]
    report = {
        "description": "saturation of a first-layer kernel: the square root of the share of its energy that is "
        "orthogonal to the gray axis (0: gray, 1: color only). Mean over each tower, their difference, and p of a "
        "permutation test of the assignment of kernels to towers; for the kernels, their difference from the initial "
        "kernels, and the initial kernels",
        "saturation_of_independent_values": UNTRAINED,
        **{kind: _over_seeds([entry[kind] for entry in entries]) for kind in KINDS},
        "permutations": PERMUTATIONS,
        "images": {"from": Path(data[0]).name} | dataset.counts,
        "recipe": recipes()["paper"].override(values).to_dict(),
        "seeds": list(seeds),
        "runs": entries,
        **provenance(command),
    }
    write_with_figure(results, report, figure([_weights(Run.open(run)) for run in runs.values()], entries))
    return "\n".join(f"{label}: {report[kind]['verdict']}" for kind, label in KINDS.items())


def _images(work: Path, source: str, quick: bool) -> PreparedDataset:
    return subset(lambda: Path(source), work / "few", SIZE) if quick else prepare_once(source, work / "data", size=SIZE)


def _entry(dataset: PreparedDataset, run: Path, seed: int, values: dict[str, Any]) -> dict[str, Any]:
    """Train one seed and measure its kernels, or return the stored measurement."""

    def measure() -> dict[str, Any]:
        notify(f"seed {seed}:")
        done = train_once(dataset.path, run, recipe="paper", seed=seed, **values)
        epochs = done.metrics("epoch")
        return {
            "seed": seed,
            **{kind: _of_towers(weight) for kind, weight in _weights(done).items()},
            "train_loss": [epoch["train_loss"] for epoch in epochs],
            "train_error": [epoch["train_error"] for epoch in epochs],
            "validation_error": [epoch.get("validation_error") for epoch in epochs],
            "seconds": sum(epoch["seconds"] for epoch in epochs),
        }

    return measure_once(run.with_suffix(".json"), measure)


def _weights(run: Run) -> dict[str, Tensor]:
    """Return the first-layer kernels, their difference from the initial kernels, and the initial kernels."""
    kernels = run.load()[0].state_dict()["conv1.weight"]
    torch.manual_seed(run.config.recipe.seed)  # the seed of the training gives the same initial weights
    first = run.config.network().state_dict()["conv1.weight"]
    return {"kernels": kernels, "learned": kernels - first, "untrained": first}


def _of_towers(weight: Tensor) -> dict[str, Any]:
    """Return the saturation of each kernel, the mean of each tower, their difference, and its p value."""
    kernels = saturation(weight)
    towers = [float(tower.mean()) for tower in np.split(kernels, 2)]
    return {
        "towers": towers,
        "difference": max(towers) - min(towers),
        "p": permutation_p(kernels),
        "each": kernels.round(4).tolist(),
    }


def _over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    differences, p_values = ([one[name] for one in found] for name in ("difference", "p"))
    return {
        "less_saturated": summarize([min(one["towers"]) for one in found]),
        "more_saturated": summarize([max(one["towers"]) for one in found]),
        "difference": summarize(differences),
        "p": p_values,
        "verdict": verdict(differences, p_values),
    }


def saturation(weight: Tensor) -> np.ndarray:
    """Return the square root of the share of energy orthogonal to the gray axis: (n, 3, h, w) → (n,) float64."""
    kernels = weight.double()
    gray = kernels.mean(dim=1, keepdim=True)
    off = (kernels - gray).square().sum(dim=(1, 2, 3))
    return (off / kernels.square().sum(dim=(1, 2, 3))).sqrt().numpy()


def permutation_p(kernels: np.ndarray, permutations: int = PERMUTATIONS) -> float:
    """Return p of a permutation test: how often two random halves of the values (n,) differ as much as the towers."""
    rng, half = np.random.default_rng(0), len(kernels) // 2
    total = kernels.sum()
    sums = np.concatenate(
        [rng.permuted(np.tile(kernels, (1000, 1)), axis=1)[:, :half].sum(axis=1) for _ in range(permutations // 1000)]
    )
    reached = (
        np.abs(2 * sums - total) >= abs(2 * kernels[:half].sum() - total) - 1e-9
    )  # tolerance for another order of summation
    return float((reached.sum() + 1) / (len(reached) + 1))


def verdict(differences: Sequence[float], p_values: Sequence[float]) -> str:
    """Return the mean difference and the number of seeds in which it is statistically significant."""
    apart = sum(p < SIGNIFICANCE_LEVEL for p in p_values)
    return (
        f"the saturation of the towers differs by {statistics.mean(differences):.2f}; statistically significant in "
        f"{apart} of {len(p_values)} seeds (p < {SIGNIFICANCE_LEVEL:g})"
    )


@drawn
def figure(weights: Sequence[dict[str, Tensor]], entries: Sequence[dict[str, Any]]) -> Figure:
    """Kernels of each seed and their difference from the initial kernels, by tower, with the mean saturation."""
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
            axes.set_title(f"Seed {entry['seed']}, {kind}: {saturation}", fontsize=7)
    return drawing
