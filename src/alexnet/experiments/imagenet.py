"""Tables 1 and 2 of the paper: the whole training on ILSVRC-2012, or 2010, where its files are."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alexnet.bench.steps import BATCH_SIZE, OurTraining
from alexnet.data.dataset import INDEX_NAME, PLAN_NAME, PreparedDataset
from alexnet.data.sources.ilsvrc import is_ilsvrc, open_ilsvrc
from alexnet.data.sources.items import Source
from alexnet.evaluation.evaluate import Evaluation, evaluate
from alexnet.experiments.published import PUBLISHED
from alexnet.experiments.trials import measured, prepared, spread, trained, write_with_figure
from alexnet.report.style import BLUE, GREEN, INK, MUTED, ORANGE, Figure, drawn, new
from alexnet.runs.recipe import Recipe, recipes
from alexnet.runs.run import is_free
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.provenance import provenance

RECIPES = {
    "paper": "paper",
    **dict.fromkeys(
        ("released-2012", "released-2012-half", "released-2012-no-norm", "released-2012-six-conv"), "released-2012"
    ),
}
"""Which recipe a variant is trained with."""

CLASSES, SIZE = 1000, 256
VIEWS = (1, 10)
RUN_BYTES = 1.5e9
"""What a run takes on the disk: the best weights, the last, a checkpoint, and the next one while it is written."""
QUICK_IMAGES = 100
"""How many images `--quick` measures on; it trains on one of each class."""
RATE_SECONDS = 2.0

SCORES = ("top1_error", "top5_error", "log_loss")


@dataclass(frozen=True)
class Trial:
    """A network to train with a seed."""

    variant: str
    seed: int
    changes: Mapping[str, Any]
    folder: Path

    @property
    def run(self) -> Path:
        """Where it is trained."""
        return self.folder / f"seed-{self.seed}"

    def measure(self, dataset: PreparedDataset, views: Sequence[int]) -> dict[str, Any]:
        """Train it and measure it on every split but the training's; once."""
        return measured(self.run.with_suffix(".json"), lambda: self._measure(dataset, views))

    def _measure(self, dataset: PreparedDataset, views: Sequence[int]) -> dict[str, Any]:
        values = {"variant": self.variant, "seed": self.seed, **self.changes}
        epochs = trained(dataset.path, self.run, recipe=RECIPES[self.variant], **values).metrics("epoch")
        curves = ("train_loss", "train_error", "validation_loss", "validation_error", "lr")
        return {
            "seed": self.seed,
            "seconds": sum(epoch["seconds"] for epoch in epochs),
            "curves": {name: [epoch[name] for epoch in epochs] for name in curves},
            **_measured_on(dataset, [self.run], views),
        }


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    variant: str = "paper",
    quick: bool = False,
) -> str:
    """Prepare ILSVRC, train `variant` with its recipe and every seed, and measure it on the images kept back.

    `data`: one folder of the challenge's own tar files, or a dataset prepared of them. `quick`: one image a class
    and one epoch. What `results` says of other variants and of the other year is kept. Returns the errors in a line.
    """
    recipe = recipes()[check_choice(variant, RECIPES, "variant")].override({"variant": variant})
    if len(data) != 1:
        raise UsageError("--data names the folder of ILSVRC's tar files, or one dataset that was prepared of them")
    given, suffix = Path(data[0]), "-quick" if quick else ""
    trials = [Trial(variant, seed, {"epochs": 1} if quick else {}, work / f"{variant}{suffix}") for seed in seeds]
    if untrained := sum(is_free(trial.run) for trial in trials):
        _say_what_comes(given, work, recipe, untrained, quick)
    dataset = _images(given, work, quick)
    views = VIEWS[:1] if quick else VIEWS
    measures = [trial.measure(dataset, views) for trial in trials]
    year, splits = _year(dataset), [name for name in dataset.splits if name != "train"]
    section = {
        **{split: _spreads([measure[split] for measure in measures]) for split in splits},
        "average": _average(dataset, trials, views) if len(trials) > 1 else None,
        "published": [row._asdict() for row in PUBLISHED if (row.year, row.variant) == (year, variant)],
        "classes": len(dataset.classes),
        "images": dataset.counts,
        "recipe": recipe.override(trials[0].changes).to_dict(),
        "seeds": list(seeds),
        "trials": measures,
        **provenance(command),
    }
    report = _with_others(results, year, variant, section)
    write_with_figure(results, report, curves(report))
    best = {split: section[split][f"views_{views[-1]}"] for split in splits}
    words = [
        f"{split}: top-1 error {scores['top1_error']['mean']:.2%}, top-5 {scores['top5_error']['mean']:.2%}"
        for split, scores in best.items()
    ]
    return f"{variant}, ILSVRC-{year}, {'; '.join(words)}; {len(trials)} seed{'s' * (len(trials) > 1)}"


