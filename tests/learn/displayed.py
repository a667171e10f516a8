"""The numbers that the course displays for given settings of its controls, computed with the package."""

import dataclasses
import functools
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from alexnet import AlexNet, learn
from alexnet.data.augmentation import PCAColor
from alexnet.data.statistics import pixel_sum
from alexnet.data.statistics import statistics as color_statistics
from alexnet.experiments import towers
from alexnet.experiments.figure_1 import crossing
from alexnet.learn import digits
from alexnet.learn.computation import Starter
from alexnet.network.layers import OverhangConv2d, output_size
from alexnet.network.normalization import local_response_norm_reference
from alexnet.network.rows import Conv
from alexnet.network.variants import get_variant
from alexnet.parallel.plan import Work
from alexnet.search.exact import nearest
from alexnet.training.optimizers import PaperSGD

Numbers = dict[str, list[float]]
Compute = Callable[..., Any]
DATA = Path(learn.__file__).parent / "data" / "course.safetensors"


@functools.cache
def arrays() -> dict[str, Tensor]:
    with safe_open(DATA, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)


@functools.cache
def measured() -> dict[str, Any]:
    with safe_open(DATA, framework="pt") as opened:
        return json.loads(opened.metadata()["measured"])


@functools.cache
def data() -> digits.Digits:
    return digits.digits()


@functools.cache
@torch.no_grad()
def maps(photograph: int) -> Tensor:
    """The 96 feature maps of a photograph, (96, 55, 55): conv1, batch normalization and ReLU of the starter network."""
    network = Starter().network
    return network.get_submodule("batch1")(network.get_submodule("conv1")(starter_input(photograph)))[0].relu()


def starter_input(photograph: int) -> Tensor:
    starter = Starter()
    square = arrays()["images"][photograph, 14 : 14 + 227, 14 : 14 + 227].float()
    return ((square - starter.mean) * starter.scale).permute(2, 0, 1)[None]


def stored(name: str, sizes: tuple[int, ...]) -> nn.Sequential:
    """A small network of the course."""
    return loaded(
        digits.network(sizes, seed=0),
        [[arrays()[f"{name}_{kind}{n}"] for kind in ("weight", "bias")] for n in range(len(sizes) - 1)],
    ).eval()


def loaded(network: nn.Sequential, layers: list[list[Any]]) -> nn.Sequential:
    with torch.no_grad():
        for layer, (weight, bias) in zip(digits.layers_of(network), layers, strict=True):
            layer.weight.copy_(torch.as_tensor(weight).view_as(layer.weight))
            layer.bias.copy_(torch.as_tensor(bias))
    return network


def initial(compute: Compute, sizes: list[int], options: dict[str, Any]) -> nn.Sequential:
    """A network in float64 with the initial weights that the page draws."""
    layers = compute(
        "Compute.initialLayers(a[0], a[1]).map((l) => [Array.from(l.weight), Array.from(l.bias)])", *(sizes, options)
    )
    return loaded(digits.network(sizes, seed=0, tanh=options.get("tanh", False)).double(), layers)


def photograph(_: Compute) -> tuple[dict[str, Any], Numbers]:
    conv = OverhangConv2d(1, 1, 9, 3, device="meta")
    images = arrays()["images"].double()
    windows, pixel, mean = output_size(conv, 227 + 4), images[1, 31, 100], images.mean(dim=0)[31, 100]
    return {"photograph": 1, "side": 227, "kernel": 9, "stride": 3, "padding": 2, "column": 100, "row": 31}, {
        "output": [windows],
        "beyond": [conv.overhang([227 + 4])[0]],
        "units": [96 * windows**2],
        "pixel": pixel.tolist(),
        "mean": mean.tolist(),
        "difference": (pixel - mean).tolist(),
    }


