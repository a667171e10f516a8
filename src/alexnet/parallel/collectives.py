"""The processes that train one network: what they tell each other, and what happens when one fails the others."""

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

# How torch words that a process is gone or does not answer, by any backend.
_LOST = ("gloo", "NCCL", "onnection", "imed out", "imeout", "TCPStore", "peer")


MEETING_SECONDS = 3600.0
"""How long the first to come waits for the last: some fetch their images first."""


class Traffic:
    """Bytes that this process has sent to others, and the seconds that it waited, for each purpose."""

    def __init__(self) -> None:
        self.sent: dict[str, list[float]] = {}

    def add(self, purpose: str, size: float, seconds: float) -> None:
        """Count one exchange."""
        entry = self.sent.setdefault(purpose, [0.0, 0.0])
        entry[0] += size
        entry[1] += seconds

    def taken(self) -> dict[str, list[float]]:
        """What was counted since the last call: purpose → [bytes, seconds]."""
        sent, self.sent = self.sent, {}
        return sent


@dataclass
class Swap:
    """Tensors on their way between processes; `outgoing` must not change before `wait` has returned."""

    purpose: str
    outgoing: list[Tensor]
    incoming: list[Tensor]
    works: list[dist.Work]
    traffic: Traffic

    def wait(self) -> list[Tensor]:
        """What each process had for this one, when all has come and gone."""
        start = time.perf_counter()
        for work in self.works:
            work.wait()
        self.traffic.add(self.purpose, 0.0, time.perf_counter() - start)
        return self.incoming


