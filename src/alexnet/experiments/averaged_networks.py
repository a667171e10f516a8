"""Averaged probabilities of one, three and five networks (paper, section 6, table 2)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from alexnet.data.dataset import Split
from alexnet.evaluation.evaluate import probabilities_by_member
from alexnet.experiments.ablation import FULL, Trial, base, images
from alexnet.experiments.catalog import SOLAR, dataset_name
from alexnet.experiments.image_sets import test_split
from alexnet.experiments.trials import measure_once, run_trials, summarize, write_with_figure
from alexnet.report.style import BLUE, INK, Figure, drawn, new
from alexnet.runs.recipe import recipes
from alexnet.runtime.provenance import provenance

SIZES = (1, 3, 5)


def reproduce(
    work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = (), quick: bool = False
) -> str:
    """Train the unchanged network of the experiment `ablation` with each seed and evaluate ensembles with ten views.

    Every combination of one and of three networks is evaluated. Returns a summary of one line.
    """
    dataset = images(work, data, quick)
    trials = [Trial(FULL, seed, dataset, quick) for seed in seeds]
    run_trials(trials, dataset.path.parent, (), Trial.measure, dict)
    file = dataset.path.with_name(f"averages-{'-'.join(map(str, seeds))}{'-quick' * quick}.json")
    found = measure_once(file, lambda: {"errors": _errors([trial.run for trial in trials], test_split(dataset))})
    errors: dict[str, list[float]] = found["errors"]
    largest = max(errors, key=int)
    one, together = errors["1"], statistics.mean(errors[largest])
    report = {
        "description": "test error with ten views of ensembles of networks that differ in the seed only, the mean over "
        "all combinations of each size; weights of the last epoch",
        "set": dataset_name(data) or SOLAR,
        "images": dataset.counts,
        "networks": {
            size: {**summarize(values), "difference": statistics.mean(values) - statistics.mean(one)}
            for size, values in errors.items()
        },
        "verdict": verdict(one, together, int(largest), len(test_split(dataset))),
        "recipe": recipes()["paper"].override(base(quick)).to_dict(),
        "seeds": list(seeds),
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    summary = ", ".join(f"{statistics.mean(values):.2%} ({size} networks)" for size, values in errors.items())
    return f"test error {summary}; {report['verdict']}"


def verdict(one: Sequence[float], together: float, size: int, images: int) -> str:
    """Compare the ensemble of `size` networks with single networks, and state the weight of one test image."""
    beaten = sum(together < error for error in one)
    difference = (together - statistics.mean(one)) * 100
    return (
        f"{size} networks: {difference:+.1f} points of error against the mean of single networks, lower than {beaten} "
        f"of {len(one)}; one test image is {100 / images:.2f} points"
    )


def _errors(runs: Sequence[Path], split: Split) -> dict[str, list[float]]:
    """Return the errors of all combinations of 1, 3 and 5 runs by size."""
    probabilities, truth = probabilities_by_member(runs, split, views=10), split.labels
    return {
        str(size): [
            float((probabilities[list(chosen)].mean(axis=0).argmax(axis=1) != truth).mean())
            for chosen in combinations(range(len(runs)), size)
        ]
        for size in SIZES
        if size <= len(runs)
    }


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Error against the number of averaged networks: each combination as a dot, the mean as a line."""
    drawing = new(3.0)
    axes = drawing.subplots()
    networks = {int(size): found for size, found in report["networks"].items()}
    for size, found in networks.items():
        axes.plot([size] * len(found["values"]), [100 * error for error in found["values"]], ".", color=INK, alpha=0.6)
    axes.plot(list(networks), [100 * found["mean"] for found in networks.values()], "o-", color=BLUE, label="mean")
    axes.set_xticks(list(networks))
    axes.set_xlabel("Averaged networks")
    axes.set_title(f"Test error in percent, ten views: {report['set']}")
    axes.legend()
    return drawing
