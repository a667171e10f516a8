"""Collectives: the communication of the processes of a training, and the loss of one of them."""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from alexnet.runs.run import LAUNCH
from alexnet.runtime.errors import AlexNetError, PeerLostError, ReportedElsewhereError, UsageError
from alexnet.runtime.files import write_atomic

T = TypeVar("T")

MEETING_SECONDS = 3600.0
"""Longest wait of the first process for the last: some fetch their images first."""


class Traffic:
    """Bytes that this process has sent, and seconds that it has waited, for each purpose."""

    def __init__(self) -> None:
        self.sent: dict[str, list[float]] = {}

    def add(self, purpose: str, size: float, seconds: float) -> None:
        """Count one exchange."""
        entry = self.sent.setdefault(purpose, [0.0, 0.0])
        entry[0] += size
        entry[1] += seconds

    def reset(self) -> dict[str, list[float]]:
        """Bytes and seconds of each purpose since the last call."""
        sent, self.sent = self.sent, {}
        return sent


class CommunicationError(Exception):
    """A call that exchanges data with another process failed: that process is gone, or did not answer in time."""

    def __init__(self, reason: str, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


@contextmanager
def communication(timeout: float, start: float | None = None) -> Iterator[None]:
    """Within, every error of `torch.distributed` becomes a `CommunicationError`.

    Gloo raises plain RuntimeErrors: the call that raises, and not the text, tells that it is about communication, and
    the time since `start` whether it timed out.
    """
    start = time.monotonic() if start is None else start
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise CommunicationError(_first_line(error), time.monotonic() - start > 0.9 * timeout) from error


@dataclass
class Swap:
    """Tensors in transfer between processes; `outgoing` must not change before `wait` has returned."""

    purpose: str
    outgoing: list[Tensor]
    incoming: list[Tensor]
    works: list[dist.Work]
    traffic: Traffic
    timeout: float
    start: float

    def wait(self) -> list[Tensor]:
        """The tensors of all processes for this one, once everything has arrived and has been sent."""
        start = time.perf_counter()
        with communication(self.timeout, self.start):
            for work in self.works:
                work.wait()
        self.traffic.add(self.purpose, 0.0, time.perf_counter() - start)
        return self.incoming


class SingleProcess:
    """The group of a training by one process: its collectives return what they are given."""

    rank, size, leads = 0, 1, True

    def __init__(self) -> None:
        self.traffic = Traffic()

    def lead(self, work: Callable[[], T]) -> T:
        """See `Group.lead`."""
        return work()

    def together(self, work: Callable[[], T]) -> T:
        """See `Group.together`."""
        return work()

    def sum(self, *values: float, purpose: str = "") -> list[float]:
        """See `Group.sum`."""
        return list(values)

    def any(self, flag: bool) -> bool:
        """See `Group.any`."""
        return flag

    def all_reduce(self, tensor: Tensor, maximum: bool = False) -> Tensor:
        """See `Group.all_reduce`."""
        return tensor

    def leave(self) -> None:
        """See `Group.leave`."""


class Group:
    """The processes of a training, on one machine or several.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and the number of all.
    timeout : float
        Seconds without an answer after which another process counts as lost.
    traffic : Traffic
        The bytes sent and the seconds waited.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.rank, self.size, self.timeout = dist.get_rank(), dist.get_world_size(), timeout
        self.device = device
        self.traffic = Traffic()
        # Files are gathered by a thread of their own during the training: they need a channel of their own.
        self.files = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout))

    @classmethod
    def join(cls, device: torch.device, timeout: float) -> Group:
        """Join the processes that `torchrun` started.

        Raises
        ------
        UsageError
            If this process was not started by `torchrun`.
        PeerLostError
            If the processes do not find each other.
        """
        if not dist.is_initialized():
            if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
                raise UsageError(
                    "--parallel needs several processes: add --processes N, or start it with "
                    "`torchrun --nproc-per-node N -m alexnet train ...`"
                )
            # Tensors on the CPU go through gloo, with a GPU too; tensors there through NCCL.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            duration = datetime.timedelta(seconds=timeout)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            try:
                with communication(timeout):
                    store, rank, size = next(rendezvous("env://", timeout=duration))
                    ours = dist.PrefixStore(f"alexnet/{_meet(store, rank, size)}", store)
                    dist.init_process_group(backend, store=ours, rank=rank, world_size=size, timeout=duration)
            except CommunicationError as error:
                raise PeerLostError(f"the processes do not find each other: {error}") from error
        return cls(device, timeout)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and messages for all."""
        return self.rank == 0

    def lead(self, work: Callable[[], T]) -> T:
        """Do `work` in the first process; returns its result, or ends with its error, in every process."""
        shared: list[Any] = [None, None]
        if self.leads:
            try:
                shared[0] = work()
            except AlexNetError as error:
                shared[1] = error
        with communication(self.timeout):
            dist.broadcast_object_list(shared, device=torch.device("cpu"))
        if shared[1] is not None:
            raise shared[1] if self.leads else ReportedElsewhereError(str(shared[1]))
        result: T = shared[0]
        return result

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` in each process; where it fails in one, all end, and the first with its reason reports it."""
        failure: AlexNetError | None = None
        try:
            result = work()
        except AlexNetError as error:
            failure = error
        reasons: list[str | None] = [None] * self.size
        with communication(self.timeout):
            dist.all_gather_object(reasons, None if failure is None else str(failure))
        if failure is not None and reasons.index(str(failure)) == self.rank:
            raise failure
        if any(reason is not None for reason in reasons):
            raise ReportedElsewhereError("another process failed")
        return result

    def sum(self, *values: float, purpose: str = "") -> list[float]:
        """The sums of numbers over the processes; the time is counted under `purpose` where one is given."""
        start = time.perf_counter()
        total = self.all_reduce(torch.tensor(values, dtype=torch.float64)).tolist()
        if purpose:
            self.traffic.add(purpose, 0.0, time.perf_counter() - start)
        return total

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return self.sum(float(flag))[0] > 0

    def all_reduce(self, tensor: Tensor, maximum: bool = False) -> Tensor:
        """Replace a tensor by its sum, or maximum, over the processes, and return it."""
        with communication(self.timeout):
            dist.all_reduce(tensor, dist.ReduceOp.MAX if maximum else dist.ReduceOp.SUM)
        return tensor

    def start_all_reduce(self, tensor: Tensor) -> dist.Work:
        """Start to sum a tensor over the processes."""
        with communication(self.timeout):
            return dist.all_reduce(tensor, async_op=True)

    def broadcast(self, tensor: Tensor) -> None:
        """Replace a tensor by that of the first process."""
        with communication(self.timeout):
            dist.broadcast(tensor, 0)

    def send(self, tensor: Tensor, rank: int, *, files: bool = False) -> None:
        """Send a tensor to a process; with `files` beside the exchange of the training."""
        with communication(self.timeout):
            dist.send(tensor, rank, group=self.files if files else None)

    def receive(self, tensor: Tensor, rank: int, *, files: bool = False) -> None:
        """Receive a tensor from a process; the reverse of `send`."""
        with communication(self.timeout):
            dist.recv(tensor, rank, group=self.files if files else None)

    def swap(self, purpose: str, outgoing: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Send `outgoing[r]` to process r, and receive from each a tensor of shape `shapes[r]`.

        All tensors are contiguous and of one dtype. The tensor of a process for itself is returned as it is.
        """
        return self.begin_swap(purpose, outgoing, shapes).wait()

    def begin_swap(
        self, purpose: str, outgoing: Sequence[Tensor], shapes: Sequence[Sequence[int]], tag: int = 0
    ) -> Swap:
        """Start a swap. Swaps at the same time have different tags, or arrive in the order in which they started."""
        mine = outgoing[self.rank]
        incoming = [mine if r == self.rank else mine.new_empty(shape) for r, shape in enumerate(shapes)]
        others = [r for r in range(self.size) if r != self.rank]
        sends = [dist.P2POp(dist.isend, outgoing[r], r, tag=tag) for r in others if outgoing[r].numel()]
        receives = [dist.P2POp(dist.irecv, incoming[r], r, tag=tag) for r in others if incoming[r].numel()]
        start = time.perf_counter()
        with communication(self.timeout):
            works = dist.batch_isend_irecv([*sends, *receives]) if sends or receives else []
        self.traffic.add(purpose, sum(outgoing[r].nbytes for r in others), time.perf_counter() - start)
        return Swap(purpose, list(outgoing), incoming, works, self.traffic, self.timeout, time.monotonic())

    def leave(self) -> None:
        """Wait until all processes are done."""
        self.sum(0.0)


def is_launched_again(folder: Path) -> bool:
    """Whether `torchrun` has restarted these processes for a run that they began, on this host or on another."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    try:
        begun = (folder / "config.json").is_file()
        return begun and launch != "none" and (folder / LAUNCH).read_text(encoding="utf-8") == launch
    except FileNotFoundError:
        return False


def remember_launch(folder: Path) -> None:
    """Record the launch of a run for `is_launched_again`, before the run is created."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / LAUNCH, os.environ.get("TORCHELASTIC_RUN_ID", "none").encode())


@contextmanager
def watching(timeout: float, position: Callable[[], str]) -> Iterator[None]:
    """Within, the loss of another process ends in one clear line that names the `position`.

    At the end this process leaves the group, also after an error that all processes have.
    """
    try:
        yield
    except AlexNetError:
        part()
        raise
    except CommunicationError as error:
        problem = f"no answer for {timeout:g} s from" if error.timed_out else "lost"
        raise PeerLostError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}: {problem} another process "
            f"{position()} ({error}); the same command with --resume continues from the last checkpoint"
        ) from error
    part()


def part() -> None:
    """Leave the process group, as the last thing; PyTorch would abort one process in ten that just ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(parts: list[Tensor]) -> Tensor:
    """The sum, always in the same order."""
    result = parts[0].clone()
    for other in parts[1:]:
        result += other
    return result


def _meet(store: dist.Store, rank: int, size: int) -> str:
    """A name for this meeting of the processes, the same for all, and different from that of every other meeting.

    When `torchrun` restarts processes it gives them the store of the previous ones, which still has the addresses of
    the dead. So each announces itself; the first lists those present until all agree, and then confirms.
    """
    me, end = uuid.uuid4().hex, time.monotonic() + MEETING_SECONDS

    def value(name: str) -> str:
        return store.get(f"alexnet/{name}").decode() if store.check([f"alexnet/{name}"]) else ""

    store.set(f"alexnet/come/{rank}", me)
    others = range(1, size)
    while time.monotonic() < end:
        if rank == 0:
            here = "-".join([me, *(value(f"come/{other}") for other in others)])
            store.set("alexnet/here", here)
            if all(value(f"agreed/{other}") == here for other in others):
                store.set("alexnet/sign", here)
                return here
        elif me in (here := value("here")):
            store.set(f"alexnet/agreed/{rank}", here)
            if value("sign") == here:
                return here
        time.sleep(0.02)
    raise RuntimeError(f"not all {size} processes arrived within {MEETING_SECONDS:g} s")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
