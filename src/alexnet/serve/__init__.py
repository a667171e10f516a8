"""A web page and an HTTP API for a run: `alexnet serve RUN`."""

from alexnet.serve.limits import Limits
from alexnet.serve.server import serve

__all__ = ["Limits", "serve"]
