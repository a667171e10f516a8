"""Rates of what classifies images, against the network alone on crops that lie ready in memory.

The network is that of the recipe `small` with random weights.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from alexnet.bench.parts import Settings
from alexnet.bench.synthetic import photographs, random_run
from alexnet.bench.timing import Comparison, compared, in_turn
from alexnet.data.dataset import PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.evaluation.evaluate import evaluate
from alexnet.network.frozen import FrozenNetwork
from alexnet.prediction.classifier import DECODERS, Classifier
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.search.index import open_index

BATCH_SIZE = 64
IMAGES = 640


def verbs(settings: Settings) -> list[Comparison]:
    """Compare prediction, evaluation and the features of a search with forward passes of the same network."""
    folder = settings.folder
    files = photographs(folder / "images", IMAGES)
    dataset = prepare(folder / "images", folder / "data", split={"train": 0.8, "val": 0.2}, progress=False)
    side = recipes()["small"].input_size or 224
    run = random_run(folder / "run", recipe="small", classes=dataset.classes, crop_size=224, input_size=side)
    automatic = choose_precision("auto", choose_device())
    rows = []
    for dtype in dict.fromkeys((torch.float32, automatic)):
        rows += _prediction(settings, run, dtype, [file.read_bytes() for file in files[:BATCH_SIZE]])
        rows.append(_evaluation(settings, run, dtype, dataset))
    rows.append(_features(settings, run, dataset))
    return rows


def _passes(run: Path, dtype: torch.dtype, counts: list[int]) -> Callable[[], None]:
    """Forward passes of the network on batches of those many crops."""
    network, preprocess = Run.open(run).load(torch.device("cpu"))
    frozen = FrozenNetwork(network, dtype)
    crops = [preprocess.center(torch.from_numpy(_prepared(count))) for count in counts]

    @torch.inference_mode()
    def forward() -> None:
        for crop in crops:
            frozen(crop)

    return forward


def _prepared(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)


def _prediction(settings: Settings, run: Path, dtype: torch.dtype, files: list[bytes]) -> list[Comparison]:
    precision = str(dtype).removeprefix("torch.")
    classifier = Classifier.load(run, device="cpu", precision=precision)
    rows = []
    for count in (1, BATCH_SIZE):
        images, chosen = _prepared(count), files[:count]
        sides: dict[str, Callable[[], object]] = {
            "arrays": partial(classifier.predict, images),
            "files": partial(classifier.predict, chosen),
            "decoding": partial(_decode, chosen),
            "network": _passes(run, dtype, [count]),
        }
        seconds = in_turn(sides, 2 * settings.rounds + 1, max(1, 16 // count))
        both = [sum(pair) for pair in zip(seconds["decoding"], seconds["network"], strict=True)]
        milliseconds = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
        name = f"`Classifier.predict`, {precision}, {count} {'image' if count == 1 else 'images'}"
        rows += [
            compared(
                f"{name} of 256×256 in memory",
                "the network alone",
                *(seconds["arrays"], seconds["network"], 0.95),
                milliseconds=milliseconds,
            ),
            compared(
                f"{name}, JPEG of 500×375",
                "decoding by libjpeg-turbo in as many threads, then the network",
                *(seconds["files"], both, 0.9),
            ),
        ]
    return rows


def _decode(files: list[bytes]) -> None:
    with ThreadPoolExecutor(min(DECODERS, len(files))) as threads:
        list(threads.map(simplejpeg.decode_jpeg, files))


def _evaluation(settings: Settings, run: Path, dtype: torch.dtype, dataset: PreparedDataset) -> Comparison:
    precision = str(dtype).removeprefix("torch.")
    images = len(dataset.split("val"))
    views = 10 * [BATCH_SIZE] * (images // BATCH_SIZE)
    sides = {
        "ours": lambda: evaluate(run, dataset, split="val", precision=precision, device="cpu"),
        "network": _passes(run, dtype, views),
    }
    seconds = in_turn(sides, settings.rounds)
    return compared(
        f"`alexnet evaluate`, {precision}, ten views",
        "ten forward passes of the network alone",
        *(seconds["ours"], seconds["network"], 0.9),
        images_per_second=images / statistics.median(seconds["ours"]),
    )


def _features(settings: Settings, run: Path, dataset: PreparedDataset) -> Comparison:
    images = len(dataset.split("train"))
    alone = _passes(run, torch.float32, [BATCH_SIZE] * (images // BATCH_SIZE))
    kept = run / "search"

    def ours() -> None:
        for file in sorted(kept.rglob("*")) if kept.exists() else ():
            if file.is_file():
                file.unlink()
        open_index(run, dataset, device="cpu")

    seconds = in_turn({"ours": ours, "network": alone}, settings.rounds)
    return compared(
        "the features of `alexnet search`, float32",
        "the network alone",
        *(seconds["ours"], seconds["network"], 0.9),
        images_per_second=images / statistics.median(seconds["ours"]),
    )
