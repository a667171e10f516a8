"""Tables 1 and 2 of the paper: the complete training on ILSVRC-2012 or ILSVRC-2010."""

from __future__ import annotations

import math
import re
import shutil
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
from alexnet.experiments.trials import measure_once, prepare_once, summarize, train_once, write_with_figure
from alexnet.report.style import BLUE, GREEN, INK, MUTED, ORANGE, Figure, drawn, new
from alexnet.runs.recipe import Recipe, recipes
from alexnet.runs.run import is_free
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import provenance, read_result

RECIPES = {
    "paper": "paper",
    **dict.fromkeys(
        ("released-2012", "released-2012-half", "released-2012-no-norm", "released-2012-six-conv"), "released-2012"
    ),
}
"""The recipe of each variant."""

CLASSES, SIZE = 1000, 256
VIEWS = (1, 10)
RUN_BYTES = 1.5e9
"""Disk space of a run: the best and the last weights, a checkpoint, and the next one while it is written."""
QUICK_IMAGES = 100
"""Evaluation images with `--quick`, which trains on one image per class."""
RATE_SECONDS = 2.0

SCORES = ("top1_error", "top5_error", "log_loss")


@dataclass(frozen=True)
class Trial:
    """One training: a variant and a seed."""

    variant: str
    seed: int
    changes: Mapping[str, Any]
    folder: Path

    @property
    def run(self) -> Path:
        """Run folder."""
        return self.folder / f"seed-{self.seed}"

    def measure(self, dataset: PreparedDataset, views: Sequence[int]) -> dict[str, Any]:
        """Train and evaluate on every split except train, or return the stored measurement."""
        return measure_once(self.run.with_suffix(".json"), lambda: self._measure(dataset, views))

    def _measure(self, dataset: PreparedDataset, views: Sequence[int]) -> dict[str, Any]:
        values = {"variant": self.variant, "seed": self.seed, **self.changes}
        epochs = train_once(dataset.path, self.run, recipe=RECIPES[self.variant], **values).metrics("epoch")
        curves = ("train_loss", "train_error", "validation_loss", "validation_error", "lr")
        return {
            "seed": self.seed,
            "seconds": sum(epoch["seconds"] for epoch in epochs),
            "curves": {name: [epoch[name] for epoch in epochs] for name in curves},
            **_evaluate_on(dataset, [self.run], views),
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
    """Prepare ILSVRC, train `variant` with its recipe and every seed, and evaluate on the validation and test images.

    `data`: one folder of the ILSVRC tar files, or a dataset prepared from them. `quick`: one image per class and one
    epoch. Entries of `results` for other variants and the other year are kept. Returns a summary of one line.
    """
    recipe = recipes()[check_choice(variant, RECIPES, "variant")].override({"variant": variant})
    if len(data) != 1:
        raise UsageError("give --data once: the folder of the ILSVRC tar files, or a dataset prepared from them")
    given, suffix = Path(data[0]), "-quick" if quick else ""
    trials = [Trial(variant, seed, {"epochs": 1} if quick else {}, work / f"{variant}{suffix}") for seed in seeds]
    if untrained := sum(is_free(trial.run) for trial in trials):
        _print_requirements(given, work, recipe, untrained, quick)
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
    errors = [
        f"{split}: top-1 error {scores['top1_error']['mean']:.2%}, top-5 {scores['top5_error']['mean']:.2%}"
        for split, scores in best.items()
    ]
    return f"{variant}, ILSVRC-{year}, {'; '.join(errors)}; {len(trials)} seed{'s' * (len(trials) > 1)}"


def _images(given: Path, work: Path, quick: bool) -> PreparedDataset:
    """Return the given prepared dataset, or one prepared in `work` from the given tar files; with `quick` a subset."""
    if quick:
        few = prepare_once(lambda: _few(given), work / "imagenet-few", size=SIZE, progress=False)
        return _checked(few, few.splits, few.classes)
    made = given if _is_prepared(given) else work / "imagenet"
    dataset = prepare_once(lambda: _tars(given).resolve(), made, size=SIZE)
    if made is not given and dataset.source != str(given.resolve()):
        raise AlexNetError(
            f"{made} was prepared from {dataset.source}, not from {given}; choose another folder with --out"
        )
    return _checked(dataset, dataset.splits, dataset.classes)


def _listed(given: Path) -> Source:
    """List the images in the ILSVRC tar files."""
    with TemporaryDirectory() as spool:
        source = open_ilsvrc(_tars(given), Path(spool))
    return _checked(source, {item.split for item in source.items}, {item.label for item in source.items})


def _few(given: Path) -> Any:
    """Return one training image per class and the first images of the other splits, as a source for `prepare`."""
    if not _is_prepared(given):
        source = _listed(given)
        items = list(source.items)
        chosen = [items[index] for index in _first([(item.split, item.label) for item in source.items])]
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
    """Return positions in a list of (split, class): one training image per class, the first of other splits."""
    counts: Counter[Any] = Counter()
    chosen = []
    for position, (split, label) in enumerate(labels):
        kind, most = ((split, label), 1) if split == "train" else (split, QUICK_IMAGES)
        if counts[kind] < most:
            counts[kind] += 1
            chosen.append(position)
    return chosen


def _is_prepared(given: Path) -> bool:
    return (given / INDEX_NAME).is_file()


def _tars(given: Path) -> Path:
    if not given.is_dir():
        raise AlexNetError(
            f"{given} is not a folder; give the folder of the ILSVRC tar files, or a dataset prepared from them"
        )
    if not is_ilsvrc(given):
        raise AlexNetError(
            f"{given} has no ILSVRC2012_img_train.tar (or that of 2010) and no {INDEX_NAME}; if the images are "
            "unpacked, run `alexnet prepare` first and give its dataset"
        )
    return given


def _checked(what: Any, splits: Iterable[str | None], classes: Any) -> Any:
    """Return `what` if it has the classes of ILSVRC and a validation split."""
    missing = {"train", "val"} - set(splits)
    if missing:
        raise AlexNetError(
            f"there are no {' or '.join(sorted(missing))} images with labels; check for a missing tar file"
        )
    if len(classes) != CLASSES:
        raise AlexNetError(f"there are {len(classes):,} classes, but ILSVRC has {CLASSES:,}")
    return what


def _year(dataset: PreparedDataset) -> str:
    """Return the year of the challenge from the file names; 2012 if they do not tell."""
    match = re.search(r"ILSVRC(20\d\d)_", dataset.split("val").paths(0))
    return match[1] if match else "2012"


def _print_requirements(given: Path, work: Path, recipe: Recipe, runs: int, quick: bool) -> None:
    """Print the disk space and time of the experiment. Raises `AlexNetError` if the disk is too small."""
    if (work / "imagenet" / PLAN_NAME).exists():
        return  # preparation has started: the requirements were printed
    if _is_prepared(given) or _is_prepared(work / "imagenet"):
        dataset = PreparedDataset.open(given if _is_prepared(given) else work / "imagenet")
        counts, needed = dataset.counts, 0
    else:
        notify(f"listing the images in {given}")
        counts = dict(Counter(str(item.split) for item in _listed(given).items))
        needed = sum(counts.values()) * SIZE * SIZE * 3
    work.mkdir(parents=True, exist_ok=True)
    free, total = shutil.disk_usage(work).free, needed + runs * RUN_BYTES
    images = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    space = f"{needed / 1e9:,.1f} GB prepared and {runs * RUN_BYTES / 1e9:,.1f} GB of runs; {free / 1e9:,.1f} GB free"
    if total > free and not quick:
        raise AlexNetError(f"not enough disk space at {work} for {images}: {space}; choose another folder with --out")
    rate = _rate(recipe.variant)
    hours = counts["train"] * recipe.epochs / rate / 3600
    notify(f"{'without --quick:' if quick else 'this experiment:'} {images} images; {space}")
    notify(
        f"about {hours:,.1f} hours per seed: {recipe.epochs} epochs at {rate:,.0f} images/s, measured over a few steps"
    )


def _rate(variant: str) -> float:
    """Measure the training rate in images/s, without loading, over a few seconds."""
    keep_freed_memory()
    training = OurTraining(BATCH_SIZE, side=224, variant=variant)
    training.step()
    start, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - start < RATE_SECONDS:
        training.step()
        steps += 1
    return steps * BATCH_SIZE / (time.perf_counter() - start)


def _evaluate_on(dataset: PreparedDataset, runs: Sequence[Path], views: Sequence[int]) -> dict[str, Any]:
    """Return the errors of a run, or of an ensemble, on every split except train."""
    return {
        split: {
            f"views_{count}": _scores(evaluate(runs, dataset, split=split, views=count, precision="auto"))
            for count in views
        }
        for split in dataset.splits
        if split != "train"
    }


def _scores(result: Evaluation) -> dict[str, float]:
    return dict(zip(SCORES, (1 - result.accuracy, 1 - result.top5_accuracy, result.log_loss), strict=True))


def _spreads(of_seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        views: {name: summarize([scores[views][name] for scores in of_seeds]) for name in SCORES}
        for views in of_seeds[0]
    }


def _average(dataset: PreparedDataset, trials: Sequence[Trial], views: Sequence[int]) -> dict[str, Any]:
    """Evaluate the ensemble of all seeds."""
    file = trials[0].folder / f"average-{'-'.join(str(trial.seed) for trial in trials)}.json"
    return measure_once(file, lambda: _evaluate_on(dataset, [trial.run for trial in trials], views))


def _with_others(results: Path, year: str, variant: str, section: dict[str, Any]) -> dict[str, Any]:
    """Return the report with the stored entries of other variants and the other year."""
    report = read_result(results)
    description = "error and log loss on the validation and test images of ILSVRC, by year, variant and split"
    return {**report, "description": description, year: {**report.get(year, {}), variant: section}}


@drawn
def curves(report: dict[str, Any]) -> Figure:
    """Training error (thin) and validation error of the center view against epochs, one color per variant."""
    drawing = new(3.2)
    axes = drawing.subplots()
    sections = [
        (f"{variant}, {year}", section)
        for year, found in report.items()
        if year != "description"
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
