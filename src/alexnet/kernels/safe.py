"""Safe mode: plain PyTorch in place of this package's machine code, Triton kernels and recorded steps.

For a CPU or GPU on which they fail. The environment variable `ALEXNET_SAFE=1` does the same for a whole process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "ALEXNET_SAFE"


def is_safe_mode() -> bool:
    """Return whether only plain PyTorch runs."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


@contextmanager
def safe_mode(enabled: bool = True) -> Iterator[None]:
    """Run only plain PyTorch in the enclosed code, in this process and in those that it starts.

    Parameters
    ----------
    enabled : bool
        False leaves the mode as it is.
    """
    before = os.environ.get(VARIABLE)
    if enabled:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if enabled and before is None:
            del os.environ[VARIABLE]
        elif enabled and before is not None:
            os.environ[VARIABLE] = before
