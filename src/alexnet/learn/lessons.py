"""The table of lessons: the numbers in the text of each, its questions, and the code that computes it.

A lesson is a row of `LESSONS`, a text per language in `texts/`, a widget in `templates/widgets/` and a function in
`templates/js/widgets.js`.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from alexnet.data.augmentation import PCAColor
from alexnet.experiments.catalog import shipped_results
from alexnet.experiments.published import (
    DESIGNED_FEATURES,
    PRINTED_CROPS,
    PRINTED_UNITS,
    PUBLISHED,
    SEVEN_NETWORKS,
    TORCHVISION,
)
from alexnet.learn.digits import HIDDEN, METHODS, TRAIN
from alexnet.network.layers import OverhangConv2d, output_size
from alexnet.network.model import AlexNet, LayerCost
from alexnet.network.normalization import local_response_norm_reference
from alexnet.network.rows import Conv, FullyConnected, LocalNorm
from alexnet.network.variants import get_variant
from alexnet.parallel.plan import IMAGENET, Work
from alexnet.runs.recipe import recipes
from alexnet.training.optimizers import PaperSGD
from alexnet.weights.foreign import IMAGE_SIZE
from alexnet.weights.imagenet import NUM_CLASSES

Values = dict[str, Any]
Row = TypeVar("Row", Conv, FullyConnected, LocalNorm)


def _row(kind: type[Row], name: str) -> Row:
    """A row of the paper's table of layers."""
    (row,) = (row for row in get_variant("paper").layers if isinstance(row, kind) and row.name == name)
    return row


@dataclass(frozen=True)
class Lesson:
    """One lesson.

    Parameters
    ----------
    name : str
        Name of its pages, texts and widget.
    section : str
        Sections of the paper.
    sources : tuple of str
        The functions that compute it, as ``package/module.py:function``.
    arrays : tuple of str
        Arrays of the course data that the widget reads.
    values : callable
        Returns the numbers of the text, by name; JSON-able.
    answers : tuple of (str, float)
        Name of the value that answers each of the three questions, and the tolerance.
    """

    name: str
    section: str
    sources: tuple[str, ...]
    arrays: tuple[str, ...]
    values: Callable[[], Values]
    answers: tuple[tuple[str, float], ...]


CONV1, NORM1, FC6 = _row(Conv, "conv1"), _row(LocalNorm, "norm1"), _row(FullyConnected, "fc6")
RECIPE = recipes()["paper"]
CROP = RECIPE.crop_size or 0
"""Side of a crop: 224."""


def _windows(side: int, *, kernel: int = CONV1.size, stride: int = CONV1.stride, overhang: bool = False) -> int:
    """Windows in a row, for a side that includes the padding."""
    kind = OverhangConv2d if overhang else nn.Conv2d
    return output_size(kind(1, 1, kernel, stride, device="meta"), side)


def _result(name: str) -> Values:
    """A measured result of docs/results."""
    values: Values = json.loads((shipped_results() / f"{name}.json").read_text("utf-8"))
    return values


@functools.cache
def _measured() -> Values:
    """The measurements of `alexnet learn --compute` with the small networks."""
    with safe_open(Path(__file__).parent / "data" / "course.safetensors", framework="np") as opened:
        values: Values = json.loads(opened.metadata()["measured"])
    return values


def _ablation() -> Values:
    """Every change of the paper's network with a quarter of its width, trained to its end on photographs."""
    return _result("ablation-cifar10-jpeg")


def _change(name: str) -> Values:
    """Measured increase of the error by one change, with its 95% interval, in points, and the published increase."""
    entry = _ablation()["changes"][name]
    values = _in_points(entry["difference"])
    return values if entry["published"] is None else values | {"published": 100 * entry["published"]}


