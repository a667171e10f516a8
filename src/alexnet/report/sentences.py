"""What a report says in words: of the results, the training, the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import Evaluation
from alexnet.report import curves, metric_figures
from alexnet.runs.recipe import Recipe
from alexnet.runs.run import Run


def question(classes: list[str]) -> str:
    """What the network answers, as the heading."""
    if len(classes) <= 4:
        return f"{' or '.join([', '.join(classes[:-1]), classes[-1]] if len(classes) > 1 else classes)}?"
    return f"{', '.join(classes[:3])} or {len(classes) - 3:,} others?"


def numbers(run: Run, evaluation: Evaluation | None) -> dict[str, str]:
    """The numbers that matter most, each under what it is: of the results, else of the training so far."""
    if evaluation is None:
        return _so_far(run)
    counts = evaluation.confusion.sum(axis=1)
    values = {f"right on {len(evaluation.predictions):,} {evaluation.split.name} images": f"{evaluation.top1:.1%}"}
    if len(evaluation.classes) > 5:
        values["right among the first five"] = f"{evaluation.top5:.1%}"
    values[f"always {_largest(evaluation)}"] = f"{counts.max() / counts.sum():.1%}"
    area = evaluation.two_classes().get("roc_auc")
    if area is not None:
        values["area under the ROC curve"] = f"{area:.3f}"
    values["log-loss, in nats"] = f"{evaluation.log_loss:.3f}"
    values["calibration error"] = f"{metrics.calibration_error(metrics.calibration(evaluation.predictions)):.1%}"
    return values


def _so_far(run: Run) -> dict[str, str]:
    epochs = run.metrics("epoch")
    values = {"epochs done": f"{len(epochs)} of {run.config.recipe.epochs}"}
    if epochs:
        last = epochs[-1]
        values["loss in training, in nats"] = f"{last['train_loss']:.3f}"
        values["wrong in training"] = f"{last['train_error']:.1%}"
        if "validation_error" in last:
            values["wrong in validation"] = f"{last['validation_error']:.1%}"
    return values


def in_short(run: Run, evaluation: Evaluation | None) -> Iterator[str]:
    """What a person wants to know first, in sentences."""
    if evaluation is not None:
        counts = evaluation.confusion
        n, right = int(counts.sum()), int(np.trace(counts))
        low, high = metrics.interval(right / n, n)
        yield (
            f"Right on {right:,} of {n:,} images: {right / n:.1%} (95% interval: {low:.1%} to {high:.1%}). "
            f"Always answering {_largest(evaluation)} is right on {counts.sum(axis=1).max() / n:.1%}."
        )
        if evaluation.positive is not None:
            p = evaluation.positive
            said, there = int(counts[:, p].sum()), int(counts[p].sum())
            if there:
                found = f"Of {there:,} “{evaluation.classes[p]}” it finds {counts[p, p]:,} ({counts[p, p] / there:.1%})"
                alarms = f", and {counts[p, p] / said:.1%} of its {said:,} alarms are right" if said else ""
                yield f"{found}{alarms}."
        elif worst_confusion(evaluation):
            yield worst_confusion(evaluation)
        yield calibration(evaluation)
    findings = run.metrics("finding")
    if findings:
        yield f"Noticed while it trained: {'; '.join(finding['message'] for finding in findings)}."
    elif run.metrics():
        yield "Nothing wrong was noticed while it trained."


def _largest(evaluation: Evaluation) -> str:
    """The class with the most images, where one has."""
    counts = evaluation.confusion.sum(axis=1)
    alone = (counts == counts.max()).sum() == 1
    return f"“{evaluation.classes[counts.argmax()]}”" if alone else "the same class"


def calibration(evaluation: Evaluation) -> str:
    """Whether the network is as sure as it is right."""
    bins = metrics.calibration(evaluation.predictions)
    error = metrics.calibration_error(bins)
    sure, right = float(evaluation.predictions.ranked_probabilities[:, 0].mean()), evaluation.top1
    how = "as sure as it is right"
    if abs(sure - right) > 0.02:
        how = "surer than it should be" if sure > right else "less sure than it could be"
    return f"On the whole it is {how}: {sure:.1%} sure and {right:.1%} right; calibration error {error:.1%}."


def worst_confusion(evaluation: Evaluation) -> str:
    """Which class is most often taken for which."""
    counts = evaluation.confusion.copy()
    np.fill_diagonal(counts, 0)
    if not counts.any():
        return "No class is taken for another."
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    names = evaluation.classes
    total = int(evaluation.confusion[row].sum())
    return f"Most often “{names[row]}” is taken for “{names[column]}”: {counts[row, column]:,} of {total:,}."


def least_found(evaluation: Evaluation) -> str:
    """The five classes that are found least."""
    rows = [(name, row) for name, row in evaluation.per_class().items() if row["n"]]
    worst = sorted(rows, key=lambda item: item[1]["recall"])[:5]
    return "; ".join(f"{name}: {row['recall']:.0%} found" for name, row in worst)


def threshold(point: dict[str, Any]) -> str:
    """What a row of `metric_figures.chosen_thresholds` finds."""
    value = point["threshold"] if point["name"] == "chosen" else metric_figures.EVEN
    alarms = point["false_positive_rate"]
    return f"At {value:.3g} it finds {point['recall']:.1%} with {alarms or 0:.1%} false alarms."


def drops(run: Run) -> str:
    """When the learning rate was lowered."""
    lowered = [f"to {rate:.3g} after epoch {time:.0f}" for time, rate in curves.drops(run)]
    if lowered:
        return f"Dashed: the learning rate was lowered, {', '.join(lowered)}."
    if run.config.recipe.schedule == "cosine":
        return "The learning rate falls smoothly, as half a cosine."
    return "The learning rate has not been lowered so far."


def validation(epochs: list[dict[str, Any]]) -> str:
    """What the validation split has shown, from the records of the epochs."""
    known = [epoch for epoch in epochs if "validation_error" in epoch]
    if not known:
        return "Measured on the training images as they were learned; there is no validation split."
    best = min(known, key=lambda epoch: epoch["validation_error"])
    return f"Best in validation: {best['validation_error']:.2%} after epoch {best['epoch']}."


def sentence(text: str) -> str:
    """Text with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def recipe_rows(recipe: Recipe, usual: Recipe | None) -> Iterator[tuple[str, str, str, str]]:
    """Of each value of a recipe: its name, what it is here and in the `usual` recipe, and what it is for."""
    there = usual.to_dict() if usual else {}
    for f in dataclasses.fields(recipe):
        if f.name in ("name", "purpose"):
            continue
        here = recipe.to_dict()[f.name]
        yield f.name, _value(here), _value(there[f.name]) if usual else "", f.metadata.get("help", "")


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "; ".join(" ".join(f"{k} {v}" for k, v in event.items() if v is not None) for event in value) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
