"""The cost of HTTP: `alexnet serve` against the same network in the same process.

    python benchmarks/serve.py [--run RUN] [--images FOLDER] [--rounds 7] [--out FOLDER]

Both sides get the same JPEG files and answer with the same labels. Latency: one image after the other, by
`Classifier.predict` here and by POST /v1/predict. Throughput: 32 clients, each sending its next image when it has
the answer to its last, against `Classifier.predict` of as many files in batches of 64, decoded ahead by threads. The
clients run on the machine that they measure. The sides take turns; a ratio is that of one round, and the median counts.
Without --run the network is the paper's with random weights and 1000 classes.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as `alexnet serve` does, before torch is there

import torch

from alexnet import Classifier
from alexnet.bench.peers import photographs
from alexnet.bench.timing import in_turn
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Config, Run
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.files import write_atomic
from alexnet.runtime.provenance import machine, provenance

BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files (default: made ones)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--each", type=int, default=8, help="images that a client sends in a round")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or random_run(Path(folder) / "run")
        found = sorted(arguments.images.rglob("*.jp*g")) if arguments.images else photographs(Path(folder), 64)
        files = [path.read_bytes() for path in found][: arguments.clients * arguments.each]
        classifier = Classifier.load(run)
        with serving(run) as address:
            for file in files[:3]:
                said = json.loads(asyncio.run(Connection(address).alone([file]))[0])["predictions"][0]["top"]
                wanted = classifier.predict(file)[0].top
                assert [top["label"] for top in said] == [label for label, _ in wanted], "they do not say the same"
            report = measured(classifier, address, files, arguments)
    report |= {"clients": arguments.clients, "rounds": arguments.rounds, **provenance(" ".join(["python", *sys.argv]))}
    print(json.dumps(report, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"serve-{re.sub('[^a-z0-9]+', '-', machine().lower()).strip('-')}.json"
    write_atomic(arguments.out / name, json.dumps(report, indent=1).encode() + b"\n")


def measured(classifier: Classifier, address: str, files: list[bytes], arguments: argparse.Namespace) -> dict:
    """Seconds per single image, images per second of many, and the ratios."""
    few = files[:20]
    many = [files[i % len(files)] for i in range(arguments.clients * arguments.each)]
    shares = [many[i :: arguments.clients] for i in range(arguments.clients)]

    def own_alone() -> None:
        for file in few:
            classifier.predict(file)

    def served_alone() -> None:
        asyncio.run(Connection(address).alone(few))

    def own_many() -> None:
        classifier.predict(many, batch_size=BATCH_SIZE)

    async def clients() -> None:
        await asyncio.gather(*(Connection(address).alone(share) for share in shares))

    alone = in_turn({"own": own_alone, "served": served_alone}, arguments.rounds)
    together = in_turn({"own": own_many, "served": lambda: asyncio.run(clients())}, arguments.rounds)
    latency = sorted(b / a for a, b in zip(alone["own"], alone["served"], strict=True))
    throughput = sorted(a / b for a, b in zip(together["own"], together["served"], strict=True))
    return {
        "latency": {
            "description": "one image over HTTP, times the seconds of Classifier.predict",
            **_ratio(latency),
            "at_most": 1.15,
            "own_ms": 1000 * statistics.median(alone["own"]) / len(few),
            "served_ms": 1000 * statistics.median(alone["served"]) / len(few),
        },
        "throughput": {
            "description": f"{arguments.clients} clients, times the images per second of Classifier.predict in batches "
            "of 64",
            **_ratio(throughput),
            "at_least": 0.9,
            "own_per_second": len(many) / statistics.median(together["own"]),
            "served_per_second": len(many) / statistics.median(together["served"]),
        },
    }


def _ratio(ratios: list[float]) -> dict[str, object]:
    return {"ratio": statistics.median(ratios), "spread": [ratios[0], ratios[-1]]}


class Connection:
    """A client with minimal work of its own: one connection, one request after the other."""

    def __init__(self, address: str) -> None:
        self.host, self.port = urlsplit(address).hostname, urlsplit(address).port

    async def alone(self, files: list[bytes]) -> list[bytes]:
        """Send requests one after the other; return the bodies of the responses."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        answers = []
        for file in files:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(file)}"
            writer.write(head.encode() + b"\r\n\r\n" + file)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(re.search(rb"content-length: (\d+)", answer.lower())[1])
            answers.append(await reader.readexactly(length))
        writer.close()
        return answers


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """`alexnet serve` in a process of its own, without a dataset, which it would evaluate in the background."""
    command = [sys.executable, "-m", "alexnet.cli.main", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


def random_run(path: Path) -> Path:
    """The paper's network with random weights."""
    recipe = recipes()["paper"].override({"init": "he"})
    names = [f"class {number:04}" for number in range(1000)]
    config = Config(
        recipe, names, size=256, crop_size=recipe.crop_size, input_size=recipe.crop_size, scale=1 / 64, dataset={}
    )
    run = Run.create(path, config)
    torch.manual_seed(0)
    network = config.network()
    torch.nn.init.normal_(network.logits.weight, 0, 0.01)
    run.save_weights(recipe.keep, network.state_dict(), torch.full((256, 256, 3), 120.0))
    return path


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
