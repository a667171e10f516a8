"""Plan: the predicted time of an epoch on several devices, for each layout, from operations and bytes.

A step computes, moves weights and activations through memory, and communicates. It computes at the rate measured for
one device, and communicates at the rate of the link, hidden behind the computation that does not wait for it. Reading
images is left out, and so are devices that share a link.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from alexnet.network.layers import LocalResponseNorm
from alexnet.network.model import AlexNet, towers_of
from alexnet.runtime.errors import UsageError, check_choice

IMAGENET = 1_281_167
"""Training images of ILSVRC-2012."""

LAYOUTS = {
    "data": "each process has the whole network and a share of each batch",
    "towers": "each process has one of the two towers of the paper",
    "one-weird-trick": "data parallel convolutions and model parallel fully connected layers",
}
"""The layouts of a training by several processes."""

PASSINGS = {
    "at-once": "the activations of the whole batch, then one pass of the fully connected layers",
    "in-turn": "the activations of one process after the other",
    "in-shares": "an equal share of the activations of each process at a time",
}
"""How "one-weird-trick" passes activations to the fully connected layers (arXiv 1404.5997, schemes a, b and c)."""


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes
    ----------
    name : str
        The name on the command line.
    operations, bandwidth, memory : float
        Operations per second, bytes of memory traffic per second, and bytes of memory, from the data sheet.
    number_bytes : int
        Bytes of an activation or gradient.
    rate : float or None
        Images per second measured in training; None for `EFFICIENCY` of the operations.
    source : str
        Where the rate is from.
    """

    name: str
    operations: float
    bandwidth: float
    memory: float
    number_bytes: int = 2
    rate: float | None = None
    source: str = "data sheet"


EFFICIENCY = 0.15
"""Assumed share of a data sheet's operations that training reaches, where no rate was measured."""
LINK_EFFICIENCY = 0.8
"""Share of a link's nominal rate that large messages reach."""
PARAMETER_BYTES = 20
"""Memory of a parameter: itself, velocity, rounded copy, gradient, and its copy while a checkpoint is written."""

# The K20's rate is that of the published hours: 90 epochs of ImageNet in 98.05 hours, batch 128 (arXiv 1404.5997).
DEVICES = {
    device.name: device
    for device in (
        Device("gtx580", 1.58e12, 192e9, 3e9, 4),
        Device("k20", 3.52e12, 208e9, 5e9, 4, 90 * IMAGENET / (98.05 * 3600), "published: 98.05 hours for 90 epochs"),
        Device("v100", 125e12, 900e9, 16e9),
        Device("a100", 312e12, 2.04e12, 80e9),
        Device("rtx4090", 165e12, 1.01e12, 24e9),
        Device("l4", 121e12, 300e9, 24e9),
        Device("h100", 989e12, 3.35e12, 80e9),
        Device("h200", 989e12, 4.8e12, 141e9),
    )
}

LINKS = {
    **{"pcie2": 8e9, "pcie3": 16e9, "pcie4": 32e9, "pcie5": 64e9, "nvlink3": 300e9, "nvlink4": 450e9},
    **{"1gbe": 0.125e9, "10gbe": 1.25e9, "25gbe": 3.125e9, "100gbe": 12.5e9, "hdr": 25e9, "ndr": 50e9},
}
"""Bytes per second in each direction, by the name of the link."""


@dataclass(frozen=True)
class Work:
    """The computation and the data of a network, for one image.

    Attributes
    ----------
    convolution_adds, full_adds, first_adds : int
        Multiply-adds of the convolutions, of the fully connected layers and of the first convolution.
    convolution_parameters, full_parameters : int
        Parameters of the convolutions and of the fully connected layers.
    activations : int
        Values that a training step keeps.
    crossing : tuple of int
        Values exchanged between two towers, in each direction, layer by layer.
    full_inputs : tuple of int
        Values that each fully connected layer reads.
    classes : int
        Outputs of the last layer.
    """

    convolution_adds: int
    full_adds: int
    first_adds: int  # of the first convolution, which has no gradient for its input
    convolution_parameters: int
    full_parameters: int
    activations: int
    crossing: tuple[int, ...]
    full_inputs: tuple[int, ...]
    classes: int

    @classmethod
    def of(cls, variant: str, classes: int = 1000) -> Work:
        """The work of a variant with `classes` outputs."""
        with torch.device("meta"):
            network = AlexNet(variant, classes)
        costs = network.costs()
        convolutions = [cost for cost in costs if isinstance(cost.module, nn.Conv2d)]
        full = [cost for cost in costs if isinstance(cost.module, nn.Linear)]
        kept = [cost for cost in costs if not isinstance(cost.module, nn.ReLU | nn.Dropout)]
        into = full[0].module
        assert isinstance(into, nn.Linear)
        inputs = (into.in_features, *(cost.output[0] for cost in full[:-1]))
        crossing, before = [], 0
        for cost in costs:
            if isinstance(cost.module, nn.Conv2d) and cost.module.groups == 1 and cost is not convolutions[0]:
                crossing.append(before)
            before = int(torch.Size(cost.output).numel())
        return cls(
            sum(cost.multiply_adds for cost in convolutions),
            sum(cost.multiply_adds for cost in full),
            convolutions[0].multiply_adds,
            sum(cost.parameters for cost in convolutions),
            sum(cost.parameters for cost in full),
            sum(int(torch.Size(cost.output).numel()) for cost in kept),
            (*crossing, *inputs),
            inputs,
            classes,
        )

    @property
    def operations(self) -> int:
        """Operations of a training step: three products for each layer, two for the first."""
        return 2 * (3 * (self.convolution_adds + self.full_adds) - self.first_adds)


