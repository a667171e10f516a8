"""Catalog of the experiments: what each repeats, the published values, and where its result holds the measured ones."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from alexnet.experiments.published import PUBLISHED
from alexnet.runtime.errors import UsageError, check_choice
from alexnet.runtime.provenance import read_result

RESULTS = Path("docs/results")
"""Where an experiment writes its results, relative to the working folder: a checkout of the repository."""


def shipped_results() -> Path:
    """Return the folder of the results that this version of the package ships.

    An installed package has its own copy. In a checkout it is a symbolic link to docs/results, which a file system
    without such links lacks.
    """
    packaged = Path(__file__).parents[1] / "results"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "docs" / "results"


def points(share: float) -> str:
    """Format a difference of fractions in percentage points; adding 0 turns -0.0 into 0.0."""
    return f"{round(share * 100, 1) + 0:+.1f} points"


FORMS: dict[str, Callable[[float], str]] = {
    "percent": "{:.1%}".format,
    "ratio": "{:.1f}×".format,
    "points": points,
    "number": "{:.2f}".format,
}
"""Formats of a value."""


@dataclass(frozen=True)
class Claim:
    """A published value, and the key of the measured one in the result: nested names joined by dots."""

    text: str
    published: float | None
    key: str
    form: str = "percent"

    def format(self, value: float | None) -> str:
        """Return the value as text; a dash for None."""
        return "–" if value is None else FORMS[self.form](value)

    def difference(self, measured: float | None) -> str:
        """Return the measured value against the published one: a ratio, or a difference in percentage points."""
        if measured is None or self.published is None:
            return "–"
        if self.form in ("ratio", "number"):
            return f"{measured / self.published:.2f}×"
        return points(measured - self.published)


@dataclass(frozen=True)
class Experiment:
    """An experiment of `alexnet reproduce`.

    Attributes
    ----------
    name : str
        Name on the command line and of the result file.
    summary : str
        What the experiment measures.
    claims : tuple of Claim
        The published values.
    seeds : tuple of int
        Default seeds.
    module : str, optional
        Module with the function `reproduce`: a module of this package, or a dotted name. By default that of `name`.
    values : mapping
        Further arguments of `reproduce`.
    folder : str, optional
        Default run folder, for experiments that share trials.
    quick_seeds : int
        Number of seeds with `--quick`.
    per_dataset : bool
        Whether each image set has its own result file: that of `--data`, or the solar cells.
    """

    name: str
    summary: str
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    module: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    quick_seeds: int = 1
    per_dataset: bool = False

    def file(self, data: Sequence[str]) -> str:
        """Return the name of the result file: NAME.json, or NAME-DATASET.json."""
        return f"{self.name}-{dataset_name(data) or SOLAR}.json" if self.per_dataset else f"{self.name}.json"

    def function(self) -> Callable[..., str]:
        """Return the function `reproduce(work, results, seeds, command, **options)` of the experiment."""
        name = self.module or self.name.replace("-", "_")
        module = import_module(name if "." in name else f"alexnet.experiments.{name}")
        return partial(module.reproduce, **self.values)


SOLAR = "solar"
"""Name of the solar cells among the image sets of an experiment."""
SOLAR_LARGE = "solar-300"
"""Name of the solar cells in all their 300 pixels."""


def dataset_name(data: Sequence[str]) -> str | None:
    """Return the name of the image set of `--data` for file names; None without `--data`. Raises as `named_sources`."""
    return next(iter(named_sources(data[:1])), None)


def slug(source: str) -> str:
    """Return a path's stem in lower case, with letters, digits and hyphens only."""
    stem = unicodedata.normalize("NFC", Path(source).resolve().stem)
    return re.sub(r"[\W_]+", "-", stem.lower()).strip("-")


def named_sources(data: Sequence[str]) -> dict[str, str]:
    """Return the sources of `--data` by the names of their sets.

    Raises
    ------
    UsageError
        If two have the same name, or one that of the solar cells: one would take the place of the other. If a name
        has neither letters nor digits.
    """
    sources = {slug(source): source for source in data}
    if len(sources) < len(data):
        raise UsageError("two of --data have the same name; rename one")
    if taken := [source for name, source in sources.items() if name in (SOLAR, SOLAR_LARGE)]:
        raise UsageError(f"--data {taken[0]} has the name of the solar cells of the experiments; rename it")
    if "" in sources:
        raise UsageError(f"the name of --data {sources['']} has neither letters nor digits; rename it")
    return sources


CIFAR = "cifar-out"  # experiments on CIFAR-10 share the prepared dataset and trials
ABLATION = "ablation-out"
INSPECTION = "inspection-out"  # the experiments on unknown images and weight types use its trainings


