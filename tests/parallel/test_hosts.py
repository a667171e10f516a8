"""Two hosts, each a network namespace with a cable between them; the cable is pulled and put back."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_layouts import ENVIRONMENT, WORKER, command_line, data, distance, undisturbed  # noqa: F401
from torch.distributed.run import get_args_parser

from alexnet.cli.main import build_parser

ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """The names of two namespaces that reach each other and nothing else."""
    names = [f"alexnet-{os.getpid()}-{number}" for number in range(2)]
    cables = [f"an{os.getpid() % 100000}x{number}" for number in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            for device in (cable, "lo"):
                ip("-n", name, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.skip(f"network namespaces can't be made here (it takes root and `ip`): {str(reason).strip()}")
    else:
        yield list(zip(names, cables, ADDRESSES, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.parametrize("job", ["slurm.sh", "kubernetes.yaml"])
def test_the_job_files_say_what_torchrun_and_alexnet_take(job):
    text = (Path(__file__).parents[2] / "examples" / job).read_text(encoding="utf-8")
    if job == "slurm.sh":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        arguments = shlex.split(re.search(r"srun torchrun((?:.*\\\n)*.*)", text)[1].replace("\\\n", " "))
        arguments = ["1" if argument.startswith("$SLURM_NNODES") else argument for argument in arguments]
    else:
        arguments = re.findall(r"^ {12}- ([^{]\S*)", text, re.MULTILINE)
    launcher = get_args_parser().parse_args(arguments)
    assert launcher.module
    assert launcher.training_script == "alexnet"
    options = build_parser().parse_args(launcher.training_script_args)
    assert options.recipe == "paper"
    assert options.parallel in ("data", "one-weird-trick")
    assert options.processes is None  # these are torchrun's


@pytest.mark.long
def test_a_host_that_is_cut_off_comes_back_and_nothing_is_lost(hosts, data, undisturbed, tmp_path):  # noqa: F811
    out = tmp_path / "run"
    arguments = command_line(data, out, "--parallel", "data", "--checkpoint-interval", "0.1", "--peer-timeout", "6")
    started = []
    for number, (name, cable, address) in enumerate(hosts):
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "5", "--local-addr", address]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--rdzv-id", out.parent.name]
        command += ["--rdzv-conf", f"is_host={int(number == 0)},read_timeout=30", str(WORKER), *arguments]
        environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": cable}
        log = (tmp_path / f"host-{number}").open("w")
        started.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))
    try:
        while not (out / "checkpoint.pt").exists():
            assert started[0].poll() is None, (tmp_path / "host-0").read_text(encoding="utf-8")
            time.sleep(0.05)
        ip("-n", hosts[1][0], "link", "set", hosts[1][1], "down")
        while "no answer for 6 s from another process" not in (tmp_path / "host-0").read_text(encoding="utf-8"):
            assert started[0].poll() is None, (tmp_path / "host-0").read_text(encoding="utf-8")
            time.sleep(0.1)
        ip("-n", hosts[1][0], "link", "set", hosts[1][1], "up")
        for number, host in enumerate(started):
            assert host.wait(300) == 0, (tmp_path / f"host-{number}").read_text(encoding="utf-8")
    finally:
        for host in started:
            host.terminate()
    assert "exists already" not in (tmp_path / "host-0").read_text(encoding="utf-8")
    assert distance(out, undisturbed) < 1e-9
