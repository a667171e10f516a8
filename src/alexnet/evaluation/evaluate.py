"""Measure trained networks on a split of a prepared dataset."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loading import evaluation_batches
from alexnet.evaluation import metrics
from alexnet.evaluation.ensemble import (
    Member,
    load_members,
    member_probabilities,
    require_same_classes,
    search_coefficients,
)
from alexnet.evaluation.metrics import Predictions
from alexnet.evaluation.views import check_views
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.run import Run
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import Progress, progress

BATCH_SIZE = 64

RunPath = str | os.PathLike[str] | Member
"""A run folder, or one that is loaded already."""


@dataclass(frozen=True)
class Coefficients:
    """Searched coefficients of an average: the `values` of each run, one row a group of images, and where found."""

    values: np.ndarray
    searched_on: str


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: what was measured, on what, and each image's prediction.

    `positive` is the index of the positive class of two, else None; `recall` the wished one.
    """

    runs: list[str]
    data: str
    split: Split
    classes: list[str]
    views: int
    arithmetic: str
    predictions: Predictions
    coefficients: Coefficients | None = None
    positive: int | None = None
    recall: float | None = None

    @property
    def top1(self) -> float:
        """Share of images whose most probable class is right, 0 to 1."""
        return metrics.accuracy(self.predictions, 1)

    @property
    def top5(self) -> float:
        """Share of images whose class is among the five most probable; 1 with five classes or fewer."""
        return metrics.accuracy(self.predictions, 5)

    @property
    def log_loss(self) -> float:
        """Mean of −ln of the right class's probability, in nats."""
        return metrics.log_loss(self.predictions)

    @property
    def confusion(self) -> np.ndarray:
        """Counts (classes, classes): row the right class, column the predicted one."""
        return metrics.confusion(self.predictions, len(self.classes))

    def per_class(self) -> dict[str, dict[str, Any]]:
        """By class name: see `metrics.per_class`."""
        return dict(zip(self.classes, metrics.per_class(self.predictions, len(self.classes)), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it. Accuracies, precision and recall are shares, 0 to 1; None where undefined."""
        recalls = [row["recall"] for row in self.per_class().values() if row["recall"] is not None]
        result: dict[str, Any] = {
            "n": len(self.predictions),
            "views": self.views,
            "top1": self.top1,
            "top5": self.top5,
            "log_loss": self.log_loss,
            "top1_interval": list(metrics.interval(self.top1, len(self.predictions))),
            "balanced_accuracy": float(np.mean(recalls)),
            "classes": self.per_class(),
            "confusion": self.confusion.tolist(),
            "split": self.split.name,
            "data": self.data,
            "runs": self.runs,
            "arithmetic": self.arithmetic,
        }
        if self.coefficients is not None:
            result["coefficients"] = {
                "searched_on": self.coefficients.searched_on,
                "values": self.coefficients.values.tolist(),
            }
        return result | self.two_classes()

    def two_classes(self) -> dict[str, Any]:
        """For two classes: `positive`, `roc_auc`, `thresholds` and, where a recall is wished, `wished`; else empty."""
        if self.positive is None:
            return {}
        score, is_positive = metrics.scores(self.predictions, self.positive)
        result: dict[str, Any] = {
            "positive": self.classes[self.positive],
            "roc_auc": metrics.roc_auc(score, is_positive),
            "thresholds": metrics.threshold_curve(score, is_positive),
        }
        if self.recall is not None:
            chosen = metrics.threshold_for_recall(score, is_positive, self.recall)
            result["wished"] = {"wished_recall": self.recall, **chosen}
        return result

    def write_predictions(self, file: str | os.PathLike[str]) -> None:
        """Write a CSV with one line an image: path, label, the most probable classes and their probabilities."""
        p = self.predictions
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        more = [name for i in range(2, p.ranked.shape[1] + 1) for name in (f"prediction_{i}", f"probability_{i}")]
        out.writerow(["path", "label", "correct", "label_probability", "prediction", "probability", *more])
        for i in range(len(p)):
            ranked = [
                cell
                for c, share in zip(p.ranked[i], p.ranked_probabilities[i], strict=True)
                for cell in (self.classes[c], f"{share:.6g}")
            ]
            correct = int(p.ranked[i, 0] == p.labels[i])
            label = self.classes[p.labels[i]]
            out.writerow([self.split.paths(i), label, correct, f"{p.label_probability[i]:.6g}", *ranked])
        try:
            write_atomic(Path(file), text.getvalue().encode(errors="surrogateescape"))
        except OSError as error:
            raise AlexNetError(f"{file} can't be written: {error.strerror or error}") from error


def check_can_write(file: str | os.PathLike[str]) -> None:
    """Raise `AlexNetError` now rather than after a long evaluation when `file` can't be written."""
    folder = Path(file).absolute().parent
    if not folder.is_dir():
        raise AlexNetError(f"{file} can't be written: there is no folder {folder}")
    if Path(file).is_dir() or not os.access(folder, os.W_OK):
        raise AlexNetError(f"{file} can't be written: it is a folder, or {folder} is not yours to write in")


def evaluate(
    runs: RunPath | Sequence[RunPath],
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str | None = None,
    views: int = 10,
    batch_size: int = BATCH_SIZE,
    precision: str = "float32",
    recall: float | None = None,
    positive: str | None = None,
    search: bool = False,
    device: str | None = None,
) -> Evaluation:
    """Measure a run, or several whose probabilities are averaged (paper, section 5.1), on a prepared dataset.

    `split`: by default "test" where there is one, else "val". `views`: 10 as the paper tests (section 4.1), or 1, the
    center. `precision`: "float32", "bfloat16" or "auto". For two classes `positive` names the one to be found (by
    default the rarer one) and `recall` asks for the threshold that finds that share of it.

    With `search` the average is weighted by coefficients with the smallest log-loss on "val"; where "val" itself is
    measured, or there is none, on the halves of the measured images (every other one), each weighted by what was
    found on the other half, so that no image has a say in its own result.

    Raises `UsageError` for values that make no sense, `AlexNetError` for runs and data that do not fit each other.
    """
    paths = [runs] if isinstance(runs, str | os.PathLike | Member) else list(runs)
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    _check(paths, dataset, views, batch_size, recall, positive, search)
    measured = dataset.split(split or _default_split(dataset))
    if not len(measured):
        raise AlexNetError(f"split {measured.name!r} of {dataset.path} has no images")
    keep_freed_memory()
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    members = load_members(paths, where)
    check_fit(members[0].run, dataset)

    with_val = search and "val" in dataset.splits and measured.name != "val" and len(dataset.split("val")) > 0
    searched = dataset.split("val") if with_val else measured
    with progress(len(measured) + (len(searched) if search else 0), "evaluate") as bar:
        said = _Said(members, [OptimizedNetwork(member.network, dtype) for member in members], views, batch_size, bar)
        coefficients = None
        if search:
            coefficients = _search(said, searched, halves=not with_val)
        predictions = Predictions.joined(
            Predictions.of(_average(shares, coefficients, first), labels) for first, shares, labels in said.of(measured)
        )
    return Evaluation(
        runs=[os.fspath(path.run.path if isinstance(path, Member) else path) for path in paths],
        data=str(dataset.path),
        split=measured,
        classes=dataset.classes,
        views=views,
        arithmetic=str(dtype).removeprefix("torch."),
        predictions=predictions,
        coefficients=coefficients,
        positive=_positive(dataset, measured, positive),
        recall=recall,
    )


@dataclass(frozen=True)
class _Said:
    """What the members say of images, a batch at a time."""

    members: list[Member]
    networks: list[OptimizedNetwork]
    views: int
    batch_size: int
    bar: Progress

    def of(self, split: Split) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields index of the first image, probabilities (members, N, classes) and labels (N,)."""
        first = 0
        for batch in evaluation_batches(split, self.batch_size):
            shares = member_probabilities(self.members, self.networks, batch.images, self.views)
            yield first, shares, batch.labels.numpy()
            first += len(batch.labels)
            self.bar.advance(len(batch.labels))


def _search(said: _Said, split: Split, halves: bool) -> Coefficients:
    parts = [shares[:, np.arange(len(labels)), labels].T for _, shares, labels in said.of(split)]
    of_label = np.concatenate(parts)
    if not halves:
        return Coefficients(search_coefficients(of_label)[None], split.name)
    if len(of_label) < 2:
        raise AlexNetError(f"split {split.name!r} has one image: coefficients can't be searched on its halves")
    # Even images are weighted by what was found on the odd ones, and the reverse.
    values = np.stack([search_coefficients(of_label[1::2]), search_coefficients(of_label[0::2])])
    return Coefficients(values, f"halves of {split.name}, each weighted by what was found on the other")


def _average(shares: np.ndarray, coefficients: Coefficients | None, first: int) -> np.ndarray:
    """Probabilities of the average, (members, N, classes) → (N, classes)."""
    if coefficients is None:
        return shares.mean(axis=0)
    groups = len(coefficients.values)
    weights = coefficients.values[(first + np.arange(shares.shape[1])) % groups]
    return np.einsum("nm,mnc->nc", weights, shares)


def _check(
    paths: list[RunPath],
    dataset: PreparedDataset,
    views: int,
    batch_size: int,
    recall: float | None,
    positive: str | None,
    search: bool,
) -> None:
    if not paths:
        raise UsageError("no run to evaluate")
    check_views(views)
    if batch_size < 1:
        raise UsageError(f"batch size is {batch_size}; it must be at least 1")
    if search and len(paths) < 2:
        raise UsageError("searched coefficients need several runs to average")
    if recall is not None and not 0 < recall <= 1:
        raise UsageError(f"recall is {recall:g}; it is a share above 0, up to 1")
    if (recall is not None or positive is not None) and len(dataset.classes) != 2:
        raise UsageError(f"a wished recall needs two classes; {dataset.path} has {len(dataset.classes)}")
    if positive is not None and positive not in dataset.classes:
        raise UsageError(f"no class {positive!r} in {dataset.path}; there are: {', '.join(dataset.classes)}")


def check_fit(run: Run, dataset: PreparedDataset, so: str = "the run can't be measured on it") -> None:
    """Raise an `AlexNetError` that ends in `so` unless the dataset has the run's classes and size of images."""
    config = run.config
    require_same_classes(config.classes, str(run.path), dataset.classes, str(dataset.path), so)
    if config.size != dataset.size:
        raise AlexNetError(
            f"{run.path} reads images of {config.size} pixels, {dataset.path} has {dataset.size}: "
            f"prepare it with --size {config.size}"
        )


def _default_split(dataset: PreparedDataset) -> str:
    if dataset.measured_on is not None:
        return dataset.measured_on
    there = ", ".join(dataset.splits)
    raise AlexNetError(f"{dataset.path} has no images in test or val: choose one with --split (there are: {there})")


def _positive(dataset: PreparedDataset, split: Split, positive: str | None) -> int | None:
    if len(dataset.classes) != 2:
        return None
    if positive is not None:
        return dataset.classes.index(positive)
    return int(split.class_counts[1] <= split.class_counts[0])
