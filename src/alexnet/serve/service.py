"""From uploads to results: admitted, decoded by threads, put to the network, each with its own answer or error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from alexnet.data.decoding import NotAnImageError, TooManyPixelsError, UnreadableImageError, square_image
from alexnet.prediction.classifier import DECODERS, Classifier
from alexnet.serve.counters import Measures
from alexnet.serve.limits import Limits, Refusal, Room
from alexnet.serve.uploads import Upload, uploads
from alexnet.serve.worker import Work, Worker

Result = tuple[str, Any]
"""The name of an upload, and what the network said of it: the result of the work, or a `Refusal`."""


class Service:
    """A classifier that answers requests; its coroutines run on one event loop."""

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self.measures = Measures(lambda: self.worker.length)
        self.worker = Worker(classifier, self.measures.batch)
        self.threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self._images = Room(limits.waiting, "images")
        self._bytes = Room(limits.waiting_bytes, "bytes")

    def close(self) -> None:
        """Let go of all threads."""
        self.threads.shutdown(cancel_futures=True)
        self.worker.close()

    async def results(self, request: Request, work: Work) -> list[Result]:
        """What `work` gives for each image of the request, in order.

        One image that can't be read is its own entry's `Refusal`; when none can, it is raised. Raises `Refusal` too
        for what concerns the request: its body, no room, no answer in time.
        """
        async with uploads(request, self.limits, self._bytes) as files:
            self._images.take(len(files))
            try:
                results = await self._answers(files, work)
            finally:
                self._images.give_back(len(files))
        for _, result in results:
            self.measures.image(result.status if isinstance(result, Refusal) else 200)
        refusals = [(name, result) for name, result in results if isinstance(result, Refusal)]
        if len(refusals) == len(results):
            name, first = refusals[0]
            raise (
                first if len(results) == 1 else Refusal(first.status, f"no image can be read; {name}: {first.reason}")
            )
        return results

    async def _answers(self, files: Sequence[Upload], work: Work) -> list[Result]:
        self.worker.coming(len(files))
        answers: list[Future[Any]] = [Future() for _ in files]
        for file, answer in zip(files, answers, strict=True):
            self.threads.submit(self._decode, file.data, work, answer)
        waiting = asyncio.gather(*map(asyncio.wrap_future, answers), return_exceptions=True)
        try:
            found = await asyncio.wait_for(waiting, self.limits.seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise Refusal(503, f"no answer within {self.limits.seconds:g} seconds; try again") from None
        return [(file.name, _refused(result)) for file, result in zip(files, found, strict=True)]

    def _decode(self, data: bytes, work: Work, answer: Future[Any]) -> None:
        try:
            if not answer.cancelled():
                pixels = square_image(
                    data, self.classifier.config.size, self.limits.pixels, self.classifier.pixel_range
                )
                self.worker.put(work, pixels, answer)
        except Exception as error:
            answer.set_exception(error)
        finally:
            self.worker.coming(-1)


def _refused(result: Any) -> Any:
    """The result, or the refusal that an error comes down to; what is a bug is raised."""
    match result:
        case NotAnImageError():
            return Refusal(415, str(result))
        case TooManyPixelsError():
            return Refusal(413, str(result))
        case UnreadableImageError():
            return Refusal(422, str(result))
        case CancelledError() | asyncio.CancelledError():
            return Refusal(503, "the server is stopping")
        case BaseException():
            raise result
    return result