def _increase(text: str, published: float | None, change: str) -> Claim:
    return Claim(text, published, f"changes.{change}.difference.mean", "points")


def _imagenet_claims() -> Iterator[Claim]:
    """Tables 1 and 2: errors of one network with ten views, in the paper and in the released logs."""
    of = {(row.year, row.variant): row for row in reversed(PUBLISHED) if row.views == 10}  # the first of each
    for year in ("2012", "2010"):
        for variant in ("paper", "released-2012"):
            row = of[year, variant]
            for top, published in (("top-1", row.top1_error), ("top-5", row.top5_error)):
                key = f"{year}.{variant}.{row.split}.views_10.{top.replace('-', '')}_error.mean"
                yield Claim(f"ILSVRC-{year} {row.split}, {top} error, {variant}", published, key)


_TOWERS = tuple(
    Claim(f"saturation of {kernels}, {which} saturated tower", None, f"{kind}.{which}_saturated.mean", "number")
    for kind, kernels in (("kernels", "the first kernels"), ("learned", "the learned difference"))
    for which in ("more", "less")
)

_EXPERIMENTS = [
    Experiment(
        "figure-1",
        "ReLU against tanh: epochs until a four-layer network reaches 25% training error on CIFAR-10 (3.1)",
        (Claim("epochs to 25% training error, ratio of tanh to ReLU", 6.0, "ratio", "ratio"),),
        (0, 1, 2),
    ),
    Experiment(
        "cifar-18pct",
        "cuda-convnet's 18pct on CIFAR-10, without augmentation",
        (Claim("test error", 0.18, "test_error.mean"),),
        seeds=(0,),
        module="cifar_networks",
        values={"network": "cifar-18pct"},
        folder=CIFAR,
    ),
    Experiment(
        "cifar-13pct",
        "cuda-convnet's conv-local-13pct on CIFAR-10: random crops, horizontal flips, nine views",
        (Claim("test error, nine views", 0.13, "test_error.mean"),),
        seeds=(0,),
        module="cifar_networks",
        values={"network": "cifar-13pct"},
        folder=CIFAR,
    ),
    Experiment(
        "cifar-11pct",
        "cuda-convnet's conv-local-11pct on CIFAR-10: wider, with response normalization",
        (Claim("test error, nine views", 0.11, "test_error.mean"),),
        seeds=(0,),
        module="cifar_networks",
        values={"network": "cifar-11pct"},
        folder=CIFAR,
    ),
    Experiment(
        "cifar-lrn",
        "the same network on CIFAR-10 without and with response normalization (3.3)",
        (
            Claim("test error without normalization", 0.13, "without.test_error.mean"),
            Claim("test error with normalization", 0.11, "with.test_error.mean"),
            Claim("change of the test error by normalization", -0.02, "difference", "points"),
        ),
        (0,),
        folder=CIFAR,
    ),
    Experiment(
        "cifar-copy",
        "cost of a JPEG copy of CIFAR-10 (images compressed once more) and of bfloat16, with 18pct",
        (
            Claim("increase of the error by compression once more", None, "again.difference.mean", "points"),
            Claim(
                "increase of the error by losing the same amount as the copy", None, "as_much.difference.mean", "points"
            ),
            Claim("increase of the error by float32 instead of bfloat16", None, "float32.difference.mean", "points"),
        ),
        (0, 1),
        folder=CIFAR,
    ),
    Experiment(
        "imagenet",
        "tables 1 and 2: the complete training on ILSVRC-2012 or 2010, with --data FOLDER of its tar files; --quick "
        "trains on one image per class and prints the requirements",
        tuple(_imagenet_claims()),
        (0,),
    ),
    Experiment(
        "ablation",
        "ablation: the network of the paper with one change at a time (3.1 to 5, 7)",
        (
            _increase("increase of the error with tanh", None, "tanh"),
            _increase("increase of the error without response normalization", 0.014, "no-lrn"),
            _increase("increase of the error with non-overlapping pooling", 0.004, "non-overlapping"),
            _increase("increase of the error with one tower of half the kernels", 0.017, "half"),
            _increase("increase of the error without dropout", None, "no-dropout"),
            _increase("increase of the error without random crops and horizontal flips", None, "no-crops"),
            _increase("increase of the error without PCA color augmentation (published: over 1)", 0.01, "no-color"),
            _increase("increase of the error without conv3", 0.02, "without-conv3"),
            _increase("increase of the error without conv4", 0.02, "without-conv4"),
            _increase("increase of the error without conv5", 0.02, "without-conv5"),
            _increase("increase of the error with batch normalization", None, "batch"),
            _increase("increase of the error with N(0, 0.01²) instead of He initialization", None, "paper-init"),
        ),
        (0, 1, 2),
        folder=ABLATION,
        per_dataset=True,
    ),
    Experiment(
        "ensemble",
        "ensembles of one, three and five of these networks (6, table 2)",
        (Claim("change of the error by averaging five networks", -0.026, "networks.5.difference", "points"),),
        module="averaged_networks",
        folder=ABLATION,
        quick_seeds=3,
        per_dataset=True,
    ),
    Experiment(
        "views",
        "one test view against ten, with the same networks (4.1)",
        (Claim("change of the error by ten views", -0.015, "difference.mean", "points"),),
        module="ten_views",
        folder=ABLATION,
        quick_seeds=3,
        per_dataset=True,
    ),
    Experiment(
        "towers",
        "does one tower learn color and the other gray? (6.1, figure 3; needs --data of color photographs)",
        _TOWERS,
        (0, 1, 2),
    ),
    Experiment(
        "towers-long",
        "the towers with four times as many epochs",
        _TOWERS,
        (0, 1, 2),
        module="towers",
        values={"epochs": 80},
    ),
    Experiment("solar", "the training of the demo from scratch, evaluated on the 656 test cells"),
    Experiment(
        "solar-float32",
        "the same in float32: the cost of bfloat16",
        seeds=(0,),
        module="solar",
        values={"precision": "float32"},
    ),
    Experiment(
        "small",
        "does the loss fall in the first tenth of a run with 12, 200, 2,000 and 200 imbalanced (95:5) images?",
        module="small_sets",
    ),
    Experiment(
        "starter", "the pretrained weights of this package, from Tiny ImageNet (--data tiny-imagenet-200)", seeds=(0,)
    ),
    Experiment(
        "label-errors",
        "flipped labels found by their ranks and the accuracy after correction, on the solar cells and --data SOURCE",
        seeds=(0, 1, 2),
    ),
    Experiment(
        "weight-types",
        "weights in 16 bits: accuracy, predictions that change and megabytes, on the solar cells and --data SOURCE",
        seeds=(0,),
        folder=INSPECTION,
    ),
    Experiment("sorting-kills", "`alexnet sort` killed at fifty random moments: every file in one place?", seeds=(0,)),
    Experiment(
        "copies",
        "copies of images found as near duplicates, on the solar cells and --data SOURCE, and the cost of the search",
        seeds=(0, 1, 2),
    ),
    Experiment(
        "unknown",
        "unknown images: solar cells against --data SOURCE, and a class held out of the first of these",
        seeds=(0, 1, 2),
        folder=INSPECTION,
    ),
    Experiment(
        "inspection",
        "the inspection of the solar cells: cross-validation, decisions with costs and with a recall",
        seeds=(0,),
        folder=INSPECTION,
    ),
    Experiment(
        "transfer", "transfer from the starter to the solar cells and --data SOURCE, with 12 to all training images"
    ),
    Experiment(
        "combined",
        "a fine-tuned network, SIFT with Fisher vectors, and their average, on the solar cells and --data SOURCE",
        seeds=(0, 1, 2),
    ),
    Experiment(
        "budgets",
        "`train --budget` on the solar cells: is the time kept, and which accuracy does it buy?",
        seeds=(0,),
    ),
    Experiment(
        "recipe-ablation",
        "the recipe `small` from scratch with one change at a time, on 1,000 images of --data SOURCE",
        seeds=(0, 1, 2),
        module="recipe_trials",
        values={"table": "recipe-ablation"},
    ),
    Experiment(
        "from-nothing",
        "AlexNet from random weights on 2,000 images of --data SOURCE: the paper's recipe and four steps to learning",
        seeds=(0, 1),
        module="recipe_trials",
        values={"table": "from-nothing"},
    ),
    Experiment(
        "baseline",
        "a linear SVM on HOG and on SIFT with Fisher vectors, on the solar cells and --data SOURCE, beside published "
        "accuracies",
        seeds=(0, 1, 2),
    ),
    Experiment(
        "lineage",
        "from LeNet-5 to ResNet in one figure: sizes, what each network added, and the switch that takes it away",
        seeds=(0,),
    ),
    Experiment(
        "history",
        "SVM on hand-made features, LeNet-5, AlexNet, VGG-11, ResNet-18 on the same images, for the same time and to "
        "their end, on the solar cells or --data SOURCE",
        seeds=(0, 1, 2),
        per_dataset=True,
    ),
]


