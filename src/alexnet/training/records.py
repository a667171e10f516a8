"""What a training writes as it goes: `metrics.jsonl`, a JSON object a line, and TensorBoard's curves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from alexnet.runs.run import METRICS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Records:
    """A run's records while it trains; where another process writes them (without a file and a board), nothing."""

    def __init__(self, file: BinaryIO | None, board: SummaryWriter | None) -> None:
        self._file, self._board = file, board

    def write(self, event: str, **values: Any) -> None:
        """A line of metrics.jsonl."""
        if self._file is not None:
            self._file.write(json.dumps({"event": event, **values}).encode() + b"\n")

    def draw(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each of some curves, by TensorBoard's names for them."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Let others read what was written."""
        if self._file is not None:
            self._file.flush()

    def keep(self) -> int:
        """Let what was written outlast a fall of the machine; returns its length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, size: int) -> None:
        """Leave so many bytes of metrics.jsonl: what comes behind is of steps that will be taken again."""
        if self._file is not None:
            self._file.truncate(size)
            self._file.seek(0, os.SEEK_END)


@contextmanager
def open_records(folder: Path, size: int, step: int, *, leads: bool) -> Iterator[Records]:
    """The records of the run in `folder`, as they were at `step`: `size` bytes of metrics.jsonl."""
    if not leads:
        yield Records(None, None)
        return
    from torch.utils.tensorboard import SummaryWriter

    path = folder / METRICS
    path.touch()
    with path.open("r+b") as file, SummaryWriter(folder / "tensorboard", purge_step=step or None) as board:
        records = Records(file, board)
        records.cut(size)
        yield records
