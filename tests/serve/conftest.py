"""A server with a random network, and images to send to it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from random_runs import make_run
from servers import Server, serving

from alexnet import Classifier


@pytest.fixture(scope="session")
def served_run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = make_run(tmp_path_factory.mktemp("served") / "run", striped_data, seed=5)
    yield run
    (run / "model.safetensors").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def server(served_run: Path, striped_data: Path) -> Iterator[Server]:
    with serving(served_run, striped_data) as running:
        yield running


@pytest.fixture(scope="session")
def classifier(served_run: Path) -> Classifier:
    return Classifier.load(served_run, device="cpu")


@pytest.fixture(scope="session")
def images(striped_folder: Callable[..., Path]) -> list[bytes]:
    """The files of ten images that are not in the dataset."""
    return [path.read_bytes() for path in sorted(striped_folder(5, 5, splits=("new",)).glob("*/*/*.png"))]
