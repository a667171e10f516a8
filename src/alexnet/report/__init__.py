"""Figures and a self-contained HTML page about one run: `alexnet report RUN`."""

from importlib.util import find_spec

from alexnet.runtime.errors import AlexNetError

for _module in ("matplotlib", "jinja2"):
    if find_spec(_module) is None:
        raise AlexNetError(f"figures and reports require {_module}: pip install 'alexnet[report]'")
