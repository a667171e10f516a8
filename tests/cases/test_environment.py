"""Cases E1, E2, E4 and E13: encodings, CPU quotas, and use outside a checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.cli.main import VERBS
from alexnet.runtime import cpus


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "alexnet", *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "cp949", "cp1252"])
def test_e2_stdout_of_any_encoding(encoding: str) -> None:
    done = run("variants", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert "released-2012" in done.stdout.decode(encoding)


def test_e2_the_help_of_every_verb_in_ascii() -> None:
    code = f"""
from alexnet.cli.main import main
for verb in ["--help", *{list(VERBS)!r}]:
    try:
        main([verb] if verb == "--help" else [verb, "--help"])
    except SystemExit as end:
        assert end.code == 0, verb
"""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"usage: alexnet") == 1 + len(VERBS)


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5)])
def test_e4_the_quota_of_a_control_group(
    quota: str, expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text(quota, encoding="utf-8")
    (tmp_path / "outer" / "inner" / "cpu.max").write_text("max 100000", encoding="utf-8")
    (tmp_path / "cgroup").write_text("0::/outer/inner\n", encoding="utf-8")
    monkeypatch.setattr(cpus, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(cpus, "_PROCESS_CGROUPS", tmp_path / "cgroup")
    assert cpus.cgroup_quota() == expected
    affinity = len(os.sched_getaffinity(0))
    assert cpus.available_cpus() == (affinity if expected is None else min(affinity, -(-expected // 1)))


def test_e4_the_quota_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "cpu,cpuacct" / "docker" / "1"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("100000\n", encoding="utf-8")
    (group / "cpu.cfs_period_us").write_text("100000\n", encoding="utf-8")
    (tmp_path / "cgroup").write_text("5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n", encoding="utf-8")
    monkeypatch.setattr(cpus, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(cpus, "_PROCESS_CGROUPS", tmp_path / "cgroup")
    assert (cpus.cgroup_quota(), cpus.available_cpus()) == (1.0, 1)


def test_e4_torch_uses_no_more_threads_than_the_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000", encoding="utf-8")
    (tmp_path / "cgroup").write_text("0::/\n", encoding="utf-8")
    code = f"""
from pathlib import Path
from alexnet.runtime import cpus
cpus._CGROUP_ROOT, cpus._PROCESS_CGROUPS = Path({str(tmp_path)!r}), Path({str(tmp_path / "cgroup")!r})
import torch
torch.set_num_threads(2)
from alexnet.runtime.devices import choose_device
choose_device("cpu")
assert torch.get_num_threads() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_e13_the_list_of_experiments_outside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("reproduce", "--list")
    assert done.returncode == 0
    assert "7.1×" in done.stdout  # figure 1, measured


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_to_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "alexnet", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "alexnet: the output cannot be written: No space left on device; free some space, or write to another disk"
    ]


def test_output_to_a_closed_pipe_ends_silently() -> None:
    """`alexnet recipes | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "alexnet", "recipes"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert not done.stderr
