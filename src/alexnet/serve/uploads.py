"""From a request to the bytes of its images. They stay in memory; a name that came with them is only said back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from alexnet.serve.limits import Limits, Refusal, Room

FIELD = "file"
RAW = ("image/", "application/octet-stream")
DRAINED = 4
"""How many times the limit of a body that is too large is still read, so that its sender gets to see the answer."""


@dataclass(frozen=True)
class Upload:
    """The bytes of what is said to be an image, and the name it was sent under."""

    name: str
    data: bytes


@asynccontextmanager
async def uploads(request: Request, limits: Limits, room: Room) -> AsyncIterator[list[Upload]]:
    """The files of a multipart body (field `file`, one or several), or the body as one.

    `room`: for the bytes of all bodies under way. Raises `Refusal`: 408, 413, 415, 422 or 429.
    """
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith(RAW):
        raise Refusal(415, f"a body of {kind}: send an image's bytes, or multipart/form-data with field '{FIELD}'")
    body = _Body(request, limits, room)
    try:
        yield await asyncio.wait_for(_files(body) if kind == "multipart/form-data" else _whole(body), limits.seconds)
    except (TimeoutError, asyncio.TimeoutError):
        raise Refusal(408, f"the body did not arrive within {limits.seconds:g} seconds") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection was closed before the body was there") from None
    finally:
        room.give_back(body.taken)


class _Body:
    """A request's body as it arrives, as far as the limits allow."""

    def __init__(self, request: Request, limits: Limits, room: Room) -> None:
        self.request, self.limits, self.room, self.taken = request, limits, room, 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        most, arrived = self.limits.bytes, 0
        async for chunk in self.request.stream():
            arrived += len(chunk)
            if arrived > most:
                if arrived > DRAINED * most:
                    break
                continue
            self.room.take(len(chunk))
            self.taken += len(chunk)
            yield chunk
        if arrived > most:
            raise Refusal(413, f"more than {most:,} bytes, the most that this server takes in a request")


async def _whole(body: _Body) -> list[Upload]:
    return [Upload("image", b"".join([chunk async for chunk in body.chunks()]))]


class _InMemory(MultiPartParser):
    spool_max_size = 0  # a file never leaves the memory


async def _files(body: _Body) -> list[Upload]:
    most = body.limits.files
    parser = _InMemory(body.request.headers, body.chunks(), max_files=most, max_fields=most)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(422, f"the multipart body can't be read: {error.message}") from None
    files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
    if not files:
        raise Refusal(422, f"no file in the multipart body: its field is '{FIELD}'")
    return [Upload(file.filename or "image", await file.read()) for file in files]
