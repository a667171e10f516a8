"""Devices and precision: where a network runs, and in which arithmetic."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.errors import UsageError, check_choice

PRECISIONS = ("auto", "float32", "bfloat16", "float64")


def choose_device(name: str | None = None) -> torch.device:
    """Return a device by name, or the best one available.

    Parameters
    ----------
    name : str, optional
        A PyTorch device such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; ``"gpu"`` means ``"cuda"``. None selects CUDA
        if it is available, else the CPU. Under ``torchrun`` each process takes the GPU of its local rank.

    Returns
    -------
    torch.device

    Raises
    ------
    UsageError
        If the device does not exist or is not available here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "gpu":
        name = "cuda"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} is not available: {_reason(name, error)}; use --device cpu") from None
    if device.type == "cpu" and torch.get_num_threads() > available_cpus():
        torch.set_num_threads(available_cpus())  # PyTorch does not know the CPU quota of a container
    return device


def _reason(name: str, error: Exception) -> str:
    if name.split(":")[0] == "cuda" and not torch.cuda.is_available():
        return "this machine has no CUDA GPU, or the installed PyTorch has no CUDA support"
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "PyTorch knows no such device" if "device type" in first_line else first_line


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward and backward pass.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16", "float64"}
        ``"auto"`` selects the faster of float32 and bfloat16 in a matrix product timed on this machine. The master
        weights are float32 in both cases. ``"float64"`` also holds the weights in float64, for comparisons.
    device : torch.device
        Where the network runs.

    Returns
    -------
    torch.dtype

    Raises
    ------
    UsageError
        If ``name`` is not one of the allowed values.
    """
    check_choice(name, PRECISIONS, "precision")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type != "cpu":
        supported = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float32
    # A CPU that only emulates bfloat16 is many times slower, so a small factor is a safe margin.
    bfloat16, float32 = _product_seconds((torch.bfloat16, torch.float32))
    return torch.bfloat16 if 1.3 * bfloat16 < float32 else torch.float32


def _product_seconds(dtypes: Sequence[torch.dtype]) -> list[float]:
    """Shortest time of a matrix product in each dtype. The dtypes alternate, because other programs disturb both."""
    factors = [torch.ones(768, 768, dtype=dtype) for dtype in dtypes]
    best = [math.inf] * len(dtypes)
    for _ in range(10):
        for number, factor in enumerate(factors):
            start = time.perf_counter()
            factor @ factor
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs in ``dtype``."""
    return torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16)
