"""The registry of variants, and tables of one's own."""

import doctest
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import alexnet
from alexnet import AlexNet, AlexNetError, UsageError, Variant, get_variant, list_variants, register_variant
from alexnet.network import variants
from alexnet.network.rows import Activation, Conv, Dropout, FullyConnected, LocallyConnected, Pool

SMALL = Variant(
    name="small-net",
    description="A test's network.",
    input_size=32,
    init="he",
    layers=(
        *(Conv("stem", 8, 5, padding=2), Activation("act1", lrn="lrn1"), Pool("pool1")),
        *(Conv("block", 16, 3, groups=2), Activation("act2"), Pool("pool2")),
        *(LocallyConnected("local", 4, 3), Activation("act3"), Dropout("drop")),
        *(FullyConnected("hidden", 20), Activation("act4"), FullyConnected("head", None)),
    ),
)


@pytest.fixture
def registered() -> Iterator[Variant]:
    register_variant(SMALL)
    yield SMALL
    del variants._registry[SMALL.name]


def test_a_registered_variant_is_listed_and_built_by_name(registered: Variant) -> None:
    assert list_variants()[-1] == registered.name
    assert get_variant(registered.name) is registered
    network = AlexNet(registered.name, 3)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_a_variant_needs_no_registration_to_be_built() -> None:
    network = AlexNet(SMALL, 3)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert SMALL.name not in list_variants()


def test_roles_do_not_depend_on_the_names_of_layers() -> None:
    network = AlexNet(SMALL, 3, normalization="batch", drop_layer="block")
    assert (network.first_convolution, network.feature_layer, network.output_layer) == ("stem", "hidden", "head")
    assert network.weighted_layers() == ["stem", "local", "hidden", "head"]
    assert [network.is_fully_connected(name) for name in network.weighted_layers()] == [False, False, True, True]
    assert "batch_stem" in network.layer_names()
    assert not network.head.weight.any()  # "he" draws zeros in the output layer
    with_lrn = AlexNet(SMALL, 3, normalization="lrn").layer_names()
    assert with_lrn[with_lrn.index("act1") + 1] == "lrn1"
    assert [name for name in with_lrn if name.startswith("lrn")] == ["lrn1"]


def test_initial_values_come_from_the_rows() -> None:
    wide = replace(SMALL.layers[0], std=0.2, released_std=0.3, bias=0.5)
    network = AlexNet(replace(SMALL, layers=(wide, *SMALL.layers[1:])), 3)
    for scheme, std, bias in (("paper", 0.01, 0.5), ("released-2012", 0.3, 0.5), ("cuda-convnet", 0.2, 0.0)):
        network.initialize(scheme)
        assert float(network.stem.weight.detach().std()) == pytest.approx(std, rel=0.1)
        assert set(network.stem.bias.tolist()) == {bias}


@pytest.mark.parametrize("name", list_variants())
def test_a_table_survives_json(name: str) -> None:
    variant = get_variant(name)
    assert Variant.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize("damage", [{"layers": [{"layer": "Attention"}]}, {"layers": 3}, {"layers": [{"name": "a"}]}])
def test_a_damaged_table_is_an_error_and_not_a_traceback(damage: dict[str, object]) -> None:
    with pytest.raises(AlexNetError, match="table of a variant"):
        Variant.from_dict(SMALL.to_dict() | damage)


def test_registering_again_replaces_and_a_built_in_name_is_refused(registered: Variant) -> None:
    register_variant(replace(registered, description="Another."))
    assert get_variant(registered.name).description == "Another."
    with pytest.raises(UsageError, match="'paper' is a built-in variant"):
        register_variant(replace(SMALL, name="paper"))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Conv("a", 8, 3), Conv("a", 8, 3), FullyConnected("out", None)), "two layers named 'a'"),
        ((Conv("a", 8, 3), FullyConnected("out", 10)), "last layer"),
        ((Conv("a", 8, 3), FullyConnected("out", None), Activation("act")), "last layer"),
        ((Conv("a.b", 8, 3), FullyConnected("out", None)), "can't be named 'a.b'"),
        ((FullyConnected("out", None),), "first layer must be a Conv"),
    ],
)
def test_a_table_that_is_no_network_is_refused(layers: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL, layers=layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Conv("a", 8, 3, groups=2), FullyConnected("out", None)), "a has 2 groups, which do not divide"),
        ((Conv("a", 8, 64), FullyConnected("out", None)), "a has no output"),
        ((Conv("features", 8, 3), FullyConnected("out", None)), "can't be named 'features'"),
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(layers: tuple, message: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        AlexNet(replace(SMALL, layers=layers))


def test_lrn_without_a_place_for_it_is_refused() -> None:
    layers = tuple(replace(row, lrn=None) if isinstance(row, Activation) else row for row in SMALL.layers)
    with torch.device("meta"), pytest.raises(UsageError, match="normalization is 'lrn'"):
        AlexNet(replace(SMALL, layers=layers), normalization="lrn")


def test_the_example_of_the_documentation_runs() -> None:
    try:
        assert doctest.testmod(variants).failed == 0
        assert AlexNet("tiny", 4)(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    finally:
        variants._registry.pop("tiny", None)


def test_the_variants_are_listed_without_torch() -> None:
    code = "import alexnet, sys; alexnet.list_variants(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"Variant", "register_variant", "list_variants"} <= set(alexnet.__all__)
