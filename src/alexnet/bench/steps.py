"""A training step, compared with that of a textbook AlexNet, with a matrix product, and with a repeated batch."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.bench.data import photograph_batches
from alexnet.bench.parts import Settings
from alexnet.bench.peers import SIDE, ExpertTraining, TextbookTraining, wait_for
from alexnet.bench.timing import Comparison, compared, in_turn
from alexnet.network.layers import Weighted
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.recipe import recipes
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import notify
from alexnet.training.optimizers import clear_gradients, make_optimizers, update_all
from alexnet.training.recorded_step import RecordedStep, capture_for, tensors_of_step

BATCH_SIZE = 128


class OurTraining:
    """The training step of `alexnet train`, without augmentation.

    Parameters
    ----------
    batch_size : int
        Images of the synthetic batch.
    side : int
        Height and width of its images.
    dtype : torch.dtype, optional
        Arithmetic; None for the faster on this machine.
    variant : str
        The network.
    device : torch.device, optional
        None for the GPU where there is one.
    recipe : str
        The update rule, and the normalization of the network.
    """

    def __init__(
        self,
        batch_size: int,
        side: int = SIDE,
        dtype: torch.dtype | None = None,
        variant: str = "paper",
        device: torch.device | None = None,
        recipe: str = "paper",
    ) -> None:
        chosen = recipes()[recipe].override({"lr": 1e-4})
        self.device = device or choose_device()
        self.dtype = dtype or choose_precision("auto", self.device)
        network = AlexNet(variant, normalization=chosen.normalization).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.working = OptimizedNetwork(self.network, self.dtype)
        self.optimizers = make_optimizers(self.network, chosen)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = chosen.lr
        images = torch.randn(batch_size, 3, side, side, device=self.device, dtype=self.dtype)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (batch_size,), device=self.device)
        capture = capture_for(self.device)
        self.replay = None if capture is None else RecordedStep(self.device, capture, self.state, notify)

    def step(self, images: Tensor | None = None, labels: Tensor | None = None) -> None:
        """Take a step on a batch, by default the synthetic one, and wait for the device."""
        inputs = (self.images if images is None else images, self.labels if labels is None else labels)
        if self.replay is None:
            self.work(*inputs)
        else:
            self.replay(len(inputs[1]), self.work, inputs, seed=0)
        wait_for(self.device)

    @torch.enable_grad()
    def work(self, images: Tensor, labels: Tensor) -> Tensor:
        """Forward and backward pass, and update; returns the loss."""
        clear_gradients(self.optimizers, self.working.copies)
        loss = functional.cross_entropy(self.working(images).float(), labels)
        loss.backward()
        with torch.profiler.record_function("update"):
            update_all(self.optimizers, self.working.copies)
        return loss.detach()

    def state(self) -> Iterator[Tensor]:
        """The tensors that a step changes."""
        return tensors_of_step(self.network, self.working.copies.values(), self.optimizers)

    def operations(self) -> int:
        """Floating-point operations per image: three products per layer, two for conv1, whose input has no gradient."""
        costs = [cost for cost in self.network.costs() if isinstance(cost.module, Weighted)]
        return 2 * (3 * sum(cost.multiply_adds for cost in costs) - costs[0].multiply_adds)


def train_step(settings: Settings) -> list[Comparison]:
    """Compare the step with the textbook's, with an expert's, and its rate of operations with a matrix product's."""
    count = settings.batch_size or BATCH_SIZE
    ours, theirs = OurTraining(count), TextbookTraining(count)
    experts = {"eager": ExpertTraining(count, ours.dtype)}
    if shutil.which("c++") or shutil.which("g++"):
        experts["torch.compile"] = ExpertTraining(count, ours.dtype, compiled=True)
    size = 4096 if ours.device.type == "cpu" else 8192
    factor = torch.randn(size, size, device=ours.device, dtype=ours.dtype)
    product = torch.empty_like(factor)

    def multiply() -> None:
        torch.mm(factor, factor, out=product)
        wait_for(ours.device)

    sides = {"ours": ours.step, "theirs": theirs.step, "product": multiply}
    seconds = in_turn(sides | {name: expert.step for name, expert in experts.items()}, settings.rounds)
    rate = ours.operations() * count / statistics.median(seconds["ours"])
    product_rate = 2 * size**3 / statistics.median(seconds["product"])
    needed = [ours.operations() * count / (2 * size**3) * value for value in seconds["product"]]
    precision = str(ours.dtype).removeprefix("torch.")
    return [
        compared(
            f"training step, paper with LRN, batch {count}, {precision}",
            "textbook AlexNet, float32, eager",
            *(seconds["ours"], seconds["theirs"], 7.0),
            images_per_second=count / statistics.median(seconds["ours"]),
            textbook_images_per_second=count / statistics.median(seconds["theirs"]),
            milliseconds_of=_profile(ours) if ours.device.type == "cpu" else {},
        ),
        *(
            compared(
                f"training step, paper with LRN, batch {count}, {precision}",
                f"an expert's PyTorch, {name}: channels-last, {precision} autocast, groups, no LRN",
                *(seconds["ours"], seconds[name], 1.3),
                expert_images_per_second=count / statistics.median(seconds[name]),
            )
            for name in experts
        ),
        compared(
            "training step, floating-point rate",
            f"{precision} matrix product of {size}×{size}",
            *(seconds["ours"], needed, 0.7),
            gflops_per_second=rate / 1e9,
            product_gflops_per_second=product_rate / 1e9,
        ),
    ]