def _in_points(difference: Values) -> Values:
    """A difference of errors and its 95% interval in points, and whether zero is in it."""
    low, high = difference["interval"]
    return {
        "mean": 100 * difference["mean"],
        "low": 100 * low,
        "high": 100 * high,
        "within_noise": low <= 0 <= high,
        "images": _ablation()["images"]["train"],
    }


def _released(variant: str) -> float:
    """Top-1 error of a released configuration on the validation images of ILSVRC-2012, its first log."""
    return next(row.top1_error for row in PUBLISHED if (row.variant, row.year) == (variant, "2012"))


@functools.cache
def _costs(variant: str = "paper") -> list[LayerCost]:
    with torch.device("meta"):
        return AlexNet(variant, NUM_CLASSES).costs()


def _photograph() -> Values:
    side = get_variant("paper").input_size
    return {
        "windows": _windows(CROP, overhang=True),
        "without_overhang": _windows(CROP),
        "windows_227": _windows(side),
        "beyond": (_windows(CROP, overhang=True) - 1) * CONV1.stride + CONV1.size - CROP,
        "units": _costs()[0].neurons,
        "printed_units": PRINTED_UNITS,
        "inputs": 3 * CROP**2,
        "windows_stride_2": _windows(side, stride=2),
        "images": IMAGENET,
    }


def _convolution() -> Values:
    layers = []
    for variant in ("paper", "one-tower"):
        costs = [cost for cost in _costs(variant) if cost.parameters]
        layers.append((sum(c.parameters for c in costs), sum(c.multiply_adds for c in costs), costs))
    (parameters, multiply_adds, costs), (parameters_one, _, _) = layers
    rows = []
    for cost in costs:
        kernels, channels, *size = cost.module.get_parameter("weight").shape
        groups = getattr(cost.module, "groups", 1)
        output = cost.output[1] if len(cost.output) > 1 else 1
        name = "fc8" if cost.name == get_variant("paper").output_layer else cost.name
        row = {"name": name, "kernels": kernels, "channels": channels * groups, "size": size[0] if size else 1}
        rows.append(row | {"groups": groups, "output": output})
    return {
        "layers": rows,
        "parameters": parameters,
        "parameters_one": parameters_one,
        "multiply_adds": multiply_adds,
        "conv1_parameters": costs[0].parameters,
        "conv2_parameters": costs[1].parameters,
        "fc6_parameters": costs[5].parameters,
        "share": 100 * sum(c.parameters for c in costs[5:]) / parameters,
        "products": 3 * CONV1.size**2,
    }


def _relu() -> Values:
    figure = _result("figure-1")
    gradient = 1 - math.tanh(2) ** 2
    return {
        "published": figure["published_ratio"],
        "ratio": figure["ratio"],
        "relu_epochs": figure["relu"]["epochs"],
        "tanh_epochs": figure["tanh"]["epochs"],
        "seeds": len(figure["seeds"]),
        "change": _change("tanh"),
        "gradient_tanh": gradient,
        "through": 100 * gradient**2,
        "figure": {
            name: {"rate": figure[name]["rate"], "errors": figure[name]["curves"]["0"]["errors"]}
            for name in ("relu", "tanh")
        },
    }


def _lrn() -> Values:
    column = torch.full((1, CONV1.kernels, 1, 1), 100.0, dtype=torch.float64)
    printed, divided = (
        local_response_norm_reference(
            column, NORM1.size, NORM1.alpha, NORM1.beta, NORM1.k, divide_by_n=divide
        ).flatten()
        for divide in (False, True)
    )
    return {
        "floor": NORM1.k**-NORM1.beta,
        "printed": float(printed[50]),
        "divided": float(divided[50]),
        "edge": float(printed[0]),
        "change": _change("no-lrn"),
        "released": 100 * (_released("released-2012-no-norm") - _released("released-2012")),
    }