def convolution(_: Compute) -> tuple[dict[str, Any], Numbers]:
    x, kernel = starter_input(2), arrays()["kernels"][40:41]
    sums = [functional.conv2d(x[:, [c]], kernel[:, [c]], stride=4)[0, 0, 50, 7].item() for c in range(3)]
    with torch.device("meta"):
        costs = [cost for cost in AlexNet("one-tower", 1000).costs() if cost.parameters][:4]
    return {"photograph": 2, "index": 40, "column": 7, "row": 50, "layers": 4, "towers": False}, {
        **{f"sum{c}": [value] for c, value in enumerate(sums)},
        "sum": [sum(sums)],
        "unit": [maps(2)[40, 50, 7].item()],
        "parameters": [sum(cost.parameters for cost in costs)],
        "multiplyAdds": [sum(cost.multiply_adds for cost in costs)],
    }


def relu(compute: Compute) -> tuple[dict[str, Any], Numbers]:
    x = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    value = x.sigmoid()
    value.backward()
    assert x.grad is not None
    orders = compute("(({ shuffled }) => Array.from({ length: 12 }, () => shuffled(300)))(Compute.random(3 + a[0]))", 0)
    epochs = []
    for name, rate in (("relu", 10**-1.2), ("tanh", 10**-0.8)):
        built = initial(compute, [64, 32, 32, 10], {"seed": 3, "tanh": name == "tanh"})
        rule = PaperSGD(built.parameters(), lr=float(f"{rate:.3g}"), weight_decay=0)
        curve = []
        for order in orders:
            wrong = []
            for rows in torch.tensor(order).split(30):
                logits, truth = built(data().inputs[rows].double()), data().targets[rows]
                rule.zero_grad()
                functional.cross_entropy(logits, truth).backward()
                rule.step()
                wrong.append((logits.argmax(1) != truth).double().mean().item())
            curve.append(statistics.mean(wrong))
        epochs.append(crossing(curve, 0.2))
    settings = {"kind": "logistic", "x": 1.3, "depth": 3}
    return settings | {"relu": -1.2, "tanh": -0.8, "hidden": 2, "target": 20, "seed": 3}, {
        "value": [value.item()],
        "gradient": [x.grad.item()],
        "through": [x.grad.item() ** 3],
        "epochsRelu": [epochs[0]],
        "epochsTanh": [epochs[1]],
        "ratio": [epochs[1] / epochs[0]],
    }


def lrn(_: Compute) -> tuple[dict[str, Any], Numbers]:
    before = 10 * maps(1)[None, :, 12:13, 30:31].double()
    peak = int(before.argmax())

    def after(alpha: float, *, divide: bool) -> float:
        found = local_response_norm_reference(before, 7, alpha, 0.5, 1.5, divide_by_n=divide, groups=2)
        return found.flatten()[peak].item()

    own = before.flatten()[peak].item()
    settings = {"photograph": 1, "column": 30, "row": 12, "k": 1.5, "n": 7, "alpha": -3, "beta": 0.5, "scale": 1}
    return settings | {"divide": True}, {
        "peak": [peak],
        "before": [own],
        "printed": [after(1e-3, divide=False)],
        "divided": [after(1e-3, divide=True)],
        "factor": [after(1e-3, divide=True) / own],
        "floor": [after(0, divide=True) / own],
    }


def pooling(_: Compute) -> tuple[dict[str, Any], Numbers]:
    own = maps(2)[None, 17:18].double()
    moved = torch.cat([own[..., :1], own[..., :-1]], dim=-1)
    pooled, shifted = (functional.avg_pool2d(x, 2, 2) for x in (own, moved))
    side = pooled.shape[-1]
    return {"photograph": 2, "index": 17, "window": "2/2", "average": True}, {
        "side": [side, side],
        "units": [96 * side**2],
        "largest": [pooled.max().item()],
        "mean": [pooled.mean().item()],
        "change": [100 * ((pooled - shifted).norm() / pooled.norm()).item()],
    }


