"""Errors that a user can correct: each is one clear line and an exit code."""

from collections.abc import Iterable


class AlexNetError(Exception):
    """The work failed. The message says what was wrong, where, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(AlexNetError):
    """Invalid usage: an option, a name or a value that does not exist or is out of range. Exit code 2."""

    exit_code = 2


class PeerLostError(AlexNetError):
    """Another process of the same training ended or does not answer. A restart of all processes can succeed."""


class ReportedElsewhereError(AlexNetError):
    """Another process of the same training failed and reports the error itself."""


def check_choice(value: str, choices: Iterable[str], name: str) -> str:
    """Return ``value`` if it is one of ``choices``.

    Parameters
    ----------
    value : str
        The value to check.
    choices : iterable of str
        The allowed values.
    name : str
        What the value is, for the error message, such as ``"variant"``.

    Returns
    -------
    str
        ``value``, unchanged.

    Raises
    ------
    UsageError
        If ``value`` is not one of ``choices``. The message lists them.
    """
    allowed = tuple(choices)
    if value not in allowed:
        raise UsageError(f"unknown {name} {value!r}; choose from: {', '.join(allowed)}")
    return value
