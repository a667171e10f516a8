"""The optimized network compared with the plain one: both trained with the paper's update rule on the same images.

Three networks start from the same weights: the plain one in float64, the plain one in float32 and the optimized one in
float32. Dropout is off, because the two forms draw their dropout masks differently. Where the two largest values of a
pooling window differ only by rounding, either may be the maximum, so even two correct float32 trainings diverge; the
float64 one shows by how much. The optimized network should be no farther from float64 than the plain float32 one, up
to a small factor. With larger learning rates, training on so small batches is chaotic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.bench.parts import Settings
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runtime.progress import progress
from alexnet.training.optimizers import PaperSGD, update_all

TYPES = {"plain float64": torch.float64, "plain float32": torch.float32, "fast": torch.float32}


def equality(settings: Settings, *, steps: int = 200, side: int = 99) -> dict[str, Any]:
    """Train the three networks, and return their distances relative to the distance from the initial weights.

    Parameters
    ----------
    settings : Settings
        `batch_size` is 8 by default; other values are not used.
    steps : int
        Updates.
    side : int
        Height and width of the synthetic images.
    """
    batch_size = settings.batch_size or 8
    networks = {}
    for name, dtype in TYPES.items():
        torch.manual_seed(0)
        network = AlexNet("paper", 10, init="he", dropout=0.0).to(dtype)
        networks[name] = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forms: dict[str, Callable[[Tensor], Tensor]] = {**networks, "fast": OptimizedNetwork(networks["fast"])}
    optimizers = {name: PaperSGD(network.parameters(), lr=1e-4) for name, network in networks.items()}
    initial = _weights(networks["fast"])

    generator = torch.Generator().manual_seed(1)
    losses: dict[str, list[float]] = {name: [] for name in networks}
    with progress(steps, "steps") as bar:
        for _ in range(steps):
            labels = torch.randint(10, (batch_size,), generator=generator)
            images = torch.randn((batch_size, 3, side, side), generator=generator) + 0.3 * labels[:, None, None, None]
            images = images.contiguous(memory_format=torch.channels_last)
            for name, form in forms.items():
                loss = functional.cross_entropy(form(images.to(TYPES[name])), labels)
                loss.backward()
                update_all([optimizers[name]], {})
                losses[name].append(loss.item())
            bar.advance(loss=f"{loss.item():.3f}")

    weights = {name: _weights(network) for name, network in networks.items()}

    def distance(name: str, other: str) -> float:
        return _distance(weights[name], weights[other]) / _distance(weights[name], initial)

    return {
        "description": "distance of all weights from the float64 training, relative to their distance from the start",
        "plain float32 from float64": distance("plain float32", "plain float64"),
        "fast from float64": distance("fast", "plain float64"),
        "fast from plain float32": distance("fast", "plain float32"),
        "last losses": {name: values[-1] for name, values in losses.items()},
        "greatest difference of a loss": max(
            abs(a - b) for a, b in zip(losses["fast"], losses["plain float64"], strict=True)
        ),
    }


def _weights(network: AlexNet) -> list[Tensor]:
    return [parameter.detach().double().clone() for parameter in network.parameters()]


def _distance(weights: list[Tensor], others: list[Tensor]) -> float:
    return sum(float((a - b).square().sum()) for a, b in zip(weights, others, strict=True)) ** 0.5
