"""Peak memory of this process."""

from __future__ import annotations

import re
from pathlib import Path


def peak_memory() -> int:
    """Peak bytes of this process, among them the pages of mapped files that the system had no other use for.

    Not what getrusage reports where /proc is there: of a child that includes its parent's peak at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
    except (OSError, TypeError):
        import resource

        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