def _pooling() -> Values:
    pooled = next(cost for cost in _costs() if cost.name == "pool1").output
    return {
        "side": pooled[1],
        "units": pooled[0] * pooled[1] * pooled[2],
        "last": next(cost for cost in _costs() if cost.name == "pool5").output[1],
        "inputs": _costs()[0].neurons,
        "change": _change("non-overlapping"),
    }


def _towers() -> Values:
    convolution, found = _convolution(), _result("towers-long")
    work = Work.of("paper")
    into_conv3 = work.crossing[0]
    costs = {cost.name: math.prod(cost.output) for cost in _costs()}
    inputs = {
        "conv2": costs["pool1"],
        "conv4": costs["conv3"],
        "conv5": costs["conv4"],
        **dict(zip(("conv3", "fc6", "fc7", "fc8"), work.crossing, strict=True)),
    }
    counted = next(row for row in _result("parallel")["exchange"]["rows"] if row["layout"] == "towers")
    conv2 = convolution["layers"][1]
    long = _significance(found)
    return {
        "layers": convolution["layers"],
        "parameters": convolution["parameters"],
        "parameters_one": convolution["parameters_one"],
        "inputs": inputs,
        "classes": work.classes,
        "into_conv3": into_conv3,
        "conv3_bytes": RECIPE.batch_size * into_conv3 // 2 * 4,
        "change": _change("half"),
        "more": conv2["kernels"] * conv2["channels"] // 2 * conv2["size"] ** 2,
        "counted": int(counted["bytes_counted"]),
        "counted_batch": counted["batch"],
        "random_saturation": found["saturation_of_independent_values"],
        "short": _significance(_result("towers")),
        "long": long,
        "significant": long["significant"],
        "runs": {
            str(run["seed"]): {kind: run[kind]["each"] for kind in ("kernels", "learned")} for run in found["runs"]
        },
    }


def _significance(found: Values) -> Values:
    """In how many seeds the learned kernels of the two towers differ, and how long they were trained."""
    p_values = found["learned"]["p"]
    return {
        "epochs": found["recipe"]["epochs"],
        "significant": sum(p < 0.05 for p in p_values),
        "seeds": len(p_values),
        "p_text": ", ".join(f"{p:.2g}" if p > 0.001 else f"{p:.5f}" for p in p_values),
    }


def _augmentation() -> Values:
    found = _measured()["views"]
    errors = {
        name: {kind: statistics.mean(values) for kind, values in found[name].items()} for name in ("crops", "flips")
    }
    positions = IMAGE_SIZE - CROP + 1
    one, ten = (
        row.top1_error
        for views in (1, 10)
        for row in PUBLISHED
        if (row.variant, row.year, row.views) == ("paper", "2010", views)
    )
    component, eigenvalue = np.diag([0.6, 1.0, 1.0]), np.array([0.2, 0, 0]) * 255**2
    shift = {
        unit: float(PCAColor(component, eigenvalue, unit=unit).shifts(torch.tensor([[0.1, 0, 0]]))[0, 0])
        for unit in ("eigenvalues", "std")
    }
    return {
        "crops": 2 * positions**2,
        "printed": PRINTED_CROPS,
        "published_views": 100 * (one - ten),
        "positions": positions,
        "views": _in_points(_result("views-cifar10-jpeg")["difference"]),
        "color": _change("no-color"),
        "seeds": found["seeds"],
        "errors": errors,
        "shift": shift["eigenvalues"],
        "shift_std": shift["std"],
        **{f"{name}_{kind}": 100 * error for name, kinds in errors.items() for kind, error in kinds.items()},
        "harm": 100 * (errors["crops"]["ten"] - errors["crops"]["five"]),
    }


