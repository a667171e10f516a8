"""The update rules against the printed recurrence."""

import copy

import pytest
import torch

from alexnet.network.model import AlexNet
from alexnet.runs import recipe as recipes
from alexnet.training.optimizers import AdamW, Muon, PaperSGD, make_optimizers, orthogonalized, update_all


def printed_recurrence(w, gradients, rates, momentum=0.9, decay=0.0005):
    """Section 5 of the paper, number by number."""
    v = [0.0] * len(w)
    w = list(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        for i in range(len(w)):
            v[i] = momentum * v[i] - decay * rate * w[i] - rate * gradient[i]
            w[i] = w[i] + v[i]
    return w


def test_the_rule_is_the_printed_recurrence_over_a_hundred_steps_with_learning_rate_changes():
    rates = [0.01] * 40 + [0.001] * 30 + [0.0] * 10 + [0.05] * 20
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(7, dtype=torch.float64, generator=generator)
    gradients = torch.randn(100, 7, dtype=torch.float64, generator=generator)
    weight = torch.nn.Parameter(start.clone())
    optimizer = PaperSGD([weight], lr=0.01)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = gradient.clone()
        optimizer.step()
    expected = printed_recurrence(start.tolist(), gradients.tolist(), rates)
    assert weight.detach().tolist() == pytest.approx(expected, rel=1e-13)


def test_the_rule_differs_from_that_of_torch_once_the_learning_rate_changes():
    ours, theirs = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    paper = PaperSGD([ours], lr=0.1)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.0005)
    for step in range(4):
        for optimizer, weight in ((paper, ours), (sgd, theirs)):
            optimizer.param_groups[0]["lr"] = 0.1 if step < 2 else 0.01
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert torch.allclose(ours, theirs, rtol=1e-12) == (step < 2)


def test_adamw_with_rounded_copies_is_that_of_torch_also_after_its_state_was_read():
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 128), (64,)]  # one that the kernel takes, and one that it does not
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator).bfloat16() for shape in shapes] for _ in range(6)]
    options = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.05, "fused": True}
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    copies = {p: torch.nn.Parameter(p.detach().bfloat16()) for p in ours}
    mine, other = AdamW(ours, **options), torch.optim.AdamW(theirs, **options)
    for number, step in enumerate(gradients):
        if number == 3:  # a checkpoint is read into another optimizer, as that of an earlier version is
            mine = AdamW(ours, **options)
            mine.load_state_dict(copy.deepcopy(other.state_dict()))
        for p, gradient in zip(ours, step, strict=True):
            copies[p].grad = gradient.clone()
        for p, gradient in zip(theirs, step, strict=True):
            p.grad = gradient.float()
        update_all([mine], copies)
        other.step()
    for p, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(copies[p], p.bfloat16())
        assert p.grad is None
        assert copies[p].grad is None
    assert mine.state[ours[0]].keys() == other.state[theirs[0]].keys()


@pytest.mark.parametrize("name", ["paper", "released-2012", "small"])
def test_every_parameter_is_in_one_group_with_the_values_of_its_layer(name):
    recipe = recipes.recipes()[name]
    network = AlexNet(recipe.variant, 2)
    groups = [group for optimizer in make_optimizers(network, recipe) for group in optimizer.param_groups]
    parameters = [id(p) for group in groups for p in group["params"]]
    assert sorted(parameters) == sorted(id(p) for p in network.parameters())
    for group in groups:
        bias = group["params"][0].ndim == 1
        if bias:
            assert group["lr_factor"] == recipe.bias_lr_scale
        assert group["weight_decay"] == (0 if bias and not recipe.bias_weight_decay else recipe.weight_decay)


def test_the_released_recipe_doubles_the_learning_rate_of_biases_without_weight_decay():
    recipe = recipes.recipes()["released-2012"]
    (rule,) = make_optimizers(AlexNet("released-2012", 2), recipe)
    groups = {group["layer"]: group for group in rule.param_groups}
    assert groups["conv2"]["lr_factor"] == 2  # the bias comes after the weight
    assert groups["conv2"]["weight_decay"] == 0


def test_a_layer_can_have_its_own_weight_decay():
    recipe = recipes.recipes()["cifar-18pct"]
    (rule,) = make_optimizers(AlexNet("cifar-18pct", 10), recipe)
    decays = {(group["layer"], group["params"][0].ndim > 1): group["weight_decay"] for group in rule.param_groups}
    assert decays[("conv1", True)] == decays[("conv3", True)] == 0.004
    assert decays[("logits", True)] == 1
    assert not any(decay for (_, is_weight), decay in decays.items() if not is_weight)


@pytest.mark.parametrize("shape", [(96, 363), (128, 1200), (200, 50)])
def test_orthogonalized_keeps_the_directions_and_evens_out_their_lengths(shape):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    stretched = u @ torch.diag(values * torch.logspace(0, -1, len(values))) @ v
    result = orthogonalized(stretched)
    lengths = torch.linalg.svdvals(result)
    assert lengths.min() > 0.3
    assert lengths.max() < 1.4
    assert torch.sum(result * (u @ v)) / torch.linalg.norm(result) / torch.linalg.norm(u @ v) > 0.95


def test_muon_orthogonalizes_each_tower_separately():
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(8, 3, 2, 2))
    gradient = torch.randn(8, 3, 2, 2, generator=generator)
    optimizer = Muon([{"params": [weight], "towers": 2}], lr=1.0, weight_decay=0.0)
    weight.grad = gradient
    optimizer.step()
    for half in (slice(0, 4), slice(4, 8)):
        # The first step's look-ahead is gradient + 0.9 · gradient.
        expected = -orthogonalized((1.9 * gradient[half]).flatten(1))
        assert torch.allclose(weight.detach()[half].flatten(1), expected, atol=1e-6)
