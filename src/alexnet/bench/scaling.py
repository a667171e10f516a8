"""Time and memory of the verbs against the number of images, the number of classes, and the side of the images.

Every measurement is a command of its own process. Time is that of the CPU, of the command and the processes that it
starts, since the wall clock also counts what else the machine does. Each process computes in one thread: of several,
those that wait for the others use the CPU, too. Memory is the largest peak of one process. The network is LeNet-5, so
small that what lies around the network shows.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from alexnet.bench.parts import Settings
from alexnet.bench.synthetic import photographs, random_run, write_dataset
from alexnet.runtime.progress import notify

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 32
VARIANT, INPUT_SIZE = "lenet5", 28
IMAGES = (1_000, 10_000, 100_000, 1_000_000)
CLASSES = (2, 10, 100, 1_000, 10_000)
CLASS_IMAGES = 20_000
"""Images of the datasets with different numbers of classes; half of them are to train on."""
SIDES = (32, 128, 512, 2_000, 4_000)
SIDE_IMAGES = 24
LEAST_SECONDS, LEAST_MEGABYTES = 1.0, 100.0
"""An exponent is fitted where a command needs so much more than with the least value: less is the start of Python."""


def scaling(
    settings: Settings,
    *,
    images: tuple[int, ...] = IMAGES,
    classes: tuple[int, ...] = CLASSES,
    sides: tuple[int, ...] = SIDES,
    class_images: int = CLASS_IMAGES,
) -> dict[str, Any]:
    """Measure every verb along every axis.

    Parameters
    ----------
    settings : Settings
        `rounds` is not used: every command runs once.
    images, classes, sides : tuple of int
        The values of the axes.
    class_images : int
        Images of each dataset of the second axis.
    """
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def record(axis: str, verb: str, value: int, measured: dict[str, Any]) -> None:
        notify(f"  {axis} {value:,}: {verb} {json.dumps(measured)}")
        series.setdefault((axis, verb), []).append({"value": value, **measured})

    for value in images:
        folder = settings.folder / f"images-{value}"
        _write_files(folder / "files", value)
        record("images", "prepare", value, _prepare(folder / "files", folder / "prepared"))
        for verb, measured in _verbs(folder, value, 10):
            record("images", verb, value, measured)
        shutil.rmtree(folder)
    for value in classes:
        folder = settings.folder / f"classes-{value}"
        for verb, measured in _verbs(folder, class_images, value):
            record("classes", verb, value, measured)
        shutil.rmtree(folder)
    for value in sides:
        folder = settings.folder / f"sides-{value}"
        photographs(folder, SIDE_IMAGES, value, value, distinct=1)
        record("side", "prepare", value, _prepare(folder, folder / "prepared", size=256))
        shutil.rmtree(folder)
    return {
        "description": "CPU seconds (one thread) of a command with the processes that it starts, and the largest peak "
        f"memory of one of them; network {VARIANT}; the datasets of the classes have {class_images:,} images; the "
        f"sides are those of {SIDE_IMAGES} photographs; exponent: the growth per growth of the value between the last "
        "two values",
        "series": [
            {"axis": axis, "verb": verb, "points": points, **_exponents(points)}
            for (axis, verb), points in series.items()
        ],
    }


def _exponents(points: list[dict[str, Any]]) -> dict[str, float]:
    """The slopes of the last two points in logarithms, of what exceeds the first point, where that is much."""
    found = {}
    for key, least in (("seconds", LEAST_SECONDS), ("megabytes", LEAST_MEGABYTES)):
        if len(points) < 3:
            continue
        base, before, last = points[0][key], points[-2][key], points[-1][key]
        if last - base >= least:
            ratio = last / before
            found[f"exponent_{key}"] = round(math.log(ratio) / math.log(points[-1]["value"] / points[-2]["value"]), 2)
    return found


def _verbs(folder: Path, images: int, classes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure the verbs that take a prepared dataset."""
    data = write_dataset(folder / "data", images, classes, SIDE)
    query = folder / "query.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(query)
    run = random_run(folder / "run", VARIANT, classes=classes, size=SIDE, input_size=INPUT_SIZE)
    options = ["--recipe", "paper", "--variant", VARIANT, "--epochs", "1", "--lr", "0.00001"]  # noise diverges
    options += ["--crop-size", str(INPUT_SIZE), "--input-size", str(INPUT_SIZE)]
    yield "train, one epoch", _measured("train", data, "--out", folder / "trained", *options)
    yield "evaluate", _measured("evaluate", run, "--data", data)
    report = _measured("report", run, "--data", data, "--out", folder / "report")
    yield "report", {**report, "page_megabytes": round((folder / "report" / "report.html").stat().st_size / 1e6, 2)}
    yield "search, first", _measured("search", run, query, "--data", data)
    yield "search, again", _measured("search", run, query, "--data", data)
    yield "serve, start", _served(run, data)


