"""`alexnet reproduce lineage`: every switch beside an addition is one that the network has."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from alexnet.cli.main import build_parser, main
from alexnet.experiments.lineage import STEPS
from alexnet.network.model import AlexNet
from alexnet.network.variants import SWITCHES
from alexnet.runs.recipe import Recipe, recipes


def test_the_lineage_is_counted_and_drawn(tmp_path: Path) -> None:
    results = tmp_path / "lineage.json"
    assert main(["reproduce", "lineage", "--results", str(results)]) == 0
    steps = json.loads(results.read_text(encoding="utf-8"))["steps"]
    assert [step["year"] for step in steps] == sorted(step["year"] for step in steps)
    assert [step.get("parameters") for step in steps] == [60_000, None, 60_965_224, 138_357_544, 25_557_032]
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("step", "command"),
    [pytest.param(step, command, id=what) for step in STEPS if step.variant for what, command in step.additions],
)
def test_each_switch_of_the_lineage_changes_the_training(step, command: str) -> None:
    options = vars(build_parser().parse_args([*shlex.split(command), "data", "--out", "run"]))
    given = {field.name: options[field.name] for field in fields(Recipe) if options.get(field.name) is not None}
    unchanged = recipes()["paper"].override({"variant": given.get("variant", step.variant)} if len(given) > 1 else {})
    recipe = recipes()["paper"].override(given)
    assert recipe.differing(unchanged.to_dict()), "the command changes something"
    with torch.device("meta"):
        AlexNet(recipe.variant, 10, dropout=recipe.dropout, **{name: getattr(recipe, name) for name in SWITCHES})
