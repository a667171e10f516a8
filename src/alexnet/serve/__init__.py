"""A run as an HTTP API and a page to look into it."""

from alexnet.serve.limits import Limits
from alexnet.serve.server import serve

__all__ = ["Limits", "serve"]