def experiments() -> dict[str, Experiment]:
    """Return every experiment by name."""
    return {experiment.name: experiment for experiment in _EXPERIMENTS}


def register_experiment(experiment: Experiment) -> None:
    """Add an experiment to `alexnet reproduce`.

    Its module has a function `reproduce(work, results, seeds, command, **options)` that writes `results` and returns a
    summary of one line::

        from alexnet.experiments.catalog import Claim, Experiment, register_experiment

        register_experiment(
            Experiment(
                "my-experiment",
                "test error with my augmentation",
                claims=(Claim("test error", 0.375, "test_error.mean"),),
                module="my_package.my_experiment",
            )
        )

    Parameters
    ----------
    experiment : Experiment
        Its name must be new.

    Raises
    ------
    UsageError
        If an experiment of this name exists.
    """
    if experiment.name in experiments():
        raise UsageError(f"the experiment {experiment.name!r} exists already; choose another name")
    _EXPERIMENTS.append(experiment)


def reproduce(
    name: str,
    *,
    data: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    out: str | None = None,
    results: str | None = None,
    quick: bool = False,
    full: bool = False,
    only: Sequence[str] = (),
    variant: str | None = None,
    init: str | None = None,
    budget: float | None = None,
) -> tuple[str, Path]:
    """Run an experiment and write its results.

    Parameters
    ----------
    name : str
        A name of `experiments()`.
    data : sequence of str
        Sources of images, for experiments that take some.
    seeds : sequence of int, optional
        Random seeds; those of the experiment by default.
    out : str, optional
        Folder of the runs; NAME-out by default.
    results : str, optional
        The JSON file to write; `Experiment.file` under docs/results by default, and a file in `out` if `quick`.
    quick, full : bool
        A trial of about a minute whose numbers are no result; the published length.
    only : sequence of str
        Prefixes of the trials to run.
    variant, init : str, optional
        Network variant; pretrained weights.
    budget : float, optional
        Seconds of the training for the same time.

    Returns
    -------
    tuple of (str, Path)
        A summary of one line, and the file of the results.

    Raises
    ------
    UsageError
        If the experiment does not exist or does not take an option.
    """
    experiment = experiments()[check_choice(name, experiments(), "experiment")]
    options: dict[str, Any] = {"data": data, "only": only, "variant": variant, "init": init, "quick": quick}
    options |= {"full": full, "budget": budget}
    options = {option: value for option, value in options.items() if value}
    function = experiment.function()
    unknown = options.keys() - signature(function).parameters.keys()
    if unknown:
        raise UsageError(f"--{unknown.pop()} is not an option of {experiment.name}")
    seeds = list(seeds or experiment.seeds[: experiment.quick_seeds if quick else None])
    command = ["alexnet", "reproduce", experiment.name, "--seeds", *map(str, seeds)]
    command += [part for folder in data for part in ("--data", Path(folder).name)]
    command += [part for trial in only for part in ("--only", trial)]
    command += ["--variant", variant] if variant else []
    command += ["--init", Path(init).name] if init else []
    command += ["--budget", f"{budget:g}"] if budget else []
    command += [f"--{option}" for option, given in (("quick", quick), ("full", full)) if given]
    work = Path(out or ("quick-out" if quick else experiment.folder or f"{experiment.name}-out"))
    file = Path(results or (work if quick else RESULTS) / experiment.file(data))
    return function(work, file, seeds, " ".join(command), **options), file


