"""The wheel: built, installed into an empty environment without extras, and used there."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Shell = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return a function that runs `alexnet` from a wheel in an environment without extras, outside the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("alexnet-*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    # With PYTHONPATH, pip would take the package of the checkout for an installed one.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, wheel], check=True, env=environment)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-m", "alexnet", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)

    return run


@pytest.fixture(scope="module")
def trained(shell: Shell, striped_folder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of a dataset that was prepared and a network that was trained with the wheel."""
    images, folder = striped_folder(4, 4), tmp_path_factory.mktemp("trained")
    prepared = shell("prepare", images, folder / "data")
    assert prepared.returncode == 0, prepared.stderr
    done = shell("train", folder / "data", "--out", folder / "run", "--epochs", 1)
    assert done.returncode == 0, done.stderr
    image = next((images / "val").rglob("*.png"))
    return {"images": images, "data": folder / "data", "run": folder / "run", "image.png": image}


def test_predict_and_evaluate_work_without_extras(shell: Shell, trained: dict[str, Path]) -> None:
    predicted = shell("predict", trained["run"], trained["images"] / "val", "--csv")
    assert predicted.returncode == 0, predicted.stderr
    assert len(predicted.stdout.splitlines()) == 1 + 8
    evaluated = shell("evaluate", trained["run"], "--data", trained["data"], "--json")
    assert evaluated.returncode == 0, evaluated.stderr


def test_the_results_travel_with_the_wheel(shell: Shell) -> None:
    listed = shell("reproduce", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "7.1×" in listed.stdout  # the shipped result of figure 1


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("report", "run"), "report"),
        (("serve", "run"), "serve"),
        (("search", "run", "image.png", "--data", "data", "--method", "index"), "search"),
        (("export", "run", "--to", "onnx"), "onnx"),
        (("prepare", "hf:owner/name", "new"), "hf"),
        (("train", "s3://bucket/data", "--out", "new"), "remote"),
        (("demo",), "demo"),
    ],
)
def test_a_verb_without_its_extra_names_the_extra(
    arguments: tuple[str, ...], extra: str, shell: Shell, trained: dict[str, Path]
) -> None:
    done = shell(*(trained.get(argument, argument) for argument in arguments))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("alexnet: ")]
    assert f"alexnet[{extra}]" in line
