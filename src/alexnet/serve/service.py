"""Uploads to results: images are admitted, decoded by threads, and computed by the network, with an error each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.requests import Request

from alexnet.data.decoding import square_image
from alexnet.data.unreadable import NotAnImageError, TooManyPixelsError
from alexnet.prediction.classifier import DECODERS, Classifier
from alexnet.runtime.errors import AlexNetError
from alexnet.serve.counters import ServerMetrics
from alexnet.serve.limits import Budget, Limits, RequestError
from alexnet.serve.uploads import Upload, uploads
from alexnet.serve.worker import Task, Worker

Result = tuple[str, Any]
"""The name of an upload, and the result of the task or a `RequestError`."""


class Service:
    """Answers requests with a classifier; its coroutines run on one event loop."""

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self.metrics = ServerMetrics(lambda: self.worker.queue_length)
        self.worker = Worker(classifier, self.metrics.record_batch)
        self.threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self._images = Budget(limits.queue, "images")
        self._bytes = Budget(limits.queued_bytes, "bytes")

    def close(self) -> None:
        """End all threads."""
        self.threads.shutdown(cancel_futures=True)
        self.worker.close()

    async def results(self, request: Request, task: Task) -> list[Result]:
        """Compute the task for each image of a request.

        Parameters
        ----------
        request
            A request whose body has one or more images.
        task
            The computation.

        Returns
        -------
        list of (str, Any)
            One per image, in order. An image that cannot be read has its own `RequestError` as its result.

        Raises
        ------
        RequestError
            No image can be read, or the request as a whole is rejected: its body, a limit, a time-out.
        """
        async with uploads(request, self.limits, self._bytes) as files:
            self._images.reserve(len(files))
            try:
                results = await self._compute(files, task)
            finally:
                self._images.release(len(files))
        for _, result in results:
            self.metrics.record_image(result.status if isinstance(result, RequestError) else 200)
        errors = [(name, result) for name, result in results if isinstance(result, RequestError)]
        if len(errors) < len(results):
            return results
        name, first = errors[0]
        if len(results) == 1:
            raise first
        raise RequestError(first.status, f"no image can be read; {name}: {first.reason}")

    async def _compute(self, files: Sequence[Upload], task: Task) -> list[Result]:
        self.worker.expect(len(files))
        results: list[Future[Any]] = [Future() for _ in files]
        for file, result in zip(files, results, strict=True):
            self.threads.submit(self._decode, file.data, task, result)
        waiting = asyncio.gather(*map(asyncio.wrap_future, results), return_exceptions=True)
        try:
            values = await asyncio.wait_for(waiting, self.limits.seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise RequestError(503, f"no answer within {self.limits.seconds:g} seconds; try again") from None
        return [(file.name, _checked(value)) for file, value in zip(files, values, strict=True)]

    def _decode(self, data: bytes, task: Task, result: Future[Any]) -> None:
        try:
            if not result.cancelled():
                self.worker.submit(task, self._pixels(data), result)
        except RequestError as error:
            result.set_exception(error)
        finally:
            self.worker.expect(-1)

    def _pixels(self, data: bytes) -> np.ndarray:
        try:
            return square_image(data, self.classifier.config.size, self.limits.pixels, self.classifier.pixel_range)
        except NotAnImageError as error:
            raise RequestError(415, str(error)) from None
        except TooManyPixelsError as error:
            raise RequestError(413, str(error)) from None
        except AlexNetError as error:
            raise RequestError(422, str(error)) from None
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise RequestError(422, f"damaged: {str(error).strip() or type(error).__name__}") from None


def _checked(value: Any) -> Any:
    """A result or a `RequestError`; any other exception is a bug, and raised."""
    match value:
        case RequestError():
            return value
        case CancelledError() | asyncio.CancelledError():
            return RequestError(503, "the server is stopping")
        case BaseException():
            raise value
    return value
