"""Blocks of activations travel while others are computed."""

import os
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).with_name("passing_worker.py")


def test_a_block_comes_and_a_gradient_goes_while_the_other_process_does_something_else(tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
