"""LeNet-5, VGG and ResNet: published sizes, LeNet-5's formulas, residual blocks (others: weights/test_torchvision)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet import AlexNet, UsageError, Variant, get_variant
from alexnet.network.layers import ResidualBlock
from alexnet.network.neighbors import LENET5_CONNECTIONS
from alexnet.network.optimized import OptimizedNetwork, without_batch_norm
from alexnet.network.rows import Activation, BatchNorm, Conv, FullyConnected, GlobalPool, Residual

SMALL_RESIDUAL = Variant(
    name="small-residual",
    description="A test's network.",
    input_size=24,
    init="he",
    layers=(
        *(Conv("conv1", 4, 3, padding=1, bias=None), BatchNorm("batch1"), Activation("relu1")),
        Residual("block1", (Activation("first"), Conv("conv_a", 4, 3, padding=1, bias=None), BatchNorm("batch_a"))),
        Residual("block2", (Conv("conv_a", 6, 3, stride=2, padding=1),), (Conv("conv", 6, 1, stride=2, bias=None),)),
        *(Activation("relu2"), GlobalPool("pool"), FullyConnected("logits", None)),
    ),
)


# LeCun et al. 1998, section II.B, and Caffe's examples/mnist; torchvision's documentation for the others.
@pytest.mark.parametrize(
    ("variant", "classes", "parameters", "multiply_adds"),
    [
        ("lenet5", 10, 431_080, 2_293_000),
        ("vgg11", 1000, 132_863_336, 7_609_090_048),
        ("vgg16", 1000, 138_357_544, 15_470_264_320),
        ("resnet18", 1000, 11_689_512, 1_814_073_344),
        ("resnet50", 1000, 25_557_032, 4_089_184_256),
    ],
)
def test_parameters_and_multiply_adds_are_the_published_ones(variant, classes, parameters, multiply_adds) -> None:
    with torch.device("meta"):
        network = AlexNet(variant, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(cost.multiply_adds for cost in network.costs()) == multiply_adds


def test_lenet5_has_the_parameters_and_connections_of_the_paper_layer_by_layer() -> None:
    network = AlexNet("lenet5-1998", 10)
    costs = {cost.name: cost for cost in network.costs()}
    parameters = {name: cost.parameters for name, cost in costs.items() if cost.parameters}
    assert parameters == {"conv1": 156, "pool1": 12, "conv2": 1516, "pool2": 32, "conv3": 48_120, "fc4": 10_164}
    assert sum(parameters.values()) == 60_000
    # A connection is a weight or a bias at one place; a unit of a subsampling layer has four inputs and a bias.
    connections = {name: costs[name].multiply_adds + costs[name].neurons for name in ("conv1", "conv2", "conv3", "fc4")}
    connections |= {name: 5 * costs[name].output[0] * costs[name].output[1] ** 2 for name in ("pool1", "pool2")}
    assert connections == {
        **{"conv1": 122_304, "pool1": 5_880, "conv2": 151_600, "pool2": 2_000},
        **{"conv3": 48_120, "fc4": 10_164},
    }
    assert sum(connections.values()) + 10 * 84 == 340_908


def lenet5_1998(x: Tensor, weights: dict[str, Tensor], codes: Tensor) -> Tensor:
    """The formulas of the paper, kernel by kernel."""

    def squash(a: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * a)

    def subsample(maps: Tensor, name: str) -> Tensor:
        sums = maps[:, :, ::2, ::2] + maps[:, :, 1::2, ::2] + maps[:, :, ::2, 1::2] + maps[:, :, 1::2, 1::2]
        weight, bias = (weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("weight", "bias"))
        return squash(sums / 4 * weight + bias)

    x = (x * torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(3, 1, 1)).sum(1, keepdim=True)
    x = subsample(squash(functional.conv2d(x, weights["conv1.weight"], weights["conv1.bias"])), "pool1")
    maps, used = [], 0
    for kernel, channels in enumerate(LENET5_CONNECTIONS):
        rows = weights["conv2.weight"][used : used + len(channels)].view(1, len(channels), 5, 5)
        maps.append(functional.conv2d(x[:, list(channels)], rows) + weights["conv2.bias"][kernel])
        used += len(channels)
    x = subsample(squash(torch.cat(maps, 1)), "pool2")
    x = squash(x.flatten(1) @ weights["conv3.weight"].flatten(1).T + weights["conv3.bias"])
    x = squash(x @ weights["fc4.weight"].T + weights["fc4.bias"])
    return -(x[:, None] - codes).square().sum(2)


def test_lenet5_computes_the_formulas_of_the_paper_forward_and_backward() -> None:
    torch.manual_seed(0)
    network = AlexNet("lenet5-1998", 10).double()
    for name in ("pool1", "pool2"):
        nn.init.normal_(network.get_parameter(f"{name}.weight"), 1, 0.2)
        nn.init.normal_(network.get_parameter(f"{name}.bias"), 0, 0.2)
    x, weights = torch.randn(3, 3, 32, 32, dtype=torch.float64), dict(network.named_parameters())
    assert set(network.logits.codes.unique().tolist()) == {-1.0, 1.0}
    logits, expected = network(x), lenet5_1998(x, weights, network.logits.codes)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(logits[:, 3].sum(), list(weights.values()))
    for gradient, right in zip(found, torch.autograd.grad(expected[:, 3].sum(), list(weights.values())), strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-9, atol=1e-9)


def test_lenet5_draws_its_weights_within_its_fan_in_and_the_same_codes_in_every_network() -> None:
    torch.manual_seed(0)
    first, second = AlexNet("lenet5-1998", 10), AlexNet("lenet5-1998", 10)
    assert torch.equal(first.logits.codes, second.logits.codes)
    bounds = {"conv1": 25, "conv3": 400, "fc4": 120}
    for name, fan_in in bounds.items():
        largest = float(first.get_parameter(f"{name}.weight").abs().max().detach())
        assert 0.9 * 2.4 / fan_in < largest <= 2.4 / fan_in
    largest = first.conv2.weight.abs().amax(1)  # of each connection: kernels that read fewer maps have larger weights
    fan_in = torch.tensor([25 * len(read) for read in LENET5_CONNECTIONS for _ in read])
    assert (largest <= 2.4 / fan_in).all()


@pytest.mark.parametrize("variant", ["lenet5", "lenet5-1998", "resnet18", SMALL_RESIDUAL])
def test_the_optimized_form_computes_the_logits_and_gradients_of_the_plain_network(variant) -> None:
    torch.manual_seed(0)
    network = AlexNet(variant, 5, dropout=0.0).train()
    for name, parameter in network.named_parameters():
        if name.startswith("logits"):
            nn.init.normal_(parameter, 0, 0.1)
    side = min(64, network.input_size)
    x, labels = torch.randn(4, 3, side, side), torch.tensor([0, 1, 2, 3])
    results = []
    for form in (network, OptimizedNetwork(network)):
        network.zero_grad(set_to_none=True)
        logits = form(x)
        functional.cross_entropy(logits, labels).backward()
        results.append([logits.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    for expected, found in zip(*results, strict=True):
        assert (expected - found).norm() <= 1e-3 * expected.norm() + 1e-6


@pytest.mark.parametrize(
    ("variant", "normalization"), [("resnet18", None), (SMALL_RESIDUAL, None), ("cifar-18pct", "batch")]
)
@torch.no_grad()
def test_batch_normalization_is_folded_for_inference(variant, normalization) -> None:
    torch.manual_seed(0)
    network = AlexNet(variant, 5, normalization=normalization).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    nn.init.normal_(network.logits.weight)
    before = {name: array.clone() for name, array in network.state_dict().items()}
    folded = without_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    side = min(64, network.input_size)
    x = torch.randn(2, 3, side, side)
    expected = network(x)
    for form in (folded, OptimizedNetwork(folded)):
        torch.testing.assert_close(form(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert folded.logits.weight is network.logits.weight  # no second copy of what folding leaves alone
    for name, array in network.state_dict().items():
        assert torch.equal(array, before[name]), name


def test_without_batch_normalization_there_is_nothing_to_fold() -> None:
    with torch.device("meta"):
        network = AlexNet("vgg11", 3).eval()
    assert without_batch_norm(network) is network


def test_the_features_of_a_residual_network_are_the_global_average() -> None:
    torch.manual_seed(0)
    network = AlexNet("resnet18", 3).eval()
    assert (network.feature_layer, network.first_convolution) == ("pool5", "conv1")
    assert network.weighted_layers()[:3] == ["conv1", "block2_1", "block2_2"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = network.features(x, "pool5").flatten(1)
        torch.testing.assert_close(network.logits(features), network(x))
        block = network.features(x, "block5_2")  # read after the ReLU behind the sum
        torch.testing.assert_close(block.mean((2, 3)), features)
        assert (block >= 0).all()


def test_the_switches_change_a_residual_network() -> None:
    with torch.device("meta"):
        plain = AlexNet("resnet18", 3, normalization="none")
        assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
        assert all(module.bias is not None for module in plain.modules() if isinstance(module, nn.Conv2d))
        own = AlexNet("resnet18", 3).state_dict().keys()
        assert AlexNet("resnet18", 3, normalization="batch").state_dict().keys() == own
        assert "block2_2" not in dict(AlexNet("resnet18", 3, drop_layer="block2_2").named_children())
        with pytest.raises(UsageError, match="block3_2 adds 128 channels of 56×56 to 64 channels of 56×56"):
            AlexNet("resnet18", 3, drop_layer="block3_1")
        with pytest.raises(UsageError, match="has no place for it"):
            AlexNet("vgg11", 3, normalization="lrn")
        batch = AlexNet("vgg11", 3, normalization="batch")
        assert sum(isinstance(module, nn.BatchNorm2d) for module in batch.modules()) == 8


def test_a_block_whose_parts_do_not_fit_or_that_holds_another_is_refused() -> None:
    wrong = Residual("block", (Conv("conv_a", 8, 3, padding=1),))
    with torch.device("meta"), pytest.raises(UsageError, match="block adds 8 channels of 24×24 to 4 channels of 24×24"):
        AlexNet(replace(SMALL_RESIDUAL, layers=(SMALL_RESIDUAL.layers[0], wrong, *SMALL_RESIDUAL.layers[-2:])))
    with pytest.raises(UsageError, match="can't hold another one"):
        replace(SMALL_RESIDUAL, layers=(SMALL_RESIDUAL.layers[0], Residual("a", (wrong,)), *SMALL_RESIDUAL.layers[-2:]))


def test_an_activation_that_begins_a_block_leaves_the_input_of_the_shortcut_alone() -> None:
    torch.manual_seed(0)
    network = AlexNet(SMALL_RESIDUAL, 3).eval()
    block = network.block1
    assert isinstance(block, ResidualBlock)
    x = torch.randn(2, 4, 6, 6)
    expected = x.clone() + block.body(x.clone())
    torch.testing.assert_close(block(x), expected)


def test_the_tables_are_data() -> None:
    for name in ("lenet5-1998", "resnet50"):
        variant = get_variant(name)
        assert Variant.from_dict(variant.to_dict()) == variant
