"""The experiments there are: what each repeats, what was published, and where its result says what came out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from alexnet.experiments.published import PUBLISHED
from alexnet.runtime.errors import UsageError, check_choice

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
    """A difference of shares in points, as the table has it; one that rounds to none has no minus sign."""
    return f"{round(share * 100, 1) + 0:+.1f} points"


FORMS: dict[str, Callable[[float], str]] = {
    "share": "{:.1%}".format,
    "times": "{:.1f}×".format,
    "points": points,
    "number": "{:.2f}".format,
}
"""How a value is written."""


@dataclass(frozen=True)
class Claim:
    """A published number, and the place of ours in the experiment's JSON: names from the outside in, with dots."""

    what: str
    published: float | None
    key: str
    form: str = "share"

    def words(self, value: float | None) -> str:
        """The value as the table has it; a dash where there is none."""
        return "–" if value is None else FORMS[self.form](value)

    def difference(self, measured: float | None) -> str:
        """Measured against published: a ratio for what is a ratio, else the difference in points."""
        if measured is None or self.published is None:
            return "–"
        if self.form in ("times", "number"):
            return f"{measured / self.published:.2f}×"
        return points(measured - self.published)


@dataclass(frozen=True)
class Experiment:
    """One thing that `alexnet reproduce` repeats: the function `reproduce` of a module of this package.

    `module`: its name, by default the experiment's own; `values`: what it is called with for this experiment; `folder`:
    where the runs go, for experiments that share some; `quick_seeds`: how many of them `--quick` takes. `of_any_set`:
    `--data` is another set of images, with results of its own.
    """

    name: str
    summary: str
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    module: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    quick_seeds: int = 1
    of_any_set: bool = False

    def file(self, data: Sequence[str]) -> str:
        """The name of the results: NAME.json, or NAME-SET.json."""
        return f"{'-'.join([self.name, *filter(None, [set_name(data)])]) if self.of_any_set else self.name}.json"

    def function(self) -> Callable[..., str]:
        """What does it: (work folder, file for the results, seeds, command, and what of `options` it takes)."""
        name = self.module or self.name.replace("-", "_")
        return partial(import_module(f"alexnet.experiments.{name}").reproduce, **self.values)


def set_name(data: Sequence[str]) -> str | None:
    """What the images of `--data` are called in the name of a file; None without."""
    return name_of(data[0]) if data else None


