"""Everything that is timed, by name; the table and the JSON of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alexnet.bench.timing import Comparison
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.provenance import machine_slug, provenance, write_result

NAMES = ("train-step", "fed", "memory", "lrn", "loader", "prepare", "views", "inference", "startup")


def bench(
    only: Sequence[str] = (),
    *,
    batch_size: int | None = None,
    rounds: int = 3,
    images: Path | None = None,
    results: Path | None = None,
    command: str = "alexnet bench",
) -> dict[str, Any]:
    """Time what `only` names, or everything, in turn with its peers, and print each comparison as it is known.

    batch_size: instead of each bench's own. images: a folder of JPEG photographs for `prepare` and `loader`, instead
    of made ones. results: a folder to write `bench-<machine>.json` into, where what is not timed now stays as it was.
    Returns what was timed. Raises `UsageError` for a name that does not exist, `AlexNetError` when a peer is not
    installed.
    """
    for name in only:
        check_choice(name, NAMES, "bench")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch size is {batch_size}; it must be at least 1")
    if images is not None and not images.is_dir():
        raise UsageError(f"{images} is not a folder of photographs")
    found: dict[str, Any] = {}
    origin = {**provenance(command), "rounds": rounds}
    for name in only or NAMES:
        try:
            with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
                rows = _benches(Path(folder), batch_size, rounds, images)[name]()
        except AlexNetError as error:
            if only:
                raise
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        for row in rows:
            print(_line(row), file=sys.stderr, flush=True)
        found[name] = {**_entry(rows), **origin}
    if results is not None:
        file = results / f"bench-{machine_slug()}.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        write_result(file, {name: part for name in NAMES if (part := found.get(name, before.get(name)))})
        print(f"all of it in {file}", file=sys.stderr)
    return {**found, **origin}


def _benches(
    folder: Path, batch_size: int | None, rounds: int, images: Path | None
) -> dict[str, Callable[[], list[Comparison]]]:
    from alexnet.bench import data as of_images
    from alexnet.bench import inference, lrn, steps
    from alexnet.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    return {
        "train-step": lambda: steps.train_step(batch_size, rounds),
        "fed": lambda: steps.fed(folder, 3 * rounds, batch_size),
        "memory": lambda: steps.memory(batch_size),
        "lrn": lambda: lrn.normalization(batch_size, rounds),
        "loader": lambda: of_images.loading(folder, rounds, images, batch_size),
        "prepare": lambda: of_images.preparing(folder, rounds, images),
        "views": lambda: inference.ten_views(batch_size, rounds),
        "inference": lambda: inference.against_onnx_runtime(rounds),
        "startup": lambda: inference.startup(folder, rounds),
    }


def _entry(rows: list[Comparison]) -> dict[str, Any]:
    """One bench as JSON has it: the first comparison's figures at hand, and all comparisons."""
    return {**rows[0].figures, "comparisons": [row.to_dict() for row in rows]}


def _line(row: Comparison) -> str:
    low, high = row.spread
    spread = f" ({low:.3g} to {high:.3g})" if low != high else ""
    aim = (
        ""
        if row.at_least is None
        else f"  [{'reached' if row.ratio >= row.at_least else 'missed'}: {row.at_least:.3g}]"
    )
    figures = "".join(f"\n    {name.replace('_', ' ')}: {_as_text(value)}" for name, value in row.figures.items())
    return f"{row.description}\n  {row.ratio:.3g}×{spread} of: {row.against}{aim}{figures}"


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,.4g}" for name, number in value.items())
    return f"{value:,.4g}" if isinstance(value, float) and value < 1e4 else f"{value:,.0f}"
