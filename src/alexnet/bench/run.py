"""The run of the benchmark: the parts of the table, their output on stderr, and the files of results."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexnet.bench.parts import PARTS, Part, Settings
from alexnet.bench.timing import Comparison
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import machine_slug, provenance, read_result, write_result

Result = Sequence[Comparison] | Mapping[str, Any]


def bench(
    only: Sequence[str] = (),
    *,
    batch_size: int | None = None,
    rounds: int = 3,
    images: Path | None = None,
    device: str | None = None,
    results: Path | None = None,
    command: str = "alexnet bench",
) -> dict[str, Any]:
    """Measure parts of the package, alternating with their peers; print each comparison when it is known.

    Parameters
    ----------
    only : sequence of str
        Names of `alexnet.bench.parts.PARTS`; empty for the default run.
    batch_size : int, optional
        Images per batch, instead of each part's own.
    rounds : int
        Timings of each side.
    images : Path, optional
        A folder of JPEG photographs for the parts that read files, instead of synthetic ones.
    device : str, optional
        A device for the parts that take one (layers), instead of the part's own.
    results : Path, optional
        A folder to write the results to. A file there keeps the parts that are not measured now.
    command : str
        The command line, for the provenance of the results.

    Returns
    -------
    dict
        The results by the name of the part, and their provenance.

    Raises
    ------
    UsageError
        If a name, the batch size or the number of rounds is invalid, or if `images` has no readable photographs.
    AlexNetError
        If a part named in `only` requires a package that is not installed.
    """
    for name in only:
        check_choice(name, PARTS, "bench")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch size is {batch_size}; it must be at least 1")
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}; it must be at least 1")
    if device is not None:
        choose_device(device)
    if images is not None and not images.is_dir():
        raise UsageError(f"{images} is not a folder of photographs")
    measured: dict[str, Any] = {}
    origin = {**provenance(command), "rounds": rounds}
    for name in only or [part.name for part in PARTS.values() if part.by_default]:
        part = PARTS[name]
        try:
            with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
                result = _function(part)(Settings(Path(folder), batch_size, rounds, images, device))
        except AlexNetError as error:
            if only:
                raise
            notify(f"{name}: skipped: {error}")
            continue
        if isinstance(result, Mapping):
            notify(json.dumps(result, indent=1))
            measured[name] = {**result, **origin, "versions": origin["versions"] | result.get("versions", {})}
        else:
            for comparison in result:
                notify(_text(comparison))
            measured[name] = {**_entry(result), **origin}
        if results is not None:
            notify(f"{name}: written to {_write(results, part, measured[name])}")
    return {**measured, **origin}


def _function(part: Part) -> Callable[[Settings], Result]:
    """The function of a part; raises `AlexNetError` where a package that it requires is not installed."""
    missing = [package for package in part.packages if find_spec(package) is None]
    if missing:
        raise AlexNetError(
            f"the benchmark {part.name} requires {', '.join(missing)}: pip install 'alexnet[{part.extra}]'"
        )
    from alexnet.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    return _imported(part.function)


def _imported(name: str) -> Callable[..., Any]:
    """A function of this package by its module and name."""
    module, function = name.split(".")
    return getattr(import_module(f"alexnet.bench.{module}"), function)


def _write(folder: Path, part: Part, result: dict[str, Any]) -> Path:
    """Write the result of a part; the other parts of its file stay as they are."""
    file = folder / f"{part.file.format(machine=machine_slug())}.json"
    if part.figure is not None:
        from alexnet.report.style import png

        write_result(file, result)
        write_atomic(file.with_suffix(".png"), png(_imported(part.figure)(result)))
        return file
    keys = [other.key for other in PARTS.values() if other.file == part.file]
    if len(keys) == 1:
        write_result(file, result)
        return file
    content = read_result(file)
    content[part.key] = result
    write_result(file, {key: content[key] for key in keys if key in content})
    return file


def _entry(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The JSON form of a part: the figures of its first comparison, and all comparisons."""
    return {**comparisons[0].figures, "comparisons": [comparison.to_dict() for comparison in comparisons]}


def _text(row: Comparison) -> str:
    """A comparison as text: its ratio and its target, then a line for each figure."""
    low, high = row.spread
    spread = f" ({low:.3g} to {high:.3g})" if low != high else ""
    target = ""
    if row.at_least is not None:
        target = f"  [target {row.at_least:.3g} {'reached' if row.ratio >= row.at_least else 'missed'}]"
    figures = "".join(f"\n    {name.replace('_', ' ')}: {_number(value)}" for name, value in row.figures.items())
    return f"{row.description}\n  {row.ratio:.3g}×{spread} compared with: {row.against}{target}{figures}"


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,.4g}" for name, number in value.items())
    return f"{value:,.4g}" if isinstance(value, float) and value < 1e4 else f"{value:,.0f}"
