"""The text of a report: sentences and numbers about the results, the training and the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from alexnet.evaluation import metrics
from alexnet.evaluation.evaluate import Evaluation
from alexnet.report import curves, metric_figures
from alexnet.report.style import shorten
from alexnet.runs.recipe import Recipe
from alexnet.runs.run import Run

MAX_NAMES = 4
MAX_COLUMNS = 32
"""Greatest width of a class name within a heading or a sentence."""


def class_list(classes: Sequence[str]) -> str:
    """Return the class names as one line: all of up to four, else the first three and the number of the others."""
    if len(classes) <= MAX_NAMES:
        return ", ".join(map(short_name, classes))
    return f"{', '.join(map(short_name, classes[:3]))} and {len(classes) - 3:,} more"


def short_name(name: str) -> str:
    """Return a class name cut to `MAX_COLUMNS`."""
    return shorten(name, MAX_COLUMNS)


def evaluation_numbers(evaluation: Evaluation) -> dict[str, str]:
    """Return the most important numbers of an evaluation by label."""
    counts = evaluation.class_counts
    values = {
        f"accuracy on {len(evaluation.predictions):,} {evaluation.split.name} images": f"{evaluation.accuracy:.1%}"
    }
    if len(evaluation.classes) > 5:
        values["top-5 accuracy"] = f"{evaluation.top5_accuracy:.1%}"
    values[f"always predicting {_largest_class(evaluation)}"] = f"{counts.max() / counts.sum():.1%}"
    area = evaluation.binary_metrics().get("roc_auc")
    if area is not None:
        values["area under the ROC curve"] = f"{area:.3f}"
    values["log loss (nats)"] = f"{evaluation.log_loss:.3f}"
    values["calibration error"] = f"{evaluation.calibration_error:.1%}"
    values |= {name: f"{value:.4g}" for name, value in evaluation.registered.items()}
    if evaluation.expected_cost is not None:
        values["expected cost per image"] = f"{evaluation.expected_cost:.4g}"
    return values


def training_numbers(run: Run) -> dict[str, str]:
    """Return the most important numbers of the training so far by label."""
    epochs = run.metrics("epoch")
    values = {"epochs completed": f"{len(epochs)} of {run.config.recipe.epochs}"}
    if epochs:
        last = epochs[-1]
        values["training loss (nats)"] = f"{last['train_loss']:.3f}"
        values["training error rate"] = f"{last['train_error']:.1%}"
        if "validation_error" in last:
            values["validation error rate"] = f"{last['validation_error']:.1%}"
    return values


def summary(run: Run, evaluation: Evaluation | None) -> Iterator[str]:
    """Yield the main results as sentences."""
    if evaluation is not None:
        yield from evaluation_summary(evaluation)
    findings = run.metrics("finding")
    if findings:
        yield f"Detected during training: {'; '.join(finding['message'] for finding in findings)}."
    elif run.metrics():
        yield "No problem was detected during training."


def evaluation_summary(evaluation: Evaluation) -> Iterator[str]:
    """Yield the main results of an evaluation as sentences."""
    n, correct = len(evaluation.predictions), int(evaluation.predictions.correct.sum())
    low, high = metrics.wilson_interval(correct / n, n)
    yield (
        f"Accuracy: {correct:,} of {n:,} images, {correct / n:.1%} (95% interval: {low:.1%} to {high:.1%}). "
        f"Always predicting {_largest_class(evaluation)} gives {evaluation.class_counts.max() / n:.1%}."
    )
    if evaluation.positive is not None:
        yield from _positive_class(evaluation, evaluation.positive)
    else:
        yield worst_confusion(evaluation)
    yield calibration(evaluation)
    yield from _further(evaluation)


def _further(evaluation: Evaluation) -> Iterator[str]:
    """Macro F1, images with certain and doubtful labels, costs, and the decision rule."""
    low, high = evaluation.intervals.macro["macro_f1"]
    yield f"Macro F1: {evaluation.macro['macro_f1']:.1%} (95% interval: {low:.1%} to {high:.1%})."
    if evaluation.predictions.weights is not None:
        yield (
            f"With the weights of the images: accuracy {evaluation.accuracy:.1%}. Precision, recall, F1, log loss and "
            "the area under the ROC curve use the weights; counts of images do not."
        )
    for name, part in evaluation.certainty.items():
        accuracy = metrics.accuracy(part)
        low, high = metrics.wilson_interval(accuracy, part.effective_size)
        yield (
            f"Images with a {name} label: accuracy {accuracy:.1%} of {len(part):,} (95% interval: {low:.1%} to "
            f"{high:.1%})."
        )
    values = evaluation.to_dict()
    if "expected_cost" in values:
        low, high = values["expected_cost_interval"]
        yield (
            f"Expected cost of the most probable class: {values['expected_cost']:.4g} per image (95% interval: "
            f"{low:.4g} to {high:.4g})."
        )
    if "decision" in values:
        yield decision(values["decision"])


def decision(values: dict[str, Any]) -> str:
    """Describe what the decision rule of the run makes of the images."""
    shares = values["shares"]
    text = (
        f"With the decision rule of the run: {shares['class']:.1%} answered, {shares['unsure']:.1%} unsure, "
        f"{shares['unknown']:.1%} unknown"
    )
    if values["accuracy"] is not None:
        low, high = values["accuracy_interval"]
        text += f"; accuracy among the answered {values['accuracy']:.1%} (95% interval: {low:.1%} to {high:.1%})"
    if values.get("expected_cost") is not None:
        low, high = values["expected_cost_interval"]
        text += f"; expected cost {values['expected_cost']:.4g} per image ({low:.4g} to {high:.4g})"
    return f"{text}."


def _positive_class(evaluation: Evaluation, positive: int) -> Iterator[str]:
    counts, name = evaluation.confusion_matrix, short_name(evaluation.classes[positive])
    predicted, positives = int(counts[:, positive].sum()), int(counts[positive].sum())
    if not positives:
        return
    hits = int(counts[positive, positive])
    text = f"“{name}”: recall {hits / positives:.1%} ({hits:,} of {positives:,}; {positives - hits:,} missed)"
    if predicted:
        false_positives = predicted - hits
        text += f", precision {hits / predicted:.1%} ({false_positives:,} false positive{'s' * (false_positives != 1)})"
    yield f"{text}."


def _largest_class(evaluation: Evaluation) -> str:
    """The name of the class with the most images, where there is only one."""
    counts = evaluation.class_counts
    is_unique = (counts == counts.max()).sum() == 1
    return f"“{short_name(evaluation.classes[counts.argmax()])}”" if is_unique else "one class"


def calibration(evaluation: Evaluation) -> str:
    """Compare the mean confidence with the accuracy."""
    error = metrics.calibration_error(metrics.calibration_bins(evaluation.predictions))
    confidence, accuracy = float(evaluation.predictions.ranked_probabilities[:, 0].mean()), evaluation.accuracy
    verdict = "well calibrated on average"
    if abs(confidence - accuracy) > 0.02:
        verdict = "overconfident" if confidence > accuracy else "underconfident"
    numbers = f"mean confidence {confidence:.1%}, accuracy {accuracy:.1%}, calibration error {error:.1%}"
    return f"The network is {verdict}: {numbers}."


def worst_confusion(evaluation: Evaluation) -> str:
    """Name the pair of classes that is confused most often."""
    pairs = confused_pairs(evaluation, 1)
    if not pairs:
        return "No class is confused with another."
    true, predicted, count, total = pairs[0]
    names = f"“{short_name(true)}” predicted as “{short_name(predicted)}”"
    return f"Most frequent confusion: {names}, {count:,} of {total:,} images."


def confused_pairs(evaluation: Evaluation, count: int) -> list[tuple[str, str, int, int]]:
    """Return up to `count` confused pairs, the most frequent first.

    Returns
    -------
    list of (str, str, int, int)
        True class, predicted class, images confused, images of the true class.
    """
    cells = metrics.confused_cells(evaluation.predictions, len(evaluation.classes))[:count]
    totals, names = evaluation.class_counts, evaluation.classes
    return [(names[true], names[predicted], images, int(totals[true])) for true, predicted, images in cells.tolist()]


def lowest_recall(evaluation: Evaluation) -> str:
    """Name the five classes with the lowest recall."""
    worst = metric_figures.by_recall(evaluation)[:5]
    return "; ".join(f"{short_name(name)}: recall {row['recall']:.0%}" for name, row in worst)


def threshold(point: dict[str, Any]) -> str:
    """Describe a row of `metric_figures.chosen_thresholds`."""
    is_chosen = point["name"] == "chosen"
    value = point["threshold"] if is_chosen else metric_figures.DEFAULT_THRESHOLD
    rate = point["false_positive_rate"] or 0
    return f"Threshold {value:.3g}: recall {point['recall']:.1%}, false positive rate {rate:.1%}."


def learning_rate_drops(run: Run) -> str:
    """Describe the schedule of the learning rate so far."""
    drops = [f"to {rate:.3g} after epoch {time:.0f}" for time, rate in curves.learning_rate_drops(run)]
    if drops:
        return f"Dashed: learning-rate drops, {', '.join(drops)}."
    if run.config.recipe.schedule == "cosine":
        return "Cosine learning-rate schedule."
    return "No learning-rate drop so far."


def best_validation(epochs: list[dict[str, Any]]) -> str:
    """Describe the lowest validation error rate in the records of the epochs."""
    known = [epoch for epoch in epochs if "validation_error" in epoch]
    if not known:
        return "Measured on the training images during training; there is no validation split."
    best = min(known, key=lambda epoch: epoch["validation_error"])
    return f"Lowest validation error rate: {best['validation_error']:.2%} after epoch {best['epoch']}."


def sentence(text: str) -> str:
    """Capitalize text and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def recipe_rows(recipe: Recipe, reference: Recipe | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, value here, value in the `reference` recipe, and meaning of each field of a recipe."""
    reference_values = reference.to_dict() if reference else {}
    values = recipe.to_dict()
    for f in dataclasses.fields(recipe):
        if f.name in ("name", "purpose"):
            continue
        usual = _value(reference_values[f.name]) if reference else ""
        yield f.name, _value(values[f.name]), usual, f.metadata.get("help", "")


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "; ".join(" ".join(f"{k} {v}" for k, v in event.items() if v is not None) for event in value) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