def two_towers(_: Compute) -> tuple[dict[str, Any], Numbers]:
    paper = get_variant("paper")
    layers = tuple(
        dataclasses.replace(row, groups=1) if isinstance(row, Conv) and row.name == "conv2" else row
        for row in paper.layers
    )
    with torch.device("meta"):
        costs = AlexNet(dataclasses.replace(paper, name="conv2_reads_both", layers=layers), 1000).costs()
    parameters = sum(cost.parameters for cost in costs)
    into_conv2 = next(cost for cost in costs if cost.name == "conv2").input
    work, found = Work.of("paper"), towers.saturation(arrays()["kernels"])
    sent = 256 * 2 * (sum(work.crossing) + int(np.prod(into_conv2)) + work.classes / 2)
    first, second = found[:48].mean(), found[48:].mean()
    settings = {"conv2": True, "batch": 256, "bytes": 2, "run": "starter", "permutations": 4000, "seed": 2}
    return settings, {
        "sent": [sent / 1e6],
        "data": [2 * parameters / 1e6],
        "parameters": [parameters],
        "multiplyAdds": [sum(cost.multiply_adds for cost in costs)],
        "first": [first],
        "second": [second],
        "difference": [second - first],
    }


def augmentation(_: Compute) -> tuple[dict[str, Any], Numbers]:
    image = arrays()["images"][2:3].numpy()
    pixels = image.reshape(-1, 3).astype(np.int64)
    colors = color_statistics(pixel_sum(image).astype(np.int64), pixels.T @ pixels, 1)
    alphas = torch.tensor([[-0.2, 0.3, 0.05]])
    shift = PCAColor(colors.eigenvectors, colors.eigenvalues, unit="std").shifts(alphas)
    at = digits.TRAIN + 100
    ten = digits.view_probabilities(stored("flips", (36, 64, 10)), data().inputs[at].view(1, 8, 8), 10)[:, 0]
    errors = {kind: 100 * statistics.mean(values) for kind, values in measured()["views"]["flips"].items()}

    def answer(views: Tensor) -> list[float]:
        mean = views.mean(dim=0)
        return [int(mean.argmax()), 100 * mean.max().item()]

    settings = {"photograph": 2, "top": 3, "left": 30, "flip": True, "over": "one", "unit": "std"}
    return settings | {"a0": -0.2, "a1": 0.3, "a2": 0.05, "digit": 100, "network": "flips"}, {
        "deviations": np.sqrt(colors.eigenvalues).tolist(),
        "first": colors.eigenvectors[:, 0].tolist(),
        "shift": shift[0].tolist(),
        "crops": [2 * 33**2],
        "truth": [int(data().labels[at])],
        "one": answer(ten[8:9]),
        "five": answer(ten[::2]),
        "ten": answer(ten),
        **{f"error{kind.capitalize()}": [errors[kind]] for kind in ("one", "five", "ten")},
    }


@torch.no_grad()
def dropout(compute: Compute) -> tuple[dict[str, Any], Numbers]:
    network, at = stored("sampled", (64, 128, 128, 10)), digits.TRAIN + 10
    layers, x = digits.layers_of(network), data().inputs[at]
    masks = compute(
        """Compute.subnetworks(a[0].map((outputs) => ({ outputs, weight: [], bias: [0], inputs: 0 })), [],
            { count: 50, rate: 0.3, seed: 4, hidden: [0, 1] }).map((one) => one.masks)""",
        [128, 128, 10],
    )
    first, second = (torch.tensor([mask[n] for mask in masks]) / 0.7 for n in (0, 1))
    hidden = (layers[1](layers[0](x).relu() * first)).relu() * second
    rows, whole = layers[2](hidden).double().softmax(1), network(x).double().softmax(0)
    answer = int(whole.argmax())
    geometric = rows.log().mean(dim=0).softmax(0)
    return {"image": 10, "rate": 0.3, "count": 50, "seed": 4}, {
        "answer": [answer],
        "truth": [int(data().labels[at])],
        "whole": [100 * whole[answer].item()],
        "mean": [100 * rows[:, answer].mean().item()],
        "geometric": [100 * geometric[answer].item()],
        "spread": [100 * rows[:, answer].std().item()],
        "agree": [int((rows.argmax(1) == answer).sum()), 50],
    }


