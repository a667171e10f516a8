"""What a stopped training needs to go on as if it had never stopped."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.errors import AlexNetError
from alexnet.files import write_whole

FORMAT_VERSION = 1
FILE = "checkpoint.pt"


def exists(folder: Path) -> bool:
    """Whether a training there has something to go on from."""
    return (folder / FILE).exists()


def save(
    folder: Path,
    network: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    average: dict[str, Tensor],
    state: dict[str, Any],
) -> None:
    """Write `checkpoint.pt`: weights, optimizers, averaged weights, and `state`, which must be JSON-able."""
    content = {
        "format_version": FORMAT_VERSION,
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict()["state"] for optimizer in optimizers],
        "average": average,
        "state": json.dumps(state),
    }
    try:
        write_whole(folder / FILE, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:
        raise AlexNetError(f"{folder / FILE} can't be written: {error}; the last whole checkpoint is kept") from error


def load(
    folder: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Put weights and optimizer back as `save` found them; the averaged weights and the state, None without a file.

    Raises `AlexNetError` for a file that is damaged or belongs to another network.
    """
    file = folder / FILE
    if not exists(folder):
        return None
    try:
        content = torch.load(file, map_location=device, weights_only=True)
        if content["format_version"] != FORMAT_VERSION:
            raise AlexNetError(f"{file} has format {content['format_version']}; this version reads {FORMAT_VERSION}")
        network.load_state_dict(content["network"])
        # The groups are the recipe's; only what the rule remembers of each parameter is taken from the file.
        for optimizer, state in zip(optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return content["average"], json.loads(content["state"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise AlexNetError(f"{file} can't be read ({error}); remove it to start the training anew") from error
