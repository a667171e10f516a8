"""Time the response normalizations, forward + backward, against copying the same bytes, PyTorch and other forms.

    python benchmarks/lrn.py [--batch-sizes 64 128] [--rounds 5] [--clock wall] [--only NAME] [--out FILE]

Each round times every contestant once, in turn; a ratio is the median over the rounds of the ratios within a round,
with the quartiles beside it. "Copying the same bytes" is 2.5 copies of the tensor: the forward reads one and writes
one, the backward reads two and writes one. Copies and normalizations alike allocate what they write, and the process
keeps freed memory: otherwise page faults would be most of what is timed. On a machine that others use at the same time
`--clock cpu` compares the time that all threads of this process spent computing; start it with
OMP_WAIT_POLICY=passive, so that waiting is not counted.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.kernels import code
from alexnet.network.normalization import local_response_norm, local_response_norm_reference, spatial_response_norm
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.provenance import machine_slug, provenance, write_result

SHAPES = {"conv1": (96, 55, 55), "conv2": (256, 27, 27)}
LAYOUTS = {torch.channels_last: "channels-last", torch.contiguous_format: "contiguous"}
ALPHA, TOWERS = 1e-4, 2
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Contestant = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as `alexnet train` does
    keep_freed_memory()
    out = arguments.out or Path("docs/results") / f"lrn-{machine_slug()}.json"
    rows = []
    for name, prepare in cases(arguments.batch_sizes).items():
        if arguments.only in name:
            rows.append({"case": name} | measure(prepare(), arguments.rounds, CLOCKS[arguments.clock]))
            report(rows[-1])
            write(out, arguments.clock, rows)
    print(f"written to {out}", file=sys.stderr)


def write(out: Path, clock: str, rows: list[dict[str, Any]]) -> None:
    result = provenance(" ".join(["python", *sys.argv]))
    if hasattr(os, "getloadavg"):
        result["load average"] = round(os.getloadavg()[2], 1)
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")
    result |= {"clock": clock, "OMP_WAIT_POLICY": waiting, "threads": torch.get_num_threads(), "rows": rows}
    write_result(out, result)


def measure(contestants: dict[str, Contestant], rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Median milliseconds of each contestant, and its time as a multiple of that of the first."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, run in contestants.items():
            start = clock()
            run()
            if round_number > 0:  # the first compiles and touches memory
                times[name].append(clock() - start)
    ours = next(iter(times.values()))
    ratios = {name: sorted(b / a for a, b in zip(ours, values, strict=True)) for name, values in times.items()}
    return {
        "milliseconds": {name: round(1e3 * statistics.median(values), 2) for name, values in times.items()},
        "times ours": {
            name: [round(float(np.quantile(values, q)), 2) for q in (0.5, 0.25, 0.75)]
            for name, values in ratios.items()
        },
    }


def report(row: dict[str, Any]) -> None:
    print(row["case"])
    for name, milliseconds in row["milliseconds"].items():
        median, low, high = row["times ours"][name]
        print(f"    {name:42} {milliseconds:9.2f} ms   {median:7.2f} × ours ({low:.2f} to {high:.2f})")
    sys.stdout.flush()


def cases(batch_sizes: list[int]) -> dict[str, Callable[[], dict[str, Contestant]]]:
    found: dict[str, Callable[[], dict[str, Contestant]]] = {}
    for batch_size, (layer, shape) in itertools.product(batch_sizes, SHAPES.items()):
        where, size = f"{layer} of {batch_size}", (batch_size, *shape)
        for dtype, (layout, layout_name) in itertools.product((torch.bfloat16, torch.float32), LAYOUTS.items()):
            found[f"{where} {str(dtype)[6:]} {layout_name}"] = partial(against_copy, size, dtype, layout)
        found[f"{where} float32 against PyTorch"] = partial(against_pytorch, size)
        if batch_size == batch_sizes[0]:
            found[f"{where} bfloat16 other ways"] = partial(against_other_ways, size)
    return found


def against_copy(size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> dict[str, Contestant]:
    x, grad = example(size, dtype, layout)
    rectified = x.relu()
    return {
        "ours, forward + backward": lambda: forward_backward(norm, rectified, grad),
        "2.5 copies": lambda: [x.clone(), x.clone(), x[: len(x) // 2].clone()],
        "ours on threads of its own": lambda: forward_backward(norm, rectified, grad, own_threads=True),
        "ours, with the ReLU inside": lambda: forward_backward(lambda a: norm(a, relu=True), x, grad),
        "ours after a ReLU": lambda: forward_backward(lambda a: norm(a.relu()), x, grad),
        "ours across space, 5 × 5": lambda: forward_backward(spatial_response_norm, rectified, grad),
    }


def against_pytorch(size: tuple[int, ...]) -> dict[str, Contestant]:
    x, grad = example(size, torch.float32, torch.contiguous_format)
    theirs = torch.nn.LocalResponseNorm(5, ALPHA, 0.75, 2.0)
    last, grad_last = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    half, grad_half = last.bfloat16(), grad_last.bfloat16()
    return {
        "ours, contiguous": lambda: forward_backward(norm, x, grad),
        "ours, channels-last": lambda: forward_backward(norm, last, grad_last),
        "ours, channels-last bfloat16": lambda: forward_backward(norm, half, grad_half),
        "torch.nn.LocalResponseNorm": lambda: forward_backward(theirs, x, grad),
    }


def against_other_ways(size: tuple[int, ...]) -> dict[str, Contestant]:
    x, grad = example(size, torch.bfloat16, torch.channels_last)
    return {
        "ours": lambda: forward_backward(norm, x, grad),
        "numba, the same passes": lambda: numba_forward_backward(x, grad),
        "banded 1×1 convolution": lambda: forward_backward(banded, x, grad),
        "plain torch (the reference)": lambda: forward_backward(reference, x, grad),
    }


def example(size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(size, generator=generator) for _ in range(2))
    return (20 * x).to(dtype).contiguous(memory_format=layout), grad.to(dtype).contiguous(memory_format=layout)


def forward_backward(function: Callable[..., Tensor], x: Tensor, grad: Tensor, own_threads: bool = False) -> None:
    here, entry = x.detach().requires_grad_(), code._openmp_parallel
    try:
        if own_threads:
            code._openmp_parallel = lambda: None
        function(here).backward(grad)
    finally:
        code._openmp_parallel = entry


def norm(x: Tensor, relu: bool = False) -> Tensor:
    return local_response_norm(x, alpha=ALPHA, divide_by_n=True, groups=TOWERS, relu=relu)


def reference(x: Tensor) -> Tensor:
    return local_response_norm_reference(x, alpha=ALPHA, divide_by_n=True, groups=TOWERS)


def banded(x: Tensor) -> Tensor:
    """The sums as a product with a band matrix, which a matrix unit may compute fast."""
    tower = x.shape[1] // TOWERS
    near = torch.arange(tower)
    band = ((near[:, None] - near).abs() <= 2).to(x.dtype)[:, :, None, None].repeat(TOWERS, 1, 1, 1)
    s = 2 + ALPHA / 5 * F.conv2d(x * x, band, groups=TOWERS)
    root = s.rsqrt()
    return x * (root * root.sqrt())


def numba_forward_backward(x: Tensor, grad: Tensor) -> None:
    """The same passes over tiles of whole rows as plain loops, for LLVM's vectorizer."""
    tower = x.shape[1] // TOWERS
    rows = [tensor.permute(0, 2, 3, 1).reshape(-1).view(torch.uint16).numpy() for tensor in (x, grad)]
    channel = np.arange(16 * tower) % tower
    masks = [np.where((channel + d >= 0) & (channel + d < tower), -1, 0).astype(np.int32) for d in (-2, -1, 1, 2)]
    for flat, output in ((rows[:1], torch.empty_like(x)), (rows, torch.empty_like(x))):
        out = output.permute(0, 2, 3, 1).reshape(-1).view(torch.uint16).numpy()
        loops = numba_forward if len(flat) == 1 else numba_backward
        loops(*flat, out, *masks, np.float32(ALPHA / 5), np.float32(2.0))


