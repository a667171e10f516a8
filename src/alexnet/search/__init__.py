"""Nearest images by the features of fc7 (paper, section 6.1): exact, with an index that scales, and as binary codes."""

from alexnet.search.index import Index, open_index

__all__ = ["Index", "open_index"]
