"""A training step as one launch on a GPU: recorded as a CUDA graph once steps of its kind repeat.

A step is a hundred kernels and more. Launched one by one they can keep the CPU busy for longer than a fast GPU needs to
compute them at a batch of 128; replayed, they are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Work = Callable[..., Tensor]
"""A step: a function of tensors on the device that returns one there. It changes others in place and never waits."""

WARM_UP_STEPS = 3  # of a kind before it is recorded: libraries choose their kernels, optimizers create their state
MAX_RECORDINGS = 2  # each has memory of its own; the batch sizes of an epoch differ by one at most
TOLERANCE = 0.3  # largest deviation of the replayed from the eager change; with another dropout mask it is 1.4


class Recording(NamedTuple):
    """A recorded step: it reads `inputs` and writes `result`, always at the same addresses."""

    inputs: list[Tensor]
    result: Tensor
    replay: Callable[[], None]


Capture = Callable[[Work, list[Tensor]], Recording]


def capture_for(device: torch.device) -> Capture | None:
    """How a step is recorded on a device; None where it is not."""
    return capture_cuda_graph if device.type == "cuda" else None


def capture_cuda_graph(work: Work, inputs: list[Tensor]) -> Recording:
    """Record `work` as a CUDA graph; recording computes nothing."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(inputs[0].device)
    # Another thread reads batches into pinned memory, which it may do while this one records.
    with torch.cuda.device(inputs[0].device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        result = work(*inputs)
    return Recording(inputs, result, graph.replay)


class PendingResult(NamedTuple):
    """Loss and errors of a step (from 1) in transfer from the device, `totals` (2,)."""

    step: int
    images: int
    totals: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, totals: Tensor, step: int, images: int) -> PendingResult:
        """Start the transfer of `totals` (2,), which are on their device."""
        if totals.device.type != "cuda":
            return cls(step, images, totals.clone(), None)
        there = torch.empty(totals.shape, dtype=totals.dtype, pin_memory=True).copy_(totals, non_blocking=True)
        return cls(step, images, there, torch.cuda.current_stream(totals.device).record_event())

    def read(self) -> tuple[float, int]:
        """Wait for loss and errors."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, errors = self.totals.tolist()
        return loss, int(errors)


class RecordedStep:
    """Executes steps: from a recording where a kind of step came `WARM_UP_STEPS` times, eagerly otherwise.

    A recording is tested once against the eager step, from the same state and with the same random numbers. Where it
    differs, or recording raises an error, all further steps are eager, and `note` reports it in one line.

    Parameters
    ----------
    device : torch.device
        Where the steps are computed.
    capture : callable
        Records a step.
    state : callable
        Every tensor that a step changes in place.
    note : callable
        Takes a line for people.
    """

    def __init__(
        self, device: torch.device, capture: Capture, state: Callable[[], Iterable[Tensor]], note: Callable[[str], None]
    ) -> None:
        self.device, self.state, self.note = device, state, note
        self.capture: Capture | None = capture
        self.seen: dict[Hashable, int] = {}
        self.recordings: dict[Hashable, Recording] = {}

    def __call__(self, kind: Hashable, work: Work, inputs: Sequence[Tensor], seed: int) -> Tensor:
        """The result of `work` for `inputs`, with random numbers from `seed`; to be read before the next call.

        `kind` identifies everything that a step depends on beside the values of its inputs and of the state, such as
        shapes and learning rates.
        """
        torch.manual_seed(seed)
        recording = self.recordings.get(kind)
        if recording is not None:
            for place, tensor in zip(recording.inputs, inputs, strict=True):
                place.copy_(tensor, non_blocking=True)
            recording.replay()
            return recording.result
        there = [tensor.to(self.device, non_blocking=True) for tensor in inputs]
        times = self.seen.pop(kind, 0) + 1
        self.seen = dict([*self.seen.items(), (kind, times)][-MAX_RECORDINGS:])
        if self.capture is None or times <= WARM_UP_STEPS:
            return work(*there)
        return self._record(kind, work, there, seed)

    @torch.no_grad()
    def _record(self, kind: Hashable, work: Work, inputs: list[Tensor], seed: int) -> Tensor:
        """Execute a step eagerly, and record it for the next ones if the recording computes the same."""
        assert self.capture is not None
        self.recordings = dict(list(self.recordings.items())[1 - MAX_RECORDINGS :])
        changed = list(self.state())
        before = [tensor.clone() for tensor in changed]
        try:
            recording = self.capture(work, [tensor.clone() for tensor in inputs])
            _restore(changed, before)
            torch.manual_seed(seed)
            recording.replay()
            outcome, after = recording.result.clone(), [tensor.clone() for tensor in changed]
        except Exception as error:  # whatever a driver or compiler raises: the eager step does not need it
            recording, reason = None, (str(error).splitlines() or [type(error).__name__])[0]
        _restore(changed, before)
        torch.manual_seed(seed)
        result = work(*inputs)
        if not result.isfinite().all():
            return result
        if recording is not None:
            if _agree(result, outcome, torch.zeros_like(result)) and all(map(_agree, changed, after, before)):
                self.recordings[kind] = recording
                return result
            reason = "replayed, it computes something else"
        self.capture, self.recordings = None, {}
        self.note(f"the training step cannot be recorded as a CUDA graph and runs eagerly: {reason}")
        return result


def tensors_of_step(
    network: nn.Module, copies: Iterable[Tensor], optimizers: Iterable[torch.optim.Optimizer]
) -> Iterator[Tensor]:
    """Every tensor that a training step changes in place."""
    yield from network.state_dict().values()
    yield from copies
    for optimizer in optimizers:
        for of_parameter in optimizer.state.values():
            yield from (value for value in of_parameter.values() if isinstance(value, Tensor))


def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _agree(eager: Tensor, replayed: Tensor, before: Tensor) -> bool:
    """Whether a tensor changed alike, up to the rounding of sums in another order."""
    eager, replayed, before = eager.double(), replayed.double(), before.double()
    return float((replayed - eager).norm()) <= TOLERANCE * float((eager - before).norm())
