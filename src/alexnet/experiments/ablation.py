"""The paper's comparisons on photographs: the whole network against itself with one thing changed (3.1 to 5, 7)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments.catalog import set_name
from alexnet.experiments.image_sets import SOLAR, photographs
from alexnet.experiments.trials import compared, is_asked, measured, spread, trained, write_with_figure
from alexnet.report.style import BLUE, INK, ORANGE, Figure, drawn, new
from alexnet.runs.checkpoint import FILE as CHECKPOINT
from alexnet.runs.recipe import recipes
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.provenance import provenance, write_result

BASE: dict[str, Any] = {
    "init": "he",
    "pixel_scaling": "std",
    "batch_size": 64,
    "epochs": 8,
    "schedule": "cosine",
    "warmup": 0.05,
    "keep": "last",
}
"""What is set beside the recipe `paper` so that two thousand images are enough to learn from, in minutes: N(0, 0.01²)
needs thousands of steps to begin, and here there are 250."""
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 24, "crop_size": 64}
FULL = "full"


@dataclass(frozen=True)
class Change:
    """One thing that is other than in the whole network, and how much more error the paper says there is then."""

    words: str
    values: dict[str, Any]
    published: float | None = None


CHANGES = {
    FULL: Change("the whole network", {}),
    "tanh": Change("tanh instead of ReLU", {"activation": "tanh"}),
    "no-lrn": Change("no response normalization", {"normalization": "none"}, 0.014),
    "non-overlapping": Change("pooling without overlap", {"pooling": "non-overlapping"}, 0.004),
    "half": Change("one tower, half the kernels", {"variant": "paper-half"}, 0.017),
    "no-dropout": Change("no dropout", {"dropout": 0.0}),
    "no-crops": Change("no crops, no mirror images", {"crop_position": "center", "flip": "none"}),
    "no-color": Change("no color shift", {"color_jitter": 0.0}, 0.01),
    "without-conv3": Change("without conv3", {"drop_layer": "conv3"}, 0.02),
    "without-conv4": Change("without conv4", {"drop_layer": "conv4"}, 0.02),
    "without-conv5": Change("without conv5", {"drop_layer": "conv5"}, 0.02),
    "batch": Change("batch normalization instead of LRN", {"normalization": "batch"}),
    "paper-init": Change("N(0, 0.01²) instead of He's", {"init": "paper"}),
}
QUICK_CHANGES = (FULL, "tanh", "without-conv4")
VIEWS = {"one_view": 1, "ten_views": 10}


@dataclass(frozen=True)
class Trial:
    """A training of the network with one change, or none, with a seed, on a set of photographs."""

    change: str
    seed: int
    dataset: PreparedDataset
    quick: bool = False

    @property
    def name(self) -> str:
        """tanh/0"""
        return f"{self.change}/{self.seed}"

    @property
    def run(self) -> Path:
        """Its run folder, beside the prepared images; what was measured is a file of that name."""
        return self.dataset.path.with_name(f"{self.change}-{self.seed}{'-quick' * self.quick}")

    @property
    def file(self) -> Path:
        """What was measured, once it was."""
        return self.run.with_suffix(".json")

    def measure(self) -> dict[str, Any]:
        """Train it and measure it on the test images; once."""
        return measured(self.file, self._measure)

    def _measure(self) -> dict[str, Any]:
        print(f"{self.name}:", file=sys.stderr)
        values = base(self.quick) | CHANGES[self.change].values
        epochs = trained(self.dataset.path, self.run, recipe="paper", seed=self.seed, **values).metrics("epoch")
        errors = {
            name: 1 - evaluate(self.run, self.dataset, views=views, precision="auto").top1
            for name, views in VIEWS.items()
        }
        (self.run / CHECKPOINT).unlink(missing_ok=True)  # half a gigabyte, for going on with what is done
        return {
            **errors,
            "train_loss": [epoch["train_loss"] for epoch in epochs],
            "train_error": [epoch["train_error"] for epoch in epochs],
            "seconds": sum(epoch["seconds"] for epoch in epochs),
        }


def base(quick: bool) -> dict[str, Any]:
    """What every trial sets beside the recipe `paper`."""
    return BASE | QUICK if quick else BASE


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    quick: bool = False,
) -> str:
    """Measure every trial, or those whose name begins with one of `only`, and write all that were ever measured there.

    The images are the solar cells, or those of `data`. Results are written after each trial, so that a stop loses
    nothing. Returns a line for each change.
    """
    dataset = photographs(work, data, quick)
    trials = list(_trials(dataset, seeds, quick))
    chosen = [trial for trial in trials if is_asked(trial.name, only)]
    write = partial(_write, trials=trials, results=results, command=command, name=set_name(data) or SOLAR)
    for trial in chosen:
        if not trial.file.exists():
            trial.measure()
            write()
    if not any(trial.file.exists() for trial in trials):
        raise AlexNetError(f"no trial's name begins with {' or '.join(only)}; they are: {', '.join(CHANGES)}")
    return "\n".join(
        f"{entry['words']}: {entry['ten_views']['mean']:.2%} error"
        + (f"; {entry['difference']['verdict']}" if "difference" in entry else "")
        for entry in write().values()
    )


def _trials(dataset: PreparedDataset, seeds: Sequence[int], quick: bool) -> Iterator[Trial]:
    """All of a seed before the next, so that what is there when it is stopped can be compared."""
    for seed in seeds:
        yield from (Trial(change, seed, dataset, quick) for change in (QUICK_CHANGES if quick else CHANGES))


def _write(trials: Sequence[Trial], results: Path, command: str, name: str) -> dict[str, dict[str, Any]]:
    """Write what was measured of `trials` so far; returns the entries of the changes."""
    changes: dict[str, dict[int, dict[str, Any]]] = {}
    for trial in trials:
        if trial.file.exists():
            changes.setdefault(trial.change, {})[trial.seed] = json.loads(trial.file.read_text())
    entries = {change: _entry(change, changes) for change in changes}
    dataset, quick = trials[0].dataset, trials[0].quick
    report = {
        "what": "error on test images of the whole network and of it with one thing changed, same seeds; the "
        "difference is of the errors with ten views, change minus whole network, of each seed, as shares of 1; weights "
        "of the last epoch",
        "set": name,
        "images": dataset.counts,
        "classes": len(dataset.classes),
        "recipe": recipes()["paper"].override(base(quick)).to_dict(),
        "changes": entries,
        **provenance(command),
    }
    if len(entries) > (FULL in entries):
        write_with_figure(results, report, figure(report))
    else:
        write_result(results, report)
    return entries


def _entry(change: str, changes: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """What the results say of one of `changes`; compared with the whole network over the seeds that both have."""
    known, found, full = CHANGES[change], changes[change], changes.get(FULL, {})
    entry: dict[str, Any] = {
        "words": known.words,
        "values": known.values,
        "seeds": sorted(found),
        **{views: spread([trial[views] for trial in found.values()]) for views in VIEWS},
    }
    if change != FULL and any(seed in full for seed in found):
        entry["published"] = known.published
        for views, name in zip(VIEWS, ("difference_one_view", "difference"), strict=True):
            differences = {
                other: [trial[views] - full[seed][views] for seed, trial in trials.items() if seed in full]
                for other, trials in changes.items()
                if other != FULL
            }
            entry[name] = compared(differences.pop(change), list(differences.values()))
    entry["trials"] = {str(seed): trial for seed, trial in found.items()}
    return entry


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """How much more error each change has: the mean with its standard error, each seed, and the paper's figure."""
    entries = [entry for entry in report["changes"].values() if "difference" in entry]
    drawing = new(0.9 + 0.33 * len(entries), width=6.4)
    axes = drawing.subplots()
    for row, entry in enumerate(entries):
        difference = entry["difference"]
        error = difference["standard_error"]
        axes.barh(row, difference["mean"] * 100, height=0.55, color=BLUE, alpha=0.55)
        axes.plot([value * 100 for value in difference["values"]], [row] * len(difference["values"]), ".", color=INK)
        if error is not None:
            axes.errorbar(difference["mean"] * 100, row, xerr=error * 100, color=INK, linewidth=1.2, capsize=3)
        if entry["published"] is not None:
            axes.plot([entry["published"] * 100], [row], "D", color=ORANGE, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(entries)), [entry["words"] for entry in entries])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.set_xlabel("Points of error more than the whole network")
    axes.plot([], [], ".", color=INK, label="a seed")
    axes.plot([], [], "D", color=ORANGE, markersize=5, label="the paper, on ImageNet")
    drawing.legend(loc="outside lower center", ncols=2)
    images = f"{report['images'].get('train', 0):,} training images"
    axes.set_title(f"One thing changed: {report['set']}\n{images}")
    return drawing
