"""CPUs available to this process: affinity and container quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROCESS_CGROUPS = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Return the number of CPUs that this process can use.

    The number is the smaller of the CPU affinity and the CPU quota of the control group (``docker run --cpus``,
    Kubernetes limits), rounded up, and at least 1.

    Returns
    -------
    int
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def limit_threads() -> None:
    """Limit the threads of numerical libraries to the CPU quota, for libraries that are not imported yet.

    PyTorch, NumPy and OpenMP count the CPUs of the affinity only. A value of ``OMP_NUM_THREADS`` that the user has set
    is kept.
    """
    if cgroup_quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cpus()))


def cgroup_quota() -> float | None:
    """Return the CPU quota of the control group in CPUs, or None if there is no limit (Linux, versions 1 and 2)."""
    quotas = [quota for folder in _cgroup_folders() if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders() -> list[Path]:
    """Folders of this process's control group and its parents; in a container the root is that of the container."""
    try:
        lines = _PROCESS_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUP_ROOT / controllers if controllers else _CGROUP_ROOT
        relative = Path(path.lstrip("/"))
        folders += [root / relative, *(root / parent for parent in relative.parents)]
    return folders


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / name).read_text(encoding="utf-8").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
