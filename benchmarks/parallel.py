"""Bytes, memory and time of several processes on this machine against one; kills; the plan for many devices.

    python benchmarks/parallel.py [--only PART ...] [--batch-size 128] [--steps 4] [--rounds 5] [--kills 20]

Parts: exchange (bytes of each layout: counted, computed, and on the loopback device where a network namespace can be
created; profile of a step), memory (of a process, two towers against one process: tensors, and private memory),
overhead (two processes of one thread against one of two, in turn), kills (at random moments of a small training; its
final weights against those of an undisturbed one), plan (the published table beside the model's times). The images are
noise, 1000 classes. A part stays in the file until it is measured again.
"""

import argparse
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from alexnet.data.loading import Batch, training_batches
from alexnet.data.preparation import prepare
from alexnet.parallel.collectives import part
from alexnet.parallel.plan import DEVICES, LINKS, Work, against_published, best, plan
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.runtime.provenance import provenance
from alexnet.training.state import TrainingState
from alexnet.training.steps import StepExecutor, step_executor
from alexnet.training.train import set_up_training

PARTS = ("exchange", "memory", "overhead", "kills", "plan")
WEIRD = "one-weird-trick"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/parallel.json"))
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(**arguments.worker)
        return
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for part in arguments.only or PARTS:
            measured = {"exchange": exchange, "memory": memory, "overhead": overhead, "kills": kills, "plan": planned}
            found = measured[part](scratch, arguments)
            command = f"python benchmarks/parallel.py --only {part} --batch-size {arguments.batch_size}"
            command += f" --steps {arguments.steps} --rounds {arguments.rounds} --kills {arguments.kills}"
            report[part] = {**found, **provenance(command)}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(arguments.out, json.dumps(report, indent=1).encode() + b"\n")
            print(f"{part}: in {arguments.out}", file=sys.stderr)


def noise(scratch: Path, images: int = 1024) -> Path:
    """A prepared dataset of 1000 classes."""
    data = scratch / "data"
    if data.exists():
        return data
    rng = np.random.default_rng(0)
    with progress(images, "images") as bar:
        for number in range(images):
            place = scratch / "images" / f"{number % 1000:04}"
            place.mkdir(parents=True, exist_ok=True)
            small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(place / f"{number}.jpg")
            bar.advance()
    prepare(scratch / "images", data, split={"val": 0.0}, progress=False)
    return data


def run(
    scratch: Path,
    processes: int,
    arguments: argparse.Namespace,
    threads: int = 1,
    alone_on_loopback: bool = False,
    **training: Any,
) -> list[dict[str, Any]]:
    """Measurements of each process of a training of a few steps; see `work`."""
    out = scratch / "run"
    shutil.rmtree(out, ignore_errors=True)
    values = {
        **{"data": str(noise(scratch)), "out": str(out), "report": str(scratch / "report"), "steps": arguments.steps},
        **{"batch_size": arguments.batch_size, **training},
    }
    command = [str(Path(__file__).resolve()), "--worker", json.dumps(values)]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*launcher, *command]
        if alone_on_loopback:
            command = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    else:
        command = [sys.executable, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads((scratch / f"report-{rank}").read_text()) for rank in range(processes)]


def work(
    data: str, out: str, report: str, steps: int, batch_size: int, measure_tensors: bool = False, **options: Any
) -> None:
    """Execute some steps; write the seconds, the bytes sent and the peak memory of this process."""
    training = set_up_training(
        *(data, out),
        recipe="paper",
        batch_size=batch_size,
        precision=options.pop("precision", "float32"),
        variant=options.pop("variant", "paper"),
        lr=1e-5,
        **options,
    )
    communicator = training.communicator

    def no_requests() -> tuple[bool, bool]:
        return False, False

    executor = step_executor(training.state, training.inputs, communicator, no_requests, print)
    seconds: list[float] = []
    batches = training_batches(training.training, batch_size, 0, 1, 0, communicator.rows)
    with Anonymous() as memory_own:
        for number, batch in zip(range(steps + 1), batches, strict=False):
            if number == 1:  # the first step is warming up
                communicator.traffic()
                before = loopback_bytes()
            start = time.perf_counter()
            executor.step(batch)
            seconds.append(time.perf_counter() - start)
    tensors = tensor_bytes(training.state, executor, next(batches)) if measure_tensors else None
    communicator.leave()
    part()
    taken = len(seconds) - 1
    traffic = {name: [a / taken, b / taken] for name, (a, b) in communicator.traffic().items()}
    parameters = sum(p.numel() for p in training.state.network.parameters())
    result = {
        "seconds": statistics.median(seconds[1:]),
        "traffic": traffic,
        "loopback_bytes": (loopback_bytes() - before) / taken,
        "own_bytes": memory_own.most,
        "tensor_bytes": tensors,
        "parameters": parameters,
    }
    rank = os.environ.get("RANK", "0")
    Path(f"{report}-{rank}").write_text(json.dumps(result))


