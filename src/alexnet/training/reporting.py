"""The reports of a training: `metrics.jsonl`, TensorBoard's curves, the progress bar, and findings."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from alexnet.runs.run import METRICS
from alexnet.runtime.progress import Progress, progress
from alexnet.training.diagnostics import EpochValidation, LayerUpdate
from alexnet.training.findings import Finding

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class EpochSummary:
    """An epoch that is done: losses in nats, error rates and dead units from 0 to 1, its learning rate and speed.

    `traffic` has bytes sent and seconds waited for each purpose, where several processes train.
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    error: float
    lr: float
    validation: EpochValidation | None
    layers: Sequence[LayerUpdate]
    dead: Mapping[str, float]
    images_per_second: float
    seconds: float
    steps: int
    traffic: Mapping[str, Sequence[float]]


class Reporter:
    """The reports of one training; in a process that does not lead, of nothing.

    Parameters
    ----------
    file : binary file or None
        metrics.jsonl, open at its end.
    board : SummaryWriter or None
        TensorBoard's event file.
    bar : Progress
        The progress bar.
    """

    def __init__(self, file: BinaryIO | None, board: SummaryWriter | None, bar: Progress) -> None:
        self._file, self._board, self.bar = file, board, bar

    def note(self, line: str) -> None:
        """A line for people, on stderr."""
        self.bar.note(line)

    def record(self, event: str, **values: Any) -> None:
        """Append a JSON object to metrics.jsonl."""
        if self._file is not None:
            self._file.write(json.dumps({"event": event, **values}).encode() + b"\n")

    def draw(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each of some curves, named as in TensorBoard."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def findings(self, findings: Sequence[Finding], step: int) -> None:
        """Print and record findings of the diagnostics."""
        for finding in findings:
            self.note(f"! {finding.message}; {finding.remedy}")
            self.record("finding", step=step, **dataclasses.asdict(finding))

    def step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        """Record the loss of a step (from 1)."""
        self.record("step", epoch=epoch, step=step, loss=loss, lr=lr)
        self.draw(step, {"loss/step": loss})

    def epoch(self, summary: EpochSummary) -> None:
        """Print, record and draw the results of an epoch."""
        validation = summary.validation
        record: dict[str, Any] = {
            "epoch": summary.epoch,
            "step": summary.step,
            "train_loss": summary.loss,
            "train_error": summary.error,
            "lr": summary.lr,
            "images_per_second": summary.images_per_second,
            "seconds": summary.seconds,
            "layers": {layer.name: {"weight": layer.weight, "update": layer.update} for layer in summary.layers},
            "dead": dict(summary.dead),
        }
        line = f"epoch {summary.epoch}/{summary.epochs}  loss {summary.loss:.4f}  error {summary.error:.2%}"
        curves = {
            "loss/train": summary.loss,
            "error/train": summary.error,
            "rate/images_per_second": summary.images_per_second,
            "rate/learning": summary.lr,
            **{f"weight/{layer.name}": layer.weight for layer in summary.layers},
            **{f"update/{layer.name}": layer.update for layer in summary.layers},
        }
        if validation is not None:
            record |= {"validation_loss": validation.loss, "validation_error": validation.error}
            line += f"  |  validation loss {validation.loss:.4f}  error {validation.error:.2%}"
            curves |= {"loss/validation": validation.loss, "error/validation": validation.error}
        self.note(f"{line}  |  lr {summary.lr:.2g}  {summary.images_per_second:.0f} images/s")
        if summary.traffic:
            record["traffic"] = {
                name: {"bytes": size, "seconds": seconds} for name, (size, seconds) in summary.traffic.items()
            }
            self.note(_traffic_line(summary))
        self.record("epoch", **record)
        self.draw(summary.step, curves)

    def flush(self) -> None:
        """Make what was recorded readable for others."""
        if self._file is not None:
            self._file.flush()

    def sync(self) -> int:
        """Write what was recorded to the disk; returns the length of metrics.jsonl in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def truncate(self, size: int) -> None:
        """Keep the first `size` bytes of metrics.jsonl: the rest is of steps that will be executed again."""
        if self._file is not None:
            self._file.truncate(size)
            self._file.seek(0, os.SEEK_END)


@contextmanager
def open_reporter(folder: Path, *, size: int, step: int, total: int, done: int, leads: bool) -> Iterator[Reporter]:
    """The reporter of the run in `folder`, as it was at `step`: `size` bytes of metrics.jsonl.

    `total` images are to be trained on in all epochs, of which `done` were before.
    """
    if not leads:
        with progress(total, "training", done, silent=True) as bar:
            yield Reporter(None, None, bar)
        return
    from torch.utils.tensorboard import SummaryWriter

    path = folder / METRICS
    path.touch()
    with (
        path.open("r+b") as file,
        SummaryWriter(folder / "tensorboard", purge_step=step or None) as board,
        progress(total, "training", done) as bar,
    ):
        reporter = Reporter(file, board, bar)
        reporter.truncate(size)
        yield reporter


def _traffic_line(summary: EpochSummary) -> str:
    """The traffic of this process in an epoch, in one line."""
    traffic = summary.traffic
    size, waited = (sum(values[number] for values in traffic.values()) for number in (0, 1))
    largest = sorted(traffic.items(), key=lambda entry: -entry[1][0])[:4]
    parts = ", ".join(f"{name} {values[0] / summary.steps / 1e6:.2f}" for name, values in largest)
    share = waited / max(summary.seconds, 1e-9)
    return f"sent {size / summary.steps / 1e6:.2f} MB per step ({parts}); waited {share:.0%} of the time"
