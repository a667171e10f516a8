"""A training step layer by layer: time, operations and bytes of each, beside what the machine can do.

The step is taken in parts, with the clock read between two layers: forward from the input to the loss, backward from
the loss to the input, on the same network that `alexnet train` uses. What lies between the layers (loss, gradients set
to zero, update) is timed too, and the sum is compared with the time of a whole step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.bench.parts import Settings
from alexnet.bench.peers import wait_for
from alexnet.bench.steps import BATCH_SIZE, SIDE, OurTraining
from alexnet.network.segments import Segment, SegmentCost, kind_shares, segment_costs, segments
from alexnet.report.style import BLUE, INK, MUTED, ORANGE, Figure, drawn, new
from alexnet.runtime.devices import choose_device
from alexnet.runtime.progress import progress
from alexnet.training.optimizers import clear_gradients, update_all

DATA_SHEETS = {
    "GTX 580": {"gflops": 1581.0, "gigabytes_per_second": 192.4},
    "K20": {"gflops": 3520.0, "gigabytes_per_second": 208.0},
}
"""Single precision of the GPUs of the paper (3.5) and of arXiv 1404.5997, from NVIDIA's data sheets; not measured."""
COPIED = 1 << 26
"""Numbers of float32 that are copied to measure the bandwidth: 256 MiB, more than a cache holds."""


def layers(settings: Settings) -> dict[str, Any]:
    """Measure the layers on `settings.device`, by default on the CPU and on a GPU where there is one."""
    names = [settings.device or "cpu"]
    if settings.device is None and choose_device().type == "cuda":
        names.append("cuda")
    count = settings.batch_size or BATCH_SIZE
    return {
        "description": "one training step of the paper's network, layer by layer; a layer's bytes are those of its "
        "input, output and weights (and of their gradients backward), each moved once; times are the shortest of the "
        "rounds",
        "batch_size": count,
        "data_sheets": DATA_SHEETS,
        "devices": {name: _measure(torch.device(name), count, settings.rounds) for name in names},
    }


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU time where one thread computes, which is the same on a machine with other work; else wall time."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _measure(device: torch.device, count: int, rounds: int) -> dict[str, Any]:
    training = OurTraining(count, device=device)
    parts = segments(training.working)
    clock = clock_of(device)
    whole, measured = [], []
    training.step()
    timed_step(training, parts)
    with progress(rounds, f"layers on {device}") as bar:
        for _ in range(rounds):
            start = clock()
            training.step()
            whole.append(clock() - start)
            measured.append(timed_step(training, parts))
            bar.advance()
    # The shortest of the rounds: other work on the machine only adds time, to a layer as to a whole step.
    seconds = {name: min(one[name] for one in measured) for name in measured[0]}
    step = min(whole)
    between = ("loss", "clear gradients", "update")
    costs = segment_costs(training.network, parts, SIDE)
    rows = [
        _row(training, part, cost, seconds, first=part is parts[0]) for part, cost in zip(parts, costs, strict=True)
    ]
    taken = [row["forward_ms"] + row["backward_ms"] for row in rows]
    for row, milliseconds in zip(rows, taken, strict=True):
        row["share_of_time"] = milliseconds / sum(taken)
    return {
        "clock": "CPU time" if clock is time.process_time else "wall time",
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "precision": str(training.dtype).removeprefix("torch."),
        "step_ms": 1e3 * step,
        "layers_ms": sum(taken),
        "between_ms": {name: 1e3 * seconds[name] for name in between},
        "sum_of_step": sum(seconds.values()) / step,
        "bandwidth_gigabytes_per_second": _bandwidth(device, rounds),
        "matrix_gflops": _matrix_rate(training, rounds),
        "layers": rows,
        "kinds": kind_shares(costs, taken),
    }


@torch.enable_grad()
def timed_step(training: OurTraining, parts: list[Segment]) -> dict[str, float]:
    """Take a step in parts; seconds of each, by a name such as "conv1 forward"."""
    seconds: dict[str, float] = {}
    clock = clock_of(training.device)

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = clock()
        result = work(*arguments)
        wait_for(training.device)
        seconds[name] = clock() - start
        return result

    def loss(logits: Tensor) -> None:
        functional.cross_entropy(logits.float(), training.labels).backward()

    wait_for(training.device)
    timed("clear gradients", clear_gradients, training.optimizers, training.working.copies)
    x = training.images
    done: list[tuple[Tensor, Tensor]] = []
    for part in parts:
        read = x.detach().requires_grad_(bool(done))
        x = timed(f"{part.name} forward", part, read)
        done.append((read, x))
    logits = x.detach().requires_grad_()
    timed("loss", loss, logits)
    gradient = logits.grad
    del x, read
    for part in reversed(parts):
        read, made = done.pop()
        timed(f"{part.name} backward", torch.autograd.backward, made, gradient)
        gradient = read.grad
        del read, made
    timed("update", update_all, training.optimizers, training.working.copies)
    return seconds


