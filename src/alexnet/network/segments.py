"""A network as the segments that run one after another, and the cost of each: what its time is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.network.layers import Convolution, Weighted
from alexnet.network.model import FIT, FLATTEN, AlexNet, LayerCost
from alexnet.network.optimized import OptimizedNetwork


@dataclass(frozen=True)
class Segment:
    """Layers that run as one: a layer with the non-linearity, dropout or reshaping after it."""

    names: tuple[str, ...]
    steps: tuple[Callable[[Tensor], Tensor], ...]

    @property
    def name(self) -> str:
        """Name such as "conv3 + relu3"."""
        return " + ".join(name for name in self.names if name not in (FIT, FLATTEN))

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


@dataclass(frozen=True)
class SegmentCost:
    """The cost of a segment for one image.

    Parameters
    ----------
    input, output : int
        Numbers that it reads and writes.
    parameters, multiply_adds : int
        Sums over its layers.
    kind : str
        "convolutions", "fully connected layers" or "normalization and pooling".
    """

    input: int
    output: int
    parameters: int
    multiply_adds: int
    kind: str


def segments(network: OptimizedNetwork) -> list[Segment]:
    """The steps of an optimized network; what only follows a layer is joined to it."""
    found: list[Segment] = []
    follows = (nn.ReLU, nn.Tanh, nn.Dropout, nn.Flatten, nn.Identity)
    for names, step in network.named_steps():
        joined = isinstance(step, follows) or set(names) <= {FIT, FLATTEN}
        if joined and found:
            found[-1] = Segment((*found[-1].names, *names), (*found[-1].steps, step))
        else:
            found.append(Segment(names, (step,)))
    return found


def segment_costs(network: AlexNet, parts: list[Segment], side: int) -> list[SegmentCost]:
    """The cost of each segment for an image of `side` pixels."""
    layers = network.costs(side)
    return [_sum([cost for cost in layers if cost.name.partition(".")[0] in part.names]) for part in parts]


def kind_shares(costs: Sequence[SegmentCost], times: Sequence[float]) -> dict[str, dict[str, float]]:
    """Share of the time, of the multiply-adds and of the parameters of each kind of layer."""
    kinds: dict[str, dict[str, float]] = {}
    keys = ("multiply_adds", "parameters")
    totals = {"time": sum(times)} | {key: sum(getattr(cost, key) for cost in costs) for key in keys}
    for cost, time in zip(costs, times, strict=True):
        shares = kinds.setdefault(cost.kind, dict.fromkeys(totals, 0.0))
        for key, value in {"time": time, **{key: getattr(cost, key) for key in keys}}.items():
            shares[key] += value / totals[key]
    return kinds


def _sum(costs: list[LayerCost]) -> SegmentCost:
    return SegmentCost(
        input=torch.Size(costs[0].input).numel(),
        output=torch.Size(costs[-1].output).numel(),
        parameters=sum(cost.parameters for cost in costs),
        multiply_adds=sum(cost.multiply_adds for cost in costs),
        kind=_kind([cost.module for cost in costs]),
    )


def _kind(modules: list[nn.Module]) -> str:
    if any(isinstance(module, Convolution) for module in modules):
        return "convolutions"
    if any(isinstance(module, Weighted) for module in modules):
        return "fully connected layers"
    return "normalization and pooling"
