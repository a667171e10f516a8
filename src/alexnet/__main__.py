"""The command `alexnet`, `python -m alexnet`, and `torchrun -m alexnet`."""

import sys

from alexnet.runtime.interrupts import leave_on_interrupt


def main() -> int:
    """Run the command line; Ctrl-C is handled from here on, also while modules are loaded and at the end."""
    leave_on_interrupt()
    from alexnet.cli.main import main as run_command_line

    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