def _row(
    training: OurTraining, part: Segment, cost: SegmentCost, seconds: dict[str, float], *, first: bool
) -> dict[str, Any]:
    """Time, operations and bytes of a segment."""
    count, size = len(training.labels), training.images.element_size()
    parameters, products, read, made = cost.parameters, cost.multiply_adds, count * cost.input, count * cost.output
    forward, backward = 2 * products * count, (2 if first else 4) * products * count
    # Backward reads the output's gradient, the input and the weights, and writes the gradients of the latter two.
    moved = size * (read + made + parameters), size * (made + (1 if first else 2) * read + 2 * parameters)
    row: dict[str, Any] = {
        "name": part.name,
        "kind": cost.kind,
        "parameters": parameters,
        "multiply_adds": products,
    }
    for direction, operations, size_moved in zip(("forward", "backward"), (forward, backward), moved, strict=True):
        taken = seconds[f"{part.name} {direction}"]
        row |= {
            f"{direction}_ms": 1e3 * taken,
            f"{direction}_flop": operations,
            f"{direction}_bytes": size_moved,
            f"{direction}_flop_per_byte": operations / size_moved,
            f"{direction}_gflops": operations / taken / 1e9,
            f"{direction}_gigabytes_per_second": size_moved / taken / 1e9,
        }
    return row


def _bandwidth(device: torch.device, rounds: int) -> float:
    """Gigabytes per second of a copy, read and written, the best of several."""
    source = torch.ones(COPIED, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device, rounds) / 1e9


def _matrix_rate(training: OurTraining, rounds: int) -> float:
    """GFLOP per second of a matrix product in the precision of the step, the best of several."""
    size = 4096 if training.device.type == "cpu" else 8192
    factor = torch.randn(size, size, device=training.device, dtype=training.dtype)
    product = torch.empty_like(factor)
    return 2 * size**3 / _best(lambda: torch.mm(factor, factor, out=product), training.device, rounds) / 1e9


def _best(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    taken, clock = [], clock_of(device)
    for _ in range(rounds + 1):
        start = clock()
        work()
        wait_for(device)
        taken.append(clock() - start)
    return min(taken)


@drawn
def figure(result: dict[str, Any]) -> Figure:
    """The roofline of each device with the layers on it (left); shares of time and of parameters (right)."""
    drawing = new(4.2, width=10.0)
    left, right = drawing.subplots(1, 2, width_ratios=(3, 2))
    for (device, measured), color in zip(result["devices"].items(), (BLUE, ORANGE), strict=False):
        bandwidth, peak = measured["bandwidth_gigabytes_per_second"], measured["matrix_gflops"]
        _roof(left, bandwidth, peak, color=color, label=f"{device}, measured, {measured['precision']}")
        for direction, marker in (("forward", "o"), ("backward", "v")):
            for row in measured["layers"]:
                if row["multiply_adds"]:
                    x, y = row[f"{direction}_flop_per_byte"], row[f"{direction}_gflops"]
                    left.plot([x], [y], marker, color=color, markersize=5, alpha=0.8)
                    if direction == "forward":
                        text = left.annotate(_main_name(row), (x, y), (0, 5), textcoords="offset points")
                        text.set(fontsize=7, color=INK, rotation=55)
    for (name, sheet), style in zip(result["data_sheets"].items(), ("--", ":"), strict=True):
        _roof(
            *(left, sheet["gigabytes_per_second"], sheet["gflops"]),
            color=MUTED,
            linestyle=style,
            linewidth=1.1,
            label=f"{name}, data sheet, float32",
        )
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("FLOP per byte")
    left.set_title("GFLOP per second (● forward, ▼ backward)")
    left.legend(fontsize=8)
    first = next(iter(result["devices"].values()))
    rows = [row for row in first["layers"] if row["share_of_time"] > 0.002]
    parameters = sum(row["parameters"] for row in rows)
    for place, row in enumerate(rows):
        right.barh(place - 0.2, 100 * row["share_of_time"], 0.38, color=BLUE)
        right.barh(place + 0.2, 100 * row["parameters"] / parameters, 0.38, color=MUTED, alpha=0.6)
    right.set_yticks(range(len(rows)), [_main_name(row) for row in rows])
    right.invert_yaxis()
    right.grid(False, axis="y")
    right.grid(True, axis="x")
    right.barh([0], [0], color=BLUE, label="percent of the time")
    right.barh([0], [0], color=MUTED, alpha=0.6, label="percent of the parameters")
    right.legend(fontsize=8)
    right.set_title(f"{next(iter(result['devices']))}, batch {result['batch_size']}")
    return drawing


def _main_name(row: dict[str, Any]) -> str:
    """The layer of a segment without the non-linearity and the dropout."""
    return next(name for name in row["name"].split(" + ") if not name.startswith(("relu", "drop")))


def _roof(axes: Any, bandwidth: float, peak: float, **style: Any) -> None:
    """The most that a device can do at each number of operations per byte."""
    xs = [1.0, peak / bandwidth, 10_000]
    axes.plot(xs, [min(peak, bandwidth * x) for x in xs], **style)
