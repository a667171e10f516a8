"""The run folder: what a training leaves behind, and how it is read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from alexnet import __version__
from alexnet.data.augmentation import Preprocessing
from alexnet.data.dataset import PreparedDataset
from alexnet.network.model import AlexNet
from alexnet.network.variants import SWITCHES, Variant, get_variant, is_built_in, list_variants, register_variant
from alexnet.runs.notebook import card
from alexnet.runs.recipe import Recipe
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

FORMAT_VERSION = 1
MEAN = "preprocess.mean"
METRICS = "metrics.jsonl"
LAUNCH = ".launch"  # which launch of torchrun began the run
LOCK = ".lock"  # held by the process that writes to the run folder
FINISHED = "finished"  # the last event of metrics.jsonl, once the epochs are done


@dataclass(frozen=True)
class Config:
    """`config.json`: the whole recipe, the classes, and what is done to an image before the network reads it.

    `descriptions`: for each class what it is in words, where the names are identifiers (ImageNet), else None. `start`:
    which layers were taken over from where (`alexnet.training.pretrained`), None where all weights were drawn.
    """

    recipe: Recipe
    classes: list[str]
    size: int
    crop_size: int
    input_size: int
    scale: float
    dataset: dict[str, Any]
    descriptions: list[str] | None = None
    start: dict[str, Any] | None = None
    pixel_range: dict[str, Any] | None = None
    variant: Variant | None = None
    alexnet: str = __version__
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.variant is not None and self.variant.name != self.recipe.variant:
            object.__setattr__(self, "variant", None)
        if self.variant is None and self.recipe.variant in list_variants() and not is_built_in(self.recipe.variant):
            object.__setattr__(self, "variant", get_variant(self.recipe.variant))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The reverse of `to_dict`."""
        variant = values.get("variant")
        return cls(
            **{
                **values,
                "recipe": Recipe.from_dict(values["recipe"]),
                "variant": None if variant is None else Variant.from_dict(variant),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The values of `config.json`."""
        return {**asdict(self), "variant": None if self.variant is None else self.variant.to_dict()}

    @property
    def network_variant(self) -> Variant:
        """The recipe's variant: the table in `config.json`, or the built-in one.

        Raises
        ------
        UsageError
            If the variant is neither built in nor registered, and the config holds no table.
        """
        return self.variant or get_variant(self.recipe.variant)

    @property
    def switches(self) -> dict[str, str]:
        """What of the recipe's network is other than its variant has it, of what changes its layers."""
        return {name: value for name in SWITCHES if (value := getattr(self.recipe, name)) is not None}

    @cached_property
    def labels(self) -> list[str]:
        """What a person calls the classes: their descriptions where there are some (ImageNet), else their names.

        A description that two classes share (ImageNet has two cranes) has the name behind it.
        """
        words = self.descriptions or self.classes
        count = Counter(words)
        return [
            word if count[word] == 1 else f"{word} ({name})" for word, name in zip(words, self.classes, strict=True)
        ]

    def network(self) -> AlexNet:
        """The recipe's network with fresh weights."""
        recipe = self.recipe
        return AlexNet(
            self.network_variant,
            len(self.classes),
            **self.switches,
            dropout=recipe.dropout,
            init=recipe.scheme,
        )

    def preprocess(self, mean: Tensor) -> Preprocessing:
        """What an image goes through before the network reads it; `mean`: (size, size, 3) float32."""
        return Preprocessing(
            mean, self.crop_size, self.scale, self.input_size, mean_of_center=self.recipe.mean == "center"
        )


@dataclass(frozen=True)
class Run:
    """A run folder that was opened: its path and its config."""

    path: Path
    config: Config

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run folder. Raises `AlexNetError` when it is none, or one of another format."""
        folder = Path(path)
        try:
            values = json.loads((folder / "config.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise AlexNetError(
                f"{folder} is not a run folder: it has no config.json (`alexnet train` makes one)"
            ) from None
        except (OSError, ValueError) as error:
            raise AlexNetError(f"{folder / 'config.json'} can't be read: {error}") from error
        if values.get("format_version") != FORMAT_VERSION:
            raise AlexNetError(
                f"{folder} has run format {values.get('format_version')}; this version reads {FORMAT_VERSION}"
            )
        config = Config.from_dict(values)
        if config.variant is not None and config.variant.name not in list_variants():
            register_variant(config.variant)  # so that training goes on with it, and its weights can be exported
        return cls(folder, config)

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Config) -> Run:
        """Make the folder with `config.json` and `classes.json` in it."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "classes.json", json.dumps(config.classes, indent=1, ensure_ascii=False).encode())
        _write(folder / "config.json", json.dumps(config.to_dict(), indent=1, ensure_ascii=False).encode())
        return cls(folder, config)

    def sweep(self) -> None:
        """Remove what a killed writer left half-written."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink()

    def save_weights(self, which: str, state: Mapping[str, Tensor], mean: Tensor) -> None:
        """Write the "best" or the "last" weights, with the mean that belongs to them.

        Those that the recipe keeps are `model.safetensors`, the others `best.safetensors` or `last.safetensors`.
        """
        tensors = {
            name: (tensor.float() if tensor.dtype == torch.float64 else tensor).detach().cpu().contiguous()
            for name, tensor in state.items()
        }
        _write(self.weights_file(which), to_safetensors({**tensors, MEAN: mean.cpu().contiguous()}))

    def weights_file(self, which: str | None = None) -> Path:
        """Where the "best" or the "last" weights are; None for those that the recipe keeps."""
        kept = which in (None, self.config.recipe.keep)
        return self.path / ("model.safetensors" if kept else f"{which}.safetensors")

    def weights_there_are(self) -> list[str]:
        """Which of the "best" and the "last" weights can be loaded now, those that the recipe keeps first."""
        keep = self.config.recipe.keep
        order = (keep, "last" if keep == "best" else "best")
        return [which for which in order if self.weights_file(which).is_file()]

    def metrics(self, event: str | None = None) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl` so far, all or those of one event; none where the training has not begun.

        While a training runs the last line may be half-written: it is left out.
        """
        try:
            lines = (self.path / METRICS).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AlexNetError(f"{self.path / METRICS} can't be read: {error.strerror or error}") from error
        try:
            records = [json.loads(line) for line in lines if line.endswith(b"\n")]
        except ValueError as error:
            raise AlexNetError(f"{self.path / METRICS} can't be read: {error}") from error
        return records if event is None else [record for record in records if record["event"] == event]

    @property
    def finished(self) -> bool:
        """Whether all epochs of the training are done."""
        return bool(self.metrics(FINISHED))

    def find_data(self, data: str | os.PathLike[str] | None = None) -> PreparedDataset:
        """The prepared dataset `data`, by default the one that the run was trained on, where it still is.

        Raises `AlexNetError` when it can't be opened, or the one in the old place is another.
        """
        if data is not None:
            return PreparedDataset.open(data)
        recorded = self.config.dataset.get("path")
        if recorded is None:
            raise AlexNetError("the run was not trained here; name a prepared dataset of its classes with `--data`.")
        try:
            dataset = PreparedDataset.open(recorded)
        except AlexNetError:
            raise AlexNetError(f"the prepared dataset is no longer at {recorded}; name it with `--data`.") from None
        if (dataset.classes, dataset.size) != (self.config.classes, self.config.size):
            raise AlexNetError(f"the dataset at {recorded} is another one; name the right one with `--data`.")
        return dataset

    def _repr_html_(self) -> str:
        """The run in a notebook; reads neither weights nor images."""
        config, counts = self.config, self.config.dataset.get("counts", {})
        return card(
            str(self.path), config.recipe, config.classes, counts, self.metrics("epoch"), self.metrics("finding")
        )

    def load(self, device: str | torch.device = "cpu", which: str | None = None) -> tuple[AlexNet, Preprocessing]:
        """The trained network in evaluation mode, and what its images go through first.

        `which` is "best" or "last"; None for the weights that the recipe keeps.

        Raises `AlexNetError` when the weights are missing, damaged, or not those of the network in `config.json`.
        """
        file = self.weights_file(which)
        try:
            with safe_open(file, framework="pt") as stored:
                state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
        except FileNotFoundError:
            raise AlexNetError(f"{file} does not exist: the training has not come that far") from None
        except (OSError, SafetensorError) as error:
            raise AlexNetError(f"{file} can't be read: {error}") from error
        mean = state.pop(MEAN, None)
        with torch.device("meta"):
            network = self.config.network()
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise AlexNetError(f"{file} does not fit the network of config.json: {error}") from error
        if mean is None or tuple(mean.shape) != (self.config.size, self.config.size, 3):
            raise AlexNetError(f"{file} lacks the mean image of {self.config.size}×{self.config.size} pixels")
        network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return network, self.config.preprocess(mean.to(device))


def add_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add named tensors to a checksum: names, shapes and values, in the order of the names."""
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())


def checksum_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of named tensors."""
    digest = hashlib.sha256()
    add_tensors(digest, tensors)
    return digest.hexdigest()


def is_free(path: str | os.PathLike[str]) -> bool:
    """Whether a run may be made there: nothing yet, or only what a run killed at its very start leaves behind."""
    folder = Path(path)
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(file.name in ("classes.json", LAUNCH, LOCK) or file.match(".*.tmp") for file in folder.iterdir())


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise AlexNetError(f"{path} can't be written: {error.strerror or error}") from error
