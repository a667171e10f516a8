"""The inspection of the solar cells: cross-validation, and the cost and recall of decisions on the test cells."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments import solar_cells
from alexnet.experiments.demo import CHANGES
from alexnet.experiments.trials import is_selected, measure_once, prepare_once, summarize, train_once
from alexnet.inspection.crossval import CrossValidation, cross_validate
from alexnet.inspection.decide import decide
from alexnet.runtime.files import write_csv
from alexnet.runtime.provenance import date_and_machine, provenance, read_result, write_result

SPLIT = {"val": 0.2}
"""The decision rule is found on a fifth of the training cells."""
FOLDS = 5
POSITIVE = solar_cells.CLASSES[0]
COSTS = {
    "defective": {"defective": 0.0, "functional": 10.0, "unsure": 0.5},
    "functional": {"defective": 1.0, "functional": 0.0, "unsure": 0.5},
}
"""A missed defect costs ten times a false positive; a person who looks at a cell costs half of one."""
RECALL = 0.9
VIEWS = 1
TRAINING = {**CHANGES, "weights_dtype": "float32"}
"""Changes to the recipe. `alexnet reproduce weight-types` compares these weights with their 16-bit forms."""
METRICS = (
    "accuracy",
    "accuracy on certain labels",
    "accuracy on doubtful labels",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    f"recall of {POSITIVE}",
    f"precision of {POSITIVE}",
    "roc_auc",
    "log_loss",
)
"""The metrics of a fold that are reported."""
OTHER_RESULTS = {
    "labels that are wrong": "label-errors.json",
    "unknown images": "unknown.json",
    "sorting killed at fifty moments": "sorting-kills.json",
    "near duplicates": "copies.json",
    "weights in 16 bits": "weight-types.json",
}
"""Other measurements of an inspection, and their files."""


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, only: Sequence[str] = ()) -> str:
    """Cross-validate the solar cells, train a network for each seed, and decide with costs and with a recall.

    `only` leaves out one of the parts "crossval" and "decisions"; an earlier result of that part is kept. The trainings
    are those of ``examples/inspection.sh``. Returns a summary of one line.
    """
    dataset = prepared_cells(work)
    earlier = read_result(results)
    crossval: dict[str, Any] | None = earlier.get("crossval")
    decisions = earlier.get("decisions")
    if crossval is not None:
        crossval = {name: earlier[name] for name in ("date", "machine")} | crossval
    if is_selected("crossval", only):
        measured = cross_validated_cells(work).metrics
        crossval = {name: summarize(measured[name]) for name in METRICS} | {"views": VIEWS} | date_and_machine()
    if is_selected("decisions", only):
        decisions = [
            measure_once(work / f"decisions-{seed}.json", partial(_decisions, work, dataset, seed)) for seed in seeds
        ]
    report = {
        "description": f"`crossval`: {FOLDS}-fold cross-validation of the {len(dataset.split('train')):,} training "
        "cells, with the raters' doubts as soft labels, ten views where `views` says nothing; `decisions`: found on "
        f"{len(dataset.split('val')):,} cells and measured on {len(dataset.split('test')):,} test cells",
        "groups": "none: the images do not say which module a cell is from",
        "crossval": crossval,
        "costs": COSTS,
        "recall": RECALL,
        "decisions": decisions,
        "other_results": OTHER_RESULTS,
        **provenance(command),
    }
    write_result(results, report)
    found = []
    if crossval:
        accuracy = crossval["accuracy"]
        found.append(f"accuracy {accuracy['mean']:.2%} ± {accuracy['standard_deviation']:.2%} over {FOLDS} folds")
    if decisions:
        cost = decisions[0]["costs"]
        found.append(
            f"expected cost {cost['most_probable']['expected_cost']:.3f}, with the rule "
            f"{cost['rule']['expected_cost']:.3f}"
        )
    return "; ".join(found)


def prepared_cells(work: Path) -> PreparedDataset:
    """The solar cells with soft labels, and with a split that decides."""
    source = partial(solar_cells.write_source, work / "cells.csv", confidences=True)
    return prepare_once(source, work / "data", split=SPLIT)


def cross_validated_cells(work: Path) -> CrossValidation:
    """The cross-validation of the solar cells under `work`, which is done once."""
    return cross_validate(prepared_cells(work), work / "cv", folds=FOLDS, views=VIEWS, **TRAINING)


def _decisions(work: Path, dataset: PreparedDataset, seed: int) -> dict[str, Any]:
    """A network, and its decisions on the test cells by the most probable class, by costs and by a recall."""
    run = work / ("run" if seed == 0 else f"run-{seed}")
    train_once(dataset.path, run, seed=seed, **TRAINING)
    costs = work / "costs.csv"
    write_costs(costs)
    found: dict[str, Any] = {"seed": seed}
    for name, rule in (("costs", {"costs": costs}), ("recall", {"recall": {POSITIVE: RECALL}})):
        copy = work / f"decided-{name}-{seed}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        report = decide(copy, dataset, **rule)
        result = evaluate(copy, dataset, split="test", views=VIEWS, costs=costs).to_dict()
        kept = ("accuracy", "accuracy_interval", "expected_cost", "expected_cost_interval", "certainty")
        row = result["classes"][POSITIVE]
        found[name] = {
            "sentences": report.sentences[1:],  # the first one says where the dataset is
            "most_probable": {
                **{key: result[key] for key in kept},
                "recall": row["recall"],
                "precision": row["precision"],
            },
            "rule": result["decision"],
        }
        shutil.rmtree(copy)
    return found


def write_costs(file: Path) -> Path:
    """Write `COSTS` as the CSV that `alexnet decide --costs` reads."""
    columns = list(next(iter(COSTS.values())))
    rows = [[name, *(f"{row[column]:g}" for column in columns)] for name, row in COSTS.items()]
    write_csv(file, [["", *columns], *rows])
    return file