def _prepare(source: Path, data: Path, size: int = SIDE) -> dict[str, Any]:
    return _measured("prepare", source, data, "--size", size)


_LAUNCHER = """
import json, os, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
error = done.stderr.decode(errors="replace")[-2000:] if done.returncode else ""
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, error]))
"""
"""A process so small that its own memory, which counts as the peak of what it starts, is below every other's."""


def _one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _measured(verb: str, *arguments: object) -> dict[str, Any]:
    """CPU seconds and peak memory of a command."""
    command = [sys.executable, "-m", "alexnet", verb, *map(str, arguments)]
    launched = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, capture_output=True, text=True, check=True, env=_one_thread())
    seconds, megabytes, error = json.loads(done.stdout)
    if error:
        raise RuntimeError(f"{' '.join(command)}: {error}")
    return {"seconds": round(seconds, 2), "megabytes": round(megabytes)}


def _served(run: Path, data: Path) -> dict[str, Any]:
    """Until the page and the description of the network have been answered; the scan of the dataset goes on behind."""
    command = [sys.executable, "-m", "alexnet", "serve", str(run), "--data", str(data), "--port", "0"]
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_one_thread()
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip().rstrip("/")
            sizes = [len(_fetch(f"{address}{path}")) for path in ("/", "/v1/network")]
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
            fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / 100
            waited = time.perf_counter() - started
        finally:
            process.kill()
    return {
        "seconds": round(seconds, 2),
        "megabytes": round(int(memory) / 1024),
        "wall_seconds": round(waited, 2),
        "page_megabytes": round(sum(sizes) / 1e6, 3),
    }


def _fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=120) as response:
        return response.read()


def _write_files(folder: Path, count: int) -> None:
    """PNG files of noise in ten folders of classes."""
    rng = np.random.default_rng(0)
    for name in range(10):
        (folder / f"class {name}").mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class {number % 10}" / f"{number:07}.png", compress_level=0)


def figure(result: dict[str, Any]) -> Figure:
    """Draw time and memory against each axis, both in logarithms."""
    from alexnet.report.style import new

    axes_names = ["images", "classes", "side"]
    drawing = new(6.2, width=10.0)
    panels = drawing.subplots(2, 3, sharey="row")
    verbs = sorted({row["verb"] for row in result["series"]})
    markers = dict(zip(verbs, "osv^Dx*", strict=False))
    for column, axis in enumerate(axes_names):
        for row, (key, label) in enumerate((("seconds", "CPU seconds"), ("megabytes", "peak memory, MB"))):
            panel = panels[row][column]
            for one in result["series"]:
                if one["axis"] == axis:
                    xs, ys = ([point[name] for point in one["points"]] for name in ("value", key))
                    color = f"C{verbs.index(one['verb'])}"
                    panel.plot(xs, ys, marker=markers[one["verb"]], color=color, markersize=4, label=one["verb"])
            panel.set_xscale("log")
            panel.set_yscale("log")
            if row == 1:
                panel.set_xlabel({"side": "side of the photographs in pixels"}.get(axis, f"number of {axis}"))
            if column == 0:
                panel.set_ylabel(label)
    panels[0][0].legend(fontsize=7, frameon=False)
    return drawing
