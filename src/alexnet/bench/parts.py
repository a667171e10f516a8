"""The table of the benchmark's parts, read by `alexnet bench`, its help and `alexnet.bench.run`.

A new part is a function that takes `Settings`, in a module of this package, and a row of `PARTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The settings of a part.

    Attributes
    ----------
    folder : Path
        A temporary folder for the files of the part.
    batch_size : int, optional
        Images per batch; None for the part's own.
    rounds : int
        Timings of each side.
    images : Path, optional
        A folder of JPEG photographs; None for synthetic ones.
    device : str, optional
        A device for the parts that take one; None for the part's own.
    """

    folder: Path
    batch_size: int | None = None
    rounds: int = 3
    images: Path | None = None
    device: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes
    ----------
    name : str
        The value of `--only`.
    description : str
        The measurement, in one line.
    function : str
        Module of this package and function, such as "steps.train_step". The function takes `Settings`, and returns a
        list of `Comparison` or a dict that can be written as JSON.
    by_default : bool
        Whether `alexnet bench` without `--only` measures it.
    extra : str, optional
        The extra of the package that it requires.
    packages : tuple of str
        The modules which that extra installs.
    file : str
        The name of its file of results, without ".json"; "{machine}" is replaced.
    key : str, optional
        Its key in that file; None if the file has no other part.
    figure : str, optional
        Module and function that draws the result, as PNG beside the file.
    """

    name: str
    description: str
    function: str
    by_default: bool = True
    extra: str | None = None
    packages: tuple[str, ...] = ()
    file: str = "bench-{machine}"
    key: str | None = None
    figure: str | None = None


def _compared(name: str, description: str, function: str, **options: str | tuple[str, ...]) -> Part:
    """A part of the default run, a list of comparisons in the common file."""
    return Part(name, description, function, key=name, **options)  # type: ignore[arg-type]


def _engines(name: str, network: str, function: str) -> Part:
    """A part of the default run that compares inference with other engines."""
    return _compared(
        f"inference-{name}",
        f"inference of {network} against ONNX Runtime and OpenVINO",
        f"inference.{function}",
        extra="onnx,openvino",
        packages=("onnx", "onnxruntime", "openvino"),
    )


def _parallel(key: str, description: str, function: str) -> Part:
    """A part of the file of results of parallel training, not in the default run."""
    return Part(f"parallel-{key}", description, f"parallel.{function}", by_default=False, file="parallel", key=key)


PARTS = (
    _compared("train-step", "a training step against a textbook AlexNet and a matrix product", "steps.train_step"),
    _compared("fed", "training on data against training on one repeated batch", "steps.fed"),
    _compared("memory", "peak memory of training against a textbook AlexNet", "steps.memory"),
    _compared("lrn", "local response normalization against PyTorch's and a copy", "lrn.normalization"),
    _compared("loader", "loading of batches against a DataLoader over the files", "data.loading"),
    _compared("prepare", "preparation of photographs against decoding alone", "data.preparing"),
    Part(
        "sources",
        "preparation of 12-megapixel photographs against libvips and Pillow, of small files, and of a zip file",
        "sources.sources",
        by_default=False,
        extra="dev",
        packages=("pyvips",),
        file="sources-{machine}",
    ),
    _compared("views", "ten-view evaluation against ten forward passes", "inference.ten_views"),
    _engines("small", "the network of the recipe `small`", "small"),
    _engines("paper", "the network of the paper", "paper"),
    _engines("one-weird-trick", "the network `one-weird-trick`", "one_weird_trick"),
    _compared("verbs", "prediction, evaluation and search against the network alone", "verbs.verbs"),
    _compared("startup", "start of the command, and one image from a cold start", "inference.startup"),
    Part(
        "kernels",
        "the gain of each kernel over its best plain form, in a training step, inference, loading and preparation",
        "kernels_worth.kernels",
        by_default=False,
        file="kernels-{machine}",
    ),
    Part(
        "layers",
        "a training step layer by layer: time, operations and bytes, against the bandwidth and the matrix rate",
        "layers.layers",
        by_default=False,
        extra="report",
        packages=("matplotlib",),
        file="layers-{machine}",
        figure="layers.figure",
    ),
    Part(
        "equality",
        "the optimized network against the plain one over 200 updates",
        "equality.equality",
        by_default=False,
        file="equality",
    ),
    Part(
        "search",
        "nearest neighbors among a million vectors (17 GB of disk)",
        "search.search",
        by_default=False,
        extra="search",
        packages=("faiss",),
        file="search-{machine}",
    ),
    Part(
        "scaling",
        "time and memory of each verb against the numbers of images and classes and the side of the images",
        "scaling.scaling",
        by_default=False,
        extra="serve",
        packages=("matplotlib", "fastapi", "uvicorn", "multipart", "prometheus_client"),
        file="scaling-{machine}",
        figure="scaling.figure",
    ),
    Part(
        "serve",
        "latency and throughput over HTTP against the same process",
        "serve.serve",
        by_default=False,
        extra="serve",
        packages=("fastapi", "uvicorn", "multipart", "prometheus_client"),
        file="serve-{machine}",
    ),
    _parallel("plan", "the model of many devices beside the published table", "planned"),
    _parallel("exchange", "bytes that each layout sends", "exchange"),
    _parallel("memory", "memory of a tower against a single process", "memory"),
    _parallel("kills", "a training whose workers are killed", "kills"),
    _parallel("overhead", "two processes against one with two threads", "overhead"),
)
"""All parts, in the order of the default run and of the files of results."""


def find_part(name: str) -> Part:
    """The part of that name; raises `KeyError` without one."""
    return {part.name: part for part in PARTS}[name]


def names(*, by_default: bool | None = None) -> tuple[str, ...]:
    """The names of all parts, or of those that the default run measures or leaves out."""
    return tuple(part.name for part in PARTS if by_default in (None, part.by_default))
