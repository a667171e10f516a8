"""The table of lessons: the numbers in the text of each, its questions, and the code that computes it.

A lesson is a row of `LESSONS`, a text per language in `texts/`, a widget in `templates/widgets/` and a function in
`templates/js/widgets.js`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from alexnet.experiments.catalog import shipped_results
from alexnet.network.model import AlexNet
from alexnet.network.normalization import local_response_norm_reference
from alexnet.network.variants import get_variant

Values = dict[str, Any]


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


def _windows(side: int, *, kernel: int = 11, stride: int = 4, overhang: bool = False) -> int:
    """Windows in a row; `network/layers.py:output_size` for a side that includes the padding."""
    room = side - kernel
    return (-(-room // stride) if overhang else room // stride) + 1


def _result(name: str) -> Values:
    """A measured result of docs/results."""
    values: Values = json.loads((shipped_results() / f"{name}.json").read_text("utf-8"))
    return values


def _photograph() -> Values:
    conv1 = AlexNet("paper", 2).costs()[0]
    return {
        "windows": _windows(224, overhang=True),
        "without_overhang": _windows(224),
        "windows_227": _windows(227),
        "beyond": (_windows(224, overhang=True) - 1) * 4 + 11 - 224,
        "units": conv1.neurons,
        "printed_units": 253_440,
        "inputs": 3 * 224 * 224,
        "windows_stride_2": _windows(227, stride=2),
        "images": 1_281_167,
    }


def _convolution() -> Values:
    layers = []
    for variant in ("paper", "one-tower"):
        costs = [cost for cost in AlexNet(variant, 1000).costs() if cost.parameters]
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
        "products": 3 * 11 * 11,
    }


def _relu() -> Values:
    figure = _result("figure-1")
    gradient = 1 - math.tanh(2) ** 2
    tanh = [
        100 * _result(name)["changes"]["tanh"]["difference"]["mean"]
        for name in ("ablation", "ablation-tiny-imagenet-20")
    ]
    return {
        "published": figure["published_ratio"],
        "ratio": figure["ratio"],
        "relu_epochs": figure["relu"]["epochs"],
        "tanh_epochs": figure["tanh"]["epochs"],
        "seeds": len(figure["seeds"]),
        "tanh_solar": tanh[0],
        "tanh_tiny": tanh[1],
        "gradient_tanh": gradient,
        "through": 100 * gradient**5,
        "figure": {
            name: {"rate": figure[name]["rate"], "errors": figure[name]["curves"]["0"]["errors"]}
            for name in ("relu", "tanh")
        },
    }


def _lrn() -> Values:
    column = torch.full((1, 96, 1, 1), 100.0, dtype=torch.float64)

    def middle(alpha: float, *, divide: bool) -> float:
        return float(local_response_norm_reference(column, 5, alpha, 0.75, 2.0, divide_by_n=divide)[0, 50, 0, 0])

    return {
        "floor": 2**-0.75,
        "printed": middle(1e-4, divide=False),
        "divided": middle(1e-4, divide=True),
        "edge": float(local_response_norm_reference(column, 5, 1e-4, 0.75, 2.0, divide_by_n=False)[0, 0, 0, 0]),
        "silent": middle(0, divide=False),
    }


def _pooling() -> Values:
    changes = [_result(name)["changes"] for name in ("ablation", "ablation-tiny-imagenet-20")]
    differences = [change["non-overlapping"]["difference"] for change in changes]
    pooled = next(cost for cost in AlexNet("paper", 2).costs() if cost.name == "pool1").output
    return {
        "side": pooled[1],
        "side_2": _windows(55, kernel=2, stride=2),
        "side_3": _windows(55, kernel=3, stride=3),
        "units": pooled[0] * pooled[1] * pooled[2],
        "last": _windows(13, kernel=3, stride=2),
        "inputs": 96 * 55 * 55,
        "measured": [100 * difference["mean"] for difference in differences],
        "errors": [100 * difference["standard_error"] for difference in differences],
        "noise": all(difference["verdict"].endswith("within noise") for difference in differences),
    }


_STARTER = ("images", "kernels", "gain", "offset", "input_mean", "input_scale")
_DIGITS = ("digits", "digit_labels")

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
        answers=(("gradient_tanh", 0.0006), ("through", 0.00006), ("ratio", 0.06)),
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
)
