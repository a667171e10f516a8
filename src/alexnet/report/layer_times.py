"""The section of a report on where the time of the forward pass goes, layer by layer."""

from __future__ import annotations

import time
from itertools import pairwise

import torch
from torch import Tensor

from alexnet.evaluation.predictor import Member
from alexnet.network.optimized import OptimizedNetwork, without_batch_norm
from alexnet.network.segments import Segment, SegmentCost, kind_shares, segment_costs, segments
from alexnet.report.sections import Section, Table
from alexnet.runtime.devices import choose_precision

IMAGES, MULTIPLY_ADDS, ROUNDS = 32, 24e9, 3
"""Most images and multiply-adds in a round, with which the section takes about a second; rounds."""


def layers_section(member: Member, precision: str) -> Section:
    """Return the time, the operations and the parameters of each layer of the network in its optimized form.

    Parameters
    ----------
    member
        The network.
    precision
        As in `evaluate`.
    """
    device = member.preprocess.mean.device
    dtype = choose_precision(precision, device)
    folded = without_batch_norm(member.network)
    parts = segments(OptimizedNetwork(folded, dtype))
    size = member.preprocess.size
    side = member.preprocess.input_size or member.preprocess.crop_size
    costs = segment_costs(folded, parts, side)
    count = max(1, min(IMAGES, int(MULTIPLY_ADDS / sum(cost.multiply_adds for cost in costs))))
    pixels = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, device=device)
    seconds = segment_times(parts, member.preprocess.center(pixels).to(dtype))
    name = str(dtype).removeprefix("torch.")
    lines = [
        f"Measured on {device.type} in {name} with random images, {count} at once, each of {side}×{side} pixels: "
        f"{1e3 * sum(seconds):.0f} ms without reading and preparing images, for each layer the shortest of {ROUNDS} "
        "rounds.",
        *_shares(costs, seconds),
        "A training step also goes backward: `alexnet bench --only layers` measures both directions of the paper's "
        "network.",
    ]
    table = _table(parts, costs, seconds, count, torch.finfo(dtype).bits // 8)
    return Section("layers", "Where the time goes", "", "layers.html", {"lines": lines, "table": table})


@torch.inference_mode()
def segment_times(parts: list[Segment], inputs: Tensor) -> list[float]:
    """Seconds of each segment in a forward pass, the shortest of the rounds: other work only adds time."""
    found = []
    for _ in range(ROUNDS):
        x, marks = inputs, [_now(inputs.device)]
        for part in parts:
            x = part(x)
            marks.append(_now(inputs.device))
        found.append([after - before for before, after in pairwise(marks)])
    return [min(times) for times in zip(*found, strict=True)]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _shares(costs: list[SegmentCost], seconds: list[float]) -> list[str]:
    """A sentence for each kind of layer: its shares of time, multiply-adds and parameters."""
    return [
        f"{kind.capitalize()}: {shares['time']:.0%} of the time, {shares['multiply_adds']:.0%} of the multiply-adds, "
        f"{shares['parameters']:.0%} of the parameters."
        for kind, shares in kind_shares(costs, seconds).items()
    ]


def _table(
    parts: list[Segment], costs: list[SegmentCost], seconds: list[float], count: int, number_bytes: int
) -> Table:
    head = ("layer", "ms", "of the time", "multiply-adds per image", "MB moved", "parameters", "of the parameters")
    total = sum(cost.parameters for cost in costs)
    rows = [
        (
            part.name,
            f"{1e3 * taken:.2f}",
            f"{taken / sum(seconds):.1%}",
            f"{cost.multiply_adds:,}",
            f"{number_bytes * (count * (cost.input + cost.output) + cost.parameters) / 1e6:.1f}",
            f"{cost.parameters:,}",
            f"{cost.parameters / total:.1%}",
        )
        for part, cost, taken in zip(parts, costs, seconds, strict=True)
    ]
    return Table(head, rows, numeric=range(1, len(head)))
