"""The thread that owns the network. It batches equal tasks that wait, and starts a lone image without delay."""

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

DECODING_WAIT = 0.25
"""Share of the last batch's time that the next one waits for images that are being decoded."""
RETURN_WAIT = 0.1
"""Share of the last batch's time that the next one first waits until as many images are in progress as when the last
one was taken: clients that were just answered send the next image."""
MAX_WAIT = 0.1
"""Upper bound of either wait, in seconds."""


class Task(Protocol):
    """A computation on images. Equal tasks are computed together, at most `max_batch` images at a time."""

    max_batch: int

    def __call__(self, classifier: Classifier, images: np.ndarray) -> Results:
        """Compute one result per prepared image (N, size, size, 3) uint8."""

    def __hash__(self) -> int: ...


@dataclass
class _Item:
    task: Task
    pixels: np.ndarray
    result: Future[Any]


_Background = tuple[Generator[None, None, Any], "Future[Any]"]


class Worker:
    """The thread. Any thread may submit to it; results arrive as futures.

    Parameters
    ----------
    classifier
        The classifier; only this thread uses its network.
    on_batch
        Called after every batch with the task, the number of images, and the seconds it took.
    """

    def __init__(self, classifier: Classifier, on_batch: Callable[[Task, int, float], None] = lambda *_: None) -> None:
        self.classifier = classifier
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._expected = 0
        self._last_seconds = 0.0  # duration of the last batch
        self._last_in_progress = 0  # images in progress when the last batch was taken
        self._background: deque[_Background] = deque()
        self._urgent_background: deque[_Background] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def expect(self, count: int) -> None:
        """Announce images that will soon be submitted; negative when they are submitted or given up."""
        with self._changed:
            self._expected += count
            if self._queue:
                self._changed.notify()

    def submit(self, task: Task, pixels: np.ndarray, result: Future[Any]) -> None:
        """Queue a task for a prepared image (size, size, 3) uint8; its result goes to the future `result`."""
        with self._changed:
            if self._stopping:
                result.cancel()
                return
            self._queue.append(_Item(task, pixels, result))
            self._changed.notify()

    def submit_background(self, steps: Generator[None, None, T], urgent: bool = False) -> Future[T]:
        """Run a generator step by step while no image waits.

        Parameters
        ----------
        steps
            Yields after every step.
        urgent
            Whether it runs before all that is not urgent; otherwise generators take turns.

        Returns
        -------
        Future
            The return value of the generator.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._stopping:
                future.cancel()
                return future
            (self._urgent_background if urgent else self._background).append((steps, future))
            self._changed.notify()
        return future

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._stopping

    @property
    def queue_length(self) -> int:
        """Number of images that wait for the network."""
        return len(self._queue)

    def close(self) -> None:
        """Finish the current batch, cancel the rest, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        for item in self._queue:
            item.result.cancel()
        for _, future in (*self._urgent_background, *self._background):
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._queue or self._urgent_background or self._background or self._stopping
                )
                if self._stopping:
                    return
                batch = self._take_batch() if self._queue else []
            if batch:
                self._compute(batch)
            elif self._urgent_background or self._background:
                self._step(self._urgent_background or self._background)

    def _take_batch(self) -> list[_Item]:
        """All items whose task equals the first one's, after a short wait for those about to arrive.

        A large batch costs less per image, and while it is computed no decoder competes with it for the CPU.
        """
        task = self._queue[0].task
        self._wait(task, RETURN_WAIT, lambda: len(self._queue) + self._expected >= self._last_in_progress)
        self._wait(task, DECODING_WAIT, lambda: not self._expected)
        self._last_in_progress = len(self._queue) + self._expected
        batch: list[_Item] = []
        others: deque[_Item] = deque()
        for item in self._queue:
            joins = len(batch) < task.max_batch and item.task == task
            (batch if joins else others).append(item)
        self._queue = others
        return [item for item in batch if item.result.set_running_or_notify_cancel()]

    def _wait(self, task: Task, share: float, enough: Callable[[], bool]) -> None:
        """Wait until `enough`, until a batch is full, or for this share of the last batch's time."""
        self._changed.wait_for(
            lambda: enough() or len(self._queue) >= task.max_batch or self._stopping,
            min(MAX_WAIT, share * self._last_seconds),
        )

    def _compute(self, batch: list[_Item]) -> None:
        start = time.perf_counter()
        try:
            results = batch[0].task(self.classifier, np.stack([item.pixels for item in batch]))
        except Exception as error:
            # One image may be the cause; the others are computed alone.
            if len(batch) == 1:
                batch[0].result.set_exception(error)
            else:
                for item in batch:
                    self._compute([item])
            return
        self._last_seconds = time.perf_counter() - start
        self._on_batch(batch[0].task, len(batch), self._last_seconds)
        for item, result in zip(batch, results, strict=True):
            item.result.set_result(result)

    def _step(self, background: deque[_Background]) -> None:
        with self._changed:
            steps, future = background.popleft()
        try:
            next(steps)
        except StopIteration as end:
            future.set_result(end.value)
        except Exception as error:
            future.set_exception(error)
        else:
            with self._changed:
                is_urgent = background is self._urgent_background
                (background.appendleft if is_urgent else background.append)((steps, future))
