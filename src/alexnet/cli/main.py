"""The entry point: the parser of all verbs, errors as one line, exit codes."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, Protocol, cast

from alexnet import __version__
from alexnet.runtime.allocator import use_huge_pages
from alexnet.runtime.cpus import limit_threads
from alexnet.runtime.errors import AlexNetError, PeerLostError, ReportedElsewhereError, UsageError
from alexnet.runtime.interrupts import INTERRUPTED, interrupts_raised
from alexnet.runtime.progress import notify

VERBS = {
    "prepare": "prepare",
    "train": "train",
    "baseline": "baseline",
    "evaluate": "evaluate",
    "predict": "predict",
    "decide": "decide",
    "compare": "compare",
    "crossval": "crossval",
    "ensemble": "ensemble",
    "labels": "labels",
    "sort": "sort",
    "report": "report",
    "search": "search",
    "serve": "serve",
    "export": "export",
    "import": "import_weights",
    "demo": "demo",
    "reproduce": "reproduce",
    "learn": "learn",
    "variants": "variants",
    "recipes": "recipes",
    "plan": "plan",
    "bench": "bench",
}
"""Each verb and its module in this package. A module has `HELP`, `add_arguments` and `run`."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Verb(Protocol):
    """A module of this package: one verb."""

    HELP: str
    """One line for the list of verbs."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the verb and set its description and example."""

    def run(self, options: argparse.Namespace) -> int | None:
        """Do the work; return an exit code, or None for 0."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Build the command-line parser.

    Parameters
    ----------
    verb : str, optional
        Add the options of this verb only. The other verbs keep their line in the list of verbs, and what they
        import is not loaded. None adds the options of every verb.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = _Parser(
        prog="alexnet",
        description="AlexNet: from a folder of images to a trained and evaluated classifier.",
        epilog="example: alexnet prepare photographs/ data && alexnet train data --out run && "
        "alexnet evaluate run --data data",
    )
    parser.add_argument("--version", action="version", version=f"alexnet {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, module_name in VERBS.items():
        module = cast(Verb, importlib.import_module(f"alexnet.cli.{module_name}"))
        subparser = verbs.add_parser(name, help=module.HELP)
        if verb in (None, name):
            module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command-line arguments without the program name; `sys.argv` by default.

    Returns
    -------
    int
        The exit code: 0 done, 1 the work failed, 2 invalid usage, 130 interrupted.
    """
    try:
        with interrupts_raised() as interrupted:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as interruption:  # also while modules are loaded
        notify(f"alexnet: {str(interruption) or 'interrupted'}")
        return INTERRUPTED
    except Exception:
        if not interrupted.is_set():
            raise
        notify("alexnet: interrupted")
        return INTERRUPTED
    return INTERRUPTED if code and interrupted.is_set() else code


def _run(given: list[str]) -> int:
    """Run a verb; returns the exit code."""
    _escape_what_the_terminal_cannot_show()
    # Decoders warn of oddities in damaged images, without the name of the file.
    warnings.filterwarnings("ignore", module=r"PIL\.|tifffile")
    limit_threads()
    use_huge_pages()
    options = build_parser(next((argument for argument in given if argument in VERBS), "")).parse_args(given)
    options.arguments = given
    from alexnet.parallel.launch import exit_code

    try:
        code = exit_code(int(options.run(options) or 0))
        sys.stdout.flush()  # a full disk or a closed pipe raises here, not in the interpreter at its end
        return code
    except ReportedElsewhereError as error:
        return exit_code(error.exit_code)
    except AlexNetError as error:
        if options.debug:
            raise
        print(f"alexnet: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, PeerLostError) else exit_code(error.exit_code)
    except BrokenPipeError:
        _discard_output()
        sys.stderr.close()
        return 1
    except OSError as error:  # a file where a folder is needed, a folder without write permission, a full disk
        if options.debug or (error.filename is None and error.errno not in _FULL):
            raise
        _report(error)
        return 1


def _report(error: OSError) -> None:
    """Print the error of a system call; one without a file name is that of stdout."""
    if error.filename is not None:
        print(f"alexnet: {error.filename}: {error.strerror}; --debug shows the traceback", file=sys.stderr)
        return
    _discard_output()
    remedy = "free some space, or write to another disk"
    print(f"alexnet: the output cannot be written: {error.strerror}; {remedy}", file=sys.stderr)


def _discard_output() -> None:
    """Let what is left in the buffer of stdout go nowhere: the interpreter would fail to write it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escape_what_the_terminal_cannot_show() -> None:
    """Print characters that the encoding of stdout or stderr lacks as escapes such as ``\\u2192``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
