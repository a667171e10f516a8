"""Section 4.1 of the paper: the center of an image against the mean of ten crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.experiments.ablation import FULL, VIEWS, Trial, base
from alexnet.experiments.catalog import set_name
from alexnet.experiments.image_sets import SOLAR, photographs
from alexnet.experiments.trials import compared, spread, write_with_figure
from alexnet.report.style import BLUE, INK, Figure, drawn, new
from alexnet.runs.recipe import recipes
from alexnet.runtime.provenance import provenance


def reproduce(
    work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = (), quick: bool = False
) -> str:
    """Train the whole network of the experiment `ablation` with each seed, and compare one view of it with ten.

    Returns both errors in a line.
    """
    dataset = photographs(work, data, quick)
    trials = [Trial(FULL, seed, dataset, quick).measure() for seed in seeds]
    errors = {views: [trial[views] for trial in trials] for views in VIEWS}
    report = {
        "what": "error on test images of the same networks with one view, the center, and with ten; the difference "
        "is ten minus one, of each seed, as a share of 1; weights of the last epoch",
        "set": set_name(data) or SOLAR,
        "images": dataset.counts,
        **{views: spread(found) for views, found in errors.items()},
        "difference": compared([trial["ten_views"] - trial["one_view"] for trial in trials]),
        "recipe": recipes()["paper"].override(base(quick)).to_dict(),
        "seeds": list(seeds),
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    words = ", ".join(f"{report[views]['mean']:.2%} with {number}" for views, number in VIEWS.items())
    return f"error {words}: {report['difference']['verdict']}"


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """A line a network from its error with one view to that with ten, and the means."""
    drawing = new(3.0)
    axes = drawing.subplots()
    pairs = list(zip(*(report[views]["values"] for views in VIEWS), strict=True))
    for pair in pairs:
        axes.plot([0, 1], [100 * error for error in pair], ".-", color=INK, linewidth=0.8, alpha=0.6)
    axes.plot([0, 1], [100 * report[views]["mean"] for views in VIEWS], "o-", color=BLUE, label="mean")
    axes.set_xticks([0, 1], [f"{number} view{'s' * (number > 1)}" for number in VIEWS.values()])
    axes.set_xlim(-0.4, 1.4)
    axes.set_title(f"Test error in percent: {report['set']}")
    axes.legend()
    return drawing
