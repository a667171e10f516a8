"""Launch of several processes on this machine, by PyTorch's own launcher."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from pathlib import Path

from alexnet.runtime.cpus import available_cpus
from alexnet.runtime.errors import UsageError

_ENDS = "ALEXNET_ENDS"
"""The folder in which processes of `launch` write the exit codes that a restart would not change."""


def launch(processes: int, arguments: list[str], max_restarts: int) -> int:
    """Run the command `alexnet` in several processes.

    When a process is lost all are restarted, and continue from the last checkpoint. An error that a restart would not
    change ends them.

    Parameters
    ----------
    processes : int
        Their number, at least 1.
    arguments : list of str
        The command-line arguments.
    max_restarts : int
        The largest number of restarts.

    Returns
    -------
    int
        The exit code of the first process that failed, or 0.

    Raises
    ------
    UsageError
        If `processes` is less than 1.
    """
    if processes < 1:
        raise UsageError(f"--processes is {processes}; it must be at least 1")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Each process gets its share of the cores; torchrun would give it one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes report their errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.2,
        start_method="spawn",
    )
    with tempfile.TemporaryDirectory() as ends:
        os.environ[_ENDS] = ends
        try:
            elastic_launch(config, sys.executable)("-m", "alexnet", *arguments)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            return failure.exitcode if failure.exitcode > 0 else 1
        except SignalException as error:
            return 128 + error.sigval
        return max((int(end.read_text(encoding="utf-8")) for end in Path(ends).iterdir()), default=0)


def exit_code(code: int) -> int:
    """The exit code of this process after an end with `code` that a restart would not change.

    PyTorch's launcher restarts after every code but 0: where `launch` listens, the code is written to a file instead.
    """
    if _ENDS in os.environ and "RANK" in os.environ:
        (Path(os.environ[_ENDS]) / os.environ["RANK"]).write_text(str(code), encoding="utf-8")
        return 0
    return code
