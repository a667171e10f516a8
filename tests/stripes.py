"""Images of two classes: vertical and horizontal stripes."""

import numpy as np
from PIL import Image


def striped_image(rng: np.random.Generator, upright: bool, size: int) -> Image.Image:
    """Noise with vertical or horizontal stripes of random phase, width, contrast and tint."""
    across = np.arange(size)
    wave = np.sin(2 * np.pi * across / rng.uniform(8, 16) + rng.uniform(0, 2 * np.pi)) * rng.uniform(25, 60)
    gray = 128 + (wave[None, :] if upright else wave[:, None]) + rng.normal(0, 25, (size, size))
    return Image.fromarray((gray[..., None] * rng.uniform(0.7, 1.2, 3)).clip(0, 255).astype(np.uint8))
