"""The images in the body of a request. They stay in memory; their names are only echoed in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from alexnet.serve.limits import Budget, Limits, RequestError

FIELD = "file"
RAW_TYPES = ("image/", "application/octet-stream")
DRAIN_FACTOR = 4
"""A body above the limit is read up to this multiple of it, so that its sender receives the answer."""


@dataclass(frozen=True)
class Upload:
    """The bytes of an uploaded file, and the name it was sent under."""

    name: str
    data: bytes


@asynccontextmanager
async def uploads(request: Request, limits: Limits, budget: Budget) -> AsyncIterator[list[Upload]]:
    """Read the files of a multipart body (field `file`, one or several), or the body as one file.

    Parameters
    ----------
    request
        The request.
    limits
        The server's limits.
    budget
        Bytes of all bodies in progress; released when the context ends.

    Raises
    ------
    RequestError
        400, 408, 413, 415, 422 or 429.
    """
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith(RAW_TYPES):
        raise RequestError(
            415, f"content type {kind} is not supported: send an image, or multipart/form-data with field '{FIELD}'"
        )
    body = _Body(request, limits, budget)
    try:
        read = _multipart_files(body) if kind == "multipart/form-data" else _single_file(body)
        yield await asyncio.wait_for(read, limits.seconds)
    except (TimeoutError, asyncio.TimeoutError):
        raise RequestError(408, f"the body did not arrive within {limits.seconds:g} seconds") from None
    except ClientDisconnect:
        raise RequestError(400, "the connection was closed before the body was complete") from None
    finally:
        budget.release(body.reserved)


class _Body:
    """The body of a request as it arrives, within the limits."""

    def __init__(self, request: Request, limits: Limits, budget: Budget) -> None:
        self.request, self.limits, self.budget, self.reserved = request, limits, budget, 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        limit, arrived = self.limits.bytes, 0
        async for chunk in self.request.stream():
            arrived += len(chunk)
            if arrived > limit:
                if arrived > DRAIN_FACTOR * limit:
                    break
                continue
            self.budget.reserve(len(chunk))
            self.reserved += len(chunk)
            yield chunk
        if arrived > limit:
            raise RequestError(413, f"the body is larger than the limit of {limit:,} bytes")


async def _single_file(body: _Body) -> list[Upload]:
    return [Upload("image", b"".join([chunk async for chunk in body.chunks()]))]


class _InMemoryParser(MultiPartParser):
    spool_max_size = 0  # never write a file to disk


async def _multipart_files(body: _Body) -> list[Upload]:
    limit = body.limits.files
    parser = _InMemoryParser(body.request.headers, body.chunks(), max_files=limit, max_fields=limit)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(422, f"invalid multipart body: {error.message}") from None
    files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
    if not files:
        raise RequestError(422, f"the multipart body has no file in field '{FIELD}'")
    return [Upload(file.filename or "image", await file.read()) for file in files]
