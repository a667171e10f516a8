"""Provenance of results: command, machine, versions and date of every file under docs/results/."""

from __future__ import annotations

import datetime
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.files import write_atomic

_PACKAGES = ("torch", "numpy", "llvmlite", "pillow", "pyarrow", "scikit-learn")


def provenance(command: str) -> dict[str, Any]:
    """Return the provenance of a result as JSON-serializable values.

    Parameters
    ----------
    command : str
        The command line that produced the result.

    Returns
    -------
    dict
        ``command``, ``date``, ``machine`` and ``versions``.
    """
    return {
        "command": command,
        **date_and_machine(),
        "versions": {"python": platform.python_version(), "alexnet": version("alexnet")}
        | {name: installed for name in _PACKAGES if (installed := _version(name))},
    }


def date_and_machine() -> dict[str, str]:
    """Return today's date (UTC) and this machine. Each trial of a result records its own."""
    return {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "machine": machine()}


def write_result(file: Path, result: Mapping[str, Any]) -> None:
    """Write a result and its provenance as JSON. Missing parent folders are created."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(result, indent=1).encode() + b"\n")


def read_result(file: Path) -> dict[str, Any]:
    """Return a result that was written; empty if there is none."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def machine() -> str:
    """Return the CPU model and the number of available CPUs."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {available_cpus()} cores"


def machine_slug() -> str:
    """Return `machine` as part of a file name: lower case, parts joined by hyphens."""
    return re.sub("[^a-z0-9]+", "-", machine().lower()).strip("-")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
