"""Memory allocator settings for CPU training."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MADV_COLLAPSE, _HUGE = 25, 2**21


def keep_freed_memory() -> bool:
    """Keep freed blocks in the process instead of returning them to the operating system.

    A training step on a CPU frees and allocates activations and gradients of 70 to 250 MB. By default glibc maps each
    block anew, and the kernel faults in and clears every page in every step.

    Returns
    -------
    bool
        False if the C library is not glibc; nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    largest = 2**31 - 1
    return all(mallopt(name, value) for name, value in ((_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, largest)))


def use_huge_pages() -> None:
    """Let PyTorch back large tensors with transparent huge pages. Call it before the first allocation."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def collapse_into_huge_pages(address: int, length: int) -> bool:
    """Move memory that is in use into transparent huge pages.

    Weights of 100 MB that are read once for an image lie in 25,000 ordinary pages, and the search for their addresses
    costs a tenth of the time of reading them.

    Parameters
    ----------
    address, length : int
        The memory, in bytes. The parts of huge pages at its ends stay as they are.

    Returns
    -------
    bool
        False if nothing has changed: the memory is too small, or the kernel is older than Linux 6.1 or has no free
        memory of that kind.
    """
    start, end = -(-address // _HUGE) * _HUGE, (address + length) // _HUGE * _HUGE
    if end <= start or not sys.platform.startswith("linux"):
        return False
    try:
        madvise = ctypes.CDLL("libc.so.6").madvise
    except (OSError, AttributeError):
        return False
    result: int = madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)
    return result == 0