@dataclass(frozen=True)
class Step:
    """A training step of a layout on some devices.

    Attributes
    ----------
    layout : str
        The layout, with the passing of "one-weird-trick".
    devices : int
        The number of devices.
    batch : int
        Images of a step on all devices.
    seconds, waiting : float
        Time of the step, and of it the time in which a device waits for another.
    sent, memory : float
        Bytes that a device sends, and bytes of memory that it needs.
    fits : bool
        Whether the memory suffices.
    """

    layout: str
    devices: int
    batch: int
    seconds: float
    waiting: float
    sent: float
    memory: float
    fits: bool

    def epoch(self, images: int) -> float:
        """Seconds of an epoch of some images."""
        return images / self.batch * self.seconds


def step(
    layout: str,
    devices: int,
    device: Device,
    link: float,
    work: Work,
    batch: int = 128,
    fc_batch_size: int | None = None,
) -> Step:
    """Predict a training step.

    Parameters
    ----------
    layout : str
        "one", "data", "towers", "one-weird-trick/at-once", …
    devices : int
        The number of devices.
    device : Device
        Their kind.
    link : float
        Bytes per second in each direction.
    work : Work
        The network.
    batch : int
        Images per device.
    fc_batch_size : int, optional
        Images per update of the fully connected layers.

    Raises
    ------
    UsageError
        If the layout does not run on that number of devices.
    """
    rate = device.rate or EFFICIENCY * device.operations / work.operations
    share = work.full_adds / (work.full_adds + work.convolution_adds)
    image = 1 / rate  # seconds
    update = 20 * (work.convolution_parameters + work.full_parameters) / device.bandwidth
    computing = max(batch * image - update, 0.0)
    convolutions, full = computing * (1 - share), computing * share
    speed, size, others = link * LINK_EFFICIENCY, device.number_bytes, devices - 1
    convolution_part = full_part = activations = 1.0
    exposed = sent = 0.0
    total = batch
    if layout == "data" and devices > 1:
        total = batch * devices
        sent = 2 * others / devices * (work.convolution_parameters + work.full_parameters) * size
        # The gradients of the fully connected layers come first; they are sent while those of the others are computed.
        exposed = max(0.0, sent / speed - convolutions * 2 / 3)
    elif layout == "towers" and devices == 2:
        convolution_part = full_part = activations = 0.5
        sent = batch * size * (sum(work.crossing) + work.classes / 2)  # half of each, in both directions
        exposed = sent / speed
        convolutions, full = convolutions / 2, full / 2
    elif layout.startswith("one-weird-trick") and devices > 1:
        total, full_part = batch * devices, 1 / devices
        gradients = 2 * others / devices * work.convolution_parameters * size
        numbers = 2 * sum(work.full_inputs) + work.classes
        passed = batch * others * numbers * size
        sent = gradients + passed
        passes = passed / speed
        if layout.endswith("in-turn"):
            passes *= devices  # one device sends, the links of the others are idle
        if not layout.endswith("at-once"):
            # All blocks but the first are sent while the one before is computed.
            passes = passes / devices + max(0.0, (passes - full) * others / devices)
        exposed = passes + max(0.0, gradients / speed - convolutions * 2 / 3)
    elif devices > 1:
        raise UsageError(f"{layout} does not run on {devices} devices")
    updates = 1 if fc_batch_size is None else max(1, -(-total // fc_batch_size))
    parameters = work.convolution_parameters * convolution_part + work.full_parameters * full_part
    moved = work.convolution_parameters * convolution_part + updates * work.full_parameters * full_part
    seconds = convolutions + full + 20 * moved / device.bandwidth + exposed
    # Activations, and the two largest gradients.
    memory = parameters * PARAMETER_BYTES + batch * work.activations * 1.3 * size * activations
    return Step(layout, devices, total, seconds, exposed, sent, memory, memory < device.memory)


def towers_mismatch(network: AlexNet) -> str | None:
    """The reason why a network can't be split into its towers; None where it can."""
    towers = towers_of(network)
    if not network.variant.is_sequence:
        return "it has none"
    for name, module in network.named_children():
        if isinstance(module, LocalResponseNorm) and module.row.groups != towers:
            return f"{name} of {network.variant.name} crosses them"
    return "it has none" if towers == 1 else None


def layouts_for(devices: int) -> list[str]:
    """The layouts that run on a number of devices."""
    if devices == 1:
        return ["one"]
    passings = [f"one-weird-trick/{passing}" for passing in PASSINGS]
    return ["data", *(["towers"] if devices == 2 else []), *passings]


def plan(
    devices: int,
    gpu: str = "h100",
    link: str = "nvlink4",
    *,
    rate: float | None = None,
    batch: int = 128,
    fc_batch_size: int | None = None,
    variant: str = "paper",
) -> list[Step]:
    """Predict every layout on 1, 2, 4, … up to `devices` devices.

    Parameters
    ----------
    devices : int
        The largest number of devices.
    gpu, link : str
        Names of `DEVICES` and `LINKS`.
    rate : float, optional
        Images per second measured in training on one device.
    batch : int
        Images per device.
    fc_batch_size : int, optional
        Images per update of the fully connected layers.
    variant : str
        The network.

    Raises
    ------
    UsageError
        If a name does not exist, or `devices` is less than 1.
    """
    if devices < 1:
        raise UsageError(f"--devices is {devices}; it must be at least 1")
    chosen = DEVICES[check_choice(gpu, DEVICES, "device")]
    if rate is not None:
        chosen = dataclasses.replace(chosen, rate=rate, source="measured")
    speed, work = LINKS[check_choice(link, LINKS, "link")], Work.of(variant)
    with torch.device("meta"):
        network = AlexNet(variant)
    has_towers, is_sequence = towers_mismatch(network) is None, network.variant.is_sequence
    counts = sorted({*(2**n for n in range(devices.bit_length()) if 2**n <= devices), devices})
    return [
        step(layout, count, chosen, speed, work, batch, fc_batch_size)
        for count in counts
        for layout in layouts_for(count)
        if (layout != "towers" or has_towers) and (is_sequence or not layout.startswith("one-weird-trick"))
    ]


def best(steps: list[Step], devices: int) -> Step | None:
    """The fastest layout per image on a number of devices whose memory suffices; None without one."""
    fitting = [step for step in steps if step.devices == devices and step.fits]
    return min(fitting, key=lambda step: step.seconds / step.batch, default=None)


@dataclass(frozen=True)
class Published:
    """A row of the published table (arXiv 1404.5997): K20s, both batch sizes, error (%), hours, speed-up."""

    devices: int
    batch: int
    fc_batch_size: int
    error: float
    hours: float
    speed_up: float


PUBLISHED = (
    Published(1, 128, 128, 42.33, 98.05, 1.0),
    Published(2, 256, 256, 42.63, 50.24, 1.95),
    Published(2, 256, 128, 42.27, 50.90, 1.93),
    Published(4, 512, 512, 42.59, 26.20, 3.74),
    Published(4, 512, 128, 42.44, 26.78, 3.66),
    Published(8, 1024, 1024, 43.28, 15.68, 6.25),
    Published(8, 1024, 128, 42.86, 15.91, 6.16),
)


def against_published(gpu: str = "k20", link: str = "pcie2") -> list[tuple[Published, Step, float]]:
    """Each published row, the predicted step, and the predicted speed-up, on the same devices or others."""
    device, speed = DEVICES[check_choice(gpu, DEVICES, "device")], LINKS[check_choice(link, LINKS, "link")]
    work = Work.of("one-weird-trick")
    single = step("one", 1, device, speed, work)
    rows = []
    for row in PUBLISHED:
        layout = "one" if row.devices == 1 else "one-weird-trick/in-shares"
        fc_batch_size = None if row.fc_batch_size == row.batch else row.fc_batch_size
        modeled = step(layout, row.devices, device, speed, work, row.batch // row.devices, fc_batch_size)
        rows.append((row, modeled, single.epoch(1) / modeled.epoch(1)))
    return rows


def print_plan(steps: list[Step], gpu: str, link: str, images: int, rate: float | None = None) -> None:
    """Print a plan as a table, on stdout."""
    from rich.console import Console
    from rich.table import Table

    from alexnet.runtime.progress import format_duration

    table = Table(box=None, pad_edge=False)
    for title in ("devices", "layout", "batch", "epoch", "speed-up", "waiting", "MB sent/step", "GB/device"):
        table.add_column(title, justify="left" if title == "layout" else "right")
    single = steps[0].epoch(images)
    for row in steps:
        chosen = best(steps, row.devices)
        values = (
            str(row.devices),
            row.layout + (" *" if row is chosen and row.devices > 1 else ""),
            str(row.batch),
            format_duration(row.epoch(images)),
            f"{single / row.epoch(images):.2f}",
            f"{row.waiting / row.seconds:.0%}",
            f"{row.sent / 1e6:,.1f}",
            f"{row.memory / 1e9:.1f}" + ("" if row.fits else " (does not fit)"),
        )
        table.add_row(*values)
    Console(width=max(110, Console().width)).print(table)
    device = DEVICES[gpu]
    source = "measured" if rate is not None else device.source
    if rate is None and device.rate is None:
        source = f"{EFFICIENCY:.0%} of the data sheet's {device.operations / 1e12:g} TFLOP/s, assumed: measure it"
        source += " with `alexnet bench` and give it as --rate"
    print(
        f"* the fastest whose memory suffices. {gpu}: {source}; {link}: {LINKS[link] / 1e9:g} GB/s in each direction."
    )
