"""The remedies that messages name are commands that exist; those of several verbs are run."""

from __future__ import annotations

import argparse
import ast
import functools
import io
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from random_runs import make_run

import alexnet
from alexnet.cli.main import build_parser
from alexnet.inspection.sorting import sort_images
from alexnet.network.model import AlexNet
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError

SOURCES = Path(alexnet.__file__).parent
FOREIGN = {"--headless", "--convert-to", "--standalone", "--nproc-per-node", "--cpus", "--data-binary"}
"""Options of other programs in messages."""


@functools.cache
def verbs() -> dict[str, argparse.ArgumentParser]:
    parser = build_parser()
    return next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def texts() -> Iterator[tuple[str, str]]:
    """Place and text of each string in the package, the parts of an f-string with X for a value."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            where = f"{path.relative_to(SOURCES)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                parts = (str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
                yield where, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield where, node.value


def test_every_verb_and_option_that_a_message_names_exists() -> None:
    known = {option for parser in verbs().values() for a in parser._actions for option in a.option_strings}
    known |= {"--debug", "--version", "--help", *FOREIGN}
    wrong = []
    for where, text in texts():
        found = re.findall(r"(?<![\w-])(--[a-z][a-z-]*[a-z])(?![\w-])", text)
        wrong += [f"{where}: {option}" for option in found if option not in known]
        for line in re.findall(r"`(alexnet [^`]+)`", text):
            options = set(re.findall(r"--[a-z][a-z-]*", line))
            verb = next((part for part in line.split()[1:] if not part.startswith("-")), "")
            if verb in verbs():
                own = {option for a in verbs()[verb]._actions for option in a.option_strings}
                wrong += [f"{where}: alexnet {verb} has no {option}" for option in options - own - {"--debug"}]
            elif verb.islower():
                wrong.append(f"{where}: no verb {verb}")
    assert not wrong, "\n".join(wrong)


def png(side: int = 72, value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value % 256, 9, 200)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def run(tmp_path: Path, striped_data: Path) -> Path:
    return make_run(tmp_path / "run", striped_data, seed=1, variant="convolutions")


def remedy(message: str) -> list[str]:
    """The arguments of the `alexnet` command that a message names."""
    found = re.search(r"`alexnet ([^`]+)`", message)
    assert found, message
    return shlex.split(found[1])


SITUATIONS: dict[str, Callable[[Path, Path, Path], list[Any]]] = {
    "prepare a prepared dataset": lambda run, data, tmp: ["prepare", data, tmp / "again"],
    "train on a folder of images": lambda run, data, tmp: ["train", tmp / "my photos", "--out", tmp / "new"],
    "train on nothing": lambda run, data, tmp: ["train", tmp / "no data", "--out", tmp / "new"],
    "evaluate on a folder of images": lambda run, data, tmp: ["evaluate", run, "--data", tmp / "my photos"],
    "search in a folder of images": lambda run, data, tmp: [
        *("search", run, tmp / "my photos/train/cat/0.png", "--data", tmp / "my photos")
    ],
    "compare on a folder of images": lambda run, data, tmp: ["compare", run, run, "--data", tmp / "my photos"],
    "report on a folder of images": lambda run, data, tmp: ["report", run, "--data", tmp / "my photos"],
    "serve a folder of images": lambda run, data, tmp: ["serve", run, "--data", tmp / "my photos"],
    "crossval of a folder of images": lambda run, data, tmp: ["crossval", tmp / "my photos", "--out", tmp / "cv"],
    "labels of no cross-validation": lambda run, data, tmp: ["labels", tmp / "no cv"],
    "ambiguous folders": lambda run, data, tmp: ["prepare", tmp / "plants", tmp / "new data"],
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_command_of_a_message_works_when_it_is_typed(
    situation: str, run: Path, striped_data: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that names its files is run; of one with a placeholder such as DATA, the form is checked."""
    monkeypatch.chdir(tmp_path)
    for folder in ("my photos/train", "my photos/val", "plants/color", "plants/gray"):
        for name in ("cat", "dog"):
            for number in range(2):
                path = tmp_path / folder / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(value=number))
    done = command(*SITUATIONS[situation](run, striped_data, tmp_path))
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1
    arguments = remedy(done.stderr)
    build_parser().parse_args(arguments)
    if not {"DATA", "SOURCE"} & set(arguments) and arguments[0] == "prepare":
        assert command(*arguments).returncode == 0