# The images


def _images(given: Path, work: Path, quick: bool) -> PreparedDataset:
    """The prepared dataset: the one given, or made in `work` of the tar files given; with `quick` a few of it."""
    if quick:
        few = prepared(lambda: _few(given), work / "imagenet-few", size=SIZE, progress=False)
        return _checked(few, few.splits, few.classes)
    made = given if _is_prepared(given) else work / "imagenet"
    dataset = prepared(lambda: _tars(given).resolve(), made, size=SIZE)
    if made is not given and dataset.source != str(given.resolve()):
        raise AlexNetError(f"{made} was prepared of {dataset.source}, not of {given}; name another --out")
    return _checked(dataset, dataset.splits, dataset.classes)


def _listed(given: Path) -> Source:
    """The images in the tar files of ILSVRC."""
    with TemporaryDirectory() as spool:
        source = open_ilsvrc(_tars(given), Path(spool))
    return _checked(source, {item.split for item in source.items}, {item.label for item in source.items})


def _few(given: Path) -> Any:
    """A training image of each class and the first of the others, as `prepare` takes them."""
    if not _is_prepared(given):
        source = _listed(given)
        chosen = [source.items[index] for index in _first([(item.split, item.label) for item in source.items])]
        return Source(chosen, source.descriptions)
    dataset = PreparedDataset.open(given)
    splits = {name: dataset.split(name) for name in dataset.splits}
    places = [(name, index) for name, split in splits.items() for index in range(len(split))]
    labels = [(name, label) for name, split in splits.items() for label in split.labels.tolist()]
    return [
        (splits[name][index][0], dataset.classes[splits[name].labels[index]], name)
        for name, index in (places[place] for place in _first(labels))
    ]


def _first(labels: Iterable[tuple[str | None, Any]]) -> list[int]:
    """Positions in a list of (split, class): the first of each class to train on, the first few of other splits."""
    taken: Counter[Any] = Counter()
    chosen = []
    for position, (split, label) in enumerate(labels):
        kind, most = ((split, label), 1) if split == "train" else (split, QUICK_IMAGES)
        if taken[kind] < most:
            taken[kind] += 1
            chosen.append(position)
    return chosen


def _is_prepared(given: Path) -> bool:
    return (given / INDEX_NAME).is_file()


def _tars(given: Path) -> Path:
    if not given.is_dir():
        raise AlexNetError(f"{given} is no folder: give that of ILSVRC's tar files, or a dataset prepared of them")
    if not is_ilsvrc(given):
        raise AlexNetError(
            f"{given} has no ILSVRC2012_img_train.tar (or that of 2010), and no {INDEX_NAME}: where the images are "
            "unpacked, `alexnet prepare` them first and give what it made"
        )
    return given


def _checked(what: Any, splits: Iterable[str | None], classes: Any) -> Any:
    """`what`, where it has ILSVRC's classes and images to measure on."""
    missing = {"train", "val"} - set(splits)
    if missing:
        raise AlexNetError(f"there are no {' or '.join(sorted(missing))} images with labels: is a tar file missing?")
    if len(classes) != CLASSES:
        raise AlexNetError(f"there are {len(classes):,} classes, and ILSVRC has {CLASSES:,}")
    return what


def _year(dataset: PreparedDataset) -> str:
    """Which challenge the images are from, by what they were called; 2012 where that does not say."""
    match = re.search(r"ILSVRC(20\d\d)_", dataset.split("val").paths(0))
    return match[1] if match else "2012"


# What it takes