def _dropout() -> Values:
    curves, hidden, units = _measured()["dropout"], HIDDEN, FC6.units or 0
    errors = {name: [100 * value for value in curves[name]["test_error"]] for name in ("without", "with")}
    changes = _ablation()["changes"]
    last = {
        name: statistics.mean(100 * trial["train_error"][-1] for trial in changes[name]["trials"].values())
        for name in ("full", "no-dropout")
    }
    return {
        "hidden": hidden,
        "train": TRAIN,
        "without": statistics.mean(errors["without"]),
        "without_sd": statistics.stdev(errors["without"]),
        "with_": statistics.mean(errors["with"]),
        "with_sd": statistics.stdev(errors["with"]),
        "seeds": curves["seeds"],
        "images": curves["images"],
        "epochs": curves["epochs"],
        "change": _change("no-dropout"),
        "whole_test": 100 * changes["full"]["one_view"]["mean"],
        "whole_train": last["full"],
        "whole_train_without": last["no-dropout"],
        "remaining": units,  # half of two layers
        "power": 2 * hidden,
        "sum_whole": units * 2 * 0.01,
        "sum_halved": units * 0.01,
        "curves": curves,
    }


def _training() -> Values:
    plateau, curve = _measured()["plateau"], _result("cifar-18pct")
    errors = curve["trials"][0]["train_error"]
    drops = [event["epoch"] for event in curve["recipe"]["events"]]
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    rule = PaperSGD([weight])
    for _ in range(2):
        weight.grad = torch.full_like(weight, 0.5)
        rule.step()
    return {
        "loss_paper": plateau["paper"][-1],
        "loss_he": plateau["he"][-1],
        "epochs": plateau["epochs"],
        "change": _change("paper-init"),
        "error_at_chance": 100 * (1 - 1 / _ablation()["classes"]),
        "before": 100 * errors[drops[0] - 2],
        "after": 100 * errors[drops[0] - 1],
        "chance": math.log(NUM_CLASSES),
        "two_steps": weight.item(),
        "coast": RECIPE.momentum / (1 - RECIPE.momentum),
        "plateau": plateau,
        "drops": {"epochs": [epoch - 0.5 for epoch in drops], "errors": errors},
    }


def _learned() -> Values:
    found, solar = _measured()["comparison"], _result("solar")
    weird, one = (sum(cost.parameters for cost in _costs(name)) for name in ("one-weird-trick", "one-tower"))
    (paper,) = (row for row in PUBLISHED if row.what == "table 2, 1 CNN")
    (cnn,) = (row for row in PUBLISHED if row.what == "table 1, CNN")
    epochs = {method[0]: method[4] for method in METHODS}
    before = [(name, 100 * top1, 100 * top5) for name, top1, top5 in DESIGNED_FEATURES]
    downloaded = [100 * (1 - error) for error in TORCHVISION]
    svm, vgg = (
        next(value for name, value in solar["published_percent"].items() if name.startswith(kind))
        for kind in ("SVM", "VGG")
    )
    (fisher,) = (
        row["accuracy"]["mean"]
        for row in _result("baseline")["table"]
        if (row["set"], row["features"]) == ("solar", "sift-fisher")
    )
    return {
        "comparison": [row | {"epochs": epochs.get(row["name"], 60)} for row in found["methods"]],
        "vgg": next(row["error"] for row in found["methods"] if row["name"].startswith("VGG")),
        "vgg_epochs": next(count for name, count in epochs.items() if name.startswith("VGG")),
        "published": [*before, ("AlexNet", 100 * cnn.top1_error, 100 * cnn.top5_error)],
        "sift": before[1][1],
        "cnn": 100 * cnn.top1_error,
        "one_cnn": 100 * paper.top5_error,
        "seven": 100 * SEVEN_NETWORKS,
        "solar": 100 * solar["mean"],
        "svm_solar": svm,
        "fisher_solar": 100 * fisher,
        "vgg_solar": vgg,
        "torchvision_1": downloaded[0],
        "torchvision_5": downloaded[1],
        "paper_1": 100 * (1 - paper.top1_error),
        "paper_5": 100 * (1 - paper.top5_error),
        "gap": 100 * (1 - paper.top1_error) - downloaded[0],
        "weird_parameters": weird,
        "one_tower": one,
        "fewer": one - weird,
        "distance": math.dist((1, 2, 2), (3, 0, 1)),
        "pixels": found["nearest"]["pixels"],
        "features": found["nearest"]["features"],
    }


