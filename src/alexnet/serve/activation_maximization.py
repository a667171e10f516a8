"""Activation maximization: an image optimized by gradient ascent on its Fourier coefficients, under random shifts.

After Olah, Mordvintsev and Schubert, "Feature Visualization" (2017). The Fourier parametrization balances the
frequencies, and the random shifts suppress patterns that depend on exact pixel positions; both prevent noise.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.prediction.classifier import Classifier

STEPS = 80
LEARNING_RATE = 0.05
SIDES = (64, 96, 128)
"""Side in pixels for the first convolution, the second, and the others; fully connected units read the whole input."""
SHIFT = 8
COLORS = ((0.26, 0.09, 0.02), (0.26, 0.00, -0.05), (0.26, -0.09, 0.03))
"""About the square root of the color covariance of natural images: columns are brightness, then two hues."""


def optimized_image(classifier: Classifier, layer: str, unit: int) -> Generator[None, None, np.ndarray]:
    """Optimize an image to maximize the mean activation of a unit or feature map; yields after every step.

    Deterministic for a given network.

    Parameters
    ----------
    classifier
        The network and its preprocessing.
    layer
        Name of a layer.
    unit
        Index of a unit of a fully connected layer, or of a feature map.

    Returns
    -------
    np.ndarray
        (S, S, 3) uint8.

    Raises
    ------
    UsageError
        The network has no such layer.
    """
    network, preprocess = classifier.network, classifier.preprocess
    device = preprocess.mean.device
    # The network input is an affine function of the pixels; black gives its constant part.
    black = preprocess.center(torch.zeros(1, preprocess.size, preprocess.size, 3, dtype=torch.uint8, device=device))
    side = black.shape[-1]
    if not network.is_fully_connected(layer):
        below = network.weighted_layers().index(layer)
        side = min(SIDES[min(below, len(SIDES) - 1)], side)
    margin = (black.shape[-1] - side) // 2
    black = black[:, :, margin : margin + side, margin : margin + side].contiguous(memory_format=torch.channels_last)

    generator = torch.Generator().manual_seed(unit)
    shape = (3, side, side // 2 + 1, 2)
    spectrum = (0.01 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
    gain = _gain(side).to(device)
    # For a network trained on gray images the result is gray.
    colors = torch.tensor(COLORS, device=device)[:, : 1 if _is_gray(preprocess.mean) else 3]
    colors = colors / colors.norm(dim=0).max()
    first, second = torch.zeros_like(spectrum), torch.zeros_like(spectrum)
    for step in range(1, STEPS + 1):
        down, right = (int(n) for n in torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator))
        image = _image(spectrum, gain, colors)
        shifted = functional.pad(image[None], (SHIFT,) * 4, mode="reflect")
        shifted = shifted[:, :, SHIFT + down : SHIFT + down + side, SHIFT + right : SHIFT + right + side]
        activation = _preactivation(network, 255 * preprocess.scale * shifted + black, layer)[:, unit].mean()
        (gradient,) = torch.autograd.grad(activation, spectrum)
        # Adam, written out: torch.optim imports the compiler of PyTorch, which takes seconds.
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.001)
        with torch.no_grad():
            mean, spread = first / (1 - 0.9**step), second / (1 - 0.999**step)
            spectrum += LEARNING_RATE * mean / (spread.sqrt() + 1e-8)
        yield
    with torch.no_grad():
        pixels = _image(spectrum, gain, colors).permute(1, 2, 0) * 255
    return pixels.round().to(torch.uint8).cpu().numpy()


def _preactivation(network: torch.nn.Module, x: Tensor, layer: str) -> Tensor:
    """The output of the layer's own module, before its ReLU: its gradient is not zero where the ReLU's is."""
    before: list[Tensor] = []
    module = network.get_submodule(layer)
    hook = module.register_forward_hook(lambda _module, _inputs, output: before.append(output.clone()))
    try:
        network.features(x, layer)  # type: ignore[operator]
    finally:
        hook.remove()
    return before[0]


def _gain(side: int) -> Tensor:
    """The amplitude of each frequency, 1 / frequency as in natural images: (side, side // 2 + 1, 1)."""
    down, across = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    return (side / (down.square() + across.square()).sqrt().clamp_min(1 / side))[..., None]


def _image(spectrum: Tensor, gain: Tensor, colors: Tensor) -> Tensor:
    """Coefficients → RGB (3, side, side), 0 to 1."""
    side = len(gain)
    planes = torch.fft.irfft2(torch.view_as_complex(spectrum * gain), s=(side, side)) / 4
    return torch.sigmoid(torch.einsum("rc,chw->rhw", colors, planes[: colors.shape[1]]))


def _is_gray(mean: Tensor) -> bool:
    return bool((mean - mean.mean(-1, keepdim=True)).abs().max() < 0.5)
