"""One view against ten views at test time (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.experiments.ablation import FULL, VIEWS, Trial, base, images
from alexnet.experiments.catalog import SOLAR, dataset_name
from alexnet.experiments.trials import compare, run_trials, summarize, write_with_figure
from alexnet.report.style import BLUE, INK, Figure, drawn, new
from alexnet.runs.recipe import recipes
from alexnet.runtime.provenance import provenance


def reproduce(
    work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = (), quick: bool = False
) -> str:
    """Train the unchanged network of the experiment `ablation` with each seed and compare one view with ten views.

    Returns a summary of one line.
    """
    dataset = images(work, data, quick)
    trials = [Trial(FULL, seed, dataset, quick) for seed in seeds]
    found = run_trials(trials, dataset.path.parent, (), Trial.measure, dict).values()
    errors = {views: [trial[views] for trial in found] for views in VIEWS}
    report = {
        "description": "test error of the same networks with one view (the center crop) and with ten views; the "
        "difference is ten minus one view, per seed, as a fraction of 1; weights of the last epoch",
        "set": dataset_name(data) or SOLAR,
        "images": dataset.counts,
        **{views: summarize(values) for views, values in errors.items()},
        "difference": compare([trial["ten_views"] - trial["one_view"] for trial in found]),
        "recipe": recipes()["paper"].override(base(quick)).to_dict(),
        "seeds": list(seeds),
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    summary = ", ".join(f"{report[views]['mean']:.2%} with {number}" for views, number in VIEWS.items())
    return f"test error {summary}: {report['difference']['verdict']}"


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Test error with one and with ten views: a line for each network, and the means."""
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
