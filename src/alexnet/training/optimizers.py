"""The rules that move the weights: the paper's; Muon and AdamW for few images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.kernels.update import can_update, update
from alexnet.runs.recipe import Recipe

Rows = Callable[[str, Tensor], tuple[Tensor, slice]]


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
        self.update({})
        return loss

    @torch.no_grad()
    def update(self, copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """One update; where a parameter has a working copy, that has its gradient and is given the new weight."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            decay = group["weight_decay"] * lr
            for p in group["params"]:
                copy = copies.get(p)
                gradient = p.grad if copy is None else copy.grad
                if gradient is None:
                    continue
                if not self.state[p]:
                    self.state[p]["velocity"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                velocity = self.state[p]["velocity"]
                if can_update(p, velocity, gradient, copy):
                    update(p, velocity, gradient, copy, momentum=momentum, decay=decay, lr=lr)
                    continue
                velocity.mul_(momentum).add_(p, alpha=-decay).add_(gradient, alpha=-lr)
                p.add_(velocity)
                if copy is not None:
                    copy.copy_(p)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is replaced by the nearest orthogonal one (Jordan et al. 2024, "Muon").

    A convolution's weights are one matrix a tower, a row a kernel. All directions of a matrix then move alike, so a few
    hundred steps reach what takes thousands when the few strongest directions of the gradient decide. Weight decay is
    decoupled, as in AdamW. For parameters of at least two dimensions.

    `whole`: from a layer's name and the rows of its matrix that are here to all of them, and which of those these are;
    for a process that has a part of the kernels.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.05,
        whole: Rows | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "towers": 1, "layer": ""}
        super().__init__(params, defaults)
        self.whole = whole or (lambda layer, rows: (rows, slice(None)))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum, towers = group["lr"], group["momentum"], group["towers"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                average = self.state[p]["momentum"].mul_(momentum).add_(p.grad)
                ahead, mine = self.whole(group["layer"], p.grad.add(average, alpha=momentum).flatten(1))
                update = torch.cat([orthogonalized(matrix) for matrix in ahead.chunk(towers)])[mine]
                rows, columns = ahead.shape[0] // towers, ahead.shape[1]
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update.view(p.shape), alpha=-lr * math.sqrt(max(1.0, rows / columns)))
        return loss


def orthogonalized(matrix: Tensor) -> Tensor:
    """The orthogonal matrix nearest to a (rows, columns) one, roughly: its singular values brought to about 1.

    Four steps of the Newton-Schulz iteration, with the coefficients of Jordan et al. 2024, in bfloat16.
    """
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(4):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x if wide else x.T).to(matrix.dtype)


def _share(weight: Tensor, lr_reference_fan_in: float | None) -> float:
    """What a matrix's learning rate is multiplied by: a unit's sum moves by the steps of all its inputs."""
    return min(1.0, lr_reference_fan_in / weight[0].numel()) if lr_reference_fan_in else 1.0


def make_optimizers(
    network: nn.Module, recipe: Recipe, taken: Mapping[str, int] | None = None, whole: Rows | None = None
) -> list[torch.optim.Optimizer]:
    """The recipe's rules over the network, with one parameter group a layer's weights or biases.

    `taken`: modules whose weights were learned before, each with how many such layers lie above it. `whole`: see
    `Muon`. Each group has
    `layer` (its name in the table), `lr_factor` (what the layer's learning rate is multiplied by) and `taken` beside
    what the rule needs; the gains and shifts of batch normalization count as biases. "muon" moves the weights of the
    convolutions, and leaves everything else to AdamW.
    """
    taken, decays = taken or {}, dict(recipe.layer_weight_decay)
    groups: list[dict[str, Any]] = []
    convolutions: list[dict[str, Any]] = []
    for layer, module in network.named_children():
        share = recipe.pretrained_lr_scale * recipe.layer_lr_decay ** taken[layer] if layer in taken else 1.0
        for name, parameter in module.named_parameters():
            bias = name == "bias" or isinstance(module, nn.BatchNorm2d)
            group = {
                "params": [parameter],
                "layer": layer,
                "lr": recipe.lr,
                "lr_factor": share * (recipe.bias_lr_scale if bias else _share(parameter, recipe.lr_reference_fan_in)),
                "taken": layer in taken,
                "weight_decay": 0.0
                if bias and not recipe.bias_weight_decay
                else decays.get(layer, recipe.weight_decay),
            }
            if recipe.optimizer == "muon" and isinstance(module, nn.Conv2d) and not bias:
                convolutions.append({**group, "lr_factor": share * recipe.muon_lr_scale, "towers": module.groups})
            else:
                groups.append(group)
    if recipe.optimizer == "paper":
        return [PaperSGD(groups, lr=recipe.lr, momentum=recipe.momentum)]
    rules: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95), fused=True)]
    if convolutions:
        rules.append(Muon(convolutions, momentum=recipe.momentum, whole=whole))
    return rules


@torch.no_grad()
def update_all(optimizers: Sequence[torch.optim.Optimizer], copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """One update by each rule, after which no parameter has a gradient.

    `copies`: for some parameters their working copies, which have the gradients and are given the new weights.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, PaperSGD):
            optimizer.update(copies)
            continue
        twins = [(p, copies[p]) for group in optimizer.param_groups for p in group["params"] if p in copies]
        for p, copy in twins:
            p.grad = None if copy.grad is None else copy.grad.to(p.dtype)
        optimizer.step()
        if twins:
            torch._foreach_copy_([copy for _, copy in twins], [p for p, _ in twins])
    clear_gradients(optimizers, copies)


def clear_gradients(optimizers: Sequence[torch.optim.Optimizer], copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Let no parameter and no working copy have a gradient."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    for copy in copies.values():
        copy.grad = None
