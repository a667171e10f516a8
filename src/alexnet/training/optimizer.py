"""The rules that move the weights: the paper's, and AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from alexnet.recipe import Recipe


class PaperSGD(torch.optim.Optimizer):
    """The update rule of the paper's section 5, as printed:

    `v ← momentum·v − weight_decay·ε·w − ε·⟨∂L/∂w⟩`, `w ← w + v`.

    The velocity carries the learning rate ε, so after a change of ε it goes on at the old pace and decays; torch's SGD
    scales the whole velocity with the new rate at once. Any parameter group may have its own values.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            velocities = []
            for p in weights:
                if not self.state[p]:
                    self.state[p]["velocity"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                velocities.append(self.state[p]["velocity"])
            torch._foreach_mul_(velocities, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_add_(velocities, weights, alpha=-group["weight_decay"] * group["lr"])
            torch._foreach_add_(velocities, gradients, alpha=-group["lr"])
            torch._foreach_add_(weights, velocities)
        return loss


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's rule over the network, one parameter group a layer's weights or biases.

    Each group has `layer` (its name in the table) and `lr_factor` (what the layer's learning rate is multiplied by)
    beside what the rule needs; the gains and shifts of batch normalisation count as biases.
    """
    groups = []
    for layer, module in network.named_children():
        for name, parameter in module.named_parameters():
            bias = name == "bias" or isinstance(module, nn.BatchNorm2d)
            groups.append(
                {
                    "params": [parameter],
                    "layer": layer,
                    "lr": recipe.lr,
                    "lr_factor": recipe.bias_lr if bias else 1.0,
                    "weight_decay": 0.0 if bias and not recipe.bias_decay else recipe.weight_decay,
                }
            )
    if recipe.optimizer == "paper":
        return PaperSGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
