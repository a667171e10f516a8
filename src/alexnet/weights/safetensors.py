"""safetensors files: those of this package, with config.json in the header, and those of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.runtime.errors import AlexNetError
from alexnet.weights.foreign import ForeignWeights
from alexnet.weights.formats import ReadOptions
from alexnet.weights.state_dicts import find_state_dict, network_from_state_dict

DESCRIPTION = "alexnet.config"
"""Key of the header under which this package stores a run's config.json."""


class _StoredTensor:
    """A tensor of an opened file, not read yet."""

    def __init__(self, opened: Any, name: str) -> None:
        self._opened, self._name = opened, name
        self.shape = tuple(opened.get_slice(name).get_shape())

    def load(self) -> Tensor:
        tensor: Tensor = self._opened.get_tensor(self._name)
        return tensor


def read_safetensors(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read a state dict in this package's layout or in torchvision's, with any prefix.

    Parameters
    ----------
    file : Path
        The file.
    options : ReadOptions, optional
        `variant` names the network where neither the file nor a config.json beside it does; `mean` is its mean image
        where none is stored; `key` chooses among several networks.

    Raises
    ------
    AlexNetError
        If the file is damaged, or nothing says which network it is.
    """
    options = options or ReadOptions()
    try:
        with safe_open(file, framework="pt") as opened:
            described = (opened.metadata() or {}).get(DESCRIPTION)
            arrays = {name: _StoredTensor(opened, name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            state = find_state_dict(arrays, str(file), options.key)
            return network_from_state_dict(state, file, options, described)
    except (OSError, SafetensorError, ValueError) as error:
        raise AlexNetError(f"{file} can't be read: {error}") from None
