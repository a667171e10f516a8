"""Sorting of what arrives in a folder, its log, the server that receives the results, and the days."""

import contextlib
import csv
import http.server
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_content import ByContent
from random_runs import make_run
from stripes import striped_image

from alexnet.inspection import journal, result_post, sort_session
from alexnet.inspection.drift import Validation, describe_day, summarize_days
from alexnet.inspection.journal import JOURNAL, Journal, Placement, open_journal
from alexnet.inspection.result_log import COLUMNS, open_log
from alexnet.inspection.sorting import sort_images, undo_sort
from alexnet.inspection.watching import watch_folder
from alexnet.runtime.errors import AlexNetError, UsageError

SETTLE = 0.4


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition is true; fail if it does not become so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


class Watching:
    """`watch_folder` in a thread."""

    def __init__(self, folder: Path, out: Path, **options: Any) -> None:
        self.stop, self.notes, self.placed = threading.Event(), [], []
        self.result: Any = None
        self.error: BaseException | None = None
        options = {"settle": SETTLE, "mode": "move", **options}

        def run() -> None:
            try:
                self.result = watch_folder(
                    ByContent(),
                    folder,
                    out,
                    stop=self.stop,
                    placed=self.placed.append,
                    note=self.notes.append,
                    **options,
                )
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def watching(folder: Path, out: Path, **options: Any) -> Iterator[Watching]:
    watch = Watching(folder, out, **options)
    try:
        yield watch
    finally:
        watch.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "camera").mkdir()
    return tmp_path / "camera"


def test_a_file_is_sorted_when_it_is_whole(folder: Path, tmp_path: Path) -> None:
    """Written slowly, renamed into the folder, in a new subfolder, empty at first; and one that was there before."""
    out = tmp_path / "out"
    (folder / "before.png").write_bytes(b"l9 before")
    with watching(folder, out) as watch:
        with (folder / "slow.png").open("wb", buffering=0) as file:
            for piece in (b"s", b"9", b" s", b"l", b"o", b"w"):
                time.sleep(SETTLE / 4)
                file.write(piece)
                assert not (out / "standing" / "slow.png").exists()
        (folder / "renamed.png.tmp").write_bytes(b"s8 renamed")
        (folder / "empty.png").touch()
        (folder / "sub").mkdir()
        (folder / "sub" / "deep.png").write_bytes(b"l7 deep")
        until(lambda: len(watch.placed) == 3)
        assert (folder / "renamed.png.tmp").exists()
        (folder / "renamed.png.tmp").rename(folder / "renamed.png")
        until(lambda: len(watch.placed) == 4)
        assert (folder / "empty.png").exists()
        (folder / "empty.png").write_bytes(b"l6 no longer empty")
        until(lambda: len(watch.placed) == 5)
    assert {p.name for p in (out / "standing").iterdir()} == {"slow.png", "renamed.png"}
    assert {p.name for p in (out / "lying").iterdir()} == {"before.png", "deep.png", "empty.png"}
    assert (out / "standing" / "slow.png").read_bytes() == b"s9 slow"
    assert [p.name for p in folder.rglob("*") if p.is_file()] == []
    assert len(watch.result.placements) == 5
    assert undo_sort(out)[0] == 5
    assert (folder / "sub" / "deep.png").exists()