def name_of(source: str) -> str:
    """What a file, a folder or weights are called in names: lower case, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", Path(source).resolve().stem.lower()).strip("-")


CIFAR = "cifar-out"  # one copy of the images, and trials in common
ABLATION = "ablation-out"


def _costs(what: str, published: float | None, change: str) -> Claim:
    return Claim(what, published, f"changes.{change}.difference.mean", "points")


def _imagenet_claims() -> Iterator[Claim]:
    """Tables 1 and 2: what one network reaches on ten views, as printed and as it was trained."""
    of = {(row.year, row.variant): row for row in reversed(PUBLISHED) if row.views == 10}  # the first of each
    for year in ("2012", "2010"):
        for variant in ("paper", "released-2012"):
            row = of[year, variant]
            for top, published in (("top-1", row.top1_error), ("top-5", row.top5_error)):
                key = f"{year}.{variant}.{row.split}.views_10.{top.replace('-', '')}_error.mean"
                yield Claim(f"ILSVRC-{year} {row.split}, {top} error, {variant}", published, key)


_ALL = (
    Experiment(
        "figure-1",
        "ReLU against tanh: epochs until a four-layer network has 25% training error on CIFAR-10 (3.1)",
        (Claim("tanh's epochs to 25% training error, as a multiple of ReLU's", 6.0, "ratio", "times"),),
        (0, 1, 2),
    ),
    Experiment(
        "cifar-18pct",
        "cuda-convnet's 18pct on CIFAR-10, without augmentation",
        (Claim("test error", 0.18, "test_error.mean"),),
        *((0,), "cifar_networks", {"network": "cifar-18pct"}, CIFAR),
    ),
    Experiment(
        "cifar-13pct",
        "cuda-convnet's conv-local-13pct on CIFAR-10: crops, mirror images, nine views",
        (Claim("test error, nine views", 0.13, "test_error.mean"),),
        *((0,), "cifar_networks", {"network": "cifar-13pct"}, CIFAR),
    ),
    Experiment(
        "cifar-11pct",
        "cuda-convnet's conv-local-11pct on CIFAR-10: wider, with response normalization",
        (Claim("test error, nine views", 0.11, "test_error.mean"),),
        *((0,), "cifar_networks", {"network": "cifar-11pct"}, CIFAR),
    ),
    Experiment(
        "cifar-lrn",
        "the same network on CIFAR-10 without response normalization and with it (3.3)",
        (
            Claim("test error without", 0.13, "without.test_error.mean"),
            Claim("test error with", 0.11, "with.test_error.mean"),
            Claim("what it takes away", -0.02, "difference", "points"),
        ),
        (0,),
        folder=CIFAR,
    ),
    Experiment(
        "cifar-copy",
        "what a JPEG copy of CIFAR-10 costs 18pct: its images compressed once more; and what bfloat16 costs",
        (
            Claim("more error when compressed once more", None, "again.difference.mean", "points"),
            Claim(
                "more error when as much is lost once more as the copy lost", None, "as_much.difference.mean", "points"
            ),
            Claim("more error in float32 than in bfloat16", None, "float32.difference.mean", "points"),
        ),
        (0, 1),
        folder=CIFAR,
    ),
    Experiment(
        "imagenet",
        "tables 1 and 2: all of it on ILSVRC-2012 or 2010, with --data FOLDER of its tar files; --quick lists them, "
        "trains on an image of each class, and says what the whole would take",
        tuple(_imagenet_claims()),
        (0,),
    ),
    Experiment(
        "ablation",
        "the network on photographs against itself with one thing changed (3.1 to 5, 7)",
        (
            _costs("more error with tanh", None, "tanh"),
            _costs("more error without response normalization", 0.014, "no-lrn"),
            _costs("more error with pooling that does not overlap", 0.004, "non-overlapping"),
            _costs("more error with one tower of half the kernels", 0.017, "half"),
            _costs("more error without dropout", None, "no-dropout"),
            _costs("more error without crops and mirror images", None, "no-crops"),
            _costs("more error without color shift (published: over 1)", 0.01, "no-color"),
            _costs("more error without conv3", 0.02, "without-conv3"),
            _costs("more error without conv4", 0.02, "without-conv4"),
            _costs("more error without conv5", 0.02, "without-conv5"),
            _costs("more error with batch normalization instead", None, "batch"),
            _costs("more error with N(0, 0.01²) instead of He's weights", None, "paper-init"),
        ),
        (0, 1, 2),
        folder=ABLATION,
        of_any_set=True,
    ),
    Experiment(
        "ensemble",
        "one, three and five of these networks averaged (6, table 2)",
        (Claim("what averaging five takes away", -0.026, "networks.5.difference", "points"),),
        module="averaged_networks",
        folder=ABLATION,
        quick_seeds=3,
        of_any_set=True,
    ),
    Experiment(
        "views",
        "one view of each image against ten, by the same networks (4.1)",
        (Claim("what ten views take away", -0.015, "difference.mean", "points"),),
        module="ten_views",
        folder=ABLATION,
        quick_seeds=3,
        of_any_set=True,
    ),
    Experiment(
        "towers",
        "does one of two towers learn color, the other gray? (6.1, figure 3; needs --data of color photographs)",
        (
            Claim(
                "saturation of the more colorful tower's first kernels", None, "kernels.more_colorful.mean", "number"
            ),
            Claim("saturation of the paler tower's", None, "kernels.paler.mean", "number"),
            Claim("the same of what training added: more colorful", None, "learned.more_colorful.mean", "number"),
            Claim("the same of what training added: paler", None, "learned.paler.mean", "number"),
        ),
        (0, 1, 2),
    ),
    Experiment("solar", "the demo's training from scratch, measured on the 656 solar cells never seen"),
    Experiment(
        "solar-float32",
        "the same in float32: does bfloat16 cost accuracy?",
        *((), (0,), "solar", {"precision": "float32"}),
    ),
    Experiment(
        "small",
        "does the loss fall in the first tenth of a run, on 12, 200, 2,000 and 95 : 5 unbalanced images?",
        module="small_sets",
    ),
    Experiment(
        "starter", "the features that the package comes with, from Tiny ImageNet (--data tiny-imagenet-200)", (), (0,)
    ),
    Experiment(
        "transfer", "what they are worth, on the solar cells and on --data FOLDER, with 12 to all training images"
    ),
)


def experiments() -> dict[str, Experiment]:
    """Every experiment by name."""
    return {experiment.name: experiment for experiment in _ALL}


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
        The JSON file to write; docs/results/NAME.json by default, and a file in `out` if `quick`.
    quick, full : bool
        A trial of about a minute whose numbers are no result; the published length.
    only : sequence of str
        Prefixes of the trials to run.
    variant, init : str, optional
        Network variant; pretrained weights.

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
    options = {"data": data, "only": only, "variant": variant, "init": init, "quick": quick, "full": full}
    options = {option: value for option, value in options.items() if value}
    function = experiment.function()
    unknown = options.keys() - signature(function).parameters.keys()
    if unknown:
        raise UsageError(f"--{unknown.pop()} is not an option of {experiment.name}")
    seeds = list(seeds or experiment.seeds[: experiment.quick_seeds if quick else None])
    command = ["alexnet", "reproduce", experiment.name, "--seeds", *map(str, seeds)]
    command += [word for folder in data for word in ("--data", Path(folder).name)]
    command += [word for trial in only for word in ("--only", trial)]
    command += ["--variant", variant] if variant else []
    command += ["--init", Path(init).name] if init else []
    command += [f"--{option}" for option, given in (("quick", quick), ("full", full)) if given]
    work = Path(out or ("quick-out" if quick else experiment.folder or f"{experiment.name}-out"))
    file = Path(results or (work if quick else RESULTS) / experiment.file(data))
    return function(work, file, seeds, " ".join(command), **options), file


@dataclass(frozen=True)
class Row:
    """A line of `alexnet reproduce --list`."""

    experiment: str
    claim: Claim
    measured: float | None

    def words(self) -> tuple[str, str, str, str, str]:
        """Experiment, what it is about, published, measured, and how they differ."""
        claim = self.claim
        published, measured = claim.words(claim.published), claim.words(self.measured)
        return self.experiment, claim.what, published, measured, claim.difference(self.measured)


def rows(results: Path) -> Iterator[Row]:
    """Each claim of each experiment, beside what its file in the folder `results` says."""
    for experiment in _ALL:
        files = {experiment.name: results / f"{experiment.name}.json"}
        if experiment.of_any_set:
            files |= {file.stem: file for file in sorted(results.glob(f"{experiment.name}-*.json"))}
        for name, file in files.items():
            found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            for claim in experiment.claims:
                yield Row(name, claim, _value(found, claim.key))


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
    told = set()
    for row in rows(Path(results) if results else RESULTS if RESULTS.is_dir() else shipped_results()):
        name, *words = row.words()
        table.add_row("" if name in told else name, *words)
        told.add(name)
    console = Console(highlight=False)
    console.print(table)
    console.print("\nWhat each does (alexnet reproduce NAME; --quick tries one in about a minute):\n")
    for experiment in _ALL:
        console.print(f"{experiment.name:<14}{experiment.summary}", soft_wrap=True)


def _value(found: Mapping[str, Any], key: str) -> float | None:
    value: Any = found
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
