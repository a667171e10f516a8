"""Tiles of small images (kernels, feature maps), color maps, and heat maps over an image."""

from __future__ import annotations

import matplotlib
import numpy as np


def mosaic(tiles: np.ndarray, columns: int, gap: int, enlarge: int = 1) -> np.ndarray:
    """Arrange tiles (n, h, w, 3) uint8 row by row, `gap` transparent pixels apart: (H, W, 4) uint8."""
    tiles = tiles.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        whole[top : top + height, left : left + width, :3] = tile
        whole[top : top + height, left : left + width, 3] = 255
    return whole


def colored(values: np.ndarray) -> np.ndarray:
    """Convert values 0 to 1 to colors from black over red to yellow: (...) → (..., 3) uint8."""
    return matplotlib.colormaps["inferno"](np.clip(values, 0, 1), bytes=True)[..., :3]


def overlay(image: np.ndarray, heat: np.ndarray, brightness: float = 1.0) -> np.ndarray:
    """Overlay heat (H, W), 0 to 1, on the image (H, W, 3) uint8 in gray times `brightness`: (H, W, 3) uint8."""
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    gray *= brightness
    share = (0.85 * np.clip(heat, 0, 1))[..., None]
    return ((1 - share) * gray[..., None] + share * colored(heat)).round().clip(0, 255).astype(np.uint8)
