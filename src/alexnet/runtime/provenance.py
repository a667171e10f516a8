"""The files under docs/results/, and where their figures come from: command, machine, versions, date."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alexnet.runtime.files import write_whole

_PACKAGES = ("torch", "numpy", "llvmlite", "pillow", "pyarrow", "scikit-learn")


def provenance(command: str) -> dict[str, Any]:
    """What a result must say of how it came about, as JSON has it."""
    return {
        "command": command,
        **moment(),
        "versions": {"python": platform.python_version(), "alexnet": version("alexnet")}
        | {name: found for name in _PACKAGES if (found := _version(name))},
    }


def moment() -> dict[str, str]:
    """Today, and this machine: of a result, and of each of its trials, which may be of other days and machines."""
    return {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "machine": machine()}


def write_result(file: Path, result: Mapping[str, Any]) -> None:
    """Write what was found, its `provenance` with it, as JSON; the folder is made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(result, indent=1).encode() + b"\n")


def machine() -> str:
    """The processor in words, and the cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {usable_cores()} cores"


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_in_a_name() -> str:
    """`machine`, as a file's name may have it."""
    return re.sub("[^a-z0-9]+", "-", machine().lower()).strip("-")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
