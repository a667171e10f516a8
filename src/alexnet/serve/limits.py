"""What the server lets in: how many bytes, pixels and images, for how long; and how it says no."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`bytes` of a request's body, `pixels` of an image, `seconds` until an answer, `files` of a request; and what may
    be under way at once: `waiting` images, `waiting_bytes` of bodies."""

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    seconds: float = 30.0
    files: int = 64
    waiting: int = 256
    waiting_bytes: int = 200_000_000


class Refusal(Exception):
    """No, with an HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Room:
    """What is under way, in some unit; used on one thread."""

    def __init__(self, most: int, of: str) -> None:
        self.most, self.of, self.taken = most, of, 0

    def take(self, amount: int) -> None:
        """Raises `Refusal` 429 when there is no room for so much more."""
        if self.taken + amount > self.most:
            raise Refusal(429, f"busy: {self.of} are under way already, as many as this server takes; try again")
        self.taken += amount

    def give_back(self, amount: int) -> None:
        self.taken -= amount
