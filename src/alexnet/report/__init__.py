"""What a run has learned, as figures and as a page: `alexnet report RUN`. Everything here needs matplotlib."""

from importlib.util import find_spec

from alexnet.runtime.errors import AlexNetError

if find_spec("matplotlib") is None:
    raise AlexNetError("figures are drawn with matplotlib: pip install 'alexnet[report]'")
