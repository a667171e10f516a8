"""`python -m alexnet`, and `torchrun -m alexnet`."""

import sys

from alexnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
