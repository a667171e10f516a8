"""The networks against paper.md's tables, and against float64 implementations that share no code with the package."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import AlexNet, UsageError, list_variants
from alexnet.network.layers import Weighted
from alexnet.network.optimized import OptimizedNetwork
from alexnet.network.variants import is_built_in

# Published: section 1 of the paper's facts, one row per layer: output shape, parameters, multiply-adds.
PAPER_TABLE = {
    "conv1": ((96, 55, 55), 34_944, 105_415_200),
    "pool1": ((96, 27, 27), 0, 0),
    "conv2": ((256, 27, 27), 307_456, 223_948_800),
    "pool2": ((256, 13, 13), 0, 0),
    "conv3": ((384, 13, 13), 885_120, 149_520_384),
    "conv4": ((384, 13, 13), 663_936, 112_140_288),
    "conv5": ((256, 13, 13), 442_624, 74_760_192),
    "pool5": ((256, 6, 6), 0, 0),
    "fc6": ((4096,), 37_752_832, 37_748_736),
    "fc7": ((4096,), 16_781_312, 16_777_216),
    "logits": ((1000,), 4_097_000, 4_096_000),
}
PAPER_NEURONS = {
    "conv1": 290_400,
    "conv2": 186_624,
    "conv3": 64_896,
    "conv4": 64_896,
    "conv5": 43_264,
    "fc6": 4096,
    "fc7": 4096,
    "logits": 1000,
}
HALF = 17_472 + 153_728 + 221_376 + 331_968 + 442_624 + 37_752_832 + 16_781_312 + 4_097_000
PARAMETERS = {
    "paper": 60_965_224,
    "one-tower": 62_378_344,
    "paper-half": HALF,
    "convolutions": 2_334_080 + 9216 * 1000 + 1000,
    "one-weird-trick": 61_100_840,
    "caffe": 60_965_224,
    "caffenet": 60_965_224,
    "released-2012": 60_965_224,
    "released-2012-half": HALF,
    "released-2012-six-conv": 60_965_224 + 256 * 256 * 9 + 256,
    "released-2012-no-norm": 60_965_224,
    "cifar-18pct": 32 * 76 + 32 * 801 + 64 * 801 + 1000 * 1025,
    "cifar-13pct": 64 * 76 + 64 * 1601 + 36 * 32 * (577 + 289) + 1000 * 1153,
    "cifar-11pct": 64 * 76 + 64 * 1601 + 36 * (64 * 577 + 32 * 577) + 1000 * 1153,
    "lenet5-1998": 60_000,  # whatever the number of classes
    "lenet5": 431_080 + 990 * 501,
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
}
SHAPES = {
    "paper-half": [(48, 55, 55), (128, 27, 27), (192, 13, 13), (192, 13, 13), (256, 13, 13)],
    "one-weird-trick": [(64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13), (256, 13, 13)],
    "released-2012-half": [(48, 55, 55), (128, 27, 27), (192, 13, 13), (192, 13, 13), (256, 13, 13)],
}


def shadow(variant: str, num_classes: int = 1000, **switches: object) -> AlexNet:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return AlexNet(variant, num_classes, **switches)


def sharp_network(variant: str, seed: int = 0, **switches: object) -> AlexNet:
    """A float64 network whose logits depend on every weight, bias and normalization."""
    network = shadow(variant, 7, **switches).to_empty(device="cpu").eval()
    torch.manual_seed(seed)
    network.initialize("he")
    nn.init.normal_(network.logits.weight, std=0.05)
    for module in network.children():
        if isinstance(module, Weighted):
            nn.init.normal_(module.bias, std=0.5)
    return network.double()


def pixels(count: int, size: int, seed: int = 1) -> Tensor:
    """Random images minus their mean, in the paper's units."""
    noise = torch.rand(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (noise * 255 - 127.5).requires_grad_()


# The reference: the printed formulas, one operation after another.


def ref_conv(x: Tensor, p: dict[str, Tensor], name: str, stride: int = 1, pad: int = 0, towers: int = 1) -> Tensor:
    """Each tower convolves its half of the channels with its half of the kernels."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    maps, kernels = x.shape[1] // towers, weight.shape[0] // towers
    halves = []
    for t in range(towers):
        below, own = x[:, t * maps : (t + 1) * maps], slice(t * kernels, (t + 1) * kernels)
        halves.append(F.conv2d(F.pad(below, (pad,) * 4), weight[own], bias[own], stride))
    return torch.cat(halves, 1)


def ref_lrn(x: Tensor, towers: int, k: float, alpha: float, beta: float = 0.75, n: int = 5) -> Tensor:
    """`b[i] = a[i] / (k + alpha · sum over the n channels around i of a[j]²) ** beta`, within each tower."""
    size = x.shape[1] // towers
    maps = []
    for i in range(x.shape[1]):
        first = i // size * size
        near = range(max(first, i - n // 2), min(first + size - 1, i + n // 2) + 1)
        energy = sum(x[:, j] ** 2 for j in near)
        maps.append(x[:, i] / (k + alpha * energy) ** beta)
    return torch.stack(maps, 1)


def ref_spatial(x: Tensor, n: int = 5, alpha: float = 0.001) -> Tensor:
    """Each channel divided by `(1 + alpha/n² · sum over its n×n neighborhood of squares) ** 0.75`."""
    energy = F.pad(x**2, (n // 2,) * 4).unfold(2, n, 1).unfold(3, n, 1).sum((-1, -2))
    return x / (1 + alpha / n**2 * energy) ** 0.75


def ref_pool(x: Tensor) -> Tensor:
    """The largest of 3×3, stride 2, also where the last window hangs over the edge."""
    over = [(-(side - 3)) % 2 for side in x.shape[2:]]
    x = F.pad(x, (0, over[1], 0, over[0]), value=-math.inf)
    return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))


def ref_full(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return x.flatten(1) @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def ref_head(x: Tensor, p: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
    seen["fc6"] = ref_full(x, p, "fc6").clamp(min=0)
    seen["fc7"] = ref_full(seen["fc6"], p, "fc7").clamp(min=0)
    seen["logits"] = ref_full(seen["fc7"], p, "logits")
    return seen["logits"]


def ref_paper(x: Tensor, p: dict[str, Tensor], seen: dict[str, Tensor], caffe: bool = False, towers: int = 2) -> Tensor:
    """Sections 3.1 to 3.5 (paper), or bvlc_alexnet: k = 1, alpha / n, windows across all channels."""
    norm = {"towers": 1, "k": 1.0, "alpha": 1e-4 / 5} if caffe else {"towers": towers, "k": 2.0, "alpha": 1e-4}
    seen["conv1"] = ref_conv(x, p, "conv1", stride=4).clamp(min=0)
    seen["norm1"] = ref_lrn(seen["conv1"], **norm)
    seen["pool1"] = ref_pool(seen["norm1"])
    seen["conv2"] = ref_conv(seen["pool1"], p, "conv2", pad=2, towers=towers).clamp(min=0)
    seen["norm2"] = ref_lrn(seen["conv2"], **norm)
    seen["pool2"] = ref_pool(seen["norm2"])
    x = seen["pool2"]
    for name, parts in (("conv3", 1), ("conv4", towers), ("conv5", towers)):
        if f"{name}.weight" in p:
            x = seen[name] = ref_conv(x, p, name, pad=1, towers=parts).clamp(min=0)
    seen["pool5"] = ref_pool(x)
    return ref_head(seen["pool5"], p, seen)


def ref_half(x: Tensor, p: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
    return ref_paper(x, p, seen, towers=1)


def ref_caffe(x: Tensor, p: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
    return ref_paper(x, p, seen, caffe=True)


def ref_caffenet(x: Tensor, p: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
    """bvlc_reference_caffenet: pooled, then normalized."""
    norm = {"towers": 1, "k": 1.0, "alpha": 1e-4 / 5}
    seen["conv1"] = ref_conv(x, p, "conv1", stride=4).clamp(min=0)
    seen["norm1"] = ref_lrn(ref_pool(seen["conv1"]), **norm)
    seen["conv2"] = ref_conv(seen["norm1"], p, "conv2", pad=2, towers=2).clamp(min=0)
    x = ref_lrn(ref_pool(seen["conv2"]), **norm)
    for name, towers in (("conv3", 1), ("conv4", 2), ("conv5", 2)):
        x = seen[name] = ref_conv(x, p, name, pad=1, towers=towers).clamp(min=0)
    seen["pool5"] = ref_pool(x)
    return ref_head(seen["pool5"], p, seen)


def ref_released(x: Tensor, p: dict[str, Tensor], towers: int = 2, norm: bool = True, sixth: bool = False) -> Tensor:
    """Section 9 of the facts, layer by layer; x is 224×224, conv1's last window hangs over the edge."""
    x = ref_conv(F.pad(x, (0, 3, 0, 3)), p, "conv1", stride=4)
    if norm:
        x = ref_lrn(x, towers, k=2.0, alpha=1e-4 / 5)
    x = ref_pool(x).clamp(min=0)
    x = ref_conv(x, p, "conv2", pad=2, towers=towers).clamp(min=0)
    if norm:
        x = ref_spatial(ref_lrn(x, towers, k=2.0, alpha=1e-4 / 5))
    x = ref_pool(x)
    x = ref_conv(x, p, "conv3", pad=1).clamp(min=0)
    x = ref_conv(x, p, "conv4", pad=1, towers=towers).clamp(min=0)
    x = ref_pool(ref_conv(x, p, "conv5", pad=1, towers=towers)).clamp(min=0)
    if sixth:
        x = ref_conv(x, p, "conv6", pad=1).clamp(min=0)
    return ref_head(x, p, {})


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float(((value.double() - reference).norm() / reference.norm()).detach())


# Tables.


@pytest.mark.parametrize("variant", ["paper", "caffe", "released-2012", "released-2012-no-norm"])
def test_shapes_parameters_multiply_adds_and_neurons_are_the_published_ones(variant: str) -> None:
    costs = {cost.name: cost for cost in shadow(variant).costs()}
    for name, (output, parameters, multiply_adds) in PAPER_TABLE.items():
        assert (costs[name].output, costs[name].parameters) == (output, parameters), name
        assert costs[name].multiply_adds == multiply_adds, name
        assert costs[name].neurons == PAPER_NEURONS.get(name, 0), name
    assert sum(cost.multiply_adds for cost in costs.values()) == 724_406_816
    assert sum(cost.neurons for cost in costs.values()) == 659_272


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_counts_are_the_published_ones(variant: str) -> None:
    assert sum(p.numel() for p in shadow(variant).parameters()) == PARAMETERS[variant]


@pytest.mark.parametrize("variant", SHAPES)
def test_shapes_of_the_narrower_networks(variant: str) -> None:
    outputs = {cost.name: cost.output for cost in shadow(variant).costs()}
    assert [outputs[f"conv{i}"] for i in range(1, 6)] == SHAPES[variant]
    assert outputs["pool5"] == (256, 6, 6)


def test_every_variant_has_a_count() -> None:
    assert {name for name in list_variants() if is_built_in(name)} == set(PARAMETERS)


def test_summary_prints_the_published_totals() -> None:
    text = shadow("paper").summary()
    assert text.splitlines()[-1].split() == ["total", "60,965,224", "724,406,816", "659,272"]
    conv2 = next(line for line in text.splitlines() if line.startswith("conv2"))
    assert conv2.split()[1:] == ["256×27×27", "256", "of", "48×5×5", "1/2", "2", "307,456", "223,948,800", "186,624"]


# Arithmetic.


@pytest.mark.parametrize(
    ("variant", "reference"), [("paper", ref_paper), ("caffe", ref_caffe), ("caffenet", ref_caffenet)]
)
def test_forward_and_backward_equal_the_printed_formulas(variant, reference) -> None:
    network, x = sharp_network(variant), pixels(1, 227)
    weights = dict(network.named_parameters())
    target = torch.tensor([3])

    seen: dict[str, Tensor] = {}
    expected = reference(x, weights, seen)
    wanted = torch.autograd.grad(F.cross_entropy(expected, target), [x, *weights.values()])
    logits = network(x)
    gradients = torch.autograd.grad(F.cross_entropy(logits, target), [x, *weights.values()])

    assert relative_error(logits, expected) < 1e-10
    for name, gradient, right in zip(["x", *weights], gradients, wanted, strict=True):
        assert relative_error(gradient, right) < 1e-9, name
    del gradients
    with torch.no_grad():
        for layer, value in seen.items():
            assert relative_error(network.features(x, layer), value) < 1e-10, layer

    network.float()
    inputs = x.detach().float().requires_grad_()
    logits = network(inputs)
    gradients = torch.autograd.grad(F.cross_entropy(logits, target), [inputs, *network.parameters()])
    assert relative_error(logits, expected) < 1e-5
    for name, gradient, right in zip(["x", *weights], gradients, wanted, strict=True):
        # Of 200,000 maxima float32 finds some in another position, which moves the gradient to it.
        bound = 1e-5 if name.startswith(("fc", "logits")) else 0.03
        assert relative_error(gradient, right) < bound, name


@pytest.mark.parametrize(
    ("variant", "how"),
    [
        ("released-2012", {}),
        ("released-2012-half", {"towers": 1}),
        ("released-2012-six-conv", {"sixth": True}),
        ("released-2012-no-norm", {"norm": False}),
    ],
)
@torch.no_grad()
def test_released_networks_equal_an_independent_implementation(variant: str, how: dict[str, object]) -> None:
    network, x = sharp_network(variant), pixels(1, 224)
    expected = ref_released(x, dict(network.named_parameters()), **how)
    assert relative_error(network(x), expected) < 1e-10
    assert relative_error(network.float()(x.float()), expected) < 1e-5


def ref_mean_pool(x: Tensor) -> Tensor:
    """The mean over 3×3 windows with stride 2, inside the input; the last window hangs over the edge."""
    ones = F.pad(torch.ones_like(x), (0, 1, 0, 1)).unfold(2, 3, 2).unfold(3, 3, 2).sum((-1, -2))
    return F.pad(x, (0, 1, 0, 1)).unfold(2, 3, 2).unfold(3, 3, 2).sum((-1, -2)) / ones


def ref_18pct(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    """cuda-convnet's layers-18pct: section 10 of the facts."""
    x = ref_spatial(ref_pool(ref_conv(x, p, "conv1", pad=2).clamp(min=0)), 3, 5e-5)
    x = ref_spatial(ref_mean_pool(ref_conv(x, p, "conv2", pad=2).clamp(min=0)), 3, 5e-5)
    x = ref_mean_pool(ref_conv(x, p, "conv3", pad=2).clamp(min=0))
    return ref_full(x, p, "logits")


def ref_local(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """Separate 3×3 kernels at each of 6×6 positions."""
    padded = F.pad(x, (1, 1, 1, 1))
    weight, bias = p[f"{name}.weight"].view(6, 6, -1, x.shape[1] * 9), p[f"{name}.bias"].view(6, 6, -1)
    rows = [
        torch.stack(
            [padded[:, :, i : i + 3, j : j + 3].flatten(1) @ weight[i, j].T + bias[i, j] for j in range(6)], dim=-1
        )
        for i in range(6)
    ]
    return torch.stack(rows, dim=-2)


def ref_13pct(x: Tensor, p: dict[str, Tensor], norm: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    x = norm(ref_pool(ref_conv(x, p, "conv1", pad=2).clamp(min=0)))
    x = ref_pool(norm(ref_conv(x, p, "conv2", pad=2).clamp(min=0)))
    x = ref_local(ref_local(x, p, "local3").clamp(min=0), p, "local4").clamp(min=0)
    return ref_full(x, p, "logits")


def ref_11pct(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    return ref_13pct(x, p, lambda x: ref_lrn(x, 1, k=1.0, alpha=1e-3 / 9, n=9))


@pytest.mark.parametrize(
    ("variant", "reference"), [("cifar-18pct", ref_18pct), ("cifar-13pct", ref_13pct), ("cifar-11pct", ref_11pct)]
)
def test_cifar_networks_equal_an_independent_implementation(variant: str, reference) -> None:
    network = sharp_network(variant)
    x = pixels(2, network.input_size)
    weights = dict(network.named_parameters())
    target = torch.tensor([3, 1])
    expected = reference(x, weights)
    wanted = torch.autograd.grad(F.cross_entropy(expected, target), list(weights.values()))
    gradients = torch.autograd.grad(F.cross_entropy(network(x), target), list(weights.values()))
    assert relative_error(network(x), expected) < 1e-10
    for name, gradient, right in zip(weights, gradients, wanted, strict=True):
        assert relative_error(gradient, right) < 1e-9, name
    working = OptimizedNetwork(network.float())
    assert relative_error(working(x.float()), expected) < 1e-5


def test_initial_weights_of_the_cifar_networks_are_those_of_their_configurations() -> None:
    torch.manual_seed(0)
    network = AlexNet("cifar-13pct", 10)
    deviations = {name: float(p.detach().std()) for name, p in network.named_parameters() if name.endswith("weight")}
    wanted = {"conv1": 0.0001, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "logits": 0.01}
    assert deviations == pytest.approx({f"{name}.weight": std for name, std in wanted.items()}, rel=0.05)
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


@torch.no_grad()
def test_one_tower_reads_all_channels() -> None:
    network, x = sharp_network("one-tower"), pixels(1, 227)
    p = dict(network.named_parameters())
    x1 = ref_pool(ref_lrn(ref_conv(x, p, "conv1", stride=4).clamp(min=0), 1, k=2.0, alpha=1e-4))
    x2 = ref_pool(ref_lrn(ref_conv(x1, p, "conv2", pad=2).clamp(min=0), 1, k=2.0, alpha=1e-4))
    x3 = ref_conv(x2, p, "conv3", pad=1).clamp(min=0)
    x5 = ref_conv(ref_conv(x3, p, "conv4", pad=1).clamp(min=0), p, "conv5", pad=1).clamp(min=0)
    assert relative_error(network(x), ref_head(ref_pool(x5), p, {})) < 1e-10


@torch.no_grad()
def test_224_with_the_overhanging_window_equals_227_with_zeros_right_and_below() -> None:
    torch.manual_seed(0)
    network = AlexNet("paper", 5, init="he").eval()
    x = pixels(1, 224).detach().float()
    torch.testing.assert_close(network(x), network(F.pad(x, (0, 3, 0, 3))), rtol=0, atol=0)
    assert network.features(x, "conv1").shape == (1, 96, 55, 55)


# Switches.


@pytest.mark.parametrize(
    ("variant", "without", "reference"),
    [
        ("paper", "conv3", ref_paper),
        pytest.param("paper", "conv4", ref_paper, marks=pytest.mark.long),
        ("paper", "conv5", ref_paper),
        ("paper-half", None, ref_half),
        pytest.param("paper-half", "conv4", ref_half, marks=pytest.mark.long),
    ],
)
@torch.no_grad()
def test_networks_with_a_dropped_layer_and_of_one_gpu_equal_the_printed_formulas(variant, without, reference):
    network, x = sharp_network(variant, drop_layer=without), pixels(1, 227)
    weights = dict(network.named_parameters())
    assert [name for name in ("conv3", "conv4", "conv5") if f"{name}.weight" not in weights] == [without] * bool(
        without
    )
    seen: dict[str, Tensor] = {}
    expected = reference(x, weights, seen)
    assert relative_error(network(x), expected) < 1e-10
    for layer, value in seen.items():
        assert relative_error(network.features(x, layer), value) < 1e-10, layer
    assert relative_error(OptimizedNetwork(network.float())(x.float()), expected) < 1e-5


@pytest.mark.parametrize(
    ("variant", "without", "left"),
    [
        ("paper", "conv2", "conv1 relu1 norm1 pool1 pool2 conv3"),
        ("caffenet", "conv2", "conv1 relu1 pool1 norm1 pool2 conv3"),
        ("released-2012", "conv5", "conv4 relu4 pool5 fc6"),
        ("released-2012-six-conv", "conv6", "conv5 pool5 relu5 fc6"),
        ("one-weird-trick", "conv5", "conv4 relu4 pool5 drop5 fc6"),
        ("cifar-13pct", "local3", "pool2 local4 relu4 logits"),
    ],
)
def test_a_dropped_layer_takes_its_normalization_along_and_leaves_its_pooling(variant: str, without: str, left: str):
    assert f" {left} " in f" {' '.join(shadow(variant, drop_layer=without).layer_names())} "


def test_added_normalization_of_a_dropped_layer_is_dropped():
    assert "batch4" not in shadow("paper", normalization="batch", drop_layer="conv4").layer_names()
    assert "norm2" not in shadow("one-weird-trick", normalization="lrn", drop_layer="conv2").layer_names()


@pytest.mark.parametrize("without", ["conv1", "fc6", "logits", "conv6", "pool1", ""])
def test_a_layer_that_can_not_be_dropped_is_refused_with_those_that_can(without: str):
    with pytest.raises(UsageError, match=f"'{without}'.*conv2, conv3, conv4, conv5$"):
        shadow("paper", drop_layer=without)


def test_tanh_replaces_every_relu() -> None:
    modules = list(shadow("paper", activation="tanh").children())
    assert sum(isinstance(m, nn.Tanh) for m in modules) == 7
    assert not any(isinstance(m, nn.ReLU) for m in modules)


@pytest.mark.parametrize("variant", PARAMETERS)
def test_normalization_none_leaves_no_normalization(variant: str) -> None:
    names = shadow(variant, normalization="none").layer_names()
    assert not [name for name in names if "norm" in name or "spatial" in name]


@pytest.mark.parametrize("variant", [name for name in PARAMETERS if not name.startswith(("lenet", "vgg", "resnet"))])
def test_normalization_lrn_adds_it_to_every_variant_without_it(variant: str) -> None:
    names = shadow(variant, normalization="lrn").layer_names()
    assert [name for name in names if name.startswith("norm")] == ["norm1", "norm2"]


@pytest.mark.parametrize("variant", ["paper", "released-2012-six-conv"])
def test_normalization_batch_follows_every_convolution(variant: str) -> None:
    modules = list(shadow(variant, normalization="batch").children())
    after = [modules[i + 1] for i, m in enumerate(modules) if isinstance(m, nn.Conv2d)]
    assert after
    assert all(isinstance(m, nn.BatchNorm2d) for m in after)


@pytest.mark.parametrize("variant", ["paper", "released-2012", "one-weird-trick"])
def test_non_overlapping_pooling_is_2x2_with_the_same_output_sizes(variant: str) -> None:
    network = shadow(variant, pooling="non-overlapping")
    pools = [m for m in network.children() if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride) for m in pools] == [(2, 2)] * 3
    outputs = {cost.name: cost.output[1:] for cost in network.costs()}
    assert [outputs[f"pool{i}"] for i in (1, 2, 5)] == [(27, 27), (13, 13), (6, 6)]


def test_dropout_is_on_the_outputs_of_fc6_and_fc7_and_can_be_off() -> None:
    names = shadow("paper").layer_names()
    assert names[names.index("fc6") :] == ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "logits"]
    assert not any("drop" in name for name in shadow("paper", dropout=0.0).layer_names())


def test_dropout_drops_half_of_the_units_in_training_and_none_in_evaluation() -> None:
    torch.manual_seed(0)
    network, x = AlexNet("one-tower", 2, init="he", normalization="none"), torch.randn(1, 3, 99, 99)
    with torch.no_grad():
        before, after = network.train().features(x, "fc7"), None
        torch.manual_seed(1)
        kept = network.features(x, "drop6")
        full = network.eval().features(x, "fc6")
        after = network.features(x, "drop6")
    assert before.shape == (1, 4096)
    active = full > 0
    share = float((kept[active] == 0).double().mean())
    assert abs(share - 0.5) < 0.05
    surviving = active & (kept > 0)
    torch.testing.assert_close(kept[surviving], 2 * full[surviving])
    torch.testing.assert_close(after, full, rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "alexnet"},
        {"activation": "gelu"},
        {"normalization": "layer"},
        {"pooling": "average"},
        {"init": "xavier"},
        {"num_classes": 0},
        {"dropout": 1.0},
    ],
)
def test_an_unknown_name_or_value_is_a_usage_error_that_names_it(wrong: dict[str, object]) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        AlexNet(**wrong)


def test_an_unknown_layer_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UsageError, match=r"fc9.*conv1.*logits"):
        shadow("paper").features(torch.empty(1, 3, 227, 227, device="meta"), "fc9")