@dataclass(frozen=True)
class Row:
    """A row of `alexnet reproduce --list`."""

    experiment: str
    claim: Claim
    measured: float | None

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return experiment, claim, published value, measured value and difference as text."""
        claim = self.claim
        published, measured = claim.format(claim.published), claim.format(self.measured)
        return self.experiment, claim.text, published, measured, claim.difference(self.measured)


def rows(results: Path) -> Iterator[Row]:
    """Yield each claim of each experiment with its measured value in the folder `results`."""
    for experiment in _EXPERIMENTS:
        files = sorted(results.glob(f"{experiment.name}-*.json")) if experiment.per_dataset else []
        for file in files or [results / f"{experiment.name}.json"]:
            found = read_result(file)
            for claim in experiment.claims:
                yield Row(file.stem, claim, _value(found, claim.key))


def print_list(results: str | os.PathLike[str] | None = None) -> None:
    """Print all experiments on stdout, with published beside measured values.

    Parameters
    ----------
    results : path, optional
        A folder of results. By default that of the checkout in the working folder, else the results of this package.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("experiment", "", "published", "measured", "difference", box=None, pad_edge=False)
    named = set()
    for row in rows(Path(results) if results else RESULTS if RESULTS.is_dir() else shipped_results()):
        name, *cells = row.cells()
        table.add_row("" if name in named else name, *cells)
        named.add(name)
    console = Console(highlight=False)
    console.print(table)
    console.print("\nRun one with `alexnet reproduce NAME`; --quick is a trial of about a minute:\n")
    for experiment in _EXPERIMENTS:
        console.print(f"{experiment.name:<14}{experiment.summary}", soft_wrap=True)


def _value(found: Mapping[str, Any], key: str) -> float | None:
    value: Any = found
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
