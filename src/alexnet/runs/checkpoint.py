"""What a stopped training needs to go on as if it had never stopped."""

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
LONGEST = 60.0
"""Seconds that a training which has failed waits for what is still being written."""


def exists(folder: Path) -> bool:
    """Whether a training there has something to go on from."""
    return (folder / FILE).exists()


@dataclass
class Content:
    """What a checkpoint holds: weights by name, what each rule remembers of its parameters, averaged weights, `state`.

    `layers`: for each rule, the layer that each of its parameters belongs to. `state` is JSON-able.
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
    ) -> Content:
        """What there is now, as copies: training may go on."""
        remembered = [optimizer.state_dict()["state"] for optimizer in optimizers]
        content = cls(network.state_dict(), remembered, average, state, layers_of(optimizers))
        return content.mapped(lambda tensor: tensor.detach().clone())

    def described(self) -> Content:
        """The same without values: shapes, dtypes and strides."""
        return self.mapped(lambda tensor: tensor.to("meta"))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Content:
        """The same with another tensor for each."""

        def changed(values: dict[Any, Any]) -> dict[Any, Any]:
            return {key: change(value) if isinstance(value, Tensor) else value for key, value in values.items()}

        rules = [{index: changed(values) for index, values in rule.items()} for rule in self.optimizers]
        return Content(changed(self.network), rules, changed(self.average), self.state, self.layers)

    def restore(self, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Put weights and rules back as they were. Raises `AlexNetError` when they belong to another network."""
        try:
            network.load_state_dict(self.network)
            # The groups are the recipe's; only what the rule remembers of each parameter is taken from the file.
            for optimizer, state in zip(optimizers, self.optimizers, strict=True):
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        except (RuntimeError, KeyError, ValueError) as error:
            raise AlexNetError(f"{FILE} does not belong to this network ({error}); remove it to start anew") from error


def tensors_of(content: Content) -> Iterator[tuple[str, dict[Any, Any], Any]]:
    """Every tensor of a checkpoint: the layer it belongs to, and the dictionary and key that hold it."""
    for tensors in (content.network, content.average):
        for name in tensors:
            yield name.split(".")[0], tensors, name
    for rule, layers in zip(content.optimizers, content.layers, strict=True):
        for index, values in rule.items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    yield layers[index], values, key


def layers_of(optimizers: Sequence[torch.optim.Optimizer]) -> list[list[str]]:
    """For each rule, the layer that each of its parameters belongs to, in the order that its state has them."""
    return [[group["layer"] for group in rule.param_groups for _ in group["params"]] for rule in optimizers]


def write(folder: Path, content: Content) -> None:
    """Write `checkpoint.pt`."""
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
        raise AlexNetError(f"{folder / FILE} can't be written: {error}; the last whole checkpoint is kept") from error


def remove(folder: Path) -> None:
    """Remove the checkpoint of a run that is finished."""
    (folder / FILE).unlink(missing_ok=True)


def read(folder: Path, device: torch.device, optimizers: Sequence[torch.optim.Optimizer]) -> Content | None:
    """What `write` has left, None without a file. Raises `AlexNetError` for one that is damaged."""
    file = folder / FILE
    if not exists(folder):
        return None
    try:
        stored = torch.load(file, map_location=device, weights_only=True)
        if stored["format_version"] != FORMAT_VERSION:
            raise AlexNetError(f"{file} has format {stored['format_version']}; this version reads {FORMAT_VERSION}")
        return Content(
            stored["network"],
            stored["optimizers"],
            stored["average"],
            json.loads(stored["state"]),
            layers_of(optimizers),
        )
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise AlexNetError(f"{file} can't be read ({error}); remove it to start the training anew") from error


class Writer:
    """Writes files beside the training, in the order that it was given them; as a context, whole before it ends."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._thread is not None:  # the error that ended the training is what counts
            self._thread.join(LONGEST)

    @property
    def busy(self) -> bool:
        """Whether the last files are still being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], None]) -> None:
        """Do this while the training goes on, after what was begun before. Raises what that has raised."""
        self.finish()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="writer", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until all is written. Raises what writing has raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
