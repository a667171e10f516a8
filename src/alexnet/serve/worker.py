"""One thread that owns the network. It takes together what has arrived and is alike, and a lone image at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from alexnet.prediction.classifier import Classifier

T = TypeVar("T")

Results = Sequence[Any] | np.ndarray

PATIENCE = 0.25
"""The share of a batch's time for which the next one waits for images that are being decoded."""
RETURN = 0.1
"""The share for which it waits, before that, until as many are under way again as were when the last one was taken:
those who were just answered ask anew."""
MOST_PATIENCE = 0.1
"""Seconds of either."""


class Work(Protocol):
    """What is done to images. Equal works are done together, to at most `most` images at a time."""

    most: int

    def __call__(self, classifier: Classifier, images: np.ndarray) -> Results:
        """Prepared images (N, size, size, 3) uint8 → a result for each."""

    def __hash__(self) -> int: ...


@dataclass
class _Waiting:
    work: Work
    pixels: np.ndarray
    answer: Future[Any]


class Worker:
    """The thread. `put` from any thread; answers come as futures."""

    def __init__(self, classifier: Classifier, done: Callable[[Work, int, float], None] = lambda *_: None) -> None:
        """`done` is told of every batch: the work, how many images, and its seconds."""
        self.classifier = classifier
        self._done = done
        self._arrived = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._coming = 0
        self._seconds = 0.0  # that the last batch took
        self._crowd = 0  # how many were under way when it was taken
        self._slow: deque[tuple[Generator[None, None, Any], Future[Any]]] = deque()
        self._slow_first: deque[tuple[Generator[None, None, Any], Future[Any]]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def coming(self, count: int) -> None:
        """So many images are about to be put (negative: they are there, or do not come)."""
        with self._arrived:
            self._coming += count
            if self._waiting:
                self._arrived.notify()

    def put(self, work: Work, pixels: np.ndarray, answer: Future[Any]) -> None:
        """Let the network do this work to a prepared image (size, size, 3) uint8."""
        with self._arrived:
            if self._stopping:
                answer.cancel()
                return
            self._waiting.append(_Waiting(work, pixels, answer))
            self._arrived.notify()

    def slowly(self, steps: Generator[None, None, T], first: bool = False) -> Future[T]:
        """Go through the steps, one at a time while no image waits; the future has what the generator returns.

        `first`: before those without; the others take turns.
        """
        future: Future[T] = Future()
        with self._arrived:
            if self._stopping:
                future.cancel()
                return future
            (self._slow_first if first else self._slow).append((steps, future))
            self._arrived.notify()
        return future

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    @property
    def length(self) -> int:
        """How many images wait for the network."""
        return len(self._waiting)

    def close(self) -> None:
        """Finish the batch, give up the rest."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        self._thread.join()
        for waiting in self._waiting:
            waiting.answer.cancel()
        for _, future in (*self._slow_first, *self._slow):
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting or self._slow_first or self._slow or self._stopping)
                if self._stopping:
                    return
                batch = self._take() if self._waiting else []
            if batch:
                self._work(batch)
            elif self._slow_first or self._slow:
                self._step(self._slow_first or self._slow)

    def _take(self) -> list[_Waiting]:
        """All that is like the first, after a short while for those who ask again and those still being decoded.

        A large batch costs less an image, and while it is computed nothing else takes the processor from it.
        """
        work = self._waiting[0].work
        self._wait(work, RETURN, lambda: len(self._waiting) + self._coming >= self._crowd)
        self._wait(work, PATIENCE, lambda: not self._coming)
        self._crowd = len(self._waiting) + self._coming
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        for waiting in self._waiting:
            alike = len(batch) < work.most and waiting.work == work
            (batch if alike else others).append(waiting)
        self._waiting = others
        return [waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()]

    def _wait(self, work: Work, share: float, enough: Callable[[], bool]) -> None:
        """Until there is `enough`, or as much as a batch takes, or this share of the last one's time is over."""
        self._arrived.wait_for(
            lambda: enough() or len(self._waiting) >= work.most or self._stopping,
            min(MOST_PATIENCE, share * self._seconds),
        )

    def _work(self, batch: list[_Waiting]) -> None:
        start = time.perf_counter()
        try:
            results = batch[0].work(self.classifier, np.stack([waiting.pixels for waiting in batch]))
        except Exception as error:
            # What went wrong may be the fault of one image; the others shall have their answers.
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:
                for waiting in batch:
                    self._work([waiting])
            return
        self._seconds = time.perf_counter() - start
        self._done(batch[0].work, len(batch), self._seconds)
        for waiting, result in zip(batch, results, strict=True):
            waiting.answer.set_result(result)

    def _step(self, slow: deque[tuple[Generator[None, None, Any], Future[Any]]]) -> None:
        with self._arrived:
            steps, future = slow.popleft()
        try:
            next(steps)
        except StopIteration as end:
            future.set_result(end.value)
        except Exception as error:
            future.set_exception(error)
        else:
            with self._arrived:
                (slow.appendleft if slow is self._slow_first else slow.append)((steps, future))
