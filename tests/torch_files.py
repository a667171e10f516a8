"""Files of `torch.save`, for the tests of what reads weights."""

import io
import os
from pathlib import Path
from typing import Any

import torch


class Command:
    """Pickled, it is a call of the shell."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def saved(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()