def training(compute: Compute) -> tuple[dict[str, Any], Numbers]:
    ends: dict[str, tuple[list[float], float, list[float]]] = {}
    steepness = torch.tensor([0.5, 2.0], dtype=torch.float64)
    for name, kind in (("paper", PaperSGD), ("torch", torch.optim.SGD)):
        w = torch.tensor([-4.0, 1.6], dtype=torch.float64, requires_grad=True)
        rule: Any = kind([w], lr=0.0316, momentum=0.8, weight_decay=0.1)
        velocity = torch.zeros(2)
        for step in range(20):
            rule.param_groups[0]["lr"] = 0.0316 if step < 5 else 0.00316
            before = w.detach().clone()
            rule.zero_grad()
            (w.square() @ steepness).backward()
            rule.step()
            velocity = w.detach() - before
        ends[name] = (w.tolist(), (w.square() @ steepness).item(), velocity.tolist())
    built = initial(compute, [64, *[64] * 7, 10], {"seed": 2, "std": 0.158})
    x = data().inputs[:50].double()
    loss = functional.cross_entropy(built(x), data().targets[:50])
    loss.backward()
    gradient = digits.layers_of(built)[0].weight.grad
    assert gradient is not None
    settings = {"lr": -1.5, "momentum": 0.8, "decay": 0.1, "ratio": 4, "steps": 20, "drop": 5, "std": -0.8, "seed": 2}
    return settings, {
        "paper": ends["paper"][0],
        "torch": ends["torch"][0],
        "velocity": ends["paper"][2],
        "lossPaper": [ends["paper"][1]],
        "lossTorch": [ends["torch"][1]],
        "last": [built(x).std(correction=0).item()],
        "initial": [loss.item()],
        "chance": [float(np.log(10))],
        "first": [gradient.abs().max().item()],
    }


@torch.no_grad()
def learned(_: Compute) -> tuple[dict[str, Any], Numbers]:
    features = stored("sampled", (64, 128, 128, 10))[:-1](data().inputs).numpy()
    at = digits.TRAIN + 50
    distances, rows = nearest(features[at : at + 1], features[: digits.TRAIN], 4)
    return {"index": 12, "query": 50, "space": "features", "count": 4}, {
        "strongest": [max(maps(n)[12].max().item() for n in range(3))],
        "saturation": towers.saturation(arrays()["kernels"])[12:13].tolist(),
        "truth": [int(data().labels[at])],
        "labels": data().labels[rows[0]].tolist(),
        "distance": [float(distances[0, 0])],
    }


NUMBERS: dict[str, Callable[[Compute], tuple[dict[str, Any], Numbers]]] = {
    "photograph": photograph,
    "convolution": convolution,
    "relu": relu,
    "lrn": lrn,
    "pooling": pooling,
    "towers": two_towers,
    "augmentation": augmentation,
    "dropout": dropout,
    "training": training,
    "learned": learned,
}
"""Settings of the controls of each lesson, and the numbers that it then displays."""

SET = """([settings]) => {
    const widget = document.querySelector('.widget');
    for (const [name, value] of Object.entries(settings)) {
        const control = widget.querySelector(`[name="${name}"]`);
        const field = control.type === 'checkbox' ? 'checked' : 'value';
        control[field] = value;
        if (String(control[field]) !== String(value)) throw new Error(`${name} cannot be ${value}`);
    }
    widget.dispatchEvent(new Event('input'));
    const shown = Array.from(widget.querySelectorAll('[data-value]'), (e) => [e.dataset.value, e.textContent]);
    return Object.fromEntries(shown);
}"""
NUMBER = re.compile(r"-?\d+(?:\.(\d+))?(?:e([-+]\d+))?")


def assert_displayed(texts: dict[str, str], expected: Numbers) -> None:
    """Every number of the texts is the expected one, rounded to the decimals that it has."""
    for name, values in expected.items():
        text = re.sub(r"(?<=\d),(?=\d{3})", "", texts[name])
        found = [(float(m[0]), 0.5001 * 10 ** (int(m[2] or 0) - len(m[1] or ""))) for m in NUMBER.finditer(text)]
        assert len(found) == len(values), (name, texts[name], values)
        for (number, rounding), value in zip(found, values, strict=True):
            assert abs(number - value) <= rounding + 1e-5 * abs(value), (name, texts[name], values)
