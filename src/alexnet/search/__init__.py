"""Nearest images in fc7: exact, with an index that scales, and in short binary codes (paper, section 6.1)."""

from alexnet.search.index import Index, open_index

__all__ = ["Index", "open_index"]
