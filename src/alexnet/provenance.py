"""Where a figure comes from: command, machine, versions, date. Part of every file under docs/results/."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "llvmlite", "pillow", "pyarrow", "scikit-learn")


def provenance(command: str) -> dict[str, Any]:
    """What a result must say of how it came about, as JSON has it."""
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "alexnet": version("alexnet")}
        | {name: found for name in _PACKAGES if (found := _version(name))},
    }


def machine() -> str:
    """The processor in words, and the cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
