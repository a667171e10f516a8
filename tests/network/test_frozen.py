"""The frozen form computes what the plain network computes in evaluation mode."""

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional

from alexnet.kernels.safe import safe_mode
from alexnet.network import frozen
from alexnet.network.frozen import FrozenNetwork
from alexnet.network.model import AlexNet
from alexnet.network.rows import FullyConnected
from alexnet.network.variants import get_variant


def network(variant: str, **switches) -> AlexNet:
    """With 64 units in fc6 and fc7, whose random numbers would take most of the time."""
    torch.manual_seed(0)
    table = get_variant(variant)
    layers = (
        dataclasses.replace(row, units=64) if isinstance(row, FullyConnected) and row.units else row
        for row in table.layers
    )
    made = (
        AlexNet(dataclasses.replace(table, layers=tuple(layers)), 10, init="he", **switches)
        .to(memory_format=torch.channels_last)
        .eval()
    )
    output = made.get_submodule(made.output_layer)
    torch.nn.init.normal_(output.weight, 0, 0.02)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return made


def images(side: int, count: int) -> torch.Tensor:
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("variant", "switches", "sides"),
    [
        ("paper", {}, [227, 195, 227]),  # the size of the first input is no condition
        ("paper", {"normalization": "batch"}, [195, 227, 195]),
        ("paper", {"activation": "tanh", "pooling": "non-overlapping"}, [131]),
        ("one-weird-trick", {}, [224]),
        ("caffe", {}, [224]),  # its conv1 hangs over the edge
        ("released-2012", {}, [195]),
        ("convolutions", {}, [67, 131]),  # its output layer is its only fully connected one
        ("cifar-11pct", {}, [24]),  # locally connected layers stay as they are
        ("resnet18", {}, [64]),
    ],
)
def test_logits_are_those_of_the_plain_network(variant, switches, sides) -> None:
    plain = network(variant, **switches)
    working = FrozenNetwork(plain)
    with torch.inference_mode():
        for side in sides:
            for count in (1, 3):
                x = images(side, count)
                torch.testing.assert_close(working(x), plain(x), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_batch_size_has_weights_in_its_own_layout_and_equal_layouts_share_them(dtype: torch.dtype) -> None:
    if not frozen._can_pack(torch.device("cpu"), dtype):
        pytest.skip("oneDNN does not compute in this precision here")
    working = FrozenNetwork(network("paper", normalization="batch"), dtype)
    with torch.inference_mode():
        for count in (16, 1, 8, 16):
            working(images(67, count))
    convolutions = [step for step in working._steps if isinstance(step, frozen._PackedConv)]
    assert len(convolutions) == 5
    for step in convolutions:
        conv = step.conv
        for shape, weight in step.weights.items():
            wanted = torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight.detach().to(dtype), *step.options, conv.groups, list(shape)
            )
            assert frozen._layout(weight) == frozen._layout(wanted), shape
        layouts = {frozen._layout(weight) for weight in step.weights.values()}
        assert len({id(weight) for weight in step.weights.values()}) == len(layouts)
    assert convolutions[0].weights.keys() == {(count, 3, 67, 67) for count in (16, 1, 8)}


@pytest.mark.parametrize(
    ("variant", "switches", "side"), [("paper", {"normalization": "batch"}, 195), ("resnet18", {}, 64)]
)
def test_in_bfloat16_it_is_near_the_plain_network(variant, switches, side) -> None:
    plain, x = network(variant, **switches), images(side, 2)
    with torch.inference_mode():
        logits, expected = FrozenNetwork(plain, torch.bfloat16)(x), plain(x)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).norm() < 0.03 * expected.norm()


def test_it_reads_the_weights_and_does_not_change_them() -> None:
    plain = network("paper", normalization="batch")
    before = copy.deepcopy(plain.state_dict())
    with torch.inference_mode():
        FrozenNetwork(plain)(images(131, 1))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("variant", ["paper", "convolutions", "resnet18"])
def test_features_are_the_input_of_the_output_layer(variant: str) -> None:
    plain, x = network(variant), images(131, 3)
    working = FrozenNetwork(plain)
    seen: list[torch.Tensor] = []
    plain.get_submodule(plain.output_layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        plain(x)
        features = working.penultimate(x)
        torch.testing.assert_close(features, seen[0], rtol=1e-4, atol=2e-5)
        assert torch.equal(working.output_of(features), working(x))


def test_in_safe_mode_it_is_plain_pytorch() -> None:
    plain, x = network("paper", normalization="batch"), images(131, 2)
    with safe_mode(), torch.inference_mode():
        logits = FrozenNetwork(plain)(x)
    torch.testing.assert_close(functional.softmax(logits, 1), functional.softmax(plain(x), 1), rtol=1e-4, atol=1e-5)


def test_without_the_operators_of_onednn_it_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, x = network("paper", normalization="batch"), images(131, 2)
    monkeypatch.setattr(frozen, "_OPERATORS", (*frozen._OPERATORS, "_of_another_version"))
    without = FrozenNetwork(plain)
    assert not without._packs
    with torch.inference_mode():
        torch.testing.assert_close(without(x), plain(x), rtol=1e-4, atol=2e-5)
