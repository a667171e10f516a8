"""Pictures and datasets that several tests read."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stripes import striped_picture

from alexnet.data.prepare import prepare

# What a shell runs in the background ignores Ctrl-C, and so would the processes that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def striped_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a folder of pictures of standing and lying stripes: (lying, standing, size, splits)."""

    def make(lying: int, standing: int, size: int = 72, splits: tuple[str, ...] = ("train", "val")) -> Path:
        folder = tmp_path_factory.mktemp("stripes")
        rng = np.random.default_rng((lying, standing, size))
        for split in splits:
            for name, count in (("lying", lying), ("standing", standing)):
                (folder / split / name).mkdir(parents=True)
                for number in range(count):
                    picture = striped_picture(rng, name == "standing", size)
                    picture.save(folder / split / name / f"{number:04}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def striped_data(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 2 × 12 training and 2 × 12 validation pictures of 72 × 72."""
    data = tmp_path_factory.mktemp("striped") / "data"
    prepare(striped_folder(12, 12), data, size=72, progress=False)
    return data
