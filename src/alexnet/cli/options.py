"""Options that several verbs share."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alexnet.runtime.errors import AlexNetError

DATA_HELP = "a prepared dataset: a folder made by `alexnet prepare`"


@contextmanager
def requires_extra(verb: str, extra: str) -> Iterator[None]:
    """Turn the failed import of a package of an extra into one line with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("alexnet"):
            raise
        raise AlexNetError(f"`alexnet {verb}` requires {error.name}: pip install 'alexnet[{extra}]'") from None


def describe_choices(table: Mapping[str, str]) -> str:
    """The names of a table with their descriptions, for a help line."""
    return "; ".join(f"{name}: {description}" for name, description in table.items())


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run folder as a positional argument."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, made by `alexnet train` or `alexnet import`")


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add ``--split``."""
    parser.add_argument("--split", metavar="NAME", help="split to evaluate (default: test if it exists, else val)")


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """Add the options of a decision threshold for two classes."""
    parser.add_argument(
        "--positive", metavar="CLASS", help="positive class of two, such as the defect (default: the rarer class)"
    )
    parser.add_argument(
        "--recall",
        type=float,
        metavar="R",
        help="report the threshold that reaches this recall of the positive class, 0 to 1",
    )


def add_views(parser: argparse.ArgumentParser, default: int, or_rule: bool = False) -> None:
    """Add ``--views``; with `or_rule` the default is None: the views of a decision rule, else `default`."""
    from alexnet.evaluation.views import VIEWS, list_views

    parser.add_argument(
        "--views",
        type=int,
        choices=tuple(VIEWS),
        default=None if or_rule else default,
        help=f"test crops whose probabilities are averaged. {list_views()} "
        f"(default: {'that of the decision rule, else ' if or_rule else ''}{default})",
    )


def add_raw(parser: argparse.ArgumentParser) -> None:
    """Add ``--raw``."""
    parser.add_argument(
        "--raw",
        action="store_true",
        help="ignore the decision rule of `alexnet decide`: the softmax and its most probable class",
    )


def add_precision(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--precision``."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "auto"),
        default=default,
        help="arithmetic of the network. bfloat16 is faster on many machines and changes a probability by at most "
        f"about 0.02; auto selects the faster (default: {default})",
    )


def add_safe(parser: argparse.ArgumentParser) -> None:
    """Add `--safe`."""
    parser.add_argument(
        "--safe",
        action="store_true",
        help="plain PyTorch only: no machine code or Triton kernels of this package, no recorded steps",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: cuda if available, else cpu)"
    )


def add_max_pixels(parser: argparse.ArgumentParser, default: int = 250_000_000) -> None:
    """Add `--max-pixels`."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=default,
        metavar="N",
        help=f"largest image in pixels; larger ones are not decoded (default: {default})",
    )


def add_pixel_range(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--black`` and ``--white``; `default`: what they are where they are not given, for the help text."""
    parser.add_argument(
        "--black",
        type=float,
        metavar="X",
        help=f"value that becomes black in images with more than 8 bits (default: {default})",
    )
    parser.add_argument(
        "--white", type=float, metavar="X", help="value that becomes white in them, such as 4095 for 12 bits"
    )


def add_batch_size(parser: argparse.ArgumentParser, default: int) -> None:
    """Add ``--batch-size``."""
    parser.add_argument(
        "--batch-size", type=int, default=default, metavar="N", help=f"images per batch (default: {default})"
    )


def add_json(parser: argparse._ActionsContainer, what: str = "print the result as JSON on stdout") -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=what)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--recipe``, ``--checkpoint-interval``, and an option for every value of a recipe with its help text."""
    parser.add_argument(
        "--recipe", default="auto", metavar="NAME", help="a recipe from `alexnet recipes` (default: auto)"
    )
    parser.add_argument(
        "--checkpoint-interval",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds between checkpoints (default: 120)",
    )
    group = parser.add_argument_group(
        "recipe values", "Each overrides the value of the recipe. In parentheses: the value of recipe `paper`."
    )
    for name, field in _recipe_fields().items():
        type_name = str(field.type).removesuffix(" | None")
        metavar = field.metadata["metavar"] or {"int": "N", "float": "X", "str": "NAME"}.get(type_name, "NAME|FILE")
        kwargs: dict[str, Any] = {"type": {"int": int, "float": float}.get(type_name, str)}
        if type_name == "bool":
            kwargs = {"action": argparse.BooleanOptionalAction}
        elif field.metadata["choices"]:
            kwargs["choices"] = field.metadata["choices"]
        else:
            kwargs["metavar"] = metavar
        group.add_argument(f"--{name.replace('_', '-')}", default=None, help=field.metadata["help"], **kwargs)


def recipe_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the recipe that were given as options, by name."""
    return {name: value for name in _recipe_fields() if (value := getattr(options, name)) is not None}


def _recipe_fields() -> dict[str, dataclasses.Field[Any]]:
    from alexnet.runs.recipe import Recipe

    return {field.name: field for field in dataclasses.fields(Recipe) if "help" in field.metadata}
