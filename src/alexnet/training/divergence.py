"""Divergence of a training: its detection, and the exception that reports it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alexnet.network.model import AlexNet
from alexnet.runtime.devices import autocast

EXPLODED_LOSS = 1e6
"""Nats. A loss above it is a divergence even where it is finite: guessing among a million classes costs 14."""


class Diverged(Exception):
    """A training step or a validation gave NaN, Inf or an exploded loss.

    Raised in every process of a training alike, and caught in one place, `Training.run`, which rolls back.

    Parameters
    ----------
    step : int
        The step, counted from 1.
    reason : str
        What was found and where, for a message.
    """

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(reason)
        self.step = step


def is_divergent(loss: float) -> bool:
    """Whether a loss is NaN, Inf, or above `EXPLODED_LOSS`."""
    return not math.isfinite(loss) or loss > EXPLODED_LOSS


def diverged(step: int, loss: float, where: str) -> Diverged:
    """The exception for a divergent `loss` of a step; `where` names the first place with a NaN or Inf."""
    if math.isfinite(loss):
        return Diverged(step, f"the loss exploded to {loss:.3g} at step {step}")
    return Diverged(step, f"NaN or Inf at step {step}, first in {where}")


@torch.no_grad()
def first_nonfinite(
    network: AlexNet, inputs: Tensor, device: torch.device, dtype: torch.dtype, any_process: Callable[[bool], bool]
) -> str:
    """The first place with a NaN or Inf: the input, the weights or activations of a layer, or the loss.

    Parameters
    ----------
    network : AlexNet
        The network, in training mode.
    inputs : Tensor
        What `forward` takes, (N, 3, S, S).
    device, dtype
        Where and in which precision the step was computed.
    any_process : callable
        Whether a flag is set in any process of the training.
    """
    if any_process(not inputs.isfinite().all()):
        return "the input"
    x = inputs
    layer = nonfinite_weights(network, any_process)
    if layer:
        return f"the weights of {layer}"
    with autocast(device, dtype):
        for name, module in network.named_children():
            x = module(x)
            if any_process(not x.isfinite().all()):
                return f"the activations of {name}"
    return "the loss"


@torch.no_grad()
def nonfinite_weights(network: AlexNet, any_process: Callable[[bool], bool]) -> str | None:
    """The first layer with a weight, bias or statistic that is NaN or Inf once saved as float32; None without one."""
    finite = {
        name: all(bool(tensor.float().isfinite().all()) for tensor in module.state_dict().values())
        for name, module in network.named_children()
    }
    if not any_process(not all(finite.values())):
        return None
    for name, is_finite in finite.items():
        if any_process(not is_finite):
            return name
    return None