@numba.extending.intrinsic
def as_float(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(numba.float32))

    return numba.float32(numba.int32), generate


@numba.extending.intrinsic
def as_bits(context: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(numba.int32))

    return numba.int32(numba.float32), generate


compiled = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy", inline="always")


@compiled
def widen(half: Any) -> Any:
    return as_float(np.int32(np.uint32(half) << np.uint32(16)))


@compiled
def narrow(number: Any) -> Any:
    bits = np.uint32(as_bits(number))
    to_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16((bits + to_even) >> np.uint32(16))


@compiled
def window(values: Any, i: Any, m0: Any, m1: Any, m3: Any, m4: Any) -> Any:
    left = as_float(values[i] & m0[i]) + as_float(values[i + 1] & m1[i])
    return left + as_float(values[i + 2]) + as_float(values[i + 3] & m3[i]) + as_float(values[i + 4] & m4[i])


@numba.njit(parallel=True, fastmath={"contract"}, error_model="numpy")
def numba_forward(x: Any, out: Any, m0: Any, m1: Any, m3: Any, m4: Any, alpha: Any, k: Any) -> None:
    length = m0.shape[0]
    for tile in numba.prange((x.shape[0] + length - 1) // length):
        begin = tile * length
        here, there = x[begin : begin + length], out[begin : begin + length]
        squares = np.zeros(length + 4, np.int32)
        for i in range(here.shape[0]):
            squares[i + 2] = as_bits(widen(here[i]) * widen(here[i]))
        for i in range(here.shape[0]):
            root = np.sqrt(k + alpha * window(squares, i, m0, m1, m3, m4))
            there[i] = narrow(widen(here[i]) / (root * np.sqrt(root)))


@numba.njit(parallel=True, fastmath={"contract"}, error_model="numpy")
def numba_backward(x: Any, grad: Any, out: Any, m0: Any, m1: Any, m3: Any, m4: Any, alpha: Any, k: Any) -> None:
    length = m0.shape[0]
    for tile in numba.prange((x.shape[0] + length - 1) // length):
        begin = tile * length
        here, above, there = x[begin : begin + length], grad[begin : begin + length], out[begin : begin + length]
        squares, crosses = np.zeros(length + 4, np.int32), np.zeros(length + 4, np.int32)
        direct = np.empty(length, np.float32)
        for i in range(here.shape[0]):
            squares[i + 2] = as_bits(widen(here[i]) * widen(here[i]))
        for i in range(here.shape[0]):
            s = k + alpha * window(squares, i, m0, m1, m3, m4)
            root = np.sqrt(s)
            direct[i] = widen(above[i]) / (root * np.sqrt(root))
            crosses[i + 2] = as_bits(direct[i] * widen(here[i]) / s)
        for i in range(here.shape[0]):
            sums = window(crosses, i, m0, m1, m3, m4)
            there[i] = narrow(direct[i] - np.float32(1.5) * alpha * widen(here[i]) * sums)


if __name__ == "__main__":
    main()
