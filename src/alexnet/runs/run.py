"""The run folder: its files, how they are written and read, and how the dataset of the training is found."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from alexnet.data.augmentation import Preprocessing
from alexnet.data.remote import is_address
from alexnet.network.model import AlexNet
from alexnet.network.variants import list_variants, register_variant
from alexnet.runs.config import FORMAT_VERSION, Config
from alexnet.runs.decision import DecisionRule
from alexnet.runs.notebook import notebook_card
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

if TYPE_CHECKING:
    from alexnet.data.dataset import PreparedDataset

MEAN = "preprocess.mean"
CROSS_VALIDATION = "crossval.json"
"""The summary of `alexnet crossval`, by which its folder is recognized."""
ENSEMBLE = "ensemble.json"
"""The list of members that `alexnet ensemble` writes, by which its folder is recognized."""
METRICS = "metrics.jsonl"
LAUNCH = ".launch"  # which launch of torchrun began the run
LOCK = ".lock"  # held by the process that writes to the run folder
BASELINE = "baseline.json"  # instead of config.json, in the folder of `alexnet baseline`
FINISHED = "finished"  # the last event of metrics.jsonl, once the epochs are done


@dataclass(frozen=True)
class Run:
    """A run folder.

    Parameters
    ----------
    path : Path
        The folder.
    config : Config
        The content of its `config.json`.
    """

    path: Path
    config: Config

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run folder.

        A variant whose table is in `config.json` is registered in this process, unless one has its name.

        Raises
        ------
        AlexNetError
            If it is not a run folder, is damaged, or has another format.
        """
        folder = Path(path)
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            if (folder / CROSS_VALIDATION).is_file():
                raise AlexNetError(
                    f"{folder} is a cross-validation: name one of its runs, such as {folder / 'fold-1'} (predict, "
                    "evaluate, decide, compare, sort and serve take the folder and average its networks)"
                ) from None
            if (folder / ENSEMBLE).is_file():
                raise AlexNetError(
                    f"{folder} is an ensemble: name one of the runs in its {ENSEMBLE} (predict, evaluate, decide, "
                    "compare, sort and serve take the folder and average its members)"
                ) from None
            if (folder / BASELINE).is_file():
                raise AlexNetError(
                    f"{folder} is a baseline, which has no network: `alexnet evaluate`, `decide`, `compare`, "
                    "`predict`, `sort` and `report` take it"
                ) from None
            if (folder.parent / "config.json").is_file() and folder.is_file():
                raise AlexNetError(f"{folder} is a file of the run folder {folder.parent}: name the folder") from None
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
            register_variant(config.variant)  # so that training can continue and weights can be exported
        return cls(folder, config)

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Config) -> Run:
        """Create a run folder with `config.json` and `classes.json`.

        Raises
        ------
        AlexNetError
            If the files can't be written.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "classes.json", _json(config.classes))
        _write(folder / "config.json", _json(config.to_dict()))
        return cls(folder, config)

    def with_recipe_value(self, name: str, value: Any) -> Run:
        """The run with another value in the recipe of its `config.json`, which is rewritten.

        Raises
        ------
        AlexNetError
            If the file can't be written.
        """
        config = replace(self.config, recipe=self.config.recipe.override({name: value}))
        _write(self.path / "config.json", _json(config.to_dict()))
        return Run(self.path, config)

    def remove_temporary_files(self) -> None:
        """Remove the incomplete files of a process that was killed."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink()

    def save_weights(
        self, which: str, state: Mapping[str, Tensor], mean: Tensor, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write weights together with the mean that is subtracted from the images.

        Parameters
        ----------
        which : {"best", "last"}
            Those that the recipe keeps become `model.safetensors`, the others `best.safetensors` or `last.safetensors`.
        state : mapping
            State dict of the network; float64 is stored as float32.
        dtype : torch.dtype
            Data type of the weights of layers; biases and normalization are stored as float32.
        mean : Tensor
            (size, size, 3) float32, 0 to 255.
        """
        tensors = {name: stored_tensor(tensor, dtype).cpu().contiguous() for name, tensor in state.items()}
        _write(self.weights_file(which), to_safetensors({**tensors, MEAN: mean.cpu().contiguous()}))

    def weights_file(self, which: str | None = None) -> Path:
        """Path of the "best" or the "last" weights; None for those that the recipe keeps."""
        kept = which in (None, self.config.recipe.keep)
        return self.path / ("model.safetensors" if kept else f"{which}.safetensors")

    def available_weights(self) -> list[str]:
        """Those of "best" and "last" whose weights are saved, the one that the recipe keeps first."""
        keep = self.config.recipe.keep
        order = (keep, "last" if keep == "best" else "best")
        return [which for which in order if self.weights_file(which).is_file()]

    def remove_other_weights(self) -> None:
        """Remove the weights that the recipe does not keep, where those that it keeps are saved."""
        keep, *others = self.available_weights() or [""]
        if keep == self.config.recipe.keep:
            for which in others:
                self.weights_file(which).unlink()

    def metrics(self, event: str | None = None) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`, all or those of one event; empty before the training has begun.

        An incomplete last line, which a training in progress may be writing, is left out.
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
        """Whether the training has completed all epochs."""
        return bool(self.metrics(FINISHED))

    def find_data(self, data: str | os.PathLike[str] | None = None) -> PreparedDataset:
        """Open a prepared dataset, by default the one of the training.

        The dataset of the training is recognized by its checksum. It is looked for where it was (by its absolute
        path), at the path as it was given, and at that path next to the run folder.

        Parameters
        ----------
        data : path or None
            A prepared dataset; None for the one of the training.

        Raises
        ------
        AlexNetError
            If `data` can't be opened; if the dataset of the training is not found, or another one is in its place.
        """
        return find_dataset(self, data)

    def _repr_html_(self) -> str:
        """A summary for notebooks; reads neither weights nor images."""
        return notebook_card(str(self.path), self.config, self.metrics("epoch"), self.metrics("finding"))

    def load(self, device: str | torch.device = "cpu", which: str | None = None) -> tuple[AlexNet, Preprocessing]:
        """Load the trained network.

        Parameters
        ----------
        device : str or torch.device
            Device of the network.
        which : {"best", "last"} or None
            The weights; None for those that the recipe keeps.

        Returns
        -------
        network : AlexNet
            In evaluation mode, float32, channels last.
        preprocess : Preprocessing
            The preprocessing of its images.

        Raises
        ------
        AlexNetError
            If the weights are missing, damaged, or not those of the network in `config.json`.
        """
        file = self.weights_file(which)
        try:
            with safe_open(file, framework="pt") as stored:
                state = {
                    name: float32_of(stored.get_tensor(name))
                    for name in stored.keys()  # noqa: SIM118 (not a dict)
                }
        except FileNotFoundError:
            raise AlexNetError(f"{file} does not exist: the training has not saved these weights yet") from None
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
            raise AlexNetError(f"{file} has no mean image of {self.config.size}×{self.config.size} pixels")
        network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return network, self.config.preprocess(mean.to(device))

    def decision_rule(self, network: AlexNet) -> DecisionRule | None:
        """The decision rule that `alexnet decide` stored for the weights of `network`; None if there is none.

        Raises
        ------
        AlexNetError
            If its file is damaged, or it belongs to other weights.
        """
        return stored_rule(self.path, lambda: checksum_of(network.state_dict()))


def stored_rule(folder: Path, weights: Callable[[], str]) -> DecisionRule | None:
    """The decision rule that `alexnet decide` stored in a folder; None if there is none.

    Parameters
    ----------
    folder : Path
        A run folder, a baseline, a cross-validation or an ensemble.
    weights : callable
        Returns the checksum of what decides; called only where there is a rule.

    Raises
    ------
    AlexNetError
        If the file of the rule is damaged, or it belongs to other weights.
    """
    rule = DecisionRule.load(folder)
    if rule is not None and rule.weights != weights():
        raise AlexNetError(
            f"the decision rule of {folder} (decision.json) belongs to other weights: run "
            f"`alexnet decide {shlex.quote(str(folder))} --data DATA` again, or use --raw"
        )
    return rule


class Described(Protocol):
    """A run, or a baseline: its folder, and a config that describes the dataset of its training."""

    @property
    def path(self) -> Path:
        """The folder."""

    @property
    def config(self) -> Any:
        """Its `dataset`, `classes` and `size`."""


def find_dataset(run: Described, data: str | os.PathLike[str] | None = None) -> PreparedDataset:
    """Open a prepared dataset, by default the one that a run or a baseline was trained on; see `Run.find_data`."""
    from alexnet.data.dataset import PreparedDataset  # imports pyarrow, without which images can be classified sooner

    if data is not None:
        return PreparedDataset.open(data)
    places = _dataset_places(run)
    if not places:
        raise AlexNetError(f"{run.path} has no record of a prepared dataset: name one of its classes with `--data`")
    others = []
    for place in places:
        try:
            dataset = PreparedDataset.open(place)
        except AlexNetError:
            continue
        if _is_dataset(run, dataset):
            return dataset
        others.append(place)
    if others:
        raise AlexNetError(
            f"{others[0]} is not the dataset that {run.path} was trained on (another checksum): "
            "name the right one with `--data`"
        )
    raise AlexNetError(f"the prepared dataset is no longer at {places[0]}: name it with `--data`")


def _dataset_places(run: Described) -> list[str]:
    """The places where the dataset of the training may be, the most likely first."""
    given, absolute = (run.config.dataset.get(key) for key in ("path", "absolute_path"))
    if given is None:
        return []
    places = [absolute or given, given]
    if not is_address(given) and not os.path.isabs(given):
        places.append(str(run.path.parent / given))  # a project folder that was moved as a whole
    return list(dict.fromkeys(places))


def check_has_networks(folder: Path, baselines: bool = True) -> None:
    """Check that a folder is a run, a cross-validation, an ensemble or, where they are taken, a baseline.

    Raises
    ------
    AlexNetError
        If it is none of them. What is a file, or damaged, is left to those who open it.
    """
    files = ("config.json", CROSS_VALIDATION, ENSEMBLE, BASELINE)
    if folder.is_file() or any((folder / file).exists() for file in files):
        return
    if not folder.exists():
        raise AlexNetError(f"{folder} does not exist: name a folder of `alexnet train`, `crossval` or `ensemble`")
    kinds, made, verbs = "a run folder, a cross-validation", f"config.json, {CROSS_VALIDATION}", "`alexnet train`"
    if baselines:
        kinds, made, verbs = f"{kinds}, a baseline", f"{made}, {BASELINE}", f"{verbs}, `baseline`"
    raise AlexNetError(
        f"{folder} is not {kinds} or an ensemble: it has no {made} or {ENSEMBLE} "
        f"({verbs}, `crossval` or `ensemble` makes one)"
    )


def is_of_another_dataset(run: Described, dataset: PreparedDataset) -> bool:
    """Whether a run was trained on another dataset than this one; False where it has no record of one.

    A fold of a cross-validation was trained on a part of the dataset that was cross-validated, which is not another.
    """
    if run.config.dataset.get("checksum") is None or _is_dataset(run, dataset):
        return False
    return _cross_validated(run.path.absolute().parent) != dataset.checksums()


def _cross_validated(folder: Path) -> Any:
    """The checksums of the dataset that was cross-validated in a folder; None where there is none."""
    try:
        return json.loads((folder / CROSS_VALIDATION).read_text(encoding="utf-8"))["settings"]["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_dataset(run: Described, dataset: PreparedDataset) -> bool:
    """Whether this is the dataset of the training, as far as its record says."""
    checksum = run.config.dataset.get("checksum")
    if checksum is not None:
        return bool(checksum == dataset_checksum(dataset))
    return (dataset.classes, dataset.size) == (run.config.classes, run.config.size)


def stored_tensor(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of a network as a file stores it: matrices and convolutions as `dtype`, other floats as float32."""
    if not tensor.is_floating_point():
        return tensor.detach()
    return tensor.detach().to(dtype if tensor.ndim > 1 else torch.float32)


def float32_of(tensor: Tensor) -> Tensor:
    """Floating point as float32, in which a network computes."""
    return tensor.float() if tensor.is_floating_point() else tensor


def update_checksum(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add named tensors to a checksum: their names, shapes and values, in the order of the names."""
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())


def checksum_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) of named tensors."""
    digest = hashlib.sha256()
    update_checksum(digest, tensors)
    return digest.hexdigest()


def dataset_checksum(dataset: PreparedDataset) -> str:
    """SHA-256 (hexadecimal) of the checksums of a dataset's files."""
    return hashlib.sha256(json.dumps(dataset.checksums(), sort_keys=True).encode()).hexdigest()


def dataset_record(dataset: PreparedDataset) -> dict[str, Any]:
    """The entry `dataset` of `config.json`: where the dataset is, and its content."""
    address = dataset.address
    return {
        "path": address,
        "absolute_path": address if is_address(address) else os.path.abspath(address),
        "checksum": dataset_checksum(dataset),
        "counts": dataset.counts,
    }


def is_free(path: str | os.PathLike[str]) -> bool:
    """Whether a run folder can be created there: nothing exists, or only the files of a run killed at its start."""
    folder = Path(path)
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(file.name in ("classes.json", LAUNCH, LOCK) or file.match(".*.tmp") for file in folder.iterdir())


def _json(values: Any) -> bytes:
    # A name from a file system that is not UTF-8 holds lone surrogates, which JSON can express as escapes.
    return json.dumps(values, indent=1, ensure_ascii=False).encode("utf-8", errors="backslashreplace")


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise AlexNetError(f"{path} can't be written: {error.strerror or error}") from error