def test_a_truncated_file_stays_is_named_once_and_is_sorted_when_the_rest_arrives(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with watching(folder, out) as watch:
        (folder / "cut.png").write_bytes(b"l")
        until(lambda: watch.notes)
        time.sleep(2 * SETTLE)
        assert [note.split(": ")[2] for note in watch.notes] == [
            "damaged; it stays there, and is tried again when it changes"
        ]
        assert (folder / "cut.png").exists()
        with (folder / "cut.png").open("ab") as file:
            file.write(b"9 rest")
        until(lambda: watch.placed)
    assert (out / "lying" / "cut.png").read_bytes() == b"l9 rest"


def test_a_copied_image_is_copied_again_only_when_it_changes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (folder / "a.png").write_bytes(b"l9 first")
    with watching(folder, out, mode="copy") as watch:
        until(lambda: watch.placed)
        time.sleep(2 * SETTLE)
        assert len(watch.placed) == 1
    with watching(folder, out, mode="copy") as watch:  # started again: the journal knows it
        time.sleep(3 * SETTLE)
        assert watch.placed == []
        (folder / "a.png").write_bytes(b"s9 second")
        until(lambda: watch.placed)
    assert (out / "lying" / "a.png").read_bytes() == b"l9 first"
    assert (out / "standing" / "a.png").read_bytes() == b"s9 second"


def test_a_folder_that_is_away_for_a_while_is_looked_at_again(folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path / "out") as watch:
        time.sleep(0.1)
        folder.rename(tmp_path / "away")
        until(lambda: watch.notes)
        (tmp_path / "away").rename(folder)
        (folder / "a.png").write_bytes(b"l9")
        until(lambda: watch.placed)
    assert sum("cannot be listed for now" in note for note in watch.notes) == 1


def test_a_file_that_another_program_has_open_is_moved_later(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows refuses it: the error has the number of a sharing violation."""
    transfer, refusals = journal._transfer, []

    def refuse_twice(placement: Placement) -> None:
        if len(refusals) < 2:
            refusals.append(placement)
            error = PermissionError(13, "in use")
            error.winerror = 32  # type: ignore[attr-defined]
            raise error
        transfer(placement)

    monkeypatch.setattr(journal, "_transfer", refuse_twice)
    out = tmp_path / "out"
    with watching(folder, out) as watch:
        (folder / "a.png").write_bytes(b"l9")
        until(lambda: watch.placed)
    assert len(refusals) == 2
    assert undo_sort(out) == (1, [])
    assert (folder / "a.png").read_bytes() == b"l9"


def test_unsure_and_unknown_images_have_their_folders(folder: Path, tmp_path: Path) -> None:
    for name, content in (("a", b"l9"), ("b", b"k9"), ("c", b"x9"), ("d", b"l2")):
        (folder / f"{name}.png").write_bytes(content)
    out = tmp_path / "out"
    result = sort_images(ByContent(), folder, out, unsure=tmp_path / "look", unsure_below=0.5)
    where = {Path(p.target).name: (Path(p.target).parent, p.decision) for p in result.placements}
    assert where == {
        "a.png": (out / "lying", "class"),
        "b.png": (tmp_path / "look", "unsure"),
        "c.png": (out / "unknown", "unknown"),
        "d.png": (tmp_path / "look", "unsure"),
    }
    undo_sort(out)
    assert not (tmp_path / "look").exists()


def test_invalid_settings_of_a_watch_are_named(folder: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"settle": 0}, "settle is 0"),
        ({"log": "results.txt"}, "must end in .csv"),
        ({"post": "camera.local/results"}, "no address of a server"),
    ):
        with pytest.raises(UsageError, match=message):
            watch_folder(ByContent(), folder, tmp_path / "out", stop=threading.Event(), **options)
    assert not (tmp_path / "out").exists()


# The log.


def rows(log: Path) -> list[dict[str, Any]]:
    """The rows of a CSV or SQLite log."""
    if log.suffix == ".csv":
        with log.open(newline="", errors="surrogateescape") as file:
            return list(csv.DictReader(file))
    with contextlib.closing(sqlite3.connect(log)) as database:
        return [dict(zip(COLUMNS, row, strict=True)) for row in database.execute("SELECT * FROM results ORDER BY id")]


@pytest.mark.parametrize("ending", ["csv", "sqlite"])
def test_a_log_has_every_result_once(folder: Path, tmp_path: Path, ending: str) -> None:
    log, out = tmp_path / f"log.{ending}", tmp_path / "out"
    names = ["a.png", 'quoted ".png', "two\nlines.png", os.fsdecode(b"\xb0\xa1.png")]
    for name in names:
        (folder / name).write_bytes(b"l9")
    sort_images(ByContent(), folder, out)  # without a log: it is caught up
    (folder / "b.png").write_bytes(b"x7")
    sort_images(ByContent(), folder, out, log=log)
    sort_images(ByContent(), folder, out, log=log)
    found = rows(log)
    assert [row["target"].rsplit("/", 1)[1] for row in found][-1] == "b.png"
    assert len({row["source"] for row in found}) == len(found) == 5
    assert (found[-1]["decision"], found[-1]["class"], float(found[-1]["probability"])) == ("unknown", "standing", 0.7)
    assert found[-1]["time"].startswith(time.strftime("%Y-%m-%dT"))
    undo_sort(out)
    sort_images(ByContent(), folder, out, log=log)  # another journal, with the same numbers
    assert len(rows(log)) == 10


def test_a_row_that_a_kill_cut_is_written_again(folder: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log.csv", tmp_path / "out"
    for name in ("a.png", "two\nlines.png"):
        (folder / name).write_bytes(b"l9")
    sort_images(ByContent(), folder, out, log=log)
    whole = log.read_bytes()
    with open_journal(out) as journal:
        for length in range(len(whole)):
            log.write_bytes(whole[:length])
            with open_log(log, journal):
                pass
            assert log.read_bytes() == whole


def test_a_file_that_is_no_log_is_refused_and_unchanged(folder: Path, tmp_path: Path) -> None:
    for name, content in (("a.csv", b"path,label\nx,y\n"), ("b.csv", b'one "'), ("c.db", b"no database" * 100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AlexNetError, match=f"{name} (is another file|cannot be used)"):
            sort_images(ByContent(), folder, tmp_path / "out", log=tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_a_csv_has_one_writer_and_a_database_several(tmp_path: Path) -> None:
    with open_journal(tmp_path / "1") as one, open_journal(tmp_path / "2") as two:
        with (
            open_log(tmp_path / "a.csv", one),
            pytest.raises(AlexNetError, match="another `alexnet sort` writes to"),
            open_log(tmp_path / "a.csv", two),
        ):
            pass
        with open_log(tmp_path / "a.db", one) as first, open_log(tmp_path / "a.db", two) as second:
            for number, log in enumerate((first, second)):
                log.append(Placement(0, "copy", "a.png", f"{number}.png", 1, 1, "lying", 0.5, time=1.0))
    assert [row["target"] for row in rows(tmp_path / "a.db")] == ["0.png", "1.png"]


# The server.


class Receiver:
    """A server on loopback that answers each request with the next of `answers`, or the last one."""

    def __init__(self, *answers: int, port: int = 0) -> None:
        self.received: list[dict[str, Any]] = []
        left = list(answers)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                code = left.pop(0) if len(left) > 1 else left[0]
                if code == 200:
                    receiver.received.append(json.loads(content))
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/results"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Receiver]]:
    """A function that starts a `Receiver`; attempts are repeated quickly."""
    monkeypatch.setattr(result_post, "FIRST_PAUSE", 0.05)
    started = []

    def start(*answers: int, port: int = 0) -> Receiver:
        started.append(Receiver(*answers, port=port))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_results_arrive_in_order_and_failures_are_repeated(
    folder: Path, tmp_path: Path, receiver: Callable[..., Receiver], capsys: pytest.CaptureFixture[str]
) -> None:
    server = receiver(503, 500, 200, 400, 200)  # twice down, one result refused
    for number in range(4):
        (folder / f"{number}.png").write_bytes(b"l9")
    result = sort_images(ByContent(), folder, tmp_path / "out", post=server.address)
    assert result.not_sent == 0
    assert [Path(message["source"]).name for message in server.received] == ["0.png", "2.png", "3.png"]
    assert {message["label"] for message in server.received} == {"lying"}
    assert [message["id"] for message in server.received] == [0, 2, 3]
    err = capsys.readouterr().err
    assert err.count("does not receive results (Service Unavailable)") == 1
    assert "receives results again" in err
    assert "refuses result 1: 400" in err


def test_a_server_that_is_down_delays_nothing_and_gets_the_results_later(
    folder: Path, tmp_path: Path, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sort_session, "SEND_FOR", 0.3)
    server = receiver(200)
    address, port = server.address, server.server.server_port
    server.close()
    out = tmp_path / "out"
    for number in range(20):
        (folder / f"{number:02}.png").write_bytes(b"l9")
    result = sort_images(ByContent(), folder, out, post=address)
    assert (len(result.placements), result.not_sent) == (20, 20)
    again = receiver(200, port=port)
    monkeypatch.setattr(sort_session, "SEND_FOR", 10)
    (folder / "new.png").write_bytes(b"s9")
    assert sort_images(ByContent(), folder, out, post=address).not_sent == 0
    assert [message["id"] for message in again.received] == [*range(21)]


def test_results_of_before_the_first_use_are_not_sent(
    folder: Path, tmp_path: Path, receiver: Callable[..., Receiver]
) -> None:
    server = receiver(200)
    (folder / "0.png").write_bytes(b"l9")
    sort_images(ByContent(), folder, tmp_path / "out")
    (folder / "1.png").write_bytes(b"l9")
    sort_images(ByContent(), folder, tmp_path / "out", post=server.address)
    assert [Path(message["source"]).name for message in server.received] == ["1.png"]


# The days.


def day_of_placements(day: int, confidence: float, unknown: int, images: int = 200) -> list[Placement]:
    rng = np.random.default_rng(day)
    noon = time.mktime((2026, 5, day, 12, 0, 0, 0, 0, -1))
    return [
        Placement(
            number,
            "move",
            "a",
            "b",
            1,
            1,
            "lying",
            float(np.clip(rng.normal(confidence, 0.03), 0, 1)),
            "unknown" if number < unknown else "class",
            time=noon,
        )
        for number in range(images)
    ]


def test_a_day_that_differs_from_validation_is_marked() -> None:
    rng = np.random.default_rng(9)
    validation = Validation(np.clip(rng.normal(0.9, 0.03, 500), 0, 1), 0.0, 0.01, 500)
    placements = [*day_of_placements(4, 0.9, 2), *day_of_placements(5, 0.85, 2), *day_of_placements(6, 0.9, 20)]
    days = summarize_days(placements, validation)
    assert [(day.day, day.images, day.differs) for day in days] == [
        ("2026-05-04", 200, ()),
        ("2026-05-05", 200, ("confidence",)),
        ("2026-05-06", 200, ("unknown",)),
    ]
    line = describe_day(days[2], validation)
    assert line.startswith("2026-05-06: 200 images; median confidence 9")
    assert line.endswith("unknown 10.0% (1.0%); differs from validation: unknown")
    assert "differs" not in describe_day(summarize_days(placements, None)[2], None)


def test_the_end_of_a_day_is_noted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = ["2026-05-04"]
    monkeypatch.setattr("alexnet.inspection.watching.day_of", lambda _: days[0])
    monkeypatch.setattr("alexnet.inspection.drift.day_of", lambda _: days[0])
    with watching(folder, tmp_path / "out") as watch:
        (folder / "a.png").write_bytes(b"l9")
        until(lambda: watch.placed)
        monkeypatch.setattr("alexnet.inspection.watching.day_of", lambda _: "2026-05-05")
        until(lambda: watch.notes)
        assert watch.notes[0].startswith("2026-05-04: 1 image; median confidence 90.0%")


# The command.


@pytest.fixture(scope="module")
def run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "run", striped_data, seed=0, variant="convolutions")


def test_the_command_watches_obeys_the_rule_survives_a_kill_and_summarizes(
    run: Path, striped_data: Path, folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    decided = command("decide", run, "--data", striped_data, "--unsure", "0.3")
    assert decided.returncode == 0, decided.stderr
    out, log = tmp_path / "out", tmp_path / "log.sqlite"
    arguments = [sys.executable, "-m", "alexnet", "sort", str(run), str(folder), "--to", str(out), "--move", "--watch"]
    arguments += ["--settle", str(SETTLE), "--log", str(log)]
    rng = np.random.default_rng(0)
    finished: list[str] = []
    for attempt, end in enumerate((signal.SIGKILL, signal.SIGTERM)):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for number in range(6):
                striped_image(rng, number % 2 == 0, 72).save(folder / f"{attempt}-{number}.png")
            placed = lambda n=6 * (attempt + 1): sum(1 for _ in out.glob("*/*.png")) == n  # noqa: E731
            until(placed, 60)
            process.send_signal(end)
            stdout, stderr = process.communicate(timeout=30)
            finished.append(stdout)
            assert process.returncode == (-signal.SIGKILL if end == signal.SIGKILL else 0), stderr
    assert not list(folder.iterdir())
    journal = Journal(out, write=False)
    assert len(rows(log)) == len(journal.placements) == 12
    decisions = {Path(p.source).name: p.decision for p in journal.placements.values()}
    assert set(decisions.values()) <= {"class", "unsure"}
    assert {p.parent.name for p in out.glob("*/*.png")} == {p.answer for p in journal.placements.values()}
    assert len([line for line in finished[1].splitlines() if "1-" in line]) == 6
    summary = command("sort", "--summary", "--to", out, "--json")
    told = json.loads(summary.stdout)
    assert summary.returncode == 0
    assert sum(day["images"] for day in told["days"]) == 12
    assert told["validation"]["images"] == 24
    assert (out / "sort-days.png").read_bytes().startswith(b"\x89PNG")
    assert "(validation: " in command("sort", "--summary", "--to", out).stdout
    assert command("sort", "--undo", "--to", out).returncode == 0
    assert len(list(folder.iterdir())) == 12
    assert not (out / JOURNAL).exists()
