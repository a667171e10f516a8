"""Evaluation: the metrics of trained networks on a split of a prepared dataset."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loading import evaluation_batches
from alexnet.evaluation import metrics
from alexnet.evaluation.costs import image_costs, read_costs
from alexnet.evaluation.decided import Decided, joined, probabilities_and_decisions
from alexnet.evaluation.ensemble import members_of, optimal_coefficients
from alexnet.evaluation.intervals import CONFIDENCE, ClassIntervals, class_intervals, cost_interval
from alexnet.evaluation.metrics import Predictions
from alexnet.evaluation.predictor import MeanPredictor, Member, Predictor, Source, load_predictors, require_same_classes
from alexnet.evaluation.views import check_views
from alexnet.kernels.safe import safe_mode
from alexnet.runs.decision import DecisionRule, Decisions
from alexnet.runs.run import Described, is_of_another_dataset, stored_rule
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import Progress, notify, progress

BATCH_SIZE = 64
CERTAIN = 0.999
"""Least probability of a soft label that counts as certain."""
MATRIX_CLASSES = 1000
"""Up to this many classes `Evaluation.to_dict` has the confusion matrix as a list of lists."""


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of an averaged ensemble.

    Parameters
    ----------
    values : ndarray
        (groups, runs): image i is averaged with row i modulo the number of groups.
    searched_on : str
        The images on which the coefficients were searched, for people.
    """

    values: np.ndarray
    searched_on: str


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Parameters
    ----------
    runs : list of str
        The run folders; the probabilities of several are averaged.
    data : str
        Path of the prepared dataset.
    split : Split
        The split that was evaluated.
    classes : list of str
        Names of the classes.
    views : int
        Number of test views.
    dtype : str
        Precision of the forward pass: "float32" or "bfloat16".
    predictions : Predictions
        The prediction of each image.
    coefficients : Coefficients or None
        The coefficients of the average, where they were searched.
    positive : int or None
        Index of the positive class of two; None for other numbers of classes.
    recall : float or None
        The requested recall of the positive class.
    registered : dict
        The values of the metrics of `register_metric`, by name.
    costs : ndarray or None
        The cost of each predicted class (column) for each true class (row).
    decided : Decided or None
        What the decision rule of the run makes of the images, where it has one.
    """

    runs: list[str]
    data: str
    split: Split
    classes: list[str]
    views: int
    dtype: str
    predictions: Predictions
    coefficients: Coefficients | None = None
    positive: int | None = None
    recall: float | None = None
    registered: dict[str, float] = field(default_factory=dict)
    costs: np.ndarray | None = None
    decided: Decided | None = None

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, 0 to 1: the share of images whose most probable class is the label."""
        return metrics.accuracy(self.predictions, 1)

    @property
    def top5_accuracy(self) -> float:
        """Top-5 accuracy, 0 to 1; 1 with five classes or fewer."""
        return metrics.accuracy(self.predictions, 5)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images, 0 to 1."""
        return metrics.balanced_accuracy(self.predictions, len(self.classes))

    @property
    def log_loss(self) -> float:
        """The mean of −ln p of the label, in nats."""
        return metrics.log_loss(self.predictions)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over ten bins of the confidence, 0 to 1."""
        return metrics.calibration_error(metrics.calibration_bins(self.predictions))

    @property
    def confusion_matrix(self) -> np.ndarray:
        """Counts of shape (classes, classes), one row per true class and one column per predicted class."""
        return metrics.confusion_matrix(self.predictions, len(self.classes))

    @property
    def class_counts(self) -> np.ndarray:
        """(classes,) int64, the images of each true class."""
        return np.bincount(self.predictions.labels, minlength=len(self.classes))

    @property
    def macro(self) -> dict[str, float]:
        """Precision, recall and F1 averaged over the classes that have images, 0 to 1."""
        return metrics.macro(self.predictions, len(self.classes))

    @cached_property
    def intervals(self) -> ClassIntervals:
        """95% intervals of F1 and of the macro averages."""
        return class_intervals(self.predictions, len(self.classes), confidence=CONFIDENCE)

    @property
    def expected_cost(self) -> float | None:
        """The mean cost of the predictions; None without costs."""
        if self.costs is None:
            return None
        each = image_costs(self.costs, self.predictions.labels, self.predictions.predicted)
        return float(np.average(each, weights=self.predictions.weights))

    @property
    def certainty(self) -> dict[str, Predictions]:
        """With soft labels: the predictions of the images whose label is "certain" and of the "doubtful" ones."""
        targets = self.split.targets
        if targets is None:
            return {}
        certain = targets.max(axis=1) >= CERTAIN
        parts = {"certain": certain, "doubtful": ~certain}
        return {name: self.predictions.where(chosen) for name, chosen in parts.items() if chosen.any()}

    def per_class(self) -> dict[str, dict[str, Any]]:
        """By class name: the values of `alexnet.evaluation.metrics.per_class`."""
        return dict(zip(self.classes, metrics.per_class(self.predictions, len(self.classes)), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """All results as JSON-able values.

        Accuracies, precision and recall are 0 to 1; undefined values are None. With more than `MATRIX_CLASSES` classes
        `confusion_matrix` is None; `confused` has its cells that are not 0 and not on the diagonal: true class,
        predicted class, images.
        """
        large = len(self.classes) > MATRIX_CLASSES
        result: dict[str, Any] = {
            "n_samples": len(self.predictions),
            "views": self.views,
            "accuracy": self.accuracy,
            "accuracy_interval": _accuracy_interval(self.predictions),
            "weighted": self.predictions.weights is not None,
            "top5_accuracy": self.top5_accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            **self.macro,
            **{f"{name}_interval": list(interval) for name, interval in self.intervals.macro.items()},
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "metrics": self.registered,
            "classes": {
                name: {**row, "f1_interval": None if interval is None else list(interval)}
                for (name, row), interval in zip(self.per_class().items(), self.intervals.f1, strict=True)
            },
            "confusion_matrix": None if large else self.confusion_matrix.tolist(),
            **({"confused": metrics.confused_cells(self.predictions, len(self.classes)).tolist()} if large else {}),
            "split": self.split.name,
            "data": self.data,
            "runs": self.runs,
            "dtype": self.dtype,
        }
        if self.coefficients is not None:
            result["coefficients"] = {
                "searched_on": self.coefficients.searched_on,
                "values": self.coefficients.values.tolist(),
            }
        for name, part in self.certainty.items():
            result.setdefault("certainty", {})[name] = {
                "n_samples": len(part),
                "accuracy": metrics.accuracy(part),
                "accuracy_interval": _accuracy_interval(part),
                "log_loss": metrics.log_loss(part),
            }
        if self.costs is not None:
            each = image_costs(self.costs, self.predictions.labels, self.predictions.predicted)
            result["expected_cost"] = self.expected_cost
            result["expected_cost_interval"] = list(
                cost_interval(
                    self.costs[:, : len(self.classes)],
                    each,
                    self.predictions.labels,
                    self.predictions.weights,
                    confidence=CONFIDENCE,
                )
            )
        if self.decided is not None:
            result["decision"] = self.decided.to_dict(self.costs, CONFIDENCE)
        return result | self.binary_metrics()

    def binary_metrics(self) -> dict[str, Any]:
        """Results of two classes.

        Returns
        -------
        dict
            `positive_class`, `roc_auc`, `thresholds` and, where a recall was requested and there are positive images,
            `threshold_for_recall`; empty for other numbers of classes.
        """
        if self.positive is None:
            return {}
        score, is_positive = metrics.binary_scores(self.predictions, self.positive)
        result: dict[str, Any] = {
            "positive_class": self.classes[self.positive],
            "roc_auc": metrics.roc_auc(score, is_positive, self.predictions.weights),
            "thresholds": metrics.threshold_curve(score, is_positive),
        }
        if self.recall is not None:
            chosen = metrics.threshold_for_recall(score, is_positive, self.recall)
            result["threshold_for_recall"] = {"requested_recall": self.recall, **chosen}
        return result

    def write_predictions(self, file: str | os.PathLike[str]) -> None:
        """Write a CSV with one line for each image: path, label, and the most probable classes with probabilities.

        Raises
        ------
        AlexNetError
            If the file can't be written.
        """
        p = self.predictions
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        more = [name for i in range(2, p.ranked.shape[1] + 1) for name in (f"prediction_{i}", f"probability_{i}")]
        out.writerow(["path", "label", "correct", "label_probability", "prediction", "probability", *more])
        for i in range(len(p)):
            ranked = [
                cell
                for c, probability in zip(p.ranked[i], p.ranked_probabilities[i], strict=True)
                for cell in (self.classes[c], f"{probability:.6g}")
            ]
            label = self.classes[p.labels[i]]
            out.writerow([self.split.paths(i), label, int(p.correct[i]), f"{p.label_probability[i]:.6g}", *ranked])
        try:
            write_atomic(Path(file), text.getvalue().encode("utf-8", errors="surrogateescape"))
        except OSError as error:
            raise AlexNetError(f"{file} can't be written: {error.strerror or error}") from error


def _accuracy_interval(predictions: Predictions) -> list[float]:
    return list(metrics.wilson_interval(metrics.accuracy(predictions), predictions.effective_size, CONFIDENCE))


def check_can_write(file: str | os.PathLike[str]) -> None:
    """Raise `AlexNetError` now, rather than after a long evaluation, if `file` can't be written."""
    folder = Path(file).absolute().parent
    if not folder.is_dir():
        raise AlexNetError(f"{file} can't be written: there is no folder {folder}")
    if Path(file).is_dir():
        raise AlexNetError(f"{file} can't be written: it is a folder")
    if not os.access(folder, os.W_OK):
        raise AlexNetError(f"{file} can't be written: you have no permission to write in {folder}")


def evaluate(
    runs: Source | Sequence[Source],
    data: str | os.PathLike[str] | PreparedDataset,
    *,
    split: str | None = None,
    views: int = 10,
    batch_size: int = BATCH_SIZE,
    precision: str = "float32",
    recall: float | None = None,
    positive: str | None = None,
    search_coefficients: bool = False,
    costs: str | os.PathLike[str] | None = None,
    raw: bool = False,
    device: str | None = None,
    safe: bool = False,
) -> Evaluation:
    """Evaluate a run, or an ensemble of runs whose probabilities are averaged (paper, section 5.1).

    Where the dataset has weights, accuracy, log loss, precision, recall, F1 and the area under the ROC curve use them;
    the confusion matrix, the calibration and the thresholds count images. Where it has soft labels, images with a
    certain and with a doubtful label are also reported apart.

    Parameters
    ----------
    runs : path or sequence of paths
        Run folders, or folders of baselines; a folder of `alexnet crossval` is the runs of its finished folds, a folder
        of `alexnet ensemble` its members.
    data : path or PreparedDataset
        The prepared dataset.
    split : str or None
        Name of the split; by default "test" where it exists, else "val".
    views : int
        Number of test views, a key of `alexnet.evaluation.views.VIEWS`: 10 as in the paper (section 4.1), 1 for the
        center crop.
    batch_size : int
        Images of a forward pass, at least 1.
    precision : {"float32", "bfloat16", "auto"}
        Precision of the forward pass.
    recall : float or None
        For two classes: also find the highest threshold with this recall of the positive class, above 0, at most 1.
    positive : str or None
        For two classes: the positive class, by default the rarer one.
    search_coefficients : bool
        Weight the runs by the coefficients with the smallest log loss on "val". If "val" itself is evaluated, or does
        not exist, they are searched on halves of the evaluated images (every second one), and each half is weighted
        with the coefficients of the other half, so that no image influences its own result.
    costs : path or None
        A CSV of the cost of each predicted class for each true class, see `alexnet.evaluation.costs.read_costs`: the
        expected cost is reported beside the accuracy.
    raw : bool
        Do not measure the decision rule. Otherwise that of a single run, or of a single folder of runs, is measured
        too.
    device : str or None
        A torch device, by default the fastest of this machine.
    safe : bool
        Use plain PyTorch only: no machine code or Triton kernels of this package.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        For values out of range.
    AlexNetError
        If runs and data do not fit each other or can't be read.
    """
    given = [runs] if isinstance(runs, str | os.PathLike | Member) else list(runs)
    paths = _with_members(given)
    dataset = data if isinstance(data, PreparedDataset) else PreparedDataset.open(data)
    _check(paths, dataset, views, batch_size, recall, positive, search_coefficients)
    evaluated = dataset.split(split or _default_split(dataset))
    if not len(evaluated):
        raise AlexNetError(f"split {evaluated.name!r} of {dataset.path} has no images")
    cost_matrix = None if costs is None else read_costs(costs, dataset.classes)
    if evaluated.weights is not None and not evaluated.weights.sum() > 0:
        raise AlexNetError(f"every image of split {evaluated.name!r} of {dataset.path} has the weight 0")
    keep_freed_memory()
    torch_device = choose_device(device)
    dtype = choose_precision(precision, torch_device)
    predictors = load_predictors(paths, torch_device, dtype)
    for predictor in predictors:
        check_compatible(predictor, dataset)

    on_val = (
        search_coefficients and "val" in dataset.splits and evaluated.name != "val" and len(dataset.split("val")) > 0
    )
    searched = dataset.split("val") if on_val else evaluated
    total = len(evaluated) + (len(searched) if search_coefficients else 0)
    decider = _decider(given, predictors)
    rule = None
    if decider is not None and not raw and not search_coefficients:  # a rule is that of the plain mean
        rule = stored_rule(decider.path, decider.checksum)
    with safe_mode(safe), progress(total, "evaluate") as bar:
        ensemble = _Ensemble(predictors, views, batch_size, bar, decider, rule)
        coefficients = None
        if search_coefficients:
            coefficients = _search_coefficients(ensemble, searched, halves=not on_val)
        predictions, registered = _measure(ensemble, evaluated, coefficients)
    return Evaluation(
        runs=[os.fspath(path.run.path if isinstance(path, Member) else path) for path in paths],
        data=str(dataset.path),
        split=evaluated,
        classes=dataset.classes,
        views=views,
        dtype=str(dtype).removeprefix("torch."),
        predictions=replace(predictions, weights=evaluated.weights),
        coefficients=coefficients,
        positive=_positive(dataset, evaluated, positive),
        recall=recall,
        registered=registered,
        costs=cost_matrix,
        decided=None if rule is None else Decided(rule, evaluated.labels, joined(ensemble.decisions)),
    )


def probabilities_by_member(
    members: Sequence[Path], split: Split, *, views: int, device: str | None = None, safe: bool = False
) -> np.ndarray:
    """Classify the images of a split by runs and baselines, in the faster precision, reading each image once.

    Parameters
    ----------
    members : sequence of Path
        Run folders and baselines.
    split : Split
        The images.
    views : int
        Number of test views, a key of `alexnet.evaluation.views.VIEWS`.
    device, safe
        As in `alexnet.evaluate`.

    Returns
    -------
    ndarray
        (members, n, classes) float64: probabilities.
    """
    chosen = choose_device(device)
    predictors = load_predictors(members, chosen, choose_precision("auto", chosen))
    parts = []
    with safe_mode(safe), progress(len(split), "evaluate") as bar:
        for batch in evaluation_batches(split, BATCH_SIZE):
            parts.append(np.stack([predictor.probabilities(batch.images, views) for predictor in predictors]))
            bar.advance(len(batch.labels))
    return np.concatenate(parts, axis=1)


def _with_members(paths: list[Source]) -> list[Source]:
    """Replace each cross-validation by the runs of its folds, and each ensemble by its members."""
    found: list[Source] = []
    for path in paths:
        found += [path] if isinstance(path, Member) else members_of(Path(path))
    return found


def _decider(given: list[Source], predictors: list[Predictor]) -> Predictor | None:
    """The predictor whose decision rule is measured: that of the only run or folder that is evaluated."""
    if len(given) > 1:
        return None
    (only,) = given
    if isinstance(only, Member) or Path(only) == predictors[0].path:
        return predictors[0]
    return MeanPredictor(Path(only), predictors)


@dataclass(frozen=True)
class _Ensemble:
    """The runs that are evaluated, and how."""

    members: list[Predictor]
    views: int
    batch_size: int
    bar: Progress
    decider: Predictor | None = None
    rule: DecisionRule | None = None
    decisions: list[Decisions] = field(default_factory=list)
    """The decisions of the decider on each batch, where it has a rule."""

    def batches(self, split: Split) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields the index of the first image, probabilities (members, N, classes) and labels (N,) of each batch."""
        first = 0
        for batch in evaluation_batches(split, self.batch_size):
            yield first, self._probabilities(batch.images), batch.labels.numpy()
            first += len(batch.labels)
            self.bar.advance(len(batch.labels))

    def _probabilities(self, images: Tensor) -> np.ndarray:
        if self.rule is None or self.decider is None:
            return np.stack([member.probabilities(images, self.views) for member in self.members])
        probabilities, decided = probabilities_and_decisions(self.decider, self.rule, images, self.views)
        self.decisions.append(decided)
        return probabilities[None]


def _measure(
    ensemble: _Ensemble, split: Split, coefficients: Coefficients | None
) -> tuple[Predictions, dict[str, float]]:
    """The predictions on a split, and the values of the registered metrics."""
    parts, kept, labels_kept = [], [], []
    keep = bool(metrics.registered_metrics())
    for first, by_member, labels in ensemble.batches(split):
        probabilities = _average(by_member, coefficients, first)
        parts.append(Predictions.from_probabilities(probabilities, labels))
        if keep:
            kept.append(probabilities)
            labels_kept.append(labels)
    registered = metrics.compute_registered(np.concatenate(labels_kept), np.concatenate(kept)) if keep else {}
    return Predictions.concatenate(parts), registered


def _search_coefficients(ensemble: _Ensemble, split: Split, halves: bool) -> Coefficients:
    parts = [by_member[:, np.arange(len(labels)), labels].T for _, by_member, labels in ensemble.batches(split)]
    label_probability = np.concatenate(parts)
    if not halves:
        return Coefficients(optimal_coefficients(label_probability)[None], split.name)
    if len(label_probability) < 2:
        raise AlexNetError(f"split {split.name!r} has one image: coefficients can't be searched on its halves")
    # Even images are weighted with the coefficients of the odd ones, and the reverse.
    values = [optimal_coefficients(label_probability[1::2]), optimal_coefficients(label_probability[0::2])]
    return Coefficients(np.stack(values), f"halves of {split.name}, each weighted with the coefficients of the other")


def _average(probabilities: np.ndarray, coefficients: Coefficients | None, first: int) -> np.ndarray:
    """The average over the members, (members, N, classes) → (N, classes); `first`: index of the first image."""
    if coefficients is None:
        return probabilities.mean(axis=0)
    groups = len(coefficients.values)
    weights = coefficients.values[(first + np.arange(probabilities.shape[1])) % groups]
    return np.einsum("nm,mnc->nc", weights, probabilities)


def _check(
    paths: list[Source],
    dataset: PreparedDataset,
    views: int,
    batch_size: int,
    recall: float | None,
    positive: str | None,
    search_coefficients: bool,
) -> None:
    if not paths:
        raise UsageError("there is no run to evaluate; name at least one run folder")
    check_views(views)
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    if search_coefficients and len(paths) < 2:
        raise UsageError("search_coefficients needs several runs; name at least two")
    if recall is not None and not 0 < recall <= 1:
        raise UsageError(f"recall is {recall:g}; it must be above 0 and at most 1")
    if (recall is not None or positive is not None) and len(dataset.classes) != 2:
        raise UsageError(f"recall and positive are for two classes; {dataset.path} has {len(dataset.classes)}")
    if positive is not None:
        check_choice(positive, dataset.classes, f"positive class of {dataset.path}:")


def check_compatible(
    run: Described, dataset: PreparedDataset, purpose: str = "the run can't be evaluated on it"
) -> None:
    """Check that a dataset has the classes and the image size of a run; say so if it is not that of its training.

    Parameters
    ----------
    run : Described
        A run, or what else has a folder and a config, such as a predictor.
    dataset : PreparedDataset
        The dataset.
    purpose : str
        End of the error message: what is not possible.

    Raises
    ------
    AlexNetError
        If the classes or the image size differ.
    """
    config = run.config
    require_same_classes(config.classes, str(run.path), dataset.classes, str(dataset.path), purpose)
    if config.size != dataset.size:
        raise AlexNetError(
            f"{run.path} takes images of {config.size} pixels, {dataset.path} has {dataset.size}: "
            f"prepare the dataset with --size {config.size}"
        )
    if is_of_another_dataset(run, dataset):
        notify(
            f"{dataset.path} is another dataset than the one that {run.path} was trained on: "
            "its splits do not say which images the network has seen"
        )


def _default_split(dataset: PreparedDataset) -> str:
    if dataset.measured_on is not None:
        return dataset.measured_on
    splits = ", ".join(dataset.splits)
    raise AlexNetError(f"{dataset.path} has no images in test or val: choose a split with --split (of {splits})")


def _positive(dataset: PreparedDataset, split: Split, positive: str | None) -> int | None:
    if len(dataset.classes) != 2:
        return None
    if positive is not None:
        return dataset.classes.index(positive)
    return int(split.class_counts[1] <= split.class_counts[0])
