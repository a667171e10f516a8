"""The sections of a report without images: training, results, recipe. Each has a template of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexnet.evaluation import metrics
from alexnet.evaluation.decided import Decided
from alexnet.evaluation.evaluate import Evaluation
from alexnet.evaluation.printing import percent
from alexnet.evaluation.views import describe_views
from alexnet.report import curves, metric_figures, sentences
from alexnet.report.figure_files import EmbeddedFigure, FigureFiles
from alexnet.runs.decision import describe_decision
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run

SLIDER_POINTS = 200
"""Thresholds that the slider can be set to."""
CONFUSED_PAIRS = 15
"""Rows in the table of confused pairs."""


@dataclass(frozen=True)
class Section:
    """A section of the page: anchor, heading, introduction, and the values of its template `NAME.html`."""

    name: str
    heading: str
    lead: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of text; backticks mark code. `numeric` columns are right-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()


@dataclass(frozen=True)
class ThresholdSlider:
    """The rows of `metrics.threshold_curve` for the class `name`, and the index of the row to start with."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    positives: int
    negatives: int
    start: int


def training_section(run: Run, files: FigureFiles, omitted: list[str]) -> Section:
    """Return the learning curves, and what the diagnostics found during training.

    Parameters
    ----------
    run
        The run, finished or in progress.
    files
        Where the figures are written.
    omitted
        Reasons why a part of the report is missing; extended here.
    """
    steps, epochs = run.metrics("step"), run.metrics("epoch")
    figures: list[EmbeddedFigure] = []
    if not steps:
        omitted.append("The learning curves: no step of the training has been recorded.")
    else:
        last = epochs[-1]["train_loss"] if epochs else steps[-1]["loss"]
        alt = f"Training loss from {steps[0]['loss']:.3g} to {last:.3g}"
        caption = sentences.learning_rate_drops(run)
        figures.append(files.embed("losses", curves.losses(run), alt=alt, caption=caption))
    if epochs:
        figures += _epoch_figures(run, files)
    elif steps:
        omitted.append("Error rates and layers per epoch: the first epoch has not been completed.")
    lead = "Loss of every step and mean of every epoch, and what the diagnostics detected."
    values = {"figures": figures, "findings": run.metrics("finding"), "has_records": bool(run.metrics())}
    return Section("training", "Training", lead, "training.html", values)


def _epoch_figures(run: Run, files: FigureFiles) -> list[EmbeddedFigure]:
    epochs = run.metrics("epoch")
    names = ", ".join(epochs[-1]["layers"])
    end = f"{epochs[-1]['train_error']:.1%} in training"
    if "validation_error" in epochs[-1]:
        end += f" and {epochs[-1]['validation_error']:.1%} in validation"
    return [
        files.embed(
            "layer-weights",
            curves.layer_weights(run),
            alt=f"Mean absolute weights of {names} per epoch",
            caption="As printed by the 2012 code.",
        ),
        files.embed(
            "error-rates",
            curves.error_rates(run),
            alt=f"Error rates after {len(epochs)} epochs: {end}",
            caption=sentences.best_validation(epochs),
        ),
        files.embed(
            "layer-updates",
            curves.layer_updates(run),
            alt=f"Mean absolute updates of {names} per epoch",
            caption="A layer whose updates are tiny relative to its weights hardly learns.",
        ),
    ]


def results_section(evaluation: Evaluation, files: FigureFiles) -> Section:
    """Return the confusion matrix, per-class metrics, calibration and, for two classes, the curves over thresholds."""
    n = len(evaluation.predictions)
    correct = int(evaluation.predictions.correct.sum())
    worst = sentences.worst_confusion(evaluation)
    figures = [
        files.embed(
            "confusion-matrix",
            metric_figures.confusion_matrix(evaluation),
            alt=f"Confusion matrix: {correct:,} of {n:,} images are on the diagonal (correct). {worst}",
            caption=worst,
        ),
        files.embed(
            "per-class",
            metric_figures.per_class(evaluation),
            alt=f"Recall and precision of each class. Lowest: {sentences.lowest_recall(evaluation)}",
            caption="Bars: 95% interval of the recall (Wilson).",
        ),
        _calibration_figure(evaluation, files),
    ]
    if evaluation.positive is not None:
        figures += _threshold_figures(evaluation, evaluation.positive, files)
    values = {
        "figures": figures,
        "slider": threshold_slider(evaluation),
        "pairs": _pair_table(evaluation) if len(evaluation.classes) > 2 else None,
        "classes": _class_table(evaluation),
        "decided": None if evaluation.decided is None else _decision_table(evaluation.decided),
    }
    views = describe_views(evaluation.views)
    lead = f"{n:,} images of the split “{evaluation.split.name}”; {views}; {evaluation.dtype}."
    return Section("results", "Results", lead, "results.html", values)


