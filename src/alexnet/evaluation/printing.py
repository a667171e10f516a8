"""An evaluation as tables for the terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import CONFIDENCE, Evaluation
from alexnet.evaluation.views import describe_views

MAX_CLASSES = 20
"""Rows of the table of classes."""
MAX_MATRIX = 10
"""Classes up to which the confusion matrix is printed."""
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)


def print_evaluation(result: Evaluation) -> None:
    """Print an evaluation on stdout."""
    Console(highlight=False).print(tables_of(result))


def tables_of(result: Evaluation) -> RenderableType:
    """The tables of an evaluation: all images, the classes, the confusion matrix, and the thresholds of two classes."""
    values = result.to_dict()
    parts: list[RenderableType] = [_summary_table(result, values), _class_table(values)]
    if len(result.classes) <= MAX_MATRIX:
        parts.append(_confusion_matrix(result))
    if result.positive is not None:
        parts.append(_threshold_table(result, values, result.positive))
    if "decision" in values:
        parts.append(_decision_table(values["decision"]))
    return Group(*parts)


def _summary_table(result: Evaluation, values: dict[str, Any]) -> Table:
    low, high = values["accuracy_interval"]
    counts = result.class_counts
    largest = result.classes[counts.argmax()]
    trained_on = ", on which the network was trained" if result.split.name == "train" else ""
    images = f"{values['n_samples']:,} image{'s' * (values['n_samples'] != 1)}"
    table = Table(
        title=f"{images}: {result.split.name} of {result.data}{trained_on}", title_justify="left", show_header=False
    )
    table.add_row("runs, averaged" if len(result.runs) > 1 else "run", Text(", ".join(result.runs)))
    if result.coefficients is not None:
        rows = ("  ".join(f"{value:.3f}" for value in row) for row in result.coefficients.values)
        table.add_row("coefficients", f"{' | '.join(rows)}, searched on {result.coefficients.searched_on}")
    table.add_row("views", describe_views(result.views))
    interval = f"{CONFIDENCE:.0%} confidence interval: {low:.1%} to {high:.1%}"
    table.add_row("top-1 accuracy", f"[bold]{values['accuracy']:.2%}[/] ({interval})")
    if len(result.classes) > metrics.TOP:
        table.add_row("top-5 accuracy", f"{values['top5_accuracy']:.2%}")
    for name, part in values.get("certainty", {}).items():
        lower, upper = part["accuracy_interval"]
        table.add_row(
            f"accuracy, {name} labels",
            f"{part['accuracy']:.2%} ({lower:.1%} to {upper:.1%}; {part['n_samples']:,} images)",
        )
    table.add_row("balanced accuracy", f"{values['balanced_accuracy']:.2%}")
    for name in ("precision", "recall", "f1"):
        lower, upper = values[f"macro_{name}_interval"]
        shown = "F1" if name == "f1" else name
        table.add_row(f"macro {shown}", f"{values[f'macro_{name}']:.2%} ({lower:.1%} to {upper:.1%})")
    if "expected_cost" in values:
        lower, upper = values["expected_cost_interval"]
        table.add_row("expected cost", f"[bold]{values['expected_cost']:.4g}[/] per image ({lower:.4g} to {upper:.4g})")
    table.add_row("log loss", f"{values['log_loss']:.4f}")
    table.add_row("calibration error", f"{values['calibration_error']:.2%}")
    for name, value in result.registered.items():
        table.add_row(Text(name), f"{value:.4f}")
    if values["weighted"]:
        table.add_row("weights", "those of the images; confusion matrix, calibration and thresholds count images")
    table.add_row("accuracy of the majority class", Text(f"{counts.max() / counts.sum():.2%} ({largest})"))
    return table


def _class_table(values: dict[str, Any]) -> Table:
    rows = [(name, row) for name, row in values["classes"].items() if row["support"] or row["precision"] is not None]
    title = "classes"
    if len(rows) > MAX_CLASSES:
        rows.sort(key=lambda item: item[1]["recall"] if item[1]["recall"] is not None else 2.0)
        title = f"the {MAX_CLASSES} of {len(rows):,} classes with the lowest recall (all of them with --json)"
    table = Table("class", title=title, title_justify="left")
    for heading in ("images", "precision", "recall", "F1", f"{CONFIDENCE:.0%} interval"):
        table.add_column(heading, justify="right")
    for name, row in rows[:MAX_CLASSES]:
        shares = (percent(row[key]) for key in ("precision", "recall", "f1"))
        interval = row["f1_interval"]
        shown = "–" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"
        table.add_row(Text(name), f"{row['support']:,}", *shares, shown)
    return table


def _decision_table(values: dict[str, Any]) -> RenderableType:
    """The decision rule of the run on these images."""
    shares, accuracy = values["shares"], values["accuracy"]
    facts = [f"answered {shares['class']:.1%}, unsure {shares['unsure']:.1%}, unknown {shares['unknown']:.1%}"]
    if accuracy is not None:
        low, high = values["accuracy_interval"]
        facts.append(f"accuracy among the answered {accuracy:.2%} ({low:.1%} to {high:.1%})")
    if values.get("expected_cost") is not None:
        low, high = values["expected_cost_interval"]
        facts.append(f"expected cost {values['expected_cost']:.4g} ({low:.4g} to {high:.4g})")
    table = Table("class", title="with the decision rule of the run: " + "; ".join(facts), title_justify="left")
    for heading in ("images", "decided", "missed", "unsure or unknown", "false positives", "precision", "recall"):
        table.add_column(heading, justify="right")
    for name, row in list(values["classes"].items())[:MAX_CLASSES]:
        counts = (f"{row[key]:,}" for key in ("support", "decided", "missed", "handed_over", "false_positives"))
        table.add_row(Text(name), *counts, percent(row["precision"]), percent(row["recall"]))
    text = " ".join(values["rule"]) + " Missed: decided as another class; recall counts only these as errors."
    return Group(table, Text(text))


def _confusion_matrix(result: Evaluation) -> Table:
    table = Table("true ↓  predicted →", title="confusion matrix", title_justify="left")
    for name in result.classes:
        table.add_column(Text(name), justify="right")
    for i, (name, row) in enumerate(zip(result.classes, result.confusion_matrix, strict=True)):
        cells = (f"[bold]{count:,}[/]" if i == j else f"{count:,}" for j, count in enumerate(row))
        table.add_row(Text(name), *cells)
    return table


def _threshold_table(result: Evaluation, values: dict[str, Any], positive: int) -> RenderableType:
    name = values["positive_class"]
    auc = "undefined: one class only" if values["roc_auc"] is None else f"{values['roc_auc']:.4f}"
    table = Table(
        "probability ≥",
        title=f"thresholds for the positive class {name}; area under the ROC curve: {auc}",
        title_justify="left",
    )
    for heading in ("precision", "recall", "false positive rate"):
        table.add_column(heading, justify="right")
    score, is_positive = metrics.binary_scores(result.predictions, positive)
    if is_positive.any():
        rows = (metrics.threshold_for_recall(score, is_positive, recall) for recall in RECALLS)
        for row in {row["threshold"]: row for row in rows}.values():
            table.add_row(*_threshold_cells(row))
    if "threshold_for_recall" not in values:
        return table
    chosen = values["threshold_for_recall"]
    table.add_section()
    table.add_row(*(f"[bold]{cell}[/]" for cell in _threshold_cells(chosen)))
    text = (
        f"The last row is the highest threshold with a recall of at least {chosen['requested_recall']:.4g} on these "
        "images. It was chosen on the same images: on others its recall will differ."
    )
    return Group(table, Text(text))


def _threshold_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    precision, recall, false_positive_rate = (
        percent(row[key]) for key in ("precision", "recall", "false_positive_rate")
    )
    # Rounded down: the threshold as printed still has the recall beside it.
    return f"{math.floor(row['threshold'] * 1e6) / 1e6:.6f}", precision, recall, false_positive_rate


def percent(share: float | None) -> str:
    """A share such as "84.1%"; a dash where it is undefined."""
    return "–" if share is None else f"{share:.1%}"
