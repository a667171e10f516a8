"""An image made to excite one unit: gradient ascent on its Fourier coefficients, while it is shifted about.

After Olah, Mordvintsev and Schubert, "Feature Visualization" (2017): frequencies share the work evenly, so that
the result is no noise, and what does not survive a small shift is not followed.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.prediction.classifier import Classifier

STEPS = 80
RATE = 0.05
SIDES = {"conv1": 64, "conv2": 96}
MAP_SIDE = 128
"""Pixels that are enough for a convolution's map; a fully connected unit reads the network's whole input."""
SHIFT = 8
COLORS = ((0.26, 0.09, 0.02), (0.26, 0.00, -0.05), (0.26, -0.09, 0.03))
"""How natural images' red, green and blue go together, about the root of their covariance: light, then hues."""


def optimized(classifier: Classifier, layer: str, unit: int, steps: int = STEPS) -> Generator[None, None, np.ndarray]:
    """An image (S, S, 3) uint8 that excites a unit of a layer, or the map of that number as a whole.

    Yields after every step of the ascent. The same for the same network. Raises `UsageError` for an unknown layer.
    """
    network, preprocess = classifier.network, classifier.preprocess
    device = preprocess.mean.device
    # What the network reads is linear in the pixels; what it reads of black is what is subtracted.
    black = preprocess.center(torch.zeros(1, preprocess.size, preprocess.size, 3, dtype=torch.uint8, device=device))
    side = black.shape[-1]
    if layer.startswith("conv"):
        side = min(SIDES.get(layer, MAP_SIDE), side)
    edge = (black.shape[-1] - side) // 2
    black = black[:, :, edge : edge + side, edge : edge + side].contiguous(memory_format=torch.channels_last)

    generator = torch.Generator().manual_seed(unit)
    shape = (3, side, side // 2 + 1, 2)
    spectrum = (0.01 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
    gain = _gain(side).to(device)
    # A network that has only seen gray is asked for gray.
    colors = torch.tensor(COLORS, device=device)[:, : 1 if _is_gray(preprocess.mean) else 3]
    colors = colors / colors.norm(dim=0).max()
    first, second = torch.zeros_like(spectrum), torch.zeros_like(spectrum)
    for step in range(1, steps + 1):
        down, right = (int(n) for n in torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator))
        image = _image(spectrum, gain, colors)
        shifted = functional.pad(image[None], (SHIFT,) * 4, mode="reflect")
        shifted = shifted[:, :, SHIFT + down : SHIFT + down + side, SHIFT + right : SHIFT + right + side]
        excitement = _raw(network, 255 * preprocess.scale * shifted + black, layer)[:, unit].mean()
        (gradient,) = torch.autograd.grad(excitement, spectrum)
        # Adam, by hand: torch's would import torch's compiler first, which takes seconds.
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.001)
        with torch.no_grad():
            mean, spread = first / (1 - 0.9**step), second / (1 - 0.999**step)
            spectrum += RATE * mean / (spread.sqrt() + 1e-8)
        yield
    with torch.no_grad():
        pixels = _image(spectrum, gain, colors).permute(1, 2, 0) * 255
    return pixels.round().to(torch.uint8).cpu().numpy()


def _raw(network: torch.nn.Module, x: Tensor, layer: str) -> Tensor:
    """The layer's activations; where its non-linearity has let nothing through, its input, which has a gradient."""
    before: list[Tensor] = []
    module = network.get_submodule(layer)
    hook = module.register_forward_hook(lambda _module, _inputs, output: before.append(output.clone()))
    try:
        network.features(x, layer)  # type: ignore[operator]
    finally:
        hook.remove()
    return before[0]


def _gain(side: int) -> Tensor:
    """What each frequency is multiplied with, (side, side // 2 + 1, 1): as in natural images, 1 / frequency."""
    down, across = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    return (side / (down.square() + across.square()).sqrt().clamp_min(1 / side))[..., None]


def _image(spectrum: Tensor, gain: Tensor, colors: Tensor) -> Tensor:
    """Coefficients → RGB (3, side, side), 0 to 1."""
    side = len(gain)
    planes = torch.fft.irfft2(torch.view_as_complex(spectrum * gain), s=(side, side)) / 4
    return torch.sigmoid(torch.einsum("rc,chw->rhw", colors, planes[: colors.shape[1]]))


def _is_gray(mean: Tensor) -> bool:
    return bool((mean - mean.mean(-1, keepdim=True)).abs().max() < 0.5)