def _calibration_figure(evaluation: Evaluation, files: FigureFiles) -> EmbeddedFigure:
    bins = [b for b in metrics.calibration_bins(evaluation.predictions) if b.accuracy is not None]
    alt = "; ".join(f"confidence {b.confidence:.0%}, accuracy {b.accuracy:.0%}" for b in bins)
    caption = f"Dashed: accuracy equal to confidence. {sentences.calibration(evaluation)}"
    figure = metric_figures.reliability_diagram(evaluation)
    return files.embed("calibration", figure, alt=f"Reliability diagram: {alt}", caption=caption)


def _threshold_figures(evaluation: Evaluation, positive: int, files: FigureFiles) -> list[EmbeddedFigure]:
    score, is_positive = metrics.binary_scores(evaluation.predictions, positive)
    area = metrics.roc_auc(score, is_positive)
    if area is None:  # only one class is present
        return []
    name = sentences.short_name(evaluation.classes[positive])
    thresholds = " ".join(sentences.threshold(point) for point in metric_figures.chosen_thresholds(evaluation))
    return [
        files.embed(
            "roc-curve",
            metric_figures.roc_curve(evaluation),
            alt=f"ROC curve of “{name}”, area {area:.3f}. {thresholds}",
            caption=thresholds,
        ),
        files.embed(
            "precision-recall-curve",
            metric_figures.precision_recall_curve(evaluation),
            alt=f"Precision-recall curve of “{name}”. {thresholds}",
            caption="A threshold chosen on these images will do slightly worse on others.",
        ),
    ]


def threshold_slider(evaluation: Evaluation) -> ThresholdSlider | None:
    """Return the slider of two classes; None with more classes, or with fewer than two distinct thresholds."""
    if evaluation.positive is None:
        return None
    score, is_positive = metrics.binary_scores(evaluation.predictions, evaluation.positive)
    rows = metrics.threshold_curve(score, is_positive, points=SLIDER_POINTS)
    if len(rows) < 2:
        return None
    chosen = metric_figures.chosen_thresholds(evaluation)
    value = chosen[-1]["threshold"] if chosen else metric_figures.DEFAULT_THRESHOLD
    start = int(np.argmin([abs(row["threshold"] - value) for row in rows]))
    positives = int(is_positive.sum())
    name = sentences.short_name(evaluation.classes[evaluation.positive])
    return ThresholdSlider(name, rows, positives, len(score) - positives, start)


def _pair_table(evaluation: Evaluation) -> Table | None:
    pairs = sentences.confused_pairs(evaluation, CONFUSED_PAIRS)
    rows = [
        [true, predicted, f"{count:,} of {total:,}", f"{count / total:.1%}"] for true, predicted, count, total in pairs
    ]
    head = ["true class", "predicted class", "images", "share of the true class"]
    return Table(head, rows, numeric=(2, 3)) if rows else None


def _class_table(evaluation: Evaluation) -> Table:
    rows = [
        [
            name,
            f"{row['support']:,}",
            *(percent(row[key]) for key in ("recall", "precision", "f1")),
            f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else "–",
        ]
        for (name, row), interval in zip(evaluation.per_class().items(), evaluation.intervals.f1, strict=True)
    ]
    head = ["class", "images", "recall", "precision", "F1", "95% interval"]
    return Table(head, rows, numeric=(1, 2, 3, 4, 5))


def _decision_table(decided: Decided) -> dict[str, Any]:
    """The decision rule as a sentence, and a row for each class."""
    keys = ("support", "decided", "missed", "handed_over", "false_positives")
    rows = [
        [name, *(f"{row[key]:,}" for key in keys), percent(row["recall"]), percent(row["precision"])]
        for name, row in zip(decided.rule.classes, decided.per_class(), strict=True)
    ]
    head = ["class", "images", "decided", "missed", "unsure or unknown", "false positives", "recall", "precision"]
    return {"rule": " ".join(describe_decision(decided.rule)), "table": Table(head, rows, numeric=range(1, 8))}


def recipe_section(run: Run) -> Section:
    """Return every value of the run's recipe beside that of the recipe it was derived from."""
    recipe = run.config.recipe
    reference = recipes().get(recipe.name)
    rows = list(sentences.recipe_rows(recipe, reference))
    changed = [
        f"`{name}` is {here} (default {usual})" for name, here, usual, _ in rows if usual not in ("", "auto", here)
    ]
    lines = [f"Recipe {recipe.name}: {recipe.purpose}"]
    lines += [f"Changed values: {', '.join(changed)}."] if changed else []
    table = Table(("name", "this run", f"recipe {recipe.name}", "meaning"), rows)
    return Section("recipe", "Recipe", "", "recipe.html", {"lines": lines, "table": table})
