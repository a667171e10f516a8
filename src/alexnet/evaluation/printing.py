"""An evaluation as people read it."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import Evaluation
from alexnet.evaluation.views import describe_views

MOST_CLASSES = 20
MOST_COLUMNS = 10
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)


def print_evaluation(result: Evaluation) -> None:
    """Print the evaluation on stdout."""
    Console(highlight=False).print(table_of(result))


def table_of(result: Evaluation) -> RenderableType:
    """The evaluation as tables: the whole, the classes, who is taken for whom, and the thresholds of two classes."""
    values = result.to_dict()
    parts: list[RenderableType] = [_whole(result, values), _classes(result)]
    if len(result.classes) <= MOST_COLUMNS:
        parts.append(_confusion(result))
    if result.positive is not None:
        parts.append(_two_classes(result, values, result.positive))
    return Group(*parts)


def _whole(result: Evaluation, values: dict[str, Any]) -> Table:
    low, high = values["top1_interval"]
    counts = result.confusion.sum(axis=1)
    learned_from = ", which the network has learned from" if result.split.name == "train" else ""
    title = f"{values['n']:,} images: {result.split.name} of {result.data}{learned_from}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_row("runs averaged" if len(result.runs) > 1 else "run", Text(", ".join(result.runs)))
    if result.coefficients is not None:
        rows = ("  ".join(f"{value:.3f}" for value in row) for row in result.coefficients.values)
        table.add_row("coefficients", f"{' | '.join(rows)}, searched on {result.coefficients.searched_on}")
    table.add_row("views", describe_views(result.views))
    table.add_row("top-1 accuracy", f"[bold]{values['top1']:.2%}[/] (95% interval: {low:.1%} to {high:.1%})")
    if len(result.classes) > 5:
        table.add_row("top-5 accuracy", f"{values['top5']:.2%}")
    table.add_row("mean over the classes", f"{values['balanced_accuracy']:.2%}")
    table.add_row("log-loss", f"{values['log_loss']:.4f}")
    table.add_row(
        "always the largest class", Text(f"{counts.max() / counts.sum():.2%} ({result.classes[counts.argmax()]})")
    )
    return table


def _classes(result: Evaluation) -> Table:
    rows = [(name, row) for name, row in result.per_class().items() if row["n"] or row["precision"] is not None]
    title = "classes"
    if len(rows) > MOST_CLASSES:
        rows.sort(key=lambda item: item[1]["recall"] if item[1]["recall"] is not None else 2.0)
        title = f"the {MOST_CLASSES} of {len(rows):,} classes that are found least (all of them with --json)"
    table = Table("class", title=title, title_justify="left")
    for heading in ("images", "found (recall)", "right when said (precision)"):
        table.add_column(heading, justify="right")
    for name, row in rows[:MOST_CLASSES]:
        table.add_row(Text(name), f"{row['n']:,}", _percent(row["recall"]), _percent(row["precision"]))
    return table


def _confusion(result: Evaluation) -> Table:
    table = Table("is ↓  said →", title="who is taken for whom", title_justify="left")
    for name in result.classes:
        table.add_column(Text(name), justify="right")
    for i, (name, row) in enumerate(zip(result.classes, result.confusion, strict=True)):
        cells = (f"[bold]{count:,}[/]" if i == j else f"{count:,}" for j, count in enumerate(row))
        table.add_row(Text(name), *cells)
    return table


def _two_classes(result: Evaluation, values: dict[str, Any], positive: int) -> RenderableType:
    name = values["positive"]
    auc = "undefined: one class only" if values["roc_auc"] is None else f"{values['roc_auc']:.4f}"
    table = Table("probability ≥", title=f"finding {name}: area under the ROC curve {auc}", title_justify="left")
    for heading in ("found (recall)", "right when said (precision)", "false alarms"):
        table.add_column(heading, justify="right")
    score, is_positive = metrics.scores(result.predictions, positive)
    if is_positive.any():
        wanted = (metrics.threshold_for_recall(score, is_positive, recall) for recall in RECALLS)
        for row in {row["threshold"]: row for row in wanted}.values():
            table.add_row(*_threshold_row(row))
    if "wished" not in values:
        return table
    table.add_section()
    table.add_row(*(f"[bold]{cell}[/]" for cell in _threshold_row(values["wished"])))
    text = (
        f"The last row is the highest threshold that finds {values['wished']['wished_recall']:.4g} of {name} here. "
        "It was chosen on these very images: on others it will find somewhat less or more."
    )
    return Group(table, Text(text))


def _threshold_row(row: dict[str, Any]) -> tuple[str, str, str, str]:
    recall, precision, alarms = (_percent(row[name]) for name in ("recall", "precision", "false_positive_rate"))
    # Rounded down: the threshold as printed still finds what it says.
    return f"{math.floor(row['threshold'] * 1e6) / 1e6:.6f}", recall, precision, alarms


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
