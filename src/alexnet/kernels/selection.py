"""Selection of the fast or the plain form of an operation, and the comparison of GPU kernels at their first use."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from alexnet.kernels.safe import is_safe_mode
from alexnet.runtime.progress import notify

if TYPE_CHECKING:
    from torch import Tensor  # importing torch takes a second, and `alexnet prepare` does not need it


def gpu_kernels(name: str, *tensors: Tensor) -> ModuleType | None:
    """Return the module of Triton kernels for tensors on one GPU.

    Parameters
    ----------
    name : str
        A module of this package: ``"gpu_norm"``, ``"gpu_crops"`` or ``"gpu_update"``.
    *tensors : Tensor
        The arguments of the kernel.

    Returns
    -------
    module or None
        None for tensors on the CPU or on different devices, without Triton, if the kernels do not agree with their
        plain form on this GPU, and in safe mode.
    """
    device = tensors[0].device
    if device.type != "cuda" or any(tensor.device != device for tensor in tensors) or is_safe_mode():
        return None
    return verified(name, str(device))


@functools.cache
def verified(name: str, device: str) -> ModuleType | None:
    """Import a module of GPU kernels and compare its results with the plain forms, once per process and device.

    If the module does not load, raises an error or returns other values, one message says so and the plain form is
    used.
    """
    import torch

    try:
        module = importlib.import_module(f"alexnet.kernels.{name}")
        module.verify(torch.device(device))
    except Exception as error:  # a compiler, a driver or a comparison: whatever fails, the plain form works
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        notify(f"{name} does not work on {device} ({type(error).__name__}: {reason}); using the plain PyTorch form")
        return None
    return module
