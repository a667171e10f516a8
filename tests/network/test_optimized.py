"""The optimized form computes what the plain network computes."""

import pytest
import torch
from torch.nn import functional

from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.recipe import recipes
from alexnet.training.optimizers import make_optimizers, update_all


def network(variant: str, **switches) -> AlexNet:
    torch.manual_seed(0)
    made = AlexNet(variant, 10, init="he", dropout=0.0, **switches).to(memory_format=torch.channels_last)
    torch.nn.init.normal_(made.logits.weight, 0, 0.02)
    return made


def images(side: int, count: int = 2) -> torch.Tensor:
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("variant", "switches"),
    [
        ("paper", {}),
        ("paper", {"normalization": "batch"}),
        ("paper", {"activation": "tanh"}),
        ("paper", {"pooling": "non-overlapping"}),
        ("one-weird-trick", {}),
        ("caffe", {}),
        ("caffenet", {}),
        ("released-2012", {}),
        ("released-2012-no-norm", {}),
    ],
)
@pytest.mark.parametrize("side", [227, pytest.param(195, marks=pytest.mark.long)])
def test_in_float32_logits_and_gradients_are_those_of_the_plain_network(variant, switches, side) -> None:
    plain, x = network(variant, **switches), images(side)
    labels = torch.tensor([3, 7])
    results = []
    for form in (plain, OptimizedNetwork(plain)):
        plain.zero_grad(set_to_none=True)
        logits = form(x)
        functional.cross_entropy(logits, labels).backward()
        results.append((logits.detach(), [p.grad.clone() for p in plain.parameters()]))
    (expected, gradients), (logits, ours) = results
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    for gradient, our in zip(gradients, ours, strict=True):
        # Where two values of a window are equal but for rounding, the gradient goes to either: so the norm is compared.
        assert (our - gradient).norm() <= 0.01 * gradient.norm() + 1e-6


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_without_gradients_logits_are_those_of_the_plain_network(count) -> None:
    plain = network("paper")
    x = images(227)[:1].repeat(count, 1, 1, 1) * torch.rand(count, 1, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(OptimizedNetwork(plain)(x), plain(x), rtol=1e-4, atol=1e-5)


def test_in_bfloat16_it_is_near_the_plain_network() -> None:
    plain, x = network("paper"), images(227)
    working = OptimizedNetwork(plain, torch.bfloat16)
    assert working(x).dtype == torch.bfloat16
    expected = plain(x)
    assert (working(x).float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("recipe", ["paper", "small"])
def test_an_update_rounds_the_new_weights_into_the_copies_and_clears_the_gradients(recipe) -> None:
    plain, x = network("paper"), images(131)
    optimizers = make_optimizers(plain, recipes()[recipe])
    working = OptimizedNetwork(plain, torch.bfloat16)
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    functional.cross_entropy(working(x).float(), torch.tensor([0, 1])).backward()
    assert all(p.grad is None for p in plain.parameters())
    update_all(optimizers, working.copies)
    for name, p in plain.named_parameters():
        assert not torch.equal(p, before[name]), name
        assert p.grad is None
        assert working.copies[p].grad is None
        assert torch.equal(working.copies[p], p.bfloat16())


def test_new_weights_reach_the_copies_with_an_update() -> None:
    plain, x = network("paper"), images(131)
    optimizers = make_optimizers(plain, recipes()["paper"])
    working = OptimizedNetwork(plain, torch.bfloat16)
    functional.cross_entropy(working(x).float(), torch.tensor([0, 1])).backward()
    with torch.no_grad():
        plain.logits.bias.fill_(3.0)
    update_all(optimizers, working.copies)
    assert working(x).float().mean() > 2


def test_statistics_of_batch_normalization_are_those_of_the_plain_network() -> None:
    plain = network("paper", normalization="batch")
    working = OptimizedNetwork(plain, torch.bfloat16)
    plain.train()
    working(images(131, 4))
    assert plain.batch1.running_mean.abs().sum() > 0
