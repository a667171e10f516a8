"""Which arithmetic a forward and backward pass runs in, and on which device."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from alexnet.runtime.errors import UsageError, named

PRECISIONS = ("auto", "float32", "bfloat16", "float64")


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, or the best there is. Raises `UsageError` for one that is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # each process on a host has a graphics card of its own
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; for "auto" the faster of the two in a matrix product timed on this machine.

    The master weights stay float32 in either. "float64", for the weights too, is there to compare two ways of training.
    Raises `UsageError` for another name.
    """
    named(name, PRECISIONS, "precision")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type != "cpu":
        supported = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float32
    # Where a processor only emulates bfloat16 the product is many times slower, so a factor is a safe margin.
    bfloat16, float32 = _product_seconds((torch.bfloat16, torch.float32))
    return torch.bfloat16 if 1.3 * bfloat16 < float32 else torch.float32


def _product_seconds(dtypes: Sequence[torch.dtype], size: int = 768, rounds: int = 10) -> list[float]:
    """What a matrix product of each takes at best; in turn, since a neighbor may take the processor for a while."""
    factors = [torch.ones(size, size, dtype=dtype) for dtype in dtypes]
    best = [math.inf] * len(dtypes)
    for _ in range(rounds):
        for number, a in enumerate(factors):
            start = time.perf_counter()
            a @ a
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """The context in which a forward pass runs in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16)
