"""Limits of the server, and the error with which a request that exceeds one is rejected."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the requests that the server accepts.

    Parameters
    ----------
    bytes
        Largest body of a request, in bytes.
    pixels
        Largest image, in pixels.
    seconds
        Time until a request is answered, in seconds.
    files
        Most images in a request.
    queue
        Most images in progress at once, of all requests.
    queued_bytes
        Most bytes of all bodies in progress at once.
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    seconds: float = 30.0
    files: int = 64
    queue: int = 256
    queued_bytes: int = 200_000_000


class RequestError(Exception):
    """A request, or one image of it, is rejected with an HTTP status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Budget:
    """An amount of some unit that is shared by all requests; used from one thread only."""

    def __init__(self, limit: int, unit: str) -> None:
        self.limit, self.unit, self.used = limit, unit, 0

    def reserve(self, amount: int) -> None:
        """Reserve an amount; raises `RequestError` 429 if the limit would be exceeded."""
        if self.used + amount > self.limit:
            raise RequestError(
                429, f"the server is busy: the limit of {self.limit:,} {self.unit} is reached; try again"
            )
        self.used += amount

    def release(self, amount: int) -> None:
        """Return a reserved amount."""
        self.used -= amount
