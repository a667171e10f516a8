"""First weights that depend on the images."""

import numpy as np
import pytest
import torch

from alexnet.network.model import AlexNet
from alexnet.training.whitening import whiten_first_convolution


@pytest.fixture(scope="module")
def images():
    """Images whose spectrum falls as that of photographs does, in correlated colors: (16, 3, 67, 67)."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(67)[:, None], np.fft.fftfreq(67)[None, :])
    frequency[0, 0] = 1 / 67
    fields = np.fft.ifft2(np.fft.fft2(rng.normal(size=(16, 3, 67, 67))) / frequency).real
    mixed = np.einsum("ij,njhw->nihw", [[1, 0.2, 0.1], [1, -0.1, 0.1], [1, 0, -0.2]], fields)
    return torch.from_numpy(mixed / mixed.std()).float()


@pytest.mark.parametrize(("variant", "kernels"), [("paper", 96), ("one-weird-trick", 64)])
def test_every_kernel_has_the_same_mean_response_and_no_two_are_alike(images, variant, kernels):
    network = AlexNet(variant, 2, init="he")
    whiten_first_convolution(network, images, torch.Generator().manual_seed(0))
    convolution = network.get_submodule("conv1")
    windows = torch.nn.functional.unfold(images, 11, stride=4).transpose(1, 2).reshape(-1, 363)
    answers = windows @ convolution.weight.detach().flatten(1).T + convolution.bias.detach()
    assert answers.mean(0).abs().max() < 0.01
    covariance = np.cov(answers.numpy().T)
    assert covariance.shape == (kernels, kernels)
    assert np.diag(covariance) == pytest.approx(1, abs=0.25)  # a little less where the floor counts
    pairs = np.abs(covariance) - np.diag(np.diag(covariance))
    # Every kernel has one opposite, and is uncorrelated with all the others.
    assert (pairs > 0.7).sum(axis=0).tolist() == [1] * kernels
    assert np.sort(pairs, axis=0)[-2].max() < 0.05


def test_images_without_structure_make_no_extreme_kernels():
    network = AlexNet("paper", 2, init="he")
    whiten_first_convolution(network, torch.zeros(2, 3, 67, 67), torch.Generator().manual_seed(0))
    assert network.get_submodule("conv1").weight.isfinite().all()


def test_kernels_for_which_there_are_no_components_stay_as_drawn(images):
    network = AlexNet("vgg11", 2, init="he")
    drawn = network.get_submodule("conv1_1").weight.detach().clone()
    whiten_first_convolution(network, images, torch.Generator().manual_seed(0))
    changed = (network.get_submodule("conv1_1").weight.detach() != drawn).flatten(1).any(1)
    assert changed.sum() == 2 * 27, "windows of 3×3 in three colors have 27 components, each with both signs"
