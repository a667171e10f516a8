"""Checkpoints: the state from which an interrupted training continues bitwise identically."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

FORMAT_VERSION = 1
FILE = "checkpoint.pt"
MAX_WAIT = 60.0
"""Seconds that a training which has failed waits for files that are still being written."""


def exists(folder: Path) -> bool:
    """Whether a run folder has a checkpoint."""
    return (folder / FILE).exists()


@dataclass
class Checkpoint:
    """The content of a checkpoint.

    Parameters
    ----------
    network : dict
        State dict of the network.
    optimizers : list of dict
        For each optimizer the state of each of its parameters, by index.
    average : dict
        The averaged weights by name; empty where there are none.
    state : dict
        JSON-able state of the training: counters, random generators, schedule.
    layers : list of list of str
        For each optimizer, the layer of each of its parameters.
    """

    network: dict[str, Tensor]
    optimizers: list[dict[int, dict[str, Any]]]
    average: dict[str, Tensor]
    state: dict[str, Any]
    layers: list[list[str]]

    @classmethod
    def of(
        cls,
        network: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        average: dict[str, Tensor],
        state: dict[str, Any],
    ) -> Checkpoint:
        """A checkpoint of the present state, as copies: training may continue."""
        states = [optimizer.state_dict()["state"] for optimizer in optimizers]
        content = cls(network.state_dict(), states, average, state, layers_of(optimizers))
        return content.map_tensors(lambda tensor: tensor.detach().clone())

    def to_meta(self) -> Checkpoint:
        """The same on the meta device: shapes, dtypes and strides without values."""
        return self.map_tensors(lambda tensor: tensor.to("meta"))

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Checkpoint:
        """The same with `change` applied to every tensor."""

        def changed(values: dict[Any, Any]) -> dict[Any, Any]:
            return {key: change(value) if isinstance(value, Tensor) else value for key, value in values.items()}

        optimizers = [{index: changed(values) for index, values in state.items()} for state in self.optimizers]
        return Checkpoint(changed(self.network), optimizers, changed(self.average), self.state, self.layers)

    def restore(self, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Load the state into a network and its optimizers.

        Raises
        ------
        AlexNetError
            If it is the state of another network.
        """
        try:
            network.load_state_dict(self.network)
            # The parameter groups are the recipe's; only the state of each parameter is restored.
            for optimizer, state in zip(optimizers, self.optimizers, strict=True):
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        except (RuntimeError, KeyError, ValueError) as error:
            raise AlexNetError(
                f"{FILE} does not fit this network ({error}); remove it to train from the start"
            ) from error


def tensors_of(content: Checkpoint) -> Iterator[tuple[str, dict[Any, Any], Any]]:
    """Yield every tensor of a checkpoint: the layer it belongs to, and the dictionary and key that hold it."""
    for tensors in (content.network, content.average):
        for name in tensors:
            yield name.split(".")[0], tensors, name
    for state, layers in zip(content.optimizers, content.layers, strict=True):
        for index, values in state.items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    yield layers[index], values, key


def layers_of(optimizers: Sequence[torch.optim.Optimizer]) -> list[list[str]]:
    """For each optimizer, the layer of each of its parameters, in the order of its state."""
    return [[group["layer"] for group in optimizer.param_groups for _ in group["params"]] for optimizer in optimizers]


def write(folder: Path, content: Checkpoint) -> None:
    """Write `checkpoint.pt` atomically. Raises `AlexNetError` if it can't be written."""
    stored = {
        "format_version": FORMAT_VERSION,
        "network": content.network,
        "optimizers": content.optimizers,
        "average": content.average,
        "state": json.dumps(content.state),
    }
    try:
        write_atomic(folder / FILE, lambda file: torch.save(stored, file))
    except (OSError, RuntimeError) as error:
        raise AlexNetError(f"{folder / FILE} can't be written: {error}; the checkpoint before it is kept") from error


def remove(folder: Path) -> None:
    """Remove the checkpoint of a run that is finished."""
    (folder / FILE).unlink(missing_ok=True)


def read(folder: Path, device: torch.device, optimizers: Sequence[torch.optim.Optimizer]) -> Checkpoint | None:
    """Read `checkpoint.pt`.

    Parameters
    ----------
    folder : Path
        The run folder.
    device : torch.device
        Device of the tensors.
    optimizers : sequence of Optimizer
        The optimizers of the training, which name the layers of the parameters.

    Returns
    -------
    Checkpoint or None
        None if there is no file.

    Raises
    ------
    AlexNetError
        If the file is damaged or has another format.
    """
    file = folder / FILE
    if not exists(folder):
        return None
    try:
        stored = torch.load(file, map_location=device, weights_only=True)
        if stored["format_version"] != FORMAT_VERSION:
            raise AlexNetError(f"{file} has format {stored['format_version']}; this version reads {FORMAT_VERSION}")
        return Checkpoint(
            stored["network"],
            stored["optimizers"],
            stored["average"],
            json.loads(stored["state"]),
            layers_of(optimizers),
        )
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise AlexNetError(f"{file} can't be read ({error}); remove it to train from the start") from error


class Writer:
    """Writes files in a thread beside the training, one after the other; on leaving the context all are written."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._thread is not None:  # the error that ended the training is the one to report
            self._thread.join(MAX_WAIT)

    @property
    def busy(self) -> bool:
        """Whether a file is still being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in the thread, after the work before it. Raises the error of the work before it."""
        self.finish()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="writer", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until all files are written. Raises the error of the last work."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
