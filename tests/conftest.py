"""Images and datasets that several tests read."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from stripes import striped_image

from alexnet.cli.main import main
from alexnet.data.preparation import prepare

# A background process of a shell ignores Ctrl-C, and so would the processes that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """The command `alexnet` in this process: starting another one costs seconds."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def striped_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a folder of images of standing and lying stripes: (lying, standing, size, splits)."""

    def make(lying: int, standing: int, size: int = 72, splits: tuple[str, ...] = ("train", "val")) -> Path:
        folder = tmp_path_factory.mktemp("stripes")
        rng = np.random.default_rng((lying, standing, size))
        for split in splits:
            for name, count in (("lying", lying), ("standing", standing)):
                (folder / split / name).mkdir(parents=True)
                for number in range(count):
                    image = striped_image(rng, name == "standing", size)
                    image.save(folder / split / name / f"{number:04}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def striped_data(striped_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 2 × 12 training and 2 × 12 validation images of 72 × 72."""
    data = tmp_path_factory.mktemp("striped") / "data"
    prepare(striped_folder(12, 12), data, size=72, progress=False)
    return data


@dataclass
class Tab:
    """A page in the browser, what its console complained of, and every address that it asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


# A module at a time: while the driver's loop runs, a test of asyncio could not start its own.
@pytest.fixture(scope="module")
def open_tab() -> Iterator[Callable[..., Tab]]:
    """A function that opens an address in Chromium, in a window of its own: (address, **what new_context takes)."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium: `make browser` installs Debian's where apt-get and root's rights are there")
    from playwright.sync_api import sync_playwright

    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments += ["--no-sandbox"] * (os.geteuid() == 0)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)

        def open_it(address: str, **options: Any) -> Tab:
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(60_000)
            tab = Tab(page)
            page.on("console", lambda said: said.type in ("error", "warning") and tab.complaints.append(said.text))
            page.on("pageerror", lambda error: tab.complaints.append(str(error)))
            page.on("request", lambda request: tab.asked.append(request.url))
            page.goto(address)
            return tab

        yield open_it
        browser.close()
