"""Local response normalization, forward and backward, compared with PyTorch's and with copying the same bytes."""

from __future__ import annotations

import statistics

import torch
from torch import nn

from alexnet.bench.parts import Settings
from alexnet.bench.timing import Comparison, compared, in_turn
from alexnet.network.normalization import local_response_norm

SHAPES = {"conv1": (96, 55, 55), "conv2": (256, 27, 27)}
BATCH_SIZE = 64


def normalization(settings: Settings) -> list[Comparison]:
    """Compare both shapes of the paper's network, channels-last, in bfloat16 and float32, with the paper's constants.

    PyTorch's normalization, which a CPU has in float32 only, reads the same tensor in float32 and contiguous, where it
    is faster. "Copying the same bytes" is two and a half copies: the forward pass reads one tensor and writes one, the
    backward pass reads two and writes one.
    """
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for layer, shape in SHAPES.items():
            x = torch.randn(settings.batch_size or BATCH_SIZE, *shape).relu().to(dtype)
            last = x.to(memory_format=torch.channels_last)
            sides = [last.clone().requires_grad_(), x.float().requires_grad_()]
            grad, grad_last = torch.randn_like(sides[1]), torch.randn_like(last)
            theirs = nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)
            target = torch.empty_like(last)
            rest = slice(0, len(last) // 2)

            def run_ours(x: torch.Tensor = sides[0], grad: torch.Tensor = grad_last) -> None:
                x.grad = None
                local_response_norm(x, divide_by_n=False, groups=2).backward(grad)

            def run_theirs(x: torch.Tensor = sides[1], grad: torch.Tensor = grad, norm: nn.Module = theirs) -> None:
                x.grad = None
                norm(x).backward(grad)

            def copy(target: torch.Tensor = target, last: torch.Tensor = last, rest: slice = rest) -> None:
                target.copy_(last)
                target.copy_(last)
                target[rest].copy_(last[rest])

            fast = in_turn({"ours": run_ours, "copy": copy}, 5 * settings.rounds)
            slow = in_turn({"ours": run_ours, "theirs": run_theirs}, settings.rounds)
            where = f"LRN forward + backward, {layer}, {str(dtype).removeprefix('torch.')}"
            milliseconds = 1e3 * statistics.median(fast["ours"])
            rows.append(
                compared(
                    where,
                    "nn.LocalResponseNorm, float32",
                    slow["ours"],
                    slow["theirs"],
                    30.0,
                    milliseconds=milliseconds,
                )
            )
            moved = 5 * last.numel() * last.element_size()
            rows.append(
                compared(
                    *(where, "copying the same bytes", fast["ours"], fast["copy"], 0.5),
                    copied_gigabytes_per_second=moved / statistics.median(fast["copy"]) / 1e9,
                )
            )
    return rows
