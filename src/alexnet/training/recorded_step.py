"""A training step on a graphics card as one launch: recorded as a CUDA graph when it comes the same way again.

A step is a hundred kernels and more. Launched one by one they can keep the processor busy for longer than a fast card
needs to compute them at a batch of 128; replayed, they are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Work = Callable[..., Tensor]
"""A step: of tensors on the device, to a tensor there; it changes others in place, and waits for nothing."""

WARM_UP = 3  # steps of a kind before it is recorded: libraries choose their kernels, optimizers make their state
KEPT = 2  # recordings, each with memory of its own: the batches of an epoch differ by an image at most
SAME = 0.3  # of a tensor's change, how far the replayed may be from the launched; other coins would be 1.4 away


class Recording(NamedTuple):
    """A step that was recorded: it reads `inputs` and writes `result`, always at the same places."""

    inputs: list[Tensor]
    result: Tensor
    replay: Callable[[], None]


Record = Callable[[Work, list[Tensor]], Recording]


def recorder(device: torch.device) -> Record | None:
    """How a step is recorded on a device; None where it is not."""
    return cuda_graph if device.type == "cuda" else None


def cuda_graph(work: Work, inputs: list[Tensor]) -> Recording:
    """Capture `work`, which nothing computes meanwhile, as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(inputs[0].device)
    # another thread reads batches into pinned memory, which it may do while this one records
    with torch.cuda.device(inputs[0].device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        result = work(*inputs)
    return Recording(inputs, result, graph.replay)


class Outcome(NamedTuple):
    """Loss and mistakes of step number `step`, from 1, of so many images: on their way from the device."""

    step: int
    images: int
    totals: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, totals: Tensor, step: int, images: int) -> Outcome:
        """`totals` (2,): what the step has come to, on its device."""
        if totals.device.type != "cuda":
            return cls(step, images, totals.clone(), None)
        there = torch.empty(totals.shape, dtype=totals.dtype, pin_memory=True).copy_(totals, non_blocking=True)
        return cls(step, images, there, torch.cuda.current_stream(totals.device).record_event())

    def read(self) -> tuple[float, int]:
        """Wait for them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, wrong = self.totals.tolist()
        return loss, int(wrong)


class Replay:
    """Runs steps: those of a kind that came `WARM_UP` times from a recording, the others as they are.

    `state`: every tensor that a step changes in place. A recording is tried once against the step itself, from the same
    state and with the same random numbers; where it does not come to the same, or recording fails, steps are launched
    kernel by kernel from then on, and `note` says so.
    """

    def __init__(
        self, device: torch.device, record: Record, state: Callable[[], Iterable[Tensor]], note: Callable[[str], None]
    ) -> None:
        self.device, self.state, self.note = device, state, note
        self.record: Record | None = record
        self.seen: dict[Hashable, int] = {}
        self.recordings: dict[Hashable, Recording] = {}

    def __call__(self, kind: Hashable, work: Work, inputs: Sequence[Tensor], seed: int) -> Tensor:
        """What `work` returns of `inputs`, with random numbers from `seed`; read it before the next call.

        `kind`: whatever decides what a step does beside the values of its inputs and of the state, such as its shapes
        and the learning rate.
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
        self.seen = dict([*self.seen.items(), (kind, times)][-KEPT:])
        if self.record is None or times <= WARM_UP:
            return work(*there)
        return self.recorded(kind, work, there, seed)

    @torch.no_grad()
    def recorded(self, kind: Hashable, work: Work, inputs: list[Tensor], seed: int) -> Tensor:
        """A step as `work` does it, after which it has been recorded, if that comes to the same."""
        assert self.record is not None
        self.recordings = dict(list(self.recordings.items())[1 - KEPT :])
        changed = list(self.state())
        before = [tensor.clone() for tensor in changed]
        try:
            recording = self.record(work, [tensor.clone() for tensor in inputs])
            _restore(changed, before)
            torch.manual_seed(seed)
            recording.replay()
            outcome, after = recording.result.clone(), [tensor.clone() for tensor in changed]
        except RuntimeError as error:
            recording, reason = None, str(error).splitlines()[0]
        _restore(changed, before)
        torch.manual_seed(seed)
        result = work(*inputs)
        if not result.isfinite().all():
            return result
        if recording is not None:
            if _same(result, outcome, torch.zeros_like(result)) and all(map(_same, changed, after, before)):
                self.recordings[kind] = recording
                return result
            reason = "replayed, it comes to something else"
        self.record, self.recordings = None, {}
        self.note(f"the step can't be recorded as one launch, and goes on kernel by kernel: {reason}")
        return result


def changed_by_a_step(
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


def _same(launched: Tensor, replayed: Tensor, before: Tensor) -> bool:
    """Whether a tensor has changed alike, up to what rounding in another order does to sums."""
    launched, replayed, before = launched.double(), replayed.double(), before.double()
    return float((replayed - launched).norm()) <= SAME * float((launched - before).norm())
