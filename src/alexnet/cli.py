"""The command line: one thin function a verb, over the public functions that a notebook calls too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from alexnet import __version__
from alexnet.errors import AlexNetError

# Heavy imports stay inside the verbs: `alexnet --help` answers at once.


def variants(options: argparse.Namespace) -> None:
    """List the networks, or print one layer by layer."""
    from alexnet.model import AlexNet
    from alexnet.model import variants as all_variants

    if options.variant:
        print(AlexNet(options.variant, options.classes).summary())
        return
    for name, variant in all_variants().items():
        print(f"{name:<24}{variant.description}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alexnet",
        description="AlexNet, whole: from a folder of pictures to a trained, measured classifier.",
        epilog="example: alexnet prepare photographs/ data && alexnet train data --out run && "
        "alexnet evaluate run --data data",
    )
    parser.add_argument("--version", action="version", version=f"alexnet {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("variants", help="the networks there are, each a table of layers")
    verb.add_argument("variant", nargs="?", metavar="NAME", help="print this one layer by layer")
    verb.add_argument("--classes", type=int, default=1000, help="number of classes (default: 1000)")
    verb.set_defaults(run=variants)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 done, 1 the work failed, 2 the words were wrong, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except AlexNetError as error:
        if options.debug:
            raise
        print(f"alexnet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("alexnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
