"""Fuzzing of `prepare`, `predict` and `serve` with damaged image files of every format.

    python tests/fuzz/fuzz.py [--files 20000] [--seed 0] [--results docs/results/fuzz.json]

Every tenth file is sound. Each file is decoded alone. Then each of the three, a process of its own, gets all files:
`prepare` and `predict` as a folder, the server by HTTP on loopback, each file alone and in requests of several. The
result counts the outcomes of the files by format and mutation; whatever contradicts these statements is listed under
`findings`, and the exit code is then 1:

- No process crashes, none prints a traceback or lines of decoding libraries, and exit codes are as documented.
- Every file is either processed or named with a reason of one line.
- Every sound file is processed as if it were alone: the same pixels, the same label, the same probability.
- The server answers 200, 413, 415 or 422, and drops no connection.
- No file takes more than 5 seconds, and memory stays within the limit of each process (`MEMORY_LIMITS`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does

from damaged_files import FuzzedFile, SoundFile, fuzzed_file, sound_files
from processes import Finished, MemoryWatch, alexnet_command, run_watched
from random_runs import make_run
from stripes import striped_image

from alexnet import Classifier
from alexnet.data.dataset import PreparedDataset
from alexnet.data.decoding import square_image
from alexnet.data.preparation import prepare
from alexnet.data.unreadable import UnreadableImageError
from alexnet.runtime.provenance import provenance, write_result

SIZE = 40
SOUND_EVERY = 10
CLASSES = ("lying", "standing")
FILE_SECONDS = 5.0
MEMORY_LIMITS = {"prepare": 6e9, "predict": 3.5e9, "serve": 2e9}
"""Bytes. A decoder takes up to 8 bytes per pixel: 2 GB at the default limit of 250 megapixels, one such image at a time
in a process. A process has 0.5 GB of its own, and images below 50 megapixels are decoded by two threads at once (0.8
GB at most): 3.5 GB for `predict`, which has the network too; 6 GB for `prepare` with two workers and their parent;
2 GB for the server, whose limit is 50 megapixels."""
TOLERANCE = 1e-5  # the sums of a batch of another size are rounded differently
REQUEST_FILES = 16
CLIENTS = 4
BAD_STATUSES = (413, 415, 422)
FINDINGS_LISTED = 50
OWN_LINES = {
    "prepare": re.compile(
        r"the shorter side of the images has |small objects may vanish: |"
        r"/.* \(folder\): |[0-9,]+ images? (have|has|lies?) |[0-9,]+ of [0-9,]+ images? |images: |prepared |"
        r"warning: [0-9,]+ pairs? of (equal|nearly equal) images in |  .*\(\w+, \w+\) [=≈] .*\(\w+, \w+\)$|"
        r"  and [0-9,]+ more, the first |  kept: accuracies on val and test are too high "
    ),
    "predict": re.compile(r"alexnet: |classify: |[0-9,]+ of [0-9,]+ images? (have|has) "),
    "serve": re.compile("alexnet: |press Ctrl-C|stopped"),
}
"""Beginnings of the lines that the stages themselves write on stderr."""
BOUNDARY = "fuzzed-file-boundary"


@dataclass
class Tally:
    """The outcomes of the files, and the contradictions found."""

    files: Sequence[FuzzedFile]
    outcomes: dict[str, dict[int, str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, stage: str, number: int, outcome: str) -> None:
        """Record the outcome of file `number` in a stage."""
        with self._lock:
            self.outcomes.setdefault(stage, {})[number] = outcome

    def find(self, text: str) -> None:
        """Record a contradiction."""
        with self._lock:
            self.findings.append(text)

    def counts(self, attribute: str) -> dict[str, dict[str, dict[str, int]]]:
        """Format or mutation → stage → outcome → number of files."""
        found: dict[str, dict[str, Counter[str]]] = {}
        for stage, outcomes in self.outcomes.items():
            for number, outcome in outcomes.items():
                group = found.setdefault(getattr(self.files[number], attribute), {})
                group.setdefault(stage, Counter())[outcome] += 1
        return {
            name: {stage: dict(sorted(counts.items())) for stage, counts in stages.items()}
            for name, stages in sorted(found.items())
        }

    def totals(self, stage: str) -> dict[str, int]:
        """Outcome → number of files."""
        return dict(sorted(Counter(self.outcomes.get(stage, {}).values()).items()))


class Answer(NamedTuple):
    """Label and probability of a sound file that is classified alone."""

    label: str
    probability: float


def fuzz(files: int, seed: int, folder: Path) -> dict[str, Any]:
    """Send files through the three processes.

    Parameters
    ----------
    files : int
        Number of files.
    seed : int
        Determines all files.
    folder : pathlib.Path
        An empty folder for everything that is written.

    Returns
    -------
    dict
        The result, JSON-serializable; `findings` is empty if all statements hold.
    """
    pool = sound_files(seed)
    sent = [fuzzed_file(number, seed, pool, SOUND_EVERY) for number in range(files)]
    tally = Tally(sent)
    run = _network(folder, seed)
    source = folder / "files"
    for name in CLASSES:
        (source / name).mkdir(parents=True)
    for number, file in enumerate(sent):
        (source / CLASSES[number // SOUND_EVERY % 2] / file.name).write_bytes(file.data)
    answers = _answers_alone(run, pool)
    stages = {
        "decode": _decode(tally, source),
        "prepare": _prepare(tally, source, folder / "prepared", pool),
        "predict": _predict(tally, source, run, answers),
        "serve": _serve(tally, run, answers),
    }
    _check_agreement(tally)
    for name, stage in stages.items():
        if name in MEMORY_LIMITS and stage["peak memory (MB)"] * 1e6 > MEMORY_LIMITS[name]:
            tally.find(f"{name}: {stage['peak memory (MB)']:,} MB, more than {MEMORY_LIMITS[name] / 1e6:,.0f}")
    return {
        "description": "damaged image files of every format through prepare, predict and the server",
        "files": files,
        "sound files": sum(file.sound is not None for file in sent),
        "seed": seed,
        "limits": {
            "seconds for a file": FILE_SECONDS,
            "memory (MB)": {name: int(limit / 1e6) for name, limit in MEMORY_LIMITS.items()},
        },
        "findings": tally.findings[:FINDINGS_LISTED],
        "number of findings": len(tally.findings),
        "stages": {name: {"outcomes": tally.totals(name), **stage} for name, stage in stages.items()},
        "formats": tally.counts("format"),
        "mutations": tally.counts("mutation"),
    }


def _network(folder: Path, seed: int) -> Path:
    """A run folder of a small network with random weights."""
    rng = np.random.default_rng(seed)
    images = [(np.asarray(striped_image(rng, bool(i % 2), SIZE)), CLASSES[i % 2]) for i in range(12)]
    prepare(images, folder / "data", size=SIZE, progress=False, workers=1)
    return make_run(folder / "run", folder / "data", seed, crop_size=32, variant="cifar-18pct")


def _answers_alone(run: Path, pool: Sequence[SoundFile]) -> list[Answer | None]:
    classifier = Classifier.load(run, device="cpu")
    answers: list[Answer | None] = []
    for file in pool:
        if file.format == "tga":
            answers.append(None)
            continue
        (result,) = classifier.predict([file.data])
        answers.append(Answer(result.label, result.probability))
    return answers


def _number(name: str) -> int:
    """The number of a file from its path."""
    return int(name.rpartition("/")[2][:6])


def _check_process(tally: Tally, stage: str, done: Finished, code: int, limit: float) -> dict[str, Any]:
    if done.code is None:
        tally.find(f"{stage}: not finished after {limit:.0f} seconds")
    elif done.code != code:
        tally.find(f"{stage}: exit code {done.code} instead of {code}: {' | '.join(done.stderr[-5:])[-500:]}")
    if any("Traceback" in line for line in done.stderr):
        tally.find(f"{stage}: a traceback: {' | '.join(done.stderr[-5:])[-500:]}")
    return {"seconds": round(done.seconds, 1), "peak memory (MB)": round(done.peak_bytes / 1e6)}


def _check_reason(tally: Tally, stage: str, name: str, reason: str) -> None:
    if not reason.strip() or len(reason.splitlines()) > 1:
        tally.find(f"{stage}: {name}: the reason is not one line: {reason[:200]!r}")


def _check_all_named(tally: Tally, stage: str) -> None:
    """Each file has an outcome, and each sound one was processed."""
    outcomes = tally.outcomes.get(stage, {})
    for number, file in enumerate(tally.files):
        if number not in outcomes:
            tally.find(f"{stage}: {file.name} is neither processed nor named")
        elif file.sound is not None and outcomes[number] != "processed":
            tally.find(f"{stage}: {file.name} is sound and was refused: {outcomes[number]}")


def _decode(tally: Tally, source: Path) -> dict[str, Any]:
    """Decode each file alone, in a process of its own, with the default limit of pixels."""
    started = time.monotonic()
    paths = sorted(source.glob("*/*"), key=lambda path: path.name)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        found = process.submit(_decode_each, paths).result()
    for number, (outcome, _) in enumerate(found):
        tally.record("decode", number, outcome)
    _check_all_named(tally, "decode")
    seconds = {number: duration for number, (_, duration) in enumerate(found)}
    return {
        "seconds": round(time.monotonic() - started, 1),
        "slowest file": _slowest(tally, "decode", seconds),
    }


def _decode_each(paths: Sequence[Path]) -> list[tuple[str, float]]:
    """Outcome and seconds of each file; the least of three times where one is long, as other processes may delay it."""
    warnings.simplefilter("ignore")
    found = []
    for path in paths:
        outcome, seconds = _decode_one(path)
        if seconds > FILE_SECONDS / 2:
            seconds = min(seconds, _decode_one(path)[1], _decode_one(path)[1])
        found.append((outcome, seconds))
    return found


def _decode_one(path: Path) -> tuple[str, float]:
    data, started = path.read_bytes(), time.monotonic()
    try:
        square_image(data, SIZE)
        outcome = "processed"
    except UnreadableImageError:
        outcome = "named"
    return outcome, time.monotonic() - started


def _slowest(tally: Tally, stage: str, seconds: Mapping[int, float]) -> dict[str, Any]:
    """The slowest file; files that took too long are findings."""
    for number, duration in seconds.items():
        if duration > FILE_SECONDS:
            tally.find(f"{stage}: {tally.files[number].name}: {duration:.1f} seconds")
    number = max(seconds, key=seconds.__getitem__)
    file = tally.files[number]
    entry = {"name": file.name, "format": file.format, "mutation": file.mutation}
    return {**entry, "seconds": round(seconds[number], 3)}


def _time_limit(files: int) -> float:
    return 120 + 0.1 * files


def _prepare(tally: Tally, source: Path, data: Path, pool: Sequence[SoundFile]) -> dict[str, Any]:
    limit = _time_limit(len(tally.files))
    arguments = ("prepare", source, data, "--size", SIZE, "--max-bad", "100%", "--workers", 2)
    done = run_watched(alexnet_command(*arguments), limit)
    result = _check_process(tally, "prepare", done, 0, limit)
    if done.code != 0:
        return result
    dataset = PreparedDataset.open(data)
    for entry in dataset.left_out:
        tally.record("prepare", _number(entry["path"]), "named")
        _check_reason(tally, "prepare", entry["path"], entry["reason"])
    expected: dict[int, np.ndarray] = {}
    for name in dataset.splits:
        split = dataset.split(name)
        for position in range(len(split)):
            number = _number(split.paths(position))
            tally.record("prepare", number, "processed")
            sound = tally.files[number].sound
            if sound is not None:
                if sound not in expected:
                    expected[sound] = square_image(pool[sound].data, SIZE, pixel_range=dataset.pixel_range)
                if not np.array_equal(split[position][0], expected[sound]):
                    tally.find(f"prepare: {tally.files[number].name}: other pixels than alone")
    _check_all_named(tally, "prepare")
    _check_lines(tally, "prepare", done.stderr)
    return result


def _check_lines(tally: Tally, stage: str, lines: Sequence[str]) -> None:
    """Only `alexnet` writes on stderr: a line of a decoder names no file."""
    for line in lines:
        if not OWN_LINES[stage].match(line):
            tally.find(f"{stage}: on stderr: {line[:200]}")


def _predict(tally: Tally, source: Path, run: Path, answers: Sequence[Answer | None]) -> dict[str, Any]:
    limit = _time_limit(len(tally.files))
    done = run_watched(alexnet_command("predict", run, source, "--json", "--device", "cpu"), limit)
    named = [line for line in done.stderr if line.startswith("alexnet: ") and ": " in line[9:]]
    result = _check_process(tally, "predict", done, 1 if named else 0, limit)
    for line in named:
        name, _, reason = line[9:].partition(": ")
        tally.record("predict", _number(name), "named")
        _check_reason(tally, "predict", name, reason)
    try:
        entries = json.loads("\n".join(done.stdout))
    except ValueError as error:
        tally.find(f"predict: stdout is not JSON: {error}")
        return result
    for entry in entries:
        number = _number(entry["source"])
        tally.record("predict", number, "processed")
        _check_answer(tally, "predict", number, entry, answers)
    _check_all_named(tally, "predict")
    _check_lines(tally, "predict", done.stderr)
    return {**result, "longest pause between two lines (s)": round(done.longest_pause, 2)}


def _check_answer(
    tally: Tally, stage: str, number: int, entry: Mapping[str, Any], answers: Sequence[Answer | None]
) -> None:
    label, probability = entry["label"], entry["probability"]
    file = tally.files[number]
    if label not in CLASSES or not math.isfinite(probability) or not 0 <= probability <= 1 + TOLERANCE:
        tally.find(f"{stage}: {file.name}: label {label!r} with probability {probability}")
    if file.sound is None:
        return
    alone = answers[file.sound]
    assert alone is not None
    if label != alone.label or abs(probability - alone.probability) > TOLERANCE:
        tally.find(f"{stage}: {file.name}: {label} {probability}, and alone {alone.label} {alone.probability}")


def _serve(tally: Tally, run: Path, answers: Sequence[Answer | None]) -> dict[str, Any]:
    started = time.monotonic()
    seconds: dict[int, float] = {}
    with tempfile.TemporaryFile() as log:
        with _server(run, log) as (address, process):
            memory = MemoryWatch(process.pid)
            clients = _Clients(tally, address, answers, seconds)
            try:
                with ThreadPoolExecutor(CLIENTS) as threads:
                    list(threads.map(clients.send_alone, range(len(tally.files))))
                    starts = range(0, len(tally.files), REQUEST_FILES)
                    list(threads.map(clients.send_together, starts))
                if process.poll() is not None:
                    tally.find(f"serve: the process ended with code {process.returncode}")
            finally:
                memory.stop()
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").splitlines()
    _check_lines(tally, "serve", lines)
    _check_all_named(tally, "serve")
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak memory (MB)": round(memory.peak / 1e6),
        "requests": len(tally.files) + len(starts),
        "slowest file": _slowest(tally, "serve", seconds),
        "statuses": dict(sorted(clients.statuses.items())),
        "dropped connections": clients.dropped,
    }


@contextmanager
def _server(run: Path, log: Any) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `alexnet serve` on a free port of loopback: its address and its process."""
    command = alexnet_command("serve", run, "--port", 0, "--device", "cpu")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().decode().strip()
        if not address:
            raise RuntimeError("the server has not started")
        yield address, process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class _Clients:
    """Sends files to the server, over one connection for each thread."""

    def __init__(self, tally: Tally, address: str, answers: Sequence[Answer | None], seconds: dict[int, float]) -> None:
        self.tally, self.answers, self.seconds = tally, answers, seconds
        self.statuses: Counter[str] = Counter()
        self.dropped = 0
        self._place = urlsplit(address).netloc
        self._local = threading.local()

    def send_alone(self, number: int) -> None:
        """Send a file as the body of a request."""
        file = self.tally.files[number]
        started = time.monotonic()
        status, body = self._post(file.data, "application/octet-stream", file.name)
        self.seconds[number] = time.monotonic() - started
        if status == 200:
            self.tally.record("serve", number, "processed")
            (entry,) = body["predictions"]
            _check_answer(self.tally, "serve", number, entry, self.answers)
        elif status in BAD_STATUSES:
            self.tally.record("serve", number, str(status))
            _check_reason(self.tally, "serve", file.name, body["detail"])
        else:
            self.tally.record("serve", number, f"status {status}")
            self.tally.find(f"serve: {file.name}: status {status}: {str(body)[:200]}")

    def send_together(self, start: int) -> None:
        """Send several files in a request."""
        files = self.tally.files[start : start + REQUEST_FILES]
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'.encode()
            + file.data
            + b"\r\n"
            for file in files
        ]
        content = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
        name = f"the request that begins with {files[0].name}"
        status, body = self._post(content, f"multipart/form-data; boundary={BOUNDARY}", name)
        if status != 200:
            all_damaged = all(file.sound is None for file in files)
            if status not in BAD_STATUSES or not all_damaged:
                self.tally.find(f"serve: {name}: status {status}: {str(body)[:200]}")
            return
        entries = body["predictions"]
        if [entry["source"] for entry in entries] != [file.name for file in files]:
            self.tally.find(f"serve: {name}: an entry is missing or out of order")
            return
        for number, entry in enumerate(entries, start):
            outcome = str(entry["error"]["status"]) if "error" in entry else "processed"
            if "error" in entry:
                _check_reason(self.tally, "serve", entry["source"], entry["error"]["reason"])
            else:
                _check_answer(self.tally, "serve", number, entry, self.answers)
            alone = self.tally.outcomes["serve"].get(number)
            if outcome != alone:
                reason = f" ({entry['error']['reason']})" if "error" in entry else ""
                self.tally.find(f"serve: {entry['source']}: {outcome} with others{reason}, {alone} alone")

    def _post(self, content: bytes, kind: str, name: str) -> tuple[int, Any]:
        """Status and JSON of the answer; status 0 when the connection was dropped."""
        try:
            if not hasattr(self._local, "connection"):
                self._local.connection = http.client.HTTPConnection(self._place, timeout=60)
            self._local.connection.request("POST", "/v1/predict", content, {"Content-Type": kind})
            response = self._local.connection.getresponse()
            answer = response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._local.connection.close()
            with self.tally._lock:
                self.dropped += 1
            return 0, f"no answer to {name}: {error!r}"
        with self.tally._lock:
            self.statuses[str(answer[0])] += 1
        return answer


def _check_agreement(tally: Tally) -> None:
    """`prepare` and `predict` have the same limits, and read the same files."""
    prepared, predicted = tally.outcomes.get("prepare", {}), tally.outcomes.get("predict", {})
    for number in prepared.keys() & predicted.keys():
        if prepared[number] != predicted[number]:
            name = tally.files[number].name
            tally.find(f"{name}: {prepared[number]} by prepare, {predicted[number]} by predict")


def main() -> int:
    """Run the command line; the exit code is 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, metavar="N", help="number of files (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="determines all files (default: 0)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the result there (default: print it)")
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    command = f"python tests/fuzz/fuzz.py --files {options.files} --seed {options.seed}"
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(options.files, options.seed, Path(folder)) | provenance(command)
    if options.results is None:
        print(json.dumps(result, indent=1))
    else:
        write_result(options.results, result)
    for finding in result["findings"]:
        print(finding, file=sys.stderr)
    return 1 if result["number of findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
