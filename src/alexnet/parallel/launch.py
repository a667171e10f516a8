"""Several processes on this machine, started by torch's own launcher."""

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
"""The folder where processes that `launch` started leave the exit codes that no restart would change."""


def launch(processes: int, words: list[str], max_restarts: int) -> int:
    """Run `alexnet` with these words in so many processes; the exit code is that of the first to fail, or 0.

    When one is lost, all start again, `max_restarts` times, and go on from the last checkpoint; not where they end
    with an error that would come again.
    """
    if processes < 1:
        raise UsageError(f"--processes is {processes}; it must be at least 1")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The cores are shared out; torchrun would give each process one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes say what is wrong
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
            elastic_launch(config, sys.executable)("-m", "alexnet", *words)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            return failure.exitcode if failure.exitcode > 0 else 1
        except SignalException as error:
            return 128 + error.sigval
        return max((int(end.read_text()) for end in Path(ends).iterdir()), default=0)


def final(code: int) -> int:
    """What this process exits with when its work has ended with `code` and doing it again would end no other way.

    To torch's launcher everything but 0 is a reason to start again: where `launch` listens, it is told the code.
    """
    if _ENDS in os.environ and "RANK" in os.environ:
        (Path(os.environ[_ENDS]) / os.environ["RANK"]).write_text(str(code))
        return 0
    return code
