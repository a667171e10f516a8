"""Run folders, written and opened again."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_runs import make_run

from alexnet import Run
from alexnet.network import variants
from alexnet.network.rows import Activation, Conv, FullyConnected, Pool
from alexnet.network.variants import Variant, register_variant
from alexnet.runs.config import Config
from alexnet.runs.recipe import recipes

OWN = Variant(
    name="own",
    description="A test's network.",
    input_size=32,
    init="he",
    layers=(Conv("stem", 8, 5, stride=2), Activation("act"), Pool("pool"), FullyConnected("head", None)),
)


@pytest.fixture
def own_run(tmp_path: Path) -> Path:
    """A run folder of a registered variant, which is forgotten afterwards."""
    register_variant(OWN)
    try:
        recipe = recipes()["paper"].override({"variant": "own"})
        config = Config(recipe, ["a", "b"], size=32, crop_size=32, input_size=32, scale=1 / 64, dataset={})
        run = Run.create(tmp_path / "run", config)
        torch.manual_seed(0)
        run.save_weights("best", config.network().state_dict(), torch.zeros(32, 32, 3))
    finally:
        del variants._registry["own"]
    return tmp_path / "run"


def test_a_run_of_a_registered_variant_opens_without_registering_it(own_run: Path) -> None:
    code = (
        "import sys, torch\n"
        "from alexnet import Run, list_variants\n"
        "assert 'own' not in list_variants()\n"
        "network, _ = Run.open(sys.argv[1]).load()\n"
        "print(type(network).__name__, network.variant.name, tuple(network(torch.zeros(1, 3, 32, 32)).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, own_run], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2)[:2] == ["AlexNet", "own"]
    assert done.stdout.strip().endswith("(1, 2)")


def test_the_table_in_the_run_folder_is_used_before_a_variant_of_the_same_name(own_run: Path) -> None:
    other = Variant("own", "Another.", 32, "he", (Conv("stem", 4, 3), FullyConnected("head", None)))
    register_variant(other)
    try:
        run = Run.open(own_run)
        assert run.config.variant == OWN
        network, _ = run.load()
        assert network.stem.weight.shape == (8, 3, 5, 5)
    finally:
        del variants._registry["own"]


def test_a_run_of_a_built_in_variant_stores_no_table(striped_data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", striped_data, seed=0, variant="convolutions")
    assert Run.open(run).config.variant is None
    assert Run.open(run).config == Config.from_dict(Run.open(run).config.to_dict())
    (run / "model.safetensors").unlink()