_STARTER = ("images", "kernels", "gain", "offset", "input_mean", "input_scale")
_DIGITS = ("digits", "digit_labels")


def _layers(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{kind}{number}" for number in range(count) for kind in ("weight", "bias"))


LESSONS = (
    Lesson(
        name="photograph",
        section="2, 3.5",
        sources=("data/resize.py:square", "network/layers.py:output_size"),
        arrays=("images",),
        values=_photograph,
        answers=(("inputs", 0.5), ("without_overhang", 0.5), ("windows_stride_2", 0.5)),
    ),
    Lesson(
        name="convolution",
        section="3.2, 3.5",
        sources=("network/layers.py:OverhangConv2d",),
        arrays=_STARTER,
        values=_convolution,
        answers=(("conv1_parameters", 0.5), ("conv2_parameters", 0.5), ("share", 0.5)),
    ),
    Lesson(
        name="relu",
        section="3.1",
        sources=("network/rows.py:Activation", "experiments/figure_1.py:crossing"),
        arrays=_DIGITS,
        values=_relu,
        answers=(("gradient_tanh", 0.0006), ("through", 0.06), ("ratio", 0.06)),
    ),
    Lesson(
        name="lrn",
        section="3.3",
        sources=("network/normalization.py:local_response_norm_reference",),
        arrays=_STARTER,
        values=_lrn,
        answers=(("floor", 0.001), ("printed", 0.05), ("edge", 0.05)),
    ),
    Lesson(
        name="pooling",
        section="3.4",
        sources=("network/rows.py:Pool",),
        arrays=_STARTER,
        values=_pooling,
        answers=(("side", 0.5), ("units", 0.5), ("last", 0.5)),
    ),
    Lesson(
        name="towers",
        section="3.2, 6.1",
        sources=("experiments/towers.py:saturation", "experiments/towers.py:permutation_p", "parallel/plan.py:step"),
        arrays=("kernels",),
        values=_towers,
        answers=(("conv3_bytes", 0.5), ("more", 0.5), ("significant", 0.1)),
    ),
    Lesson(
        name="augmentation",
        section="4.1",
        sources=(
            "data/augmentation.py:PCAColor",
            "data/augmentation.py:RandomCrop",
            "data/statistics.py:statistics",
            "evaluation/views.py:ViewSet",
            "learn/digits.py:trained_on_crops",
        ),
        arrays=("images", *_DIGITS, *_layers("crops", 2), *_layers("flips", 2)),
        values=_augmentation,
        answers=(("crops", 0.5), ("shift", 0.006), ("harm", 0.06)),
    ),
    Lesson(
        name="dropout",
        section="4.2",
        sources=("network/rows.py:Dropout", "learn/digits.py:with_and_without_dropout"),
        arrays=(*_DIGITS, *_layers("sampled", 3)),
        values=_dropout,
        answers=(("remaining", 0.5), ("power", 0.5), ("sum_halved", 0.005)),
    ),
    Lesson(
        name="training",
        section="5",
        sources=("training/optimizers.py:PaperSGD", "training/schedules.py:Schedule", "learn/digits.py:plateau"),
        arrays=_DIGITS,
        values=_training,
        answers=(("chance", 0.006), ("two_steps", 0.000006), ("coast", 0.01)),
    ),
    Lesson(
        name="learned",
        section="6, 6.1",
        sources=("search/exact.py:nearest", "report/filters.py:first_layer_kernels", "learn/digits.py:comparison"),
        arrays=(*_STARTER, *_DIGITS, *_layers("sampled", 3)),
        values=_learned,
        answers=(("gap", 0.11), ("fewer", 0.5), ("distance", 0.01)),
    ),
)