def test_a_sort_with_other_settings_is_undone_by_the_command_of_the_message(
    run: Path, tmp_path: Path, command: Any
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.png").write_bytes(png())
    out = tmp_path / "my sorted images"
    assert command("sort", run, tmp_path / "in", "--to", out).returncode == 0
    done = command("sort", run, tmp_path / "in", "--to", out, "--views", 10)
    assert done.returncode == 1
    assert command(*remedy(done.stderr)).returncode == 0
    assert command("sort", run, tmp_path / "in", "--to", out, "--views", 10).returncode == 0


@pytest.mark.parametrize("verb", ["predict", "search"])
def test_an_image_above_the_limit_names_the_option_that_reads_it(
    verb: str, run: Path, striped_data: Path, tmp_path: Path, command: Any
) -> None:
    (tmp_path / "large.png").write_bytes(png(80))
    rest = ["--data", striped_data] if verb == "search" else []
    done = command(verb, run, tmp_path / "large.png", *rest, "--max-pixels", 100)
    assert done.returncode == 1
    option = re.search(r"--max-pixels \d+", done.stderr)
    assert option, done.stderr
    assert command(verb, run, tmp_path / "large.png", *rest, *option[0].split()).returncode == 0


def test_an_archive_is_sorted_after_the_command_of_the_message(run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "my photos.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.png", png(value=number))
    with pytest.raises(AlexNetError) as error:
        sort_images(run, tmp_path / "my photos.zip", tmp_path / "sorted")
    shell = str(error.value).split("`")[1]
    if shell.startswith("unzip"):  # it need not be installed where the tests run
        arguments = shlex.split(shell)
        with zipfile.ZipFile(arguments[-1]) as archive:
            archive.extractall(arguments[2])
    assert len(sort_images(run, tmp_path / "my photos", tmp_path / "sorted").placements) == 3


def test_a_tar_is_unpacked_by_the_command_of_the_message(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.png").write_bytes(png())
    subprocess.run(["tar", "-czf", tmp_path / "photos.tar.gz", "-C", tmp_path / "in", "."], check=True)
    with pytest.raises(AlexNetError) as error:
        sort_images(run, tmp_path / "photos.tar.gz", tmp_path / "sorted")
    subprocess.run(str(error.value).split("`")[1], shell=True, check=True)
    assert len(sort_images(run, tmp_path / "photos", tmp_path / "sorted").placements) == 1


@pytest.mark.parametrize("verb", ["predict", "search", "sort"])
def test_pages_and_bands_that_are_not_read_are_said_once(
    verb: str, run: Path, striped_data: Path, tmp_path: Path, command: Any
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        pages = np.full((2, 72, 72), number * 20, np.uint8)
        tifffile.imwrite(folder / f"pages{number}.tif", pages, photometric="minisblack")
    tifffile.imwrite(
        folder / "bands.tif", np.zeros((72, 72, 6), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    (folder / "plain.png").write_bytes(png())
    rest = {"predict": [], "search": ["--data", striped_data], "sort": ["--to", tmp_path / "sorted"]}[verb]
    done = command(verb, run, folder, *rest)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("3 of 5 images have 2 pages, of which the first is read") == 1
    assert done.stderr.count("1 of 5 images has 6 bands, of which the first three are read") == 1


# Weights: the remedies of import, export and decide, typed as they are, in a folder with a space in its name.


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which `my weights.pt` holds the weights of a small network of three outputs, twice."""
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    weights = AlexNet("convolutions", 3, init="he").state_dict()
    torch.save({"model": weights, "model_ema": weights}, folder / "my weights.pt")
    return folder


def test_the_remedies_of_import_lead_to_a_run(small: Path, command: Any) -> None:
    done = command("import", "my weights.pt", "--out", "run")
    assert "name it with --variant, one of" in done.stderr
    options = ["--variant", "convolutions"]
    done = command("import", "my weights.pt", "--out", "run", *options)
    assert "my weights.pt has 3 classes without names: give a file of them with --classes" in done.stderr
    (small / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    options += ["--classes", "classes.txt"]
    done = command("import", "my weights.pt", "--out", "run", *options)
    assert done.returncode == 0, done.stderr
    assert command(*remedy(done.stderr), *options).returncode == 0
    assert Run.open("run-2").config.classes == ["a", "b", "c"]
    again = command("import", "my weights.pt", "--out", "run", *options)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)


def test_the_remedies_of_export_lead_to_a_folder(run: Path, small: Path, command: Any) -> None:
    shutil.copytree(run, "my run")
    done = command("export", "my run", "--to", "hub", "--int8")
    assert "leave out --int8" in done.stderr
    assert command("export", "my run", "--to", "hub").returncode == 0
    done = command("export", "my run", "--to", "hub")
    assert "my run-hub exists already: choose another folder with --out, or remove it" in done.stderr
    assert command("export", "my run", "--to", "hub", "--out", "other").returncode == 0
    done = command("import", "other", "--out", "back")
    assert done.returncode == 0, done.stderr


def test_the_remedy_of_a_damaged_decision_rule_is_a_command(run: Path, small: Path, command: Any) -> None:
    shutil.copytree(run, "my run")
    Path("my run/decision.json").write_text("{", encoding="utf-8")
    Path("1.png").write_bytes(png())
    done = command("predict", "my run", "1.png")
    assert done.returncode == 1
    assert remedy(done.stderr) == ["decide", "my run", "--data", "DATA"]
    assert command("predict", "my run", "1.png", "--raw").returncode == 0


def test_a_file_of_a_run_names_the_folder(run: Path, tmp_path: Path, command: Any) -> None:
    (tmp_path / "1.png").write_bytes(png())
    done = command("predict", run / "model.safetensors", tmp_path / "1.png")
    assert done.stderr == f"alexnet: {run}/model.safetensors is a file of the run folder {run}: name the folder\n"
