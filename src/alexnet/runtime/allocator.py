"""Keep freed memory instead of handing it back to the kernel, which would have to clear it anew for every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_pages() -> bool:
    """Tell glibc's allocator to serve large blocks from memory it already has; False where there is no glibc.

    A training step on a CPU frees and allocates activations and gradients of 70 to 250 MB, each a mapping of its own by
    default: every page of it is then faulted in and zeroed again in every step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    largest = 2**31 - 1
    return all(mallopt(name, value) for name, value in ((_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, largest)))
