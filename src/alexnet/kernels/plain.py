"""Plain PyTorch forms of the kernels, written for clarity: the references that GPU kernels are compared with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.kernels.norm import Norm


def response_norm(x: Tensor, norm: Norm) -> Tensor:
    """Return the response normalization of ``x``, (N, C, H, W)."""
    x = x.relu() if norm.relu else x
    half = norm.size // 2
    if norm.across == "maps":
        towers = x.square().unflatten(1, (norm.groups, -1))
        padded = functional.pad(towers, (0, 0, 0, 0, half, half))
        energy = padded.unfold(2, norm.size, 1).sum(-1).flatten(1, 2)
    else:
        padded = functional.pad(x.square(), (half,) * 4)
        energy = padded.unfold(2, norm.size, 1).unfold(3, norm.size, 1).sum((-1, -2))
    return x * (norm.k + norm.alpha * energy).pow(-0.75)


def crop(
    images: Tensor, mean: Tensor, places: Tensor, mean_places: Tensor, flips: Tensor, gain: Tensor, shift: Tensor,
    crop_size: int, turn_mean: bool,
) -> Tensor:  # fmt: skip
    """Return ``gain * (crop - mean) + shift`` of each image, (N, crop_size, crop_size, 3) float32.

    See `alexnet.kernels.crops.cut` for the parameters.
    """

    def window(image: Tensor, place: Tensor) -> Tensor:
        top, left = place.tolist()
        return image[top : top + crop_size, left : left + crop_size].float()

    def turn(image: Tensor, flip: Tensor) -> Tensor:
        across, down, transposed = flip.tolist()
        image = image.transpose(0, 1) if transposed else image
        axes = [
            axis
            for axis, flipped in ((0, across if transposed else down), (1, down if transposed else across))
            if flipped
        ]
        return image.flip(axes)

    crops = []
    for number, image in enumerate(images):
        pixels, expected = window(image, places[number]), window(mean, mean_places[number])
        pixels = turn(pixels, flips[number]) - (turn(expected, flips[number]) if turn_mean else expected)
        crops.append(pixels * gain[number] + shift[number])
    return torch.stack(crops)


def update(weight: Tensor, velocity: Tensor, gradient: Tensor, momentum: float, decay: float, lr: float) -> None:
    """Apply the update rule of the paper (section 5) in place: velocity first, then the weight."""
    velocity.mul_(momentum).sub_(weight, alpha=decay).sub_(gradient.to(weight.dtype), alpha=lr)
    weight.add_(velocity)
