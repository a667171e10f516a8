"""The optimizers: the update rule of the paper; Muon and AdamW for small datasets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.kernels import adam
from alexnet.kernels.update import can_update, update
from alexnet.network.layers import leaves
from alexnet.runs.recipe import Recipe

GatherRows = Callable[[str, Tensor], tuple[Tensor, slice]]
"""From a layer's name and the rows of its matrix in this process to all rows, and which of them these are."""


class PaperSGD(torch.optim.Optimizer):
    """The update rule of the paper's section 5, as printed:

    `v ← momentum·v − weight_decay·ε·w − ε·⟨∂L/∂w⟩`, `w ← w + v`.

    The velocity contains the learning rate ε, so after a change of ε the earlier gradients keep their old scale and
    decay; `torch.optim.SGD` scales the whole velocity with the new learning rate at once. Any parameter group may have
    its own values.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups, as for every `torch.optim.Optimizer`.
    lr, momentum, weight_decay : float
        The defaults of groups without their own; those of the paper.
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
        loss = _loss_of(closure)
        self.update({})
        return loss

    @torch.no_grad()
    def update(self, copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """One update; where a parameter has a rounded copy, the copy has the gradient and receives the new weight."""
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


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, which updates a weight and its rounded copy in one pass over memory where a kernel can.

    The fully connected layers are most of the parameters, and converting their gradients to float32 first takes as long
    as the update.
    """

    @torch.no_grad()
    def update(self, copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """One update; where a parameter has a rounded copy, the copy has the gradient and receives the new weight."""
        others: list[tuple[nn.Parameter, nn.Parameter]] = []
        for group in self.param_groups:
            for p in group["params"]:
                copy = copies.get(p)
                if copy is None or copy.grad is None:
                    continue
                if not (state := self.state[p]):
                    state["step"] = torch.zeros((), device=p.device)
                    state |= {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                if not adam.can_update(p, state["exp_avg"], state["exp_avg_sq"], copy.grad, copy):
                    p.grad = copy.grad.to(p.dtype)
                    others.append((p, copy))
                    continue
                state["step"] += 1
                adam.update(
                    *(p, state["exp_avg"], state["exp_avg_sq"], copy.grad, copy),
                    **{name: group[name] for name in ("lr", "betas", "eps", "weight_decay")},
                    step=int(state["step"]),
                )
        self.step()
        if others:
            torch._foreach_copy_([copy for _, copy in others], [p for p, _ in others])


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is replaced by the nearest orthogonal one (Jordan et al. 2024, "Muon").

    A convolution's weights are one matrix for each tower, with a row for each kernel. All directions of a matrix move
    by the same amount, so a few hundred steps reach what takes thousands when the strongest directions of the gradient
    dominate. Weight decay is decoupled, as in AdamW.

    Parameters
    ----------
    params : iterable
        Parameters of at least two dimensions, or groups of them with `towers` and `layer`.
    lr, momentum, weight_decay : float
        The defaults of groups without their own.
    gather_rows : callable, optional
        For a process that has a part of the kernels: see `GatherRows`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.05,
        gather_rows: GatherRows | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "towers": 1, "layer": ""}
        super().__init__(params, defaults)
        self.gather_rows = gather_rows or (lambda layer, rows: (rows, slice(None)))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = _loss_of(closure)
        for group in self.param_groups:
            lr, momentum, towers = group["lr"], group["momentum"], group["towers"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                average = self.state[p]["momentum"].mul_(momentum).add_(p.grad)
                ahead, mine = self.gather_rows(group["layer"], p.grad.add(average, alpha=momentum).flatten(1))
                update = torch.cat([orthogonalized(matrix) for matrix in ahead.chunk(towers)])[mine]
                rows, columns = ahead.shape[0] // towers, ahead.shape[1]
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update.view(p.shape), alpha=-lr * math.sqrt(max(1.0, rows / columns)))
        return loss


def _loss_of(closure: Callable[[], Any] | None) -> Any:
    """The result of a closure of `torch.optim.Optimizer.step`, with gradients; None without one."""
    with torch.enable_grad():
        return None if closure is None else closure()


def orthogonalized(matrix: Tensor) -> Tensor:
    """The orthogonal matrix nearest to a (rows, columns) one, approximately: its singular values become about 1.

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


def _fan_in_scale(weight: Tensor, lr_reference_fan_in: float | None) -> float:
    """Factor of a matrix's learning rate: the output of a unit changes by the sum of the changes of all its inputs."""
    return min(1.0, lr_reference_fan_in / weight[0].numel()) if lr_reference_fan_in else 1.0


def make_optimizers(
    network: nn.Module,
    recipe: Recipe,
    pretrained: Mapping[str, int] | None = None,
    gather_rows: GatherRows | None = None,
) -> list[torch.optim.Optimizer]:
    """The optimizers of a recipe, with one parameter group for the weights and one for the biases of each layer.

    Parameters
    ----------
    network : nn.Module
        The network.
    recipe : Recipe
        Its `optimizer` "muon" updates the weights of the convolutions by Muon, and everything else by AdamW.
    pretrained : mapping, optional
        Modules with loaded weights, each with the number of loaded layers above it.
    gather_rows : callable, optional
        For `Muon`.

    Returns
    -------
    list of Optimizer
        Beside the values of the rule each group has `layer` (its name), `lr_factor` (factor of the layer's learning
        rate) and `pretrained`. Gains and shifts of batch normalization count as biases.
    """
    pretrained, decays = pretrained or {}, dict(recipe.layer_weight_decay)
    groups: list[dict[str, Any]] = []
    convolutions: list[dict[str, Any]] = []
    for layer, module in leaves(network):
        factor = recipe.pretrained_lr_scale * recipe.layer_lr_decay ** pretrained[layer] if layer in pretrained else 1.0
        for name, parameter in module.named_parameters():
            bias = name == "bias" or isinstance(module, nn.BatchNorm2d)
            group = {
                "params": [parameter],
                "layer": layer,
                "lr": recipe.lr,
                "lr_factor": factor
                * (recipe.bias_lr_scale if bias else _fan_in_scale(parameter, recipe.lr_reference_fan_in)),
                "pretrained": layer in pretrained,
                "weight_decay": 0.0
                if bias and not recipe.bias_weight_decay
                else decays.get(layer, recipe.weight_decay),
            }
            if recipe.optimizer == "muon" and isinstance(module, nn.Conv2d) and not bias:
                convolutions.append({**group, "lr_factor": factor * recipe.muon_lr_scale, "towers": module.groups})
            else:
                groups.append(group)
    if recipe.optimizer == "paper":
        return [PaperSGD(groups, lr=recipe.lr, momentum=recipe.momentum)]
    rules: list[torch.optim.Optimizer] = [AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95), fused=True)]
    if convolutions:
        rules.append(Muon(convolutions, momentum=recipe.momentum, gather_rows=gather_rows))
    return rules


@torch.no_grad()
def update_all(optimizers: Sequence[torch.optim.Optimizer], copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """One update by each optimizer, after which no parameter has a gradient.

    `copies` has the rounded copies of some parameters, which have the gradients and receive the new weights.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, PaperSGD | AdamW):
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
    """Remove the gradients of all parameters and rounded copies."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    for copy in copies.values():
        copy.grad = None
