"""The errors a person can mend: one clear line, and the exit code the shell gets."""

from collections.abc import Iterable


class AlexNetError(Exception):
    """The work failed: what was wrong, where, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(AlexNetError):
    """The words were wrong: an option, a name or a value that does not exist. Exit code 2."""

    exit_code = 2


class LostError(AlexNetError):
    """Another process of the same training is gone, or silent: to start all again may help."""


class ElsewhereError(AlexNetError):
    """Another process of the same training failed, and says why itself."""


def named(value: str, known: Iterable[str], what: str) -> str:
    """`value`, or a `UsageError` that lists what there is."""
    names = tuple(known)
    if value not in names:
        raise UsageError(f"no {what} {value!r}; there are: {', '.join(names)}")
    return value
