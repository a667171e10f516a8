"""Input gradient and Grad-CAM against finite differences and a computation with hooks."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from alexnet import AlexNet, Run
from alexnet.report import attribution


@pytest.fixture(scope="module", params=["paper", "released-2012"])
def network(request: pytest.FixtureRequest) -> AlexNet:
    torch.manual_seed(4)
    network = AlexNet(request.param, 3, init="he").eval()
    with torch.no_grad():
        network.logits.weight.normal_(0, 0.05)
    return network


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(5))


def without_in_place(network: AlexNet) -> AlexNet:
    network = copy.deepcopy(network)
    for module in network.children():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


def test_the_gradient_is_the_slope_of_the_logit(network: AlexNet, inputs: torch.Tensor) -> None:
    found = attribution.image_gradient(network, inputs, [2, 0])
    assert found.shape == (2, 67, 67)
    doubled = copy.deepcopy(network).double()
    step = 1e-6
    for image, number in ((0, 2), (1, 0)):
        flat = found[image].flatten()
        for place in (int(flat.argmax()), 30 * 67 + 31):
            row, column = divmod(place, 67)
            slopes = []
            for color in range(3):
                moved = inputs[image : image + 1].double().repeat(2, 1, 1, 1)
                moved[0, color, row, column] -= step
                moved[1, color, row, column] += step
                with torch.no_grad():
                    low, high = doubled(moved)[:, number]
                slopes.append(abs(float(high - low)) / (2 * step))
            assert float(found[image, row, column]) == pytest.approx(max(slopes), rel=1e-3, abs=1e-7)


def test_grad_cam_equals_a_computation_with_hooks(network: AlexNet, inputs: torch.Tensor) -> None:
    found = attribution.grad_cam(network, inputs, [1, 2])
    plain = without_in_place(network)
    # The paper's conv5 is read after its ReLU; in the released network pooling comes before the ReLU.
    read_at = plain.relu5 if network.variant.name == "paper" else plain.conv5
    caught: dict[str, torch.Tensor] = {}
    read_at.register_forward_hook(lambda module, given, maps: caught.update(maps=maps))
    for image, number in ((0, 1), (1, 2)):
        logits = plain(inputs[image : image + 1])
        (gradient,) = torch.autograd.grad(logits[0, number], caught["maps"])
        weights = gradient[0].double().mean(dim=(1, 2))
        maps = caught["maps"][0].detach().double()
        expected = functional.relu(torch.einsum("c,chw->hw", weights, maps))
        torch.testing.assert_close(found[image].double(), expected, rtol=1e-4, atol=1e-7)


def test_the_network_and_the_inputs_keep_no_gradients(network: AlexNet, inputs: torch.Tensor) -> None:
    before = inputs.clone()
    attribution.image_gradient(network, inputs, [0, 0])
    attribution.grad_cam(network, inputs, [0, 0])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad


@pytest.mark.parametrize("layer", ["conv1", "pool2", "conv5", "fc6", "fc7"])
def test_continuing_from_any_layer_gives_the_same_logits(network: AlexNet, inputs: torch.Tensor, layer: str) -> None:
    with torch.inference_mode():
        through = network.logits_from(network.features(inputs, layer), layer)
        torch.testing.assert_close(through, network(inputs))


def test_overlays_are_drawn_on_the_center_crop(run: Run) -> None:
    network, preprocess = run.load()
    images = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
    read, gradient, cam = attribution.attribution_overlays(network, preprocess, images, [0, 1])
    np.testing.assert_array_equal(read, images[:, 4:68, 4:68])
    assert gradient.shape == cam.shape == (2, 64, 64, 3)
    figure = attribution.attribution_maps((read, gradient, cam), ["one", "two"])
    assert len(figure.axes[0].images) == 6