class Group:
    """This process (`rank`, from 0) among `size`; the first leads: it speaks and writes."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.rank, self.size, self.seconds = dist.get_rank(), dist.get_world_size(), seconds
        self.device = device
        self.traffic = Traffic()
        # Files are gathered by a thread of their own while training goes on: they need a channel of their own.
        self.files = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=seconds))

    @classmethod
    def join(cls, device: torch.device, seconds: float) -> Group:
        """Meet the others that `torchrun` started; `seconds` is how long one waits for another.

        Raises `UsageError` where this process was not started by `torchrun`.
        """
        if not dist.is_initialized():
            if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
                raise UsageError(
                    "--parallel needs several processes: add --processes N, or start it with "
                    "`torchrun --nproc-per-node N -m alexnet train ...`"
                )
            # Numbers on the CPU go through gloo, with a graphics card too; tensors there through NCCL.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            timeout = datetime.timedelta(seconds=seconds)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            try:
                store, rank, size = next(rendezvous("env://", timeout=timeout))
                ours = dist.PrefixStore(f"alexnet/{_meet(store, rank, size)}", store)
                dist.init_process_group(backend, store=ours, rank=rank, world_size=size, timeout=timeout)
            except (RuntimeError, ValueError) as error:
                raise PeerLostError(f"the processes do not find each other: {_first_line(error)}") from error
        return cls(device, seconds)

    def __deepcopy__(self, memo: dict[int, Any]) -> Group:
        return self

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def lead(self, work: Callable[[], T]) -> T:
        """What the first process returns from `work`, in every process; its error ends all, and it says it."""
        told: list[Any] = [None, None]
        if self.leads:
            try:
                told[0] = work()
            except AlexNetError as error:
                told[1] = error
        dist.broadcast_object_list(told, device=torch.device("cpu"))
        if told[1] is not None:
            raise told[1] if self.leads else ReportedElsewhereError(told[1])
        result: T = told[0]
        return result

    def together(self, work: Callable[[], T]) -> T:
        """What each process returns from its own `work`; where it fails in one, all end, and that one says why.

        Where it fails in several for the same reason, the first of them says it.
        """
        failure: AlexNetError | None = None
        try:
            result = work()
        except AlexNetError as error:
            failure = error
        reasons: list[str | None] = [None] * self.size
        dist.all_gather_object(reasons, None if failure is None else str(failure))
        if failure is not None and reasons.index(str(failure)) == self.rank:
            raise failure
        if any(reason is not None for reason in reasons):
            raise ReportedElsewhereError("another process failed")
        return result

    def sum(self, *values: float) -> list[float]:
        """The sums of numbers over the processes."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether one of the processes says so."""
        return self.sum(float(flag))[0] > 0

    def swap(self, purpose: str, outgoing: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Give `outgoing[r]` to process r, and take from each what it has for this one, of shape `shapes[r]`.

        All tensors are contiguous and of one dtype. What a process has for itself is passed on as it is.
        """
        return self.begin_swap(purpose, outgoing, shapes).wait()

    def begin_swap(
        self, purpose: str, outgoing: Sequence[Tensor], shapes: Sequence[Sequence[int]], tag: int = 0
    ) -> Swap:
        """The same, not waited for. Swaps under way at a time have different tags, or arrive in the order begun."""
        mine = outgoing[self.rank]
        incoming = [mine if r == self.rank else mine.new_empty(shape) for r, shape in enumerate(shapes)]
        others = [r for r in range(self.size) if r != self.rank]
        sends = [dist.P2POp(dist.isend, outgoing[r], r, tag=tag) for r in others if outgoing[r].numel()]
        receives = [dist.P2POp(dist.irecv, incoming[r], r, tag=tag) for r in others if incoming[r].numel()]
        start = time.perf_counter()
        works = dist.batch_isend_irecv([*sends, *receives]) if sends or receives else []
        self.traffic.add(purpose, sum(outgoing[r].nbytes for r in others), time.perf_counter() - start)
        return Swap(purpose, list(outgoing), incoming, works, self.traffic)

    def bounds(self, count: int) -> list[tuple[int, int]]:
        """Which of `count` things each process has: equal parts, as near as can be."""
        return [(count * r // self.size, count * (r + 1) // self.size) for r in range(self.size)]

    def part(self, count: int) -> tuple[int, int]:
        """Which of `count` things this process has."""
        return self.bounds(count)[self.rank]

    def leave(self) -> None:
        """The end, for all: nobody goes before the others are done."""
        self.sum(0.0)


def is_launched_again(folder: Path) -> bool:
    """Whether `torchrun` has started these processes again for a run that it began, on this host or on another."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    try:
        begun = (folder / "config.json").is_file()
        return begun and launch != "none" and (folder / LAUNCH).read_text() == launch
    except FileNotFoundError:
        return False


def remember_launch(folder: Path) -> None:
    """Let `is_launched_again` know the run, before there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / LAUNCH, os.environ.get("TORCHELASTIC_RUN_ID", "none").encode())


@contextmanager
def watching(seconds: float, where: Callable[[], str]) -> Iterator[None]:
    """Within, a process that is gone, or silent for so long, ends in one clear line that says `where`.

    At the end this process parts from the others, also where an error that all know of ends them.
    """
    try:
        yield
    except AlexNetError:
        part()
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in _LOST):
            raise
        silent = "imed out" in str(error) or "imeout" in str(error)
        what = f"no answer for {seconds:g} s from" if silent else "lost"
        raise PeerLostError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}: {what} another process {where()} "
            f"({_first_line(error)}); the same command with --resume goes on from the last checkpoint"
        ) from error
    part()


def part() -> None:
    """What every process of a group does last, once it needs no other: torch would abort one in ten that just ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _meet(store: dist.Store, rank: int, size: int) -> str:
    """A name for this meeting of the processes, the same for all and for no other meeting.

    When `torchrun` starts processes again it gives them the store of those before, where the addresses of the dead
    still stand. So each says that it has come; the first names who is there until all agree, and then gives the sign.
    """
    me, end = uuid.uuid4().hex, time.monotonic() + MEETING_SECONDS

    def said(name: str) -> str:
        return store.get(f"alexnet/{name}").decode() if store.check([f"alexnet/{name}"]) else ""

    store.set(f"alexnet/come/{rank}", me)
    others = range(1, size)
    while time.monotonic() < end:
        if rank == 0:
            here = "-".join([me, *(said(f"come/{other}") for other in others)])
            store.set("alexnet/here", here)
            if all(said(f"agreed/{other}") == here for other in others):
                store.set("alexnet/sign", here)
                return here
        elif me in (here := said("here")):
            store.set(f"alexnet/agreed/{rank}", here)
            if said("sign") == here:
                return here
        time.sleep(0.02)
    raise RuntimeError(f"not all {size} have come within {MEETING_SECONDS:g} s")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
