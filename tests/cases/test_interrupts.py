"""Ctrl-C in the work of each verb: exit code 130, one line, no traceback, and nothing that is half-written.

That of `train` is in tests/training/test_resume.py, that of `serve` in tests/serve/test_api.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_runs import SMALL_TRAINING, make_run

from alexnet.runtime.progress import Progress
from alexnet.weights import exporting

OPTIONS = [part for name, value in SMALL_TRAINING.items() for part in (f"--{name.replace('_', '-')}", str(value))]
OPTIONS = [*OPTIONS, "--device", "cpu"]
OPTIONS.remove("--views")
OPTIONS.remove("1")


@pytest.fixture(scope="module")
def run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", striped_data, seed=1, variant="convolutions")


VERBS: dict[str, Callable[[Path, Path, Path], list[Any]]] = {
    "prepare": lambda run, data, images: ["prepare", images, "out", "--size", 40],
    "crossval": lambda run, data, images: ["crossval", data, "--out", "out", "--folds", 2, *OPTIONS],
    "evaluate": lambda run, data, images: ["evaluate", run, "--data", data],
    "predict": lambda run, data, images: ["predict", run, images],
    "sort": lambda run, data, images: ["sort", run, images, "--to", "out"],
    "search": lambda run, data, images: ["search", run, images / "train/lying/0000.png", "--data", data],
    "decide": lambda run, data, images: ["decide", run, "--data", data, "--split", "val"],
    "report": lambda run, data, images: ["report", run, "--data", data, "--out", "out"],
    "compare": lambda run, data, images: ["compare", run, run, "--data", data],
    "export": lambda run, data, images: ["export", run, "--to", "hub", "--out", "out"],
}
RESUMABLE = {"prepare", "crossval", "sort"}
"""Verbs that keep what is done, and go on with it."""


class Press:
    """In the place of a function, it presses Ctrl-C when it is first called."""

    pressed = False

    def __call__(self, *_: object, **__: object) -> None:
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def interruption(press: Press, done: Any) -> str:
    """The one line that an interrupted command said."""
    assert press.pressed
    assert done.returncode == 130
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("alexnet: ")]
    assert "Traceback" not in done.stderr
    return said


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_in_the_work_of_a_verb(
    verb: str,
    run: Path,
    striped_data: Path,
    interrupted_images: Path,
    tmp_path: Path,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The signal comes after the first item; that of export, while the exported file is compared with the run."""
    monkeypatch.chdir(tmp_path)
    press = Press()
    monkeypatch.setattr(Progress, "advance", press)
    monkeypatch.setattr(exporting, "_difference", press)
    before = {path for path in run.rglob("*") if path.name != "search"}
    done = command(*VERBS[verb](run, striped_data, interrupted_images))
    said = interruption(press, done)
    assert "interrupted" in said or "continue" in done.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    assert {path.name for path in run.rglob("*") if path not in before and path.is_file()} <= {"lock"}
    if verb not in RESUMABLE:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        pytest.param(
            ["learn", "--no-browser"], "http.server.ThreadingHTTPServer.serve_forever", marks=pytest.mark.long
        ),
        (["learn", "--out", "out"], "alexnet.learn.pages.write_atomic"),
        (["bench", "--only", "lrn", "--results", "out"], "alexnet.bench.lrn.in_turn"),
        pytest.param(
            ["reproduce", "views", "--quick", "--data", "IMAGES", "--out", "out", "--seeds", "0", "1"],
            "alexnet.runtime.progress.Progress.advance",
            marks=pytest.mark.long,
        ),
    ],
    ids=["learn", "learn --out", "bench", "reproduce"],
)
def test_ctrl_c_in_a_course_a_benchmark_and_an_experiment(
    arguments: list[str],
    place: str,
    interrupted_images: Path,
    tmp_path: Path,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    press = Press()
    monkeypatch.setattr(place, press)
    done = command(*(str(interrupted_images) if part == "IMAGES" else part for part in arguments))
    interruption(press, done)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.glob("alexnet-*"))
    assert not list(tmp_path.glob("out/*.json"))
    assert not list(tmp_path.rglob("full-1-quick"))  # the second training


@pytest.fixture(scope="module")
def interrupted_images(striped_folder: Callable[..., Path]) -> Path:
    return striped_folder(4, 5, 72, ("train",))


@pytest.mark.parametrize("place", ["destructor", "ImportError"])
def test_ctrl_c_is_not_lost_where_python_loses_or_replaces_it(
    place: str, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a destructor is printed and forgotten; a module in machine code may raise another one instead."""

    class Interrupted:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    def work(*_: object) -> int:
        if place == "destructor":
            Interrupted()
            time.sleep(10)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ImportError("failed to initialize") from None
        return 0

    monkeypatch.setattr("alexnet.cli.variants.run", work)
    start = time.monotonic()
    done = command("variants")
    assert time.monotonic() - start < 5
    assert (done.returncode, done.stderr) == (130, "alexnet: interrupted\n")


@pytest.mark.parametrize("module", ["alexnet.cli.main", "alexnet.cli.variants", "in exec", "at the end"])
def test_ctrl_c_from_the_first_module_to_the_end_of_the_process(module: str, tmp_path: Path) -> None:
    """Also in modules that are loaded before the command line can catch an exception, and while Python ends."""
    code = f"""
import atexit, os, signal, sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
if {module!r} == "at the end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
from alexnet.__main__ import main
if {module!r} == "in exec":  # as a dataclass is made
    from alexnet.cli import variants
    variants.run = lambda options: exec("os.kill(os.getpid(), signal.SIGINT)")
sys.exit(main())
"""
    line = [sys.executable, "-c", code, "variants"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)
    if module == "at the end":  # the work is done, whatever the moment
        assert (done.returncode, done.stderr) == (0, "")
        assert "paper" in done.stdout
    else:
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "alexnet: interrupted\n")


def test_ctrl_c_while_modules_are_loaded(tmp_path: Path) -> None:
    """The signal comes while torch is imported, which takes a second."""
    code = """
import builtins, os, signal, sys
from alexnet.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
load = builtins.__import__
def slow(name, *rest, **more):
    if name == "torch":
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *rest, **more)
builtins.__import__ = slow
sys.exit(main(["evaluate", "run", "--data", "data"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "alexnet: interrupted\n")