def _say_what_comes(given: Path, work: Path, recipe: Recipe, runs: int, quick: bool) -> None:
    """Say what all of it takes on the disk and in time. Raises `AlexNetError` where the disk is too small for it."""
    if (work / "imagenet" / PLAN_NAME).exists():
        return  # it was said, and a part of it is on the disk already
    if _is_prepared(given) or _is_prepared(work / "imagenet"):
        dataset = PreparedDataset.open(given if _is_prepared(given) else work / "imagenet")
        counts, needed = dataset.counts, 0
    else:
        print(f"listing the images in {given}", file=sys.stderr, flush=True)
        counts = dict(Counter(str(item.split) for item in _listed(given).items))
        needed = sum(counts.values()) * SIZE * SIZE * 3
    work.mkdir(parents=True, exist_ok=True)
    free, total = shutil.disk_usage(work).free, needed + runs * RUN_BYTES
    images = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    room = f"{needed / 1e9:,.1f} GB prepared and {runs * RUN_BYTES / 1e9:,.1f} GB of runs; {free / 1e9:,.1f} GB free"
    if total > free and not quick:
        raise AlexNetError(f"the disk of {work} is too full for {images}: {room}")
    rate = _rate(recipe.variant)
    hours = counts["train"] * recipe.epochs / rate / 3600
    _say("in all, without --quick:" if quick else "what comes:", f"{images} images: {room}")
    _say(f"about {hours:,.1f} hours a seed: {recipe.epochs} epochs at {rate:,.0f} images a second, as a few steps go")


def _say(*words: str) -> None:
    print(*words, file=sys.stderr, flush=True)


def _rate(variant: str) -> float:
    """Images a second of training steps on images that are there already, over some seconds."""
    keep_freed_memory()
    training = OurTraining(BATCH_SIZE, side=224, variant=variant)
    training.step()
    start, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - start < RATE_SECONDS:
        training.step()
        steps += 1
    return steps * BATCH_SIZE / (time.perf_counter() - start)


# What came out


def _measured_on(dataset: PreparedDataset, runs: Sequence[Path], views: Sequence[int]) -> dict[str, Any]:
    """The scores of a run, or of several averaged, on every split but the training's."""
    return {
        split: {
            f"views_{count}": _scores(evaluate(runs, dataset, split=split, views=count, precision="auto"))
            for count in views
        }
        for split in dataset.splits
        if split != "train"
    }


def _scores(result: Evaluation) -> dict[str, float]:
    return dict(zip(SCORES, (1 - result.top1, 1 - result.top5, result.log_loss), strict=True))


def _spreads(of_seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        views: {name: spread([scores[views][name] for scores in of_seeds]) for name in SCORES} for views in of_seeds[0]
    }


def _average(dataset: PreparedDataset, trials: Sequence[Trial], views: Sequence[int]) -> dict[str, Any]:
    """The networks of all seeds as one."""
    file = trials[0].folder / f"average-{'-'.join(str(trial.seed) for trial in trials)}.json"
    return measured(file, lambda: _measured_on(dataset, [trial.run for trial in trials], views))


def _with_others(results: Path, year: str, variant: str, section: dict[str, Any]) -> dict[str, Any]:
    """The report with what it says of other variants and of the other year."""
    report: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    what = "error and log-loss on the images of ILSVRC that were not trained on: by year, network and split"
    return {**report, "what": what, year: {**report.get(year, {}), variant: section}}


@drawn
def curves(report: dict[str, Any]) -> Figure:
    """Training error (thin) and validation error of the central view over the epochs, a color a network."""
    drawing = new(3.2)
    axes = drawing.subplots()
    sections = [
        (f"{variant}, {year}", section)
        for year, found in report.items()
        if year != "what"
        for variant, section in found.items()
    ]
    colors, highest = (BLUE, ORANGE, GREEN, INK, MUTED), 0.0
    for number, (name, section) in enumerate(sections):
        for index, trial in enumerate(section["trials"]):
            for kind, width in (("train_error", 0.8), ("validation_error", 1.6)):
                errors = trial["curves"][kind]
                label = name if kind == "validation_error" and index == 0 else None
                color, highest = colors[number % len(colors)], max(highest, *errors)
                axes.plot(range(1, len(errors) + 1), errors, color=color, linewidth=width, marker=".", label=label)
    axes.set_ylim(0, math.ceil(highest * 10) / 10)
    axes.set_xlim(left=0)
    axes.set_xlabel("Epochs")
    axes.set_title("Training error (thin) and validation error")
    axes.legend()
    return drawing
