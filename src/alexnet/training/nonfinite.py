"""Where numbers first stopped being finite, in words."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alexnet.network.model import AlexNet
from alexnet.runtime.devices import autocast


@torch.no_grad()
def first_not_finite(
    network: AlexNet, inputs: Tensor, device: torch.device, dtype: torch.dtype, any_process: Callable[[bool], bool]
) -> str:
    """The first layer, on the way of an image, whose weights or activations are not all finite."""
    if any_process(not inputs.isfinite().all()):
        return "the input"
    x = inputs
    wild = not_finite_weights(network, any_process)
    if wild:
        return wild
    with autocast(device, dtype):
        for name, module in network.named_children():
            x = module(x)
            if any_process(not x.isfinite().all()):
                return f"the activations of {name}"
    return "the loss"


@torch.no_grad()
def not_finite_weights(network: AlexNet, any_process: Callable[[bool], bool]) -> str | None:
    """The first layer whose weights are not all finite, in words; None when all are."""
    finite = {
        name: all(bool(parameter.isfinite().all()) for parameter in module.parameters())
        for name, module in network.named_children()
    }
    if not any_process(not all(finite.values())):
        return None
    for name, is_finite in finite.items():
        if any_process(not is_finite):
            return f"the weights of {name}"
    return None
