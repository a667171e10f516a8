"""Fast forms of what a step does beside convolutions: machine code made at first use for a CPU, Triton for a GPU."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor  # a second to import, for processes that only prepare images


class Norm(NamedTuple):
    """A response normalization with beta = 0.75: ``x / (k + alpha · Σ x²) ** 0.75``."""

    across: str  # "maps", or "space" for a square window in each map
    size: int  # of the window, odd
    alpha: float  # of the sum, already divided by what the convention divides by
    k: float
    groups: int = 1  # no window across maps crosses from one group to the next
    relu: bool = False  # normalize max(x, 0) instead of x


def gpu_kernels(name: str, *tensors: Tensor) -> ModuleType | None:
    """The module ``name`` of Triton kernels for tensors on one GPU; None for others, and where Triton is not."""
    device = tensors[0].device
    if device.type != "cuda" or any(tensor.device != device for tensor in tensors):
        return None
    return _imported(f"{__name__}.{name}")


@functools.cache
def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):  # the response normalization, in every network, warns of it
        return None
