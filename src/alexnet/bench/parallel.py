"""Parallel training on this machine: bytes sent, memory, overhead, killed processes; and the model of many devices.

Each function but `planned` starts processes that train on synthetic images of 1,000 classes:
`python -m alexnet.bench.parallel JSON` is such a process (see `work`). The measurements read /proc, which only Linux
has.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from alexnet.bench.parts import Settings
from alexnet.data.loading import Batch, training_batches
from alexnet.data.preparation import prepare
from alexnet.parallel.collectives import part
from alexnet.parallel.plan import DEVICES, IMAGENET, LINKS, PASSINGS, Work, against_published, best, plan
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import notify, progress
from alexnet.training.loop import Training
from alexnet.training.steps import StepExecutor, step_executor
from alexnet.training.train import set_up_training

WEIRD = "one-weird-trick"
VALUE_BYTES = 4  # float32


def exchange(settings: Settings, *, steps: int = 2) -> dict[str, Any]:
    """Measure the bytes that a process sends per step: counted by the code, computed, and sent by the loopback device.

    The loopback device is read where a network namespace can be created, so that nothing else uses it.
    """
    isolate = ["unshare", "-rn", "ip", "link", "set", "lo", "up"]
    can_isolate = shutil.which("unshare") is not None
    isolated = can_isolate and subprocess.run(isolate, capture_output=True, check=False).returncode == 0
    batch_size = settings.batch_size or 16
    rows = []
    layouts: list[tuple[str, int, str, dict[str, Any]]] = [
        *(("data", 2, "paper", {}), ("towers", 2, "paper", {})),
        *((WEIRD, count, "one-weird-trick", {"passing": passing}) for count in (2, 4) for passing in PASSINGS),
    ]
    for layout, processes, variant, options in layouts:
        measured = _train(
            settings.folder,
            processes,
            batch_size=batch_size,
            steps=steps,
            isolated=isolated,
            parallel=layout,
            variant=variant,
            **options,
        )
        traffic = measured[0]["traffic"]
        rows.append(
            {
                "layout": layout,
                **options,
                "processes": processes,
                "variant": variant,
                "batch": batch_size,
                "bytes_counted": statistics.mean(sum(size for size, _ in one["traffic"].values()) for one in measured),
                "bytes_computed": computed_bytes(layout, processes, Work.of(variant), batch_size),
                "bytes_on_loopback": measured[0]["loopback_bytes"] / processes if isolated else None,
                "bytes_by_purpose": {name: size for name, (size, _) in traffic.items()},
                "seconds": measured[0]["seconds"],
                "seconds_waiting": {name: waited for name, (_, waited) in traffic.items()},
            }
        )
    return {"precision": "float32", "rows": rows}


def computed_bytes(layout: str, processes: int, work: Work, batch: int) -> float:
    """Return the bytes that a process sends per step, on average over the processes.

    Parameters
    ----------
    layout : str
        "data", "towers" or "one-weird-trick".
    processes : int
        Number of processes.
    work : Work
        The work of the network.
    batch : int
        Images per step in all processes.
    """
    others = processes - 1
    if layout == "data":
        return 2 * others / processes * (work.convolution_parameters + work.full_parameters) * VALUE_BYTES
    if layout == "towers":
        return batch * VALUE_BYTES * (sum(work.crossing) + work.classes / 2)
    gradients = 2 * others / processes * work.convolution_parameters * VALUE_BYTES
    activations = batch / processes * others * (2 * sum(work.full_inputs) + work.classes) * VALUE_BYTES
    return gradients + activations


def memory(settings: Settings, *, steps: int = 5) -> dict[str, Any]:
    """Measure the peak memory of a training process: a single process, and two with one tower each."""
    batch_size = settings.batch_size or 128
    program = "from alexnet.bench import parallel; print(parallel.own_bytes())"  # imports only
    idle = float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    options: dict[str, Any] = {"batch_size": batch_size, "steps": steps, "measure_tensors": True}
    one = _train(settings.folder, 1, **options)[0]
    towers = _train(settings.folder, 2, **options, parallel="towers")
    most = {name: max(tower[name] for tower in towers) for name in ("tensor_bytes", "own_bytes")}
    return {
        "batch": batch_size,
        "precision": "float32",
        "imports_bytes": idle,
        "one_process": {name: one[name] for name in (*most, "parameters")},
        "towers": [{name: tower[name] for name in (*most, "parameters")} for tower in towers],
        "tower_to_one": {name: most[name] / one[name] for name in most},
        "tower_to_one_without_imports": (most["own_bytes"] - idle) / (one["own_bytes"] - idle),
    }


def overhead(settings: Settings, *, steps: int = 4) -> dict[str, Any]:
    """Compare data parallelism on two processes of one thread each with one process of two threads, in turn."""
    batch_size = settings.batch_size or 128
    rounds = []
    for _ in range(settings.rounds):
        one = _train(settings.folder, 1, batch_size=batch_size, steps=steps, threads=2)[0]["seconds"]
        two = _train(settings.folder, 2, batch_size=batch_size, steps=steps, parallel="data")[0]["seconds"]
        rounds.append({"one_process": one, "two_processes": two})
    ratios = [seconds["two_processes"] / seconds["one_process"] for seconds in rounds]
    return {
        "batch": batch_size,
        "precision": "float32",
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "seconds_of_a_step": rounds,
    }


def kills(settings: Settings, *, count: int = 20, epochs: int = 40) -> dict[str, Any]:
    """Kill workers of a small training at random moments; compare its weights with those of an undisturbed one.

    `torchrun` starts all workers again after each of the `count` kills.
    """
    _check_linux()
    folder, moments = settings.folder, random.Random(0)
    data = _noise(folder, images=72, classes=2, size=40)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    undisturbed = folder / "undisturbed"
    subprocess.run(
        _training_command(data, undisturbed, epochs, restarts=0), env=environment, check=True, capture_output=True
    )
    killed, restarts, largest = 0, 0, 0.0
    with progress(count, "kills") as bar:
        while killed < count:
            out = folder / f"killed-{killed}"
            with (folder / "log").open("w+", encoding="utf-8") as log:
                command = _training_command(data, out, epochs, restarts=2 * count)
                process = subprocess.Popen(command, env=environment, stderr=log)
                while process.poll() is None and killed < count:
                    _wait_for_moment(process, out / "checkpoint.pt", moments)
                    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                    running = process.poll() is None
                    workers = [int(pid) for pid in children.read_text(encoding="utf-8").split()] if running else []
                    if workers:
                        os.kill(moments.choice(workers), signal.SIGKILL)
                        killed += 1
                        bar.advance()
                code = process.wait()
                log.seek(0)
                messages = log.read()
            if code:
                raise AlexNetError(f"the training did not recover after {killed} kills:\n{messages}")
            restarts += messages.count("resuming")
            ours, theirs = (
                torch.load(run / "checkpoint.pt", weights_only=True)["network"] for run in (out, undisturbed)
            )
            largest = max(largest, *((ours[name] - theirs[name]).abs().max().item() for name in ours))
    return {"kills": killed, "resumed_from_a_checkpoint": restarts, "largest_difference_of_a_weight": largest}


def planned(settings: Settings) -> dict[str, Any]:
    """Return the published table beside the model's speed-ups, and the time of an epoch on 1 to 64 devices."""
    table = []
    for gpu, link in (("k20", "pcie2"), ("h100", "nvlink4"), ("h100", "pcie5")):
        for row, step, speed_up in against_published(gpu, link):
            published = {"published_hours": row.hours, "published_speed_up": row.speed_up, "published_error": row.error}
            table.append(
                {
                    **{"gpu": gpu, "link": link, "devices": row.devices, "batch": row.batch},
                    **{"fc_batch_size": row.fc_batch_size, **published, "speed_up": speed_up},
                    **{"hours_of_90_epochs": 90 * step.epoch(IMAGENET) / 3600, "waiting": step.waiting / step.seconds},
                }
            )
    scaling = []
    for gpu, link, variant in (("k20", "pcie2", "paper"), ("h100", "nvlink4", "paper"), ("h100", "100gbe", "paper")):
        steps = plan(64, gpu, link, variant=variant)
        for step in steps:
            scaling.append(
                {
                    **{"gpu": gpu, "link": link, "variant": variant, "layout": step.layout, "devices": step.devices},
                    **{"epoch_seconds": step.epoch(IMAGENET), "speed_up": steps[0].epoch(1) / step.epoch(1)},
                    **{"bytes_per_step": step.sent, "memory_bytes": step.memory},
                    "best": step is best(steps, step.devices),
                }
            )
    return {
        "published": table,
        "scaling": scaling,
        "rates": {name: DEVICES[name].source for name in ("k20", "h100")},
        "links_bytes_per_second": {name: LINKS[name] for name in ("pcie2", "pcie5", "nvlink4", "100gbe")},
    }