_OPERATIONS = {
    "aten::mkldnn_convolution": "convolutions forward",
    "aten::convolution_backward": "convolutions backward",
    "aten::addmm": "fully connected layers",
    "aten::mm": "fully connected layers",
    "_ResponseNorm": "response normalization",
    "_ResponseNormBackward": "response normalization",
    "_MaxPool": "pooling",
    "_MaxPoolBackward": "pooling",
    "update": "update of the weights",
}


def _profile(training: OurTraining, steps: int = 3) -> dict[str, float]:
    """Milliseconds of the operations of a step, by their name in the profile."""
    with torch.profiler.profile() as profiled:
        for _ in range(steps):
            training.step()
    parts = dict.fromkeys([*_OPERATIONS.values(), "everything else"], 0.0)
    for event in profiled.key_averages():
        parts[_OPERATIONS.get(event.key, "everything else")] += event.self_cpu_time_total / 1e3 / steps
    return {name: round(milliseconds, 1) for name, milliseconds in parts.items()}


def fed(settings: Settings) -> list[Comparison]:
    """Compare training on shuffled and augmented data with training on one repeated batch."""
    count = settings.batch_size or BATCH_SIZE
    ours = OurTraining(count, side=224)
    batches = photograph_batches(settings.folder, count, ours.device, ours.dtype)

    def on_data() -> None:
        ours.step(*next(batches))

    seconds = in_turn({"data": on_data, "repeated": ours.step}, 3 * settings.rounds)
    return [
        compared(
            f"training on data, batch {count}",
            "training on one repeated batch",
            *(seconds["data"], seconds["repeated"], 0.97),
            images_per_second=count / statistics.median(seconds["data"]),
        )
    ]


def memory(settings: Settings) -> list[Comparison]:
    """Compare the peak memory of a process that takes two steps with that of the textbook's."""
    if choose_device().type != "cpu":
        raise AlexNetError("memory is measured on a CPU only; hide the GPU with CUDA_VISIBLE_DEVICES=")
    count = settings.batch_size or BATCH_SIZE
    ours, theirs = peak_memory(count), _peak("peers.TextbookTraining", count)
    return [
        compared(
            f"peak memory of training, batch {count}",
            "textbook AlexNet, float32, eager",
            *([ours], [theirs], 1 / 0.7),
            bytes=ours,
            textbook_bytes=theirs,
        )
    ]


def peak_memory(batch_size: int, side: int = SIDE, variant: str = "paper") -> float:
    """Peak bytes of a process that takes two training steps of a variant."""
    return _peak("steps.OurTraining", batch_size, f", {side}, variant={variant!r}")


def _peak(kind: str, batch_size: int, more: str = "") -> float:
    """Peak bytes of a process that takes two steps of a class of this package."""
    module, name = kind.split(".")
    program = f"""
import os
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
import torch
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.memory import peak_memory
from alexnet.bench.{module} import {name}
keep_freed_memory() if {name!r} == "OurTraining" else None
training = {name}({batch_size}{more})
for _ in range(2):
    training.step()
print(peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)
