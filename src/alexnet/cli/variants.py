"""`alexnet variants`: list the network variants, or print one layer by layer."""

from __future__ import annotations

import argparse

HELP = "list the network variants"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = "List the network variants, or print the layers of one."
    parser.epilog = "example: alexnet variants paper"
    parser.add_argument("variant", nargs="?", metavar="NAME", help="print the layers of this variant")
    parser.add_argument("--classes", type=int, default=1000, metavar="N", help="number of classes (default: 1000)")


def run(options: argparse.Namespace) -> None:
    """List the variants, or print one."""
    from alexnet.network.variants import get_variant, list_variants

    if options.variant:
        from alexnet.network.model import AlexNet

        print(AlexNet(options.variant, options.classes).summary())
        return
    for name in list_variants():
        print(f"{name:<24}{get_variant(name).description}")