def loopback_bytes() -> int:
    """Bytes that the loopback device of this network namespace has sent."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def own_bytes() -> int:
    """Private memory of this process in bytes, without the pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


class Anonymous(threading.Thread):
    """Peak of `own_bytes` in the enclosed code, sampled 200 times per second, as `most`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = own_bytes(), threading.Event()

    def run(self) -> None:
        """Sample until the end of the enclosed code."""
        while not self.over.wait(0.005):
            self.most = max(self.most, own_bytes())

    def __enter__(self) -> "Anonymous":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def tensor_bytes(training: TrainingState, steps: StepExecutor, batch: Batch) -> int:
    """Peak of the bytes allocated by torch in a step, including the weights and their velocity."""
    before = sum(weight.nbytes for weight in training.network.parameters())
    before += sum(state.nbytes for one in training.optimizers for per in one.state.values() for state in per.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        steps.step(batch)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    return before + max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


def exchange(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Bytes that one process sends in a step: counted at the call, computed, and measured on the loopback device."""
    alone = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    rows = []
    layouts = [
        *(("data", 2, "paper", {}), ("towers", 2, "paper", {})),
        *((WEIRD, 2, "one-weird-trick", {"passing": passing}) for passing in ("at-once", "in-turn", "in-shares")),
        *((WEIRD, 4, "one-weird-trick", {"passing": passing}) for passing in ("at-once", "in-turn", "in-shares")),
    ]
    for layout, processes, variant, more in layouts:
        found = run(
            *(scratch, processes, arguments),
            alone_on_loopback=alone.returncode == 0,
            parallel=layout,
            variant=variant,
            **more,
        )
        counted = [sum(size for size, _ in one["traffic"].values()) for one in found]
        rows.append(
            {
                "layout": layout,
                **more,
                "processes": processes,
                "variant": variant,
                "batch": arguments.batch_size,
                "bytes_counted": statistics.mean(counted),
                "bytes_computed": computed(layout, processes, Work.of(variant), arguments.batch_size),
                "bytes_on_loopback": found[0]["loopback_bytes"] / processes if alone.returncode == 0 else None,
                "bytes_by_purpose": {name: size for name, (size, _) in found[0]["traffic"].items()},
                "seconds": found[0]["seconds"],
                "seconds_waiting": {name: waited for name, (_, waited) in found[0]["traffic"].items()},
            }
        )
    return {"precision": "float32", "rows": rows}


def computed(layout: str, processes: int, work: Work, batch: int, size: int = 4) -> float:
    """Bytes that a process sends in a step of a batch of all processes, on average over them."""
    others = processes - 1
    if layout == "data":
        return 2 * others / processes * (work.convolution_parameters + work.full_parameters) * size
    if layout == "towers":
        return batch * size * (sum(work.crossing) + work.classes / 2)
    gradients = 2 * others / processes * work.convolution_parameters * size
    passed = batch / processes * others * (2 * sum(work.full_inputs) + work.classes) * size
    return gradients + passed


