"""The command line: its help, its verbs, its exit codes."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.cli.main import VERBS, build_parser, main


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_text_with_an_example(verb: str) -> None:
    parser = _subparsers(build_parser(verb))[verb]
    assert str(parser.description).endswith(".")
    assert str(parser.epilog).startswith(f"example: alexnet {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_help_text(verb: str) -> None:
    parser = _subparsers(build_parser())[verb]
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_with_a_default_number_states_it(verb: str) -> None:
    parser = _subparsers(build_parser())[verb]
    silent = [
        action.dest
        for action in parser._actions
        if isinstance(action.default, int | float)
        and not isinstance(action.default, bool)
        and str(action.default).removesuffix(".0") not in str(action.help)
    ]
    assert silent == []


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_help_text_parses(verb: str) -> None:
    parser = build_parser()
    example = str(_subparsers(parser)[verb].epilog).removeprefix("example: alexnet ").split(" > ")[0]
    parser.parse_args(example.split())


def test_the_list_of_verbs_does_not_wait_for_torch() -> None:
    code = "import sys; from alexnet.cli.main import build_parser; build_parser('').format_help(); "
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_module_of_a_verb_only_parses_and_calls(verb: str) -> None:
    module = importlib.import_module(f"alexnet.cli.{VERBS[verb]}")
    public = {name for name, value in vars(module).items() if callable(value) and value.__module__ == module.__name__}
    assert {name for name in public if not name.startswith("_")} == {"add_arguments", "run"}


def test_invalid_usage_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "data"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "alexnet train: the following arguments are required: --out; see alexnet train --help"


def test_a_missing_folder_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path / "run"), "x.jpg"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"alexnet: {tmp_path / 'run'}")