def _check_linux() -> None:
    if sys.platform != "linux":
        raise AlexNetError("this benchmark reads /proc and requires Linux")


def _noise(folder: Path, images: int = 1024, classes: int = 1000, size: int = 256) -> Path:
    """Prepare a dataset of smooth noise, once per folder."""
    data = folder / "data"
    if data.exists():
        return data
    rng = np.random.default_rng(0)
    with progress(images, "images") as bar:
        for number in range(images):
            file = folder / "images" / f"{number % classes:04}" / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((size, size), Image.Resampling.BICUBIC).save(file)
            bar.advance()
    prepare(folder / "images", data, size=size, split={"val": 0.0}, progress=False)
    return data


def _train(
    folder: Path,
    processes: int,
    *,
    batch_size: int,
    steps: int,
    threads: int = 1,
    isolated: bool = False,
    images: int | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train for a few steps, and return the measurements of each process (see `work`)."""
    _check_linux()
    shutil.rmtree(folder / "run", ignore_errors=True)
    images = images or max(1024, (steps + 2) * batch_size)  # a warm-up step, and one for the tensors
    values = {
        **{"data": str(_noise(folder, images)), "out": str(folder / "run"), "report": str(folder / "report")},
        **{"steps": steps, "batch_size": batch_size, **options},
    }
    worker = ["-m", "alexnet.bench.parallel", json.dumps(values)]
    command = [sys.executable, *worker]
    if processes > 1:
        command = [*_launcher(processes), *worker]
        if isolated:
            command = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise AlexNetError(f"a training process failed:\n{done.stderr}")
    return [json.loads((folder / f"report-{rank}").read_text(encoding="utf-8")) for rank in range(processes)]


def _launcher(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]


def _training_command(data: Path, out: Path, epochs: int, restarts: int) -> list[str]:
    """A small training on two processes, with a checkpoint five times per second."""
    options = "--parallel data --recipe paper --variant cifar-18pct --crop-size 32 --batch-size 6 --lr 0.001"
    return [
        *(*_launcher(2), "--max-restarts", str(restarts), "-m", "alexnet", "train", str(data)),
        *("--out", str(out), *options.split(), "--epochs", str(epochs), "--precision", "float32"),
        *("--checkpoint-interval", "0.2", "--keep-checkpoint"),
    ]


def _wait_for_moment(process: subprocess.Popen[bytes], checkpoint: Path, moments: random.Random) -> None:
    """Wait some time after the next checkpoint; in one case of five at any time, also while the workers start."""
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    at_any_time = moments.random() < 0.2
    while not at_any_time and process.poll() is None:
        time.sleep(0.02)
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
            break
    time.sleep(moments.uniform(0.2, 8) if at_any_time else moments.uniform(0, 1))


def work(
    data: str, out: str, report: str, steps: int, batch_size: int, measure_tensors: bool = False, **options: Any
) -> None:
    """Take a few training steps as one process of a training, and write the measurements to `report`-RANK.

    Parameters
    ----------
    data, out : str
        Prepared dataset and run folder.
    report : str
        Path of the JSON file to write, without the rank.
    steps : int
        Steps to measure, after one that is not.
    batch_size : int
        Images per batch in all processes.
    measure_tensors : bool
        Whether to measure the peak of the memory allocated by torch.
    **options
        Options of `set_up_training`.
    """
    values = {"recipe": "paper", "precision": "float32", "variant": "paper", "lr": 1e-5, **options}
    training = set_up_training(data, out, batch_size=batch_size, checkpoint_interval=float("inf"), **values)
    communicator = training.communicator
    executor = step_executor(training.state, training.inputs, communicator, training.requests, notify)
    batches = training_batches(training.training, batch_size, 0, 1, 0, communicator.rows)
    seconds: list[float] = []
    sent_before = 0
    with training.lock or nullcontext():
        with PeakMemory() as peak:
            for number, batch in zip(range(steps + 1), batches, strict=False):
                if number == 1:  # the first step is a warm-up
                    communicator.traffic()
                    sent_before = loopback_bytes()
                start = time.perf_counter()
                _take_step(training, executor, batch)
                seconds.append(time.perf_counter() - start)
        taken = len(seconds) - 1
        result = {
            "seconds": statistics.median(seconds[1:]),
            "traffic": {name: [size / taken, wait / taken] for name, (size, wait) in communicator.traffic().items()},
            "loopback_bytes": (loopback_bytes() - sent_before) / taken,
            "own_bytes": peak.bytes,
            "tensor_bytes": _tensor_bytes(training, executor, next(batches)) if measure_tensors else None,
            "parameters": sum(parameter.numel() for parameter in training.state.network.parameters()),
        }
        communicator.leave()
    part()
    Path(f"{report}-{os.environ.get('RANK', '0')}").write_text(json.dumps(result), encoding="utf-8")


def _take_step(training: Training, executor: StepExecutor, batch: Batch) -> None:
    training.state.start_step()
    executor.step(batch)
    executor.finish()
    training.state.end_step()


def loopback_bytes() -> int:
    """Return the bytes that the loopback device of this network namespace has sent."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def own_bytes() -> int:
    """Return the memory of this process alone, without pages of mapped files, which belong to the page cache."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


class PeakMemory(threading.Thread):
    """The peak of `own_bytes` inside the context, read 200 times per second; its attribute `bytes`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._done = own_bytes(), threading.Event()

    def run(self) -> None:
        """Read until the context ends."""
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, own_bytes())

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _tensor_bytes(training: Training, executor: StepExecutor, batch: Batch) -> int:
    """Peak bytes that torch allocates in a step, including weights and velocity, which exist before."""
    state = training.state
    before = sum(weight.nbytes for weight in state.network.parameters())
    before += sum(
        tensor.nbytes
        for optimizer in state.optimizers
        for tensors in optimizer.state.values()
        for tensor in tensors.values()
    )
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _take_step(training, executor, batch)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text(encoding="utf-8"))["traceEvents"]
    return before + max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


if __name__ == "__main__":
    work(**json.loads(sys.argv[1]))
