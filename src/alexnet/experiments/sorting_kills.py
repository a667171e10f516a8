"""Kills: `alexnet sort --move` is killed at random moments, and so is its undo; is every file in exactly one place?"""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.experiments.trials import prepare_once, train_once
from alexnet.inspection.journal import JOURNAL, Journal
from alexnet.inspection.result_log import open_log
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import progress
from alexnet.runtime.provenance import provenance, write_result

KILLS, UNDO_KILLS = 50, 10
IMAGES_PER_KILL = 100
LONGEST, LONGEST_UNDO = 0.25, 0.1
"""Seconds after the first action of a process until it is killed at the latest; an undo reads no image."""
SIDE = 64
CLASSES = ("dark", "light")


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, quick: bool = False) -> str:
    """Kill sorts and undos of several thousand images, count the files after each kill, and write the counts.

    A network is trained on noise of two brightnesses; what it answers is of no consequence. Every image is distinct.
    After each kill, every image must be in exactly one place: the folder, a class folder, or the temporary name of a
    move. After the last sort, each must be in a class folder and once in the log (`--log`, CSV), and after the undo,
    each must be where it was, under its own name.
    """
    kills, undo_kills = (2, 1) if quick else (KILLS, UNDO_KILLS)
    run = _run(work)
    trials = [measure(run, work / f"seed-{seed}", kills, undo_kills, seed) for seed in seeds]
    report = {
        "description": f"`alexnet sort --move --log` of {IMAGES_PER_KILL} images per kill, killed (SIGKILL) at a "
        f"random moment of the first {LONGEST:g} s after its first action, and `alexnet sort --undo` of the first "
        f"{LONGEST_UNDO:g} s; after each kill the files are counted and the same command continues",
        "trials": trials,
        **provenance(command),
    }
    write_result(results, report)
    return "\n".join(
        f"seed {trial['seed']}: {trial['images']:,} images, {trial['kills']} kills while sorting and "
        f"{trial['undo_kills']} while undoing: {trial['lost']} lost, {trial['doubled']} doubled; "
        f"{trial['restored']:,} restored"
        for trial in trials
    )


def measure(run: Path, work: Path, kills: int, undo_kills: int, seed: int) -> dict[str, Any]:
    """One trial in the new folder `work`: its counts.

    Raises
    ------
    AlexNetError
        If a process ends with an error of its own.
    """
    shutil.rmtree(work, ignore_errors=True)
    folder, out, log = work / "images", work / "sorted", work / "log.csv"
    before = _write_images(folder, kills * IMAGES_PER_KILL, seed)
    expected = Counter(before.values())
    rng = random.Random(seed)
    sort = ["sort", str(run), str(folder), "--to", str(out), "--move", "--log", str(log)]
    undo = ["sort", "--undo", "--to", str(out)]
    states: list[dict[str, Any]] = []
    with progress(kills + undo_kills, "kills") as bar:
        for name, arguments, count in (("sort", sort, kills), ("undo", undo, undo_kills)):
            for _ in range(count):
                delay = rng.uniform(0, LONGEST if name == "sort" else LONGEST_UNDO)
                killed = _killed(arguments, out, delay)
                state = _state(expected, folder, out)
                states.append({"while": name, "seconds": round(delay, 4), "killed": killed, **state})
                bar.advance()
            if (out / JOURNAL).exists():
                _finish(arguments)
            if name == "sort":
                sorted_all = _state(expected, folder, out)
                logged = _logged(out, log)
    restored = {str(file.relative_to(folder)): _digest(file) for file in folder.rglob("*.png")}
    return {
        "seed": seed,
        "images": len(before),
        "kills": sum(state["killed"] for state in states if state["while"] == "sort"),
        "undo_kills": sum(state["killed"] for state in states if state["while"] == "undo"),
        "lost": max(state["lost"] for state in (*states, sorted_all)),
        "doubled": max(state["doubled"] for state in (*states, sorted_all)),
        "in_class_folders": sorted_all["placed"],
        "rows_in_log": logged,
        "restored": sum(restored.get(name) == digest for name, digest in before.items()),
        "left_in_output": sum(1 for file in out.rglob("*") if file.is_file()) if out.exists() else 0,
        "states": states,
    }


def _run(work: Path) -> Path:
    source = work / "training"
    if not source.exists():
        for split, count in (("train", 16), ("val", 8)):
            for number, name in enumerate(CLASSES):
                _noise(source / split / name, count, number)
    data = work / "data"
    prepare_once(source, data, size=SIDE + 8)
    small = {"variant": "convolutions", "epochs": 1, "crop_size": SIDE, "input_size": SIDE}
    return train_once(data, work / "run", recipe="small", init="he", precision="float32", **small).path


def _noise(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        light = rng.integers(0, 128, (SIDE, SIDE, 3)) + 120 * ((seed + number) % 2 if seed > 1 else seed)
        Image.fromarray(light.astype(np.uint8)).save(folder / f"{number:05}.png", compress_level=1)


def _write_images(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Images in two folders with the same names; returns the digest of each."""
    for part in range(2):
        _noise(folder / str(part), count // 2, 2 + 2 * seed + part)
    return {str(file.relative_to(folder)): _digest(file) for file in sorted(folder.rglob("*.png"))}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _killed(arguments: Sequence[str], out: Path, delay: float) -> bool:
    """Start a command and kill it some time after it writes to its journal; whether it was still running."""
    journal = out / JOURNAL
    start = journal.stat().st_size if journal.exists() else 0
    process = subprocess.Popen(
        [sys.executable, "-m", "alexnet", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (journal.exists() and journal.stat().st_size != start):
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    return process.wait() == -signal.SIGKILL


def _finish(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "alexnet", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AlexNetError(f"`alexnet {' '.join(arguments)}` failed: {done.stderr.strip()}")


def _state(expected: Counter[str], folder: Path, out: Path) -> dict[str, int]:
    """How many images are where. An empty file is a reserved name, no image."""
    found: Counter[str] = Counter()
    placed = 0
    for root in (folder, out):
        for file in root.rglob("*"):
            is_image = file.suffix == ".png" or file.name.startswith(".sort-")
            if is_image and file.is_file() and file.stat().st_size:
                found[_digest(file)] += 1
                placed += root == out
    return {
        "placed": placed,
        "lost": sum((expected - found).values()),
        "doubled": sum((found - expected).values()),
    }


def _logged(out: Path, log: Path) -> int:
    """The number of rows, each of another placement; 0 if the log and the journal differ."""
    journal = Journal(out, write=False)
    before = log.read_bytes()
    with open_log(log, journal):
        pass
    rows = before.count(b"\n") - 1
    return rows if log.read_bytes() == before and rows == len(journal.placements) else 0
