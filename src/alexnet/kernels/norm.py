"""Parameters of a response normalization, shared by its CPU, GPU and plain forms."""

from __future__ import annotations

from typing import NamedTuple


class Norm(NamedTuple):
    """A response normalization with beta = 0.75: ``x / (k + alpha * sum(x**2)) ** 0.75`` (paper, section 3.3).

    Attributes
    ----------
    across : {"maps", "space"}
        The window of the sum: neighboring feature maps, or a square in each feature map.
    size : int
        Size of the window, odd.
    alpha : float
        Factor of the sum; a convention that divides by the size of the window has divided it already.
    k : float
        Constant.
    groups : int
        Number of towers; a window across feature maps stays within one.
    relu : bool
        Apply ReLU to ``x`` first.
    """

    across: str
    size: int
    alpha: float
    k: float
    groups: int = 1
    relu: bool = False
