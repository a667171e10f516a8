"""Section 6 of the paper: the probabilities of one, three and five networks averaged."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.files import write_whole
from alexnet.provenance import provenance, write_result
from alexnet.recipe import recipes
from alexnet.reproduce.ablation import FULL, Arm, base
from alexnet.reproduce.arms import measured, spread
from alexnet.reproduce.catalogue import set_name
from alexnet.reproduce.photographs import SOLAR, photographs, test_pictures
from alexnet.show.style import BLUE, INK, Figure, drawn, new, png

SIZES = (1, 3, 5)


def reproduce(
    work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = (), quick: bool = False
) -> str:
    """Train the whole network of the experiment `ablation` with each seed, and measure averages with ten views.

    Of one and of three networks every choice among the seeds is measured. Returns the errors in a line.
    """
    dataset = photographs(work, data, quick)
    arms = [Arm(FULL, seed, dataset, quick) for seed in seeds]
    errors: dict[int, list[float]] = {1: [arm.measure()["ten_views"] for arm in arms]}
    for size in SIZES[1:]:
        if size <= len(arms):
            errors[size] = [_error(chosen, dataset) for chosen in combinations(arms, size)]
    largest = max(errors)
    one, together = errors[1], statistics.mean(errors[largest])
    report = {
        "what": "error on test pictures, ten views, of the mean over every choice of so many of the networks; they "
        "differ in their seed alone; weights of the last epoch",
        "set": set_name(data) or SOLAR,
        "pictures": {split: len(dataset.split(split)) for split in dataset.splits},
        "networks": {
            str(size): {**spread(found), "difference": statistics.mean(found) - statistics.mean(one)}
            for size, found in errors.items()
        },
        "verdict": verdict(one, together, largest, len(test_pictures(dataset))),
        "recipe": recipes()["paper"].override(base(quick)).to_dict(),
        "seeds": list(seeds),
        **provenance(command),
    }
    write_result(results, report)
    write_whole(results.with_suffix(".png"), png(figure(report)))
    words = ", ".join(f"{statistics.mean(found):.2%} of {size}" for size, found in errors.items())
    return f"error {words}; {report['verdict']}"


def verdict(one: Sequence[float], together: float, size: int, pictures: int) -> str:
    """What the average of `size` networks is worth, beside each alone and beside what a single picture weighs."""
    beaten = sum(together < error for error in one)
    difference = (together - statistics.mean(one)) * 100
    return (
        f"{size} networks: {difference:+.1f} points of error against one on average, better than {beaten} of the "
        f"{len(one)} alone; one picture of the test is {100 / pictures:.2f} points"
    )


def _error(arms: tuple[Arm, ...], dataset: PreparedDataset) -> float:
    """The error of the average of these networks; measured once."""
    name = f"together-{'-'.join(str(arm.seed) for arm in arms)}{'-quick' * arms[0].quick}.json"
    print(f"{len(arms)} networks, seeds {', '.join(str(arm.seed) for arm in arms)}:", file=sys.stderr)
    found = measured(arms[0].file.with_name(name), partial(_measure, arms, dataset))
    return float(found["error"])


def _measure(arms: tuple[Arm, ...], dataset: PreparedDataset) -> dict[str, Any]:
    return {"error": 1 - evaluate([arm.run for arm in arms], dataset, views=10, precision="auto").top1}


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Error by the number of networks averaged: each choice of them as a dot, the mean as a line."""
    drawing = new(3.0)
    axes = drawing.subplots()
    networks = {int(size): found for size, found in report["networks"].items()}
    for size, found in networks.items():
        axes.plot([size] * len(found["values"]), [100 * error for error in found["values"]], ".", color=INK, alpha=0.6)
    axes.plot(list(networks), [100 * found["mean"] for found in networks.values()], "o-", color=BLUE, label="mean")
    axes.set_xticks(list(networks))
    axes.set_xlabel("Networks averaged")
    axes.set_title(f"Test error in percent, ten views: {report['set']}")
    axes.legend()
    return drawing
