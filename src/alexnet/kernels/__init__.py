"""Fast forms of the response normalisations: ``cpu`` (machine code made at first use) and ``gpu`` (Triton)."""

from typing import NamedTuple


class Norm(NamedTuple):
    """A response normalisation with beta = 0.75: ``x / (k + alpha · Σ x²) ** 0.75``."""

    across: str  # "maps", or "space" for a square window in each map
    size: int  # of the window, odd
    alpha: float  # of the sum, already divided by what the convention divides by
    k: float
    groups: int = 1  # no window across maps crosses from one group to the next
    relu: bool = False  # normalise max(x, 0) instead of x
