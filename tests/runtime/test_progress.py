"""Progress on a terminal, and in a file or a pipe."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet.runtime.progress import format_duration, format_rate, progress

WORK = """
import time
from alexnet.runtime.progress import progress
with progress(30, "classify") as bar:
    for i in range(30):
        time.sleep(0.05)
        if i % 10 == 5:
            bar.result(f"result {i}")
            bar.note(f"note {i}")
        bar.advance(loss="0.31")
"""


def on_terminal(stdout: int | None) -> tuple[bytes, bytes]:
    """Run `WORK` with stderr on a terminal, and stdout too unless it is a pipe: (terminal, pipe)."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=stdout or slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    piped, _ = process.communicate()
    os.close(master)
    assert process.returncode == 0
    return shown, piped or b""


def test_a_bar_on_the_terminal_does_not_enter_piped_results() -> None:
    shown, piped = on_terminal(subprocess.PIPE)
    assert piped == b"result 5\nresult 15\nresult 25\n"
    assert b"result" not in shown
    assert b"note 25\r\n" in shown
    assert "━".encode() in shown
    assert b"classify: 30/30" in shown
    assert b"loss 0.31" in shown


def test_results_on_the_same_terminal_are_separate_lines() -> None:
    shown, _ = on_terminal(None)
    for number in (5, 15, 25):
        assert f"result {number}\r\n".encode() in shown


def test_without_a_terminal_progress_is_plain_lines_on_stderr(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["result 5", "result 15", "result 25"]
    notes, last = done.stderr.splitlines()[:-1], done.stderr.splitlines()[-1]
    assert notes == ["note 5", "note 15", "note 25"]
    assert last.startswith("classify: 30/30 · ")
    assert last.endswith(" · loss 0.31")


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "classify") as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""


def test_the_time_left_is_estimated_without_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    with progress(1000, "training", silent=True) as bar:
        seconds = 20.0
        bar.advance(10)
        assert bar.line() == "training: 10/1,000 · 0.5/s · 20 s"
        seconds = 21.0
        bar.advance(10)
        assert bar.line() == "training: 20/1,000 · 0.952/s · 1:38 min left"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_rate(0.25), "0.25/s"),
        (format_rate(31.62), "31.6/s"),
        (format_rate(12345.6), "12,346/s"),
        (format_duration(8.4), "8 s"),
        (format_duration(185), "3:05 min"),
        (format_duration(7800), "2:10:00 h"),
    ],
)
def test_rates_and_durations_as_text(text: str, expected: str) -> None:
    assert text == expected
