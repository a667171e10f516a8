"""The decision rule of a run, measured on labeled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from alexnet.evaluation.costs import image_costs
from alexnet.evaluation.intervals import cost_interval
from alexnet.evaluation.metrics import wilson_interval
from alexnet.evaluation.predictor import Predictor
from alexnet.runs.decision import KINDS, DecisionRule, Decisions, describe_decision


@dataclass(frozen=True)
class Decided:
    """The decisions of a rule on labeled images.

    Parameters
    ----------
    rule : DecisionRule
        The rule.
    labels : ndarray
        (n,) int64, the true classes.
    decisions : Decisions
        The decisions, n of them.
    """

    rule: DecisionRule
    labels: np.ndarray
    decisions: Decisions

    @property
    def accuracy(self) -> float | None:
        """The accuracy among the images that are answered with a class; None if none is."""
        answered = self.decisions.answered
        return float((self.decisions.label == self.labels)[answered].mean()) if answered.any() else None

    def per_class(self) -> list[dict[str, Any]]:
        """For each class: its images, those decided as it, as another class, or not decided; precision and recall.

        `recall` is the share of its images that are *not* decided as another class: one that is unsure or unknown goes
        to a person and is not missed.
        """
        kind, label = self.decisions.kind, self.decisions.label
        rows = []
        for c in range(len(self.rule.classes)):
            own, decided = self.labels == c, (kind == 0) & (label == c)
            missed = int((own & (kind == 0) & (label != c)).sum())
            rows.append(
                {
                    "support": int(own.sum()),
                    "decided": int((own & decided).sum()),
                    "missed": missed,
                    "handed_over": int((own & (kind != 0)).sum()),
                    "false_positives": int((decided & ~own).sum()),
                    "recall": 1 - missed / int(own.sum()) if own.any() else None,
                    "precision": float(own[decided].mean()) if decided.any() else None,
                }
            )
        return rows

    def to_dict(self, costs: np.ndarray | None = None, confidence: float = 0.95) -> dict[str, Any]:
        """The results as JSON-able values; `costs` replace those of the rule, if it has any."""
        kind, answered = self.decisions.kind, self.decisions.answered
        accuracy = self.accuracy
        result: dict[str, Any] = {
            "views": self.rule.views,
            "shares": {name: float((kind == number).mean()) for number, name in enumerate(KINDS)},
            "accuracy": accuracy,
            "accuracy_interval": None
            if accuracy is None
            else list(wilson_interval(accuracy, int(answered.sum()), confidence)),
            "classes": dict(zip(self.rule.classes, self.per_class(), strict=True)),
            "rule": describe_decision(self.rule),
            "guarantees": list(self.rule.record.get("guarantees", [])),
        }
        costs = self.rule.costs if costs is None else costs
        if costs is not None:
            each = image_costs(costs, self.labels, self.decisions.label, kind)
            known = np.isfinite(each)
            result["expected_cost"] = float(each[known].mean()) if known.any() else None
            result["expected_cost_interval"] = (
                list(cost_interval(costs, each[known], self.labels[known], confidence=confidence))
                if known.any()
                else None
            )
            result["expected_cost_images"] = int(known.sum())
        return result


def probabilities_and_decisions(
    predictor: Predictor, rule: DecisionRule, images: Tensor, views: int
) -> tuple[np.ndarray, Decisions]:
    """The probabilities of a batch with `views` views, and what the rule of the predictor decides.

    The rule decides with the views that it was found with. Where these are `views`, the network computes once.

    Parameters
    ----------
    predictor : Predictor
        The network.
    rule : DecisionRule
        Its rule.
    images : Tensor
        (N, size, size, 3) uint8.
    views : int
        Number of test views.

    Returns
    -------
    probabilities : ndarray
        (N, classes) float64, not calibrated.
    decisions : Decisions
        N of them.
    """
    features = None
    if rule.distance is None:
        ruled = predictor.probabilities(images, rule.views)
    else:
        ruled, features = predictor.probabilities_and_features(images, rule.views)
    shares = ruled if rule.views == views else predictor.probabilities(images, views)
    return shares, rule.apply(ruled, features)


def joined(parts: Sequence[Decisions]) -> Decisions:
    """The decisions of several batches as one."""
    distances = [part.distance for part in parts if part.distance is not None]
    return Decisions(
        kind=np.concatenate([part.kind for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        margin=np.concatenate([part.margin for part in parts]),
        distance=np.concatenate(distances) if distances else None,
    )
