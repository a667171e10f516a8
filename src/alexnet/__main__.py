"""The command `alexnet`, `python -m alexnet`, and `torchrun -m alexnet`."""

import os
import sys
from contextlib import suppress

from alexnet.runtime.interrupts import INTERRUPTED, leave_on_interrupt


def main() -> int:
    """Run the command line; Ctrl-C is handled from here on, also while modules are loaded and at the end."""
    leave_on_interrupt()
    from alexnet.cli.main import main as run_command_line

    code = run_command_line()
    if code == INTERRUPTED:  # everything is cleaned up; libraries may fail on threads that were interrupted
        with suppress(OSError, ValueError):  # a closed pipe
            sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
