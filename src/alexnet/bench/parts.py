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


COMMON_FILE = "bench-{machine}"
"""The file of results of the parts of the default run."""


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
    extra : str, optional
        The extra of the package that it requires.
    packages : tuple of str
        The modules which that extra installs.
    file : str
        The name of its file of results, without ".json"; "{machine}" is replaced.
    figure : str, optional
        Module and function that draws the result, as PNG beside the file.
    """

    name: str
    description: str
    function: str
    extra: str | None = None
    packages: tuple[str, ...] = ()
    file: str = COMMON_FILE
    figure: str | None = None

    @property
    def by_default(self) -> bool:
        """Whether `alexnet bench` without `--only` measures it."""
        return self.file == COMMON_FILE

    @property
    def key(self) -> str:
        """Its key in the file of results, if that has other parts."""
        return self.name.removeprefix(f"{self.file}-")


def _engines(name: str, network: str, function: str) -> Part:
    """A part of the default run that compares inference with other engines."""
    return Part(
        f"inference-{name}",
        f"inference of {network} against ONNX Runtime and OpenVINO",
        f"inference.{function}",
        extra="onnx,openvino",
        packages=("onnx", "onnxruntime", "openvino"),
    )


def _parallel(key: str, description: str, function: str) -> Part:
    """A part of the file of results of parallel training."""
    return Part(f"parallel-{key}", description, f"parallel.{function}", file="parallel")


SERVER_PACKAGES = ("fastapi", "uvicorn", "multipart", "prometheus_client")
_ALL = (
    Part("train-step", "a training step against a textbook AlexNet and a matrix product", "steps.train_step"),
    Part("fed", "training on data against training on one repeated batch", "steps.fed"),
    Part("memory", "peak memory of training against a textbook AlexNet", "steps.memory"),
    Part("lrn", "local response normalization against PyTorch's and a copy", "lrn.normalization"),
    Part("loader", "loading of batches against a DataLoader over the files", "data.loading"),
    Part("prepare", "preparation of photographs against decoding alone", "data.preparing"),
    Part(
        "sources",
        "preparation of 12-megapixel photographs against libvips and Pillow, of small files and of a zip file, and a "
        "dataset at s3://",
        "sources.sources",
        extra="dev",
        packages=("pyvips", "s3fs", "moto"),
        file="sources-{machine}",
    ),
    Part("views", "ten-view evaluation against ten forward passes", "inference.ten_views"),
    _engines("small", "the network of the recipe `small`", "small"),
    _engines("paper", "the network of the paper", "paper"),
    _engines("one-weird-trick", "the network `one-weird-trick`", "one_weird_trick"),
    Part("verbs", "prediction, evaluation and search against the network alone", "verbs.verbs"),
    Part("startup", "start of the command, and one image from a cold start", "inference.startup"),
    Part(
        "kernels",
        "the gain of each kernel over its best plain form, in a training step, inference, loading and preparation",
        "kernels_worth.kernels",
        file="kernels-{machine}",
    ),
    Part(
        "layers",
        "a training step layer by layer: time, operations and bytes, against the bandwidth and the matrix rate",
        "layers.layers",
        extra="report",
        packages=("matplotlib",),
        file="layers-{machine}",
        figure="layers.figure",
    ),
    Part(
        "equality",
        "the optimized network against the plain one over 200 updates",
        "equality.equality",
        file="equality",
    ),
    Part(
        "search",
        "nearest neighbors among a million vectors (17 GB of disk)",
        "search.search",
        extra="search",
        packages=("faiss",),
        file="search-{machine}",
    ),
    Part(
        "scaling",
        "time and memory of each verb against the number of images (to a million), the number of classes, and the side "
        "of the images (40 minutes, 8 GB of disk)",
        "scaling.scaling",
        extra="serve",
        packages=("matplotlib", *SERVER_PACKAGES),
        file="scaling-{machine}",
        figure="scaling.figure",
    ),
    Part(
        "serve",
        "latency and throughput over HTTP against the same process",
        "serve.serve",
        extra="serve",
        packages=SERVER_PACKAGES,
        file="serve-{machine}",
    ),
    _parallel("plan", "the model of many devices beside the published table", "planned"),
    _parallel("exchange", "bytes that each layout sends", "exchange"),
    _parallel("memory", "memory of a tower against a single process", "memory"),
    _parallel("kills", "a training whose workers are killed", "kills"),
    _parallel("overhead", "two processes against one with two threads", "overhead"),
)
PARTS = {part.name: part for part in _ALL}
"""All parts by name, in the order of the default run and of the files of results."""
