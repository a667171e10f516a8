"""The report of a baseline: results, predictions and mistakes as in the report of a run, and what the baseline is."""

from __future__ import annotations

import os
from pathlib import Path

from alexnet.baselines.baseline import Baseline, describe, summary
from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import Evaluation, evaluate
from alexnet.report import sentences
from alexnet.report.figure_files import FigureFiles
from alexnet.report.image_sections import mistakes_section, predictions_section
from alexnet.report.page import write_page
from alexnet.report.sections import Section, Table, results_section
from alexnet.runs.run import find_dataset


def write_baseline_report(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | PreparedDataset | None,
    out: str | os.PathLike[str] | None,
    *,
    split: str | None = None,
    views: int = 1,
    recall: float | None = None,
    positive: str | None = None,
    costs: str | os.PathLike[str] | None = None,
    evaluation: Evaluation | None = None,
) -> Path:
    """Write `report.html` and its figures for a baseline; the parameters are those of `write_report`."""
    baseline = Baseline.open(path)
    config, folder = baseline.config, baseline.path if out is None else Path(out)
    if evaluation is None:
        dataset = data if isinstance(data, PreparedDataset) else find_dataset(baseline, data)
        evaluation = evaluate(path, dataset, split=split, views=views, recall=recall, positive=positive, costs=costs)
    files = FigureFiles(folder)
    values = {
        "numbers": sentences.evaluation_numbers(evaluation),
        "lines": [*sentences.evaluation_summary(evaluation), *map(sentences.sentence, summary(config))],
        "omitted": ["All parts that look into a network: a baseline has none."],
    }
    table = Table(("name", "value"), list(describe(config).items()))
    sections = [
        Section("summary", "Summary", "", "summary.html", values),
        results_section(evaluation, files),
        predictions_section(evaluation, files),
        mistakes_section(evaluation, files),
        Section("baseline", "Baseline", "", "recipe.html", {"lines": [], "table": table}),
    ]
    facts = ["baseline", config.features, f"{len(config.classes):,} classes"]
    images = config.dataset.get("counts", {}).get("train")
    facts += [f"{images:,} training images"] if images is not None else []
    return write_page(folder, baseline.path, config.classes, facts, sections)