def memory(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process during training, minus that before the network is built."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); from benchmarks import parallel"
    program = f"{code}; print(parallel.own_bytes())"  # nothing but the imports
    idle = float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    one = run(scratch, 1, arguments, measure_tensors=True)[0]
    towers = run(scratch, 2, arguments, parallel="towers", measure_tensors=True)
    most = {what: max(tower[what] for tower in towers) for what in ("tensor_bytes", "own_bytes")}
    return {
        "batch": arguments.batch_size,
        "precision": "float32",
        "imports_bytes": idle,
        "one_process": {what: one[what] for what in (*most, "parameters")},
        "towers": [{what: tower[what] for what in (*most, "parameters")} for tower in towers],
        "tower_to_one": {what: most[what] / one[what] for what in most},
        "tower_to_one_without_imports": (most["own_bytes"] - idle) / (one["own_bytes"] - idle),
    }


def overhead(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Two processes of one thread each against one process of two threads, in turn."""
    rounds = []
    for _ in range(arguments.rounds):
        one = run(scratch, 1, arguments, threads=2)[0]["seconds"]
        two = run(scratch, 2, arguments, threads=1, parallel="data")[0]["seconds"]
        rounds.append({"one_process": one, "two_processes": two})
    ratios = [each["two_processes"] / each["one_process"] for each in rounds]
    return {
        "batch": arguments.batch_size,
        "precision": "float32",
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "seconds_of_a_step": rounds,
    }


def kills(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill a worker of a small training at random moments, restarted by torchrun; compare the final weights bitwise."""
    rng, moments = np.random.default_rng(0), random.Random(0)
    for name in ("lying", "standing"):
        (scratch / "few" / name).mkdir(parents=True, exist_ok=True)
        for number in range(36):
            Image.fromarray(rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)).save(
                scratch / "few" / name / f"{number}.png"
            )
    prepare(scratch / "few", scratch / "small", size=72, split={"val": 0.2}, progress=False)
    worker = Path(__file__).parents[1] / "tests" / "parallel" / "layout_worker.py"  # knows small networks

    def command(out: Path) -> list[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        options = f"--max-restarts {2 * arguments.kills} {worker} train {scratch / 'small'} --out {out} --parallel data"
        options += (
            " --variant narrow --recipe paper --crop-size 64 --epochs 40 --batch-size 6 --lr 0.001 --precision float32"
        )
        return [*launcher, *options.split(), "--checkpoint-interval", "0.2"]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    undisturbed = scratch / "undisturbed"
    subprocess.run(command(undisturbed), env=environment, check=True, capture_output=True)
    killed, restarts = 0, 0
    worst = 0.0
    with progress(arguments.kills, "kills") as bar:
        while killed < arguments.kills:
            out = scratch / f"killed-{killed}"
            with (scratch / "log").open("w+") as log:
                process = subprocess.Popen(command(out), env=environment, stderr=log)
                while process.poll() is None and killed < arguments.kills:
                    wait_for_moment(process, out / "checkpoint.pt", moments)
                    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                    workers = [int(pid) for pid in children.read_text().split()] if process.poll() is None else []
                    if workers:
                        os.kill(moments.choice(workers), signal.SIGKILL)
                        killed += 1
                        bar.advance()
                code = process.wait()
                log.seek(0)
                said = log.read()
            if code:
                sys.exit(f"not recovered after {killed} kills:\n{said}")
            restarts += said.count("resuming")
            ours, theirs = (
                torch.load(folder / "checkpoint.pt", weights_only=True)["network"] for folder in (out, undisturbed)
            )
            worst = max(worst, *((ours[name] - theirs[name]).abs().max().item() for name in ours))
    return {"kills": killed, "resumed_from_a_checkpoint": restarts, "largest_difference_of_a_weight": worst}


def wait_for_moment(process: subprocess.Popen, checkpoint: Path, moments: random.Random) -> None:
    """Wait for a random time after the next checkpoint; in one of five cases for any time, also during the start."""
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    anywhen = moments.random() < 0.2
    while not anywhen and process.poll() is None:
        time.sleep(0.02)
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
            break
    time.sleep(moments.uniform(0.2, 8) if anywhen else moments.uniform(0, 1))


def planned(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The published table beside the model's speed-ups, and the time of an epoch on 1 to 64 devices."""
    table = []
    for gpu, link in (("k20", "pcie2"), ("h100", "nvlink4"), ("h100", "pcie5")):
        for row, step, speed_up in against_published(gpu, link):
            published = {"published_hours": row.hours, "published_speed_up": row.speed_up, "published_error": row.error}
            table.append(
                {
                    **{"gpu": gpu, "link": link, "devices": row.devices, "batch": row.batch},
                    **{"fc_batch_size": row.fc_batch_size, **published, "speed_up": speed_up},
                    **{"hours_of_90_epochs": 90 * step.epoch(1_281_167) / 3600, "waiting": step.waiting / step.seconds},
                }
            )
    scaling = []
    for gpu, link, variant in (("k20", "pcie2", "paper"), ("h100", "nvlink4", "paper"), ("h100", "100gbe", "paper")):
        steps = plan(64, gpu, link, variant=variant)
        for step in steps:
            chosen = best(steps, step.devices)
            scaling.append(
                {
                    **{"gpu": gpu, "link": link, "variant": variant, "layout": step.layout, "devices": step.devices},
                    **{"epoch_seconds": step.epoch(1_281_167), "speed_up": steps[0].epoch(1) / step.epoch(1)},
                    **{"bytes_per_step": step.sent, "memory_bytes": step.memory, "best": step is chosen},
                }
            )
    return {
        "published": table,
        "scaling": scaling,
        "rates": {name: DEVICES[name].source for name in ("k20", "h100")},
        "links_bytes_per_second": {name: LINKS[name] for name in ("pcie2", "pcie5", "nvlink4", "100gbe")},
    }


if __name__ == "__main__":
    main()