# Initial weights.


def stds(network: AlexNet) -> dict[str, float]:
    return {name: p.std().item() for name, p in network.named_parameters() if name.endswith("weight")}


def biases(network: AlexNet) -> dict[str, set[float]]:
    return {
        name.removesuffix(".bias"): set(p.unique().tolist())
        for name, p in network.named_parameters()
        if name.endswith("bias")
    }


ONES = {name: {1.0} for name in ("conv2", "conv4", "conv5", "fc6", "fc7")}
ZEROS = {name: {0.0} for name in ("conv1", "conv3", "logits")}


def test_initial_weights_are_the_papers_the_released_and_he() -> None:
    torch.manual_seed(0)
    network = AlexNet("paper")
    assert biases(network) == ONES | ZEROS
    for name, std in stds(network).items():
        assert std == pytest.approx(0.01, rel=0.03), name
    assert abs(network.fc6.weight.mean().item()) < 1e-5

    network.initialize("released-2012")
    assert biases(network) == ONES | ZEROS
    for name, std in stds(network).items():
        wide = name.split(".")[0] in ("conv3", "conv4", "conv5")
        assert std == pytest.approx(0.03 if wide else 0.01, rel=0.03), name

    network.initialize("he")
    assert all(values == {0.0} for values in biases(network).values())
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            expected = 0.0 if name.startswith("logits") else math.sqrt(2 / parameter[0].numel())
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name


def test_one_seed_gives_one_network() -> None:
    first, second = [], []
    for weights in (first, second):
        torch.manual_seed(11)
        weights.extend(AlexNet("released-2012-half", 2).state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@torch.no_grad()
def test_features_differ_between_images_with_he_and_hardly_with_the_papers_initialization() -> None:
    """The reason why N(0, 0.01²) needs thousands of steps: fc7 is almost the same for every image."""
    x = torch.randn(4, 3, 99, 99, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    network = AlexNet("one-tower", 2, normalization="none").eval()

    def difference(init: str) -> float:
        network.initialize(init)
        units = network.features(x, "fc7")
        return float((units - units.mean(0)).norm() / units.norm())

    assert difference("he") > 0.1
    assert difference("paper") < 0.001
