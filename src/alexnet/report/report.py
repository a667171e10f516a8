"""The report of a run: one self-contained HTML page, and its figures as files."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import Evaluation, evaluate
from alexnet.evaluation.predictor import Member, is_baseline
from alexnet.report import filters, sentences
from alexnet.report.baseline_report import write_baseline_report
from alexnet.report.figure_files import FigureFiles
from alexnet.report.image_sections import (
    attribution_section,
    features_section,
    mistakes_section,
    neighbors_section,
    predictions_section,
)
from alexnet.report.layer_times import layers_section
from alexnet.report.mosaic import mosaic
from alexnet.report.page import write_page
from alexnet.report.rendering import EmbeddedImage, embed_png
from alexnet.report.sections import Section, recipe_section, results_section, training_section
from alexnet.runs.run import Run
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import AlexNetError


def write_report(
    run: str | os.PathLike[str] | Run,
    data: str | os.PathLike[str] | PreparedDataset | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    views: int = 1,
    precision: str = "auto",
    recall: float | None = None,
    positive: str | None = None,
    costs: str | os.PathLike[str] | None = None,
    device: str | None = None,
    evaluation: Evaluation | None = None,
) -> Path:
    """Write `report.html` and its figures (`figures/`, as PNG and SVG) for a run, finished or in progress.

    The report lists the parts that it had to omit, and why.

    Parameters
    ----------
    run
        A run folder, an opened run, or the folder of a baseline.
    data
        The prepared dataset; by default the one that the run was trained on, if it is still there.
    out
        The folder to write to; by default the run folder.
    split, views, precision, recall, positive, costs
        As for `evaluate`. A `recall` is omitted where the split has no image of the positive class.
    device
        Device name, such as "cpu" or "cuda:1"; by default the best available.
    evaluation
        A result of `evaluate` to report; nothing is measured again.

    Returns
    -------
    Path
        The path of `report.html`.

    Raises
    ------
    AlexNetError
        The folder is not a run, the dataset does not fit it, or the report cannot be written.
    """
    if not isinstance(run, Run) and is_baseline(run):
        return write_baseline_report(
            *(run, data, out),
            split=split,
            views=views,
            recall=recall,
            positive=positive,
            costs=costs,
            evaluation=evaluation,
        )
    opened = run if isinstance(run, Run) else Run.open(run)
    folder = opened.path if out is None else Path(out)
    keep_freed_memory()
    files, omitted = FigureFiles(folder), list[str]()
    dataset = _find_data(opened, evaluation.data if data is None and evaluation is not None else data, omitted)
    member, weights = _load_weights(opened, device, omitted)
    if dataset is not None and member is not None and evaluation is None:
        if split is None and dataset.measured_on is None:
            omitted.append("All results: the dataset has no images in test or val; choose a split with `--split`.")
        else:
            evaluation = evaluate(
                member,
                dataset,
                split=split,
                views=views,
                precision=precision,
                recall=recall,
                positive=positive,
                costs=costs,
            )
    if evaluation is not None:
        evaluation = _without_impossible_recall(evaluation, omitted)

    sections = [training_section(opened, files, omitted)]
    if evaluation is not None:
        sections.append(results_section(evaluation, files))
        sections.append(predictions_section(evaluation, files))
        sections.append(mistakes_section(evaluation, files))
    if evaluation is not None and member is not None:
        sections.append(attribution_section(member, evaluation, files))
    if evaluation is not None and member is not None and dataset is not None:
        sections.append(neighbors_section(member, evaluation, dataset, files, precision))
    if member is not None:
        sections.append(features_section(member, evaluation, files))
        sections.append(layers_section(member, precision))
    sections.append(recipe_section(opened))
    if files.missing_glyphs:
        omitted.append(_glyph_note(files.missing_glyphs))
        print(f"alexnet: {omitted[-1]}", file=sys.stderr)
    sections.insert(0, _summary_section(opened, evaluation, weights, omitted))
    return _write_page(opened, folder, sections, _banner(member))


def _find_data(
    run: Run, data: str | os.PathLike[str] | PreparedDataset | None, omitted: list[str]
) -> PreparedDataset | None:
    """The given dataset, or the one that the run was trained on where it can be opened."""
    if isinstance(data, PreparedDataset):
        return data
    if data is not None:
        return run.find_data(data)
    try:
        return run.find_data()
    except AlexNetError as error:
        omitted.append(f"All parts with images: {error}")
        return None


def _load_weights(run: Run, device: str | None, omitted: list[str]) -> tuple[Member | None, str]:
    """The weights that the recipe keeps, or those saved so far by a training in progress; and which they are."""
    available = run.available_weights()
    if not available:
        omitted.append("All parts that need the network: the training has not saved any weights yet.")
        return None, ""
    return Member(run, *run.load(choose_device(device), available[0])), available[0]


def _without_impossible_recall(evaluation: Evaluation, omitted: list[str]) -> Evaluation:
    """The evaluation, without its `recall` where no image is of the positive class."""
    if evaluation.positive is None or evaluation.recall is None:
        return evaluation
    if (evaluation.predictions.labels == evaluation.positive).any():
        return evaluation
    name = sentences.short_name(evaluation.classes[evaluation.positive])
    omitted.append(
        f"The threshold for recall {evaluation.recall:g}: the split “{evaluation.split.name}” has no image of the "
        f"class “{name}”."
    )
    return dataclasses.replace(evaluation, recall=None)


def _glyph_note(characters: set[str]) -> str:
    shown = "".join(sorted(characters)[:12]) + "…" * (len(characters) > 12)
    return (
        f"Glyphs in the PNG figures: no installed font has {shown}; install one that does, such as Noto Sans CJK. "
        "This page and the SVG figures are complete."
    )


def _summary_section(run: Run, evaluation: Evaluation | None, weights: str, omitted: list[str]) -> Section:
    recipe, completed = run.config.recipe, _completed_epochs(run)
    lines = []
    if completed < recipe.epochs:
        shown = f"; this report uses its {weights} weights so far" if weights else ""
        lines.append(f"Training in progress: {completed} of {recipe.epochs} epochs completed{shown}.")
    numbers = sentences.training_numbers(run) if evaluation is None else sentences.evaluation_numbers(evaluation)
    values = {
        "numbers": numbers,
        "lines": [*lines, *sentences.summary(run, evaluation)],
        "omitted": omitted,
    }
    return Section("summary", "Summary", "", "summary.html", values)


def _completed_epochs(run: Run) -> int:
    epochs = run.metrics("epoch")
    return epochs[-1]["epoch"] if epochs else 0


def _banner(member: Member | None) -> EmbeddedImage | None:
    """The first-layer kernels, as the background of the title."""
    if member is None:
        return None
    tiles = filters.kernel_tiles(member.network)
    columns = min(24, len(tiles))  # LeNet-5 has fewer
    return embed_png(mosaic(tiles[: len(tiles) // columns * columns], columns=columns, gap=1), "")


def _write_page(run: Run, folder: Path, sections: list[Section], banner: EmbeddedImage | None) -> Path:
    config, completed = run.config, _completed_epochs(run)
    epochs = f"{completed} epoch{'s' * (completed != 1)}"
    if completed < config.recipe.epochs:
        epochs = f"in progress, {completed} of {config.recipe.epochs} epochs"
    images = config.dataset.get("counts", {}).get("train")
    facts = [f"recipe {config.recipe.name}", f"variant {config.recipe.variant}", f"{len(config.classes):,} classes"]
    facts += [f"{images:,} training images"] if images is not None else []
    return write_page(folder, run.path, config.classes, [*facts, epochs], sections, banner)
