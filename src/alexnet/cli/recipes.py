"""`alexnet recipes`: list the training recipes, or print every value of one."""

from __future__ import annotations

import argparse
import json

HELP = "list the training recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = "List the training recipes, or print every value of one as JSON."
    parser.epilog = "example: alexnet recipes small"
    parser.add_argument("recipe", nargs="?", metavar="NAME", help="print the values of this recipe")


def run(options: argparse.Namespace) -> None:
    """List the recipes, or print one."""
    from alexnet.runs.recipe import recipes
    from alexnet.runtime.errors import check_choice

    if options.recipe:
        recipe = recipes()[check_choice(options.recipe, recipes(), "recipe")]
        print(json.dumps(recipe.to_dict(), indent=1, ensure_ascii=False))
        return
    for name, recipe in recipes().items():
        print(f"{name:<26}{recipe.purpose}")
