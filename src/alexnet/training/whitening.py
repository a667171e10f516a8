"""Initialization of the first convolution from the training images."""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.network.model import AlexNet

FLOOR = 1e-3  # of the mean variance of a pixel: directions with less are noise, which is not amplified


@torch.no_grad()
def whiten_first_convolution(network: AlexNet, inputs: Tensor, generator: torch.Generator) -> None:
    """Set the kernels of the first convolution to the whitened principal components of its windows.

    With n kernels the first n / 2 principal components of its windows (3×11×11 in conv1) are used, each with both
    signs, in random order, scaled so that every kernel's output has unit variance. Random kernels have nearly equal
    outputs on photographs, whose windows vary mostly in brightness; these detect edges from the first step. Kernels
    of 3×3 have 27 components: where there are more kernels than twice that, the others stay as they are. (After
    Jordan, "94% on CIFAR-10 in 3.29 seconds", arXiv 2404.00498, there with 2×2 windows.)

    Parameters
    ----------
    network : AlexNet
        Its first convolution is changed in place.
    inputs : Tensor
        Images as the network reads them, (N, 3, S, S).
    generator : torch.Generator
        On the CPU; draws the windows and the order of the kernels.
    """
    convolution = network.get_submodule(network.first_convolution)
    assert isinstance(convolution, nn.Conv2d)
    for module in takewhile(lambda module: module is not convolution, network.children()):
        inputs = module(inputs)
    kernels, depth, size, _ = convolution.weight.shape
    stride = convolution.stride
    windows = functional.unfold(inputs.float(), size, stride=stride).transpose(1, 2).reshape(-1, depth * size * size)
    windows = windows[torch.randperm(len(windows), generator=generator)[:60_000]]
    mean = windows.mean(0)
    centered = (windows - mean).double()
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    half = (kernels + 1) // 2
    variances, directions = variances.flip(0)[:half].clamp_min(0), directions.flip(1)[:, :half]
    floor = FLOOR * float(centered.square().mean()) or 1.0  # images of one color have no components
    components = (directions / (variances + floor).sqrt()).T.float()
    both = torch.cat([components, -components])[:kernels]
    order = torch.randperm(kernels, generator=generator)
    has_one = order < len(both)
    chosen = both[order[has_one]]
    convolution.weight[has_one] = chosen.view(-1, depth, size, size)
    if convolution.bias is not None:
        convolution.bias[has_one] = -(chosen @ mean)
