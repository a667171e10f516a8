"""Results as images for the page: feature maps as one PNG of tiles, images as JPEG, both also as `data:` URLs."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

from alexnet.network.model import AlexNet
from alexnet.report.filters import COLUMNS, kernel_tiles, scaled
from alexnet.report.mosaic import colored, mosaic

QUALITY = 85


def tiles(maps: np.ndarray) -> dict[str, object]:
    """Render the activations of a layer as one image.

    Parameters
    ----------
    maps
        (C, H, W): one tile per feature map, scaled to its own largest value. (units,): one square of all units, scaled
        to the largest.

    Returns
    -------
    dict
        `shape`, `columns` (tiles per row), `image` (a `data:` URL) and `peaks` (the largest value of each feature map
        or unit).
    """
    if maps.ndim == 1:
        columns = math.ceil(math.sqrt(len(maps)))
        square = np.zeros(columns * columns, dtype=np.float32)
        square[: len(maps)] = scaled(maps[None])[0]
        whole, peaks = square.reshape(columns, columns), maps
    else:
        count, height, width = maps.shape
        columns = COLUMNS
        rows = -(-count // columns)
        padded = np.zeros((rows * columns, height, width), dtype=np.float32)
        padded[:count] = scaled(maps)
        whole = padded.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
        peaks = maps.max((1, 2))
    image = Image.fromarray((whole * 255).round().astype(np.uint8))
    image.putpalette(colored(np.arange(256) / 255).tobytes())
    return {
        "shape": list(maps.shape),
        "columns": columns,
        "image": _url(image, "PNG"),
        "peaks": [float(f"{peak:.4g}") for peak in peaks],
    }


def kernels(network: AlexNet) -> bytes:
    """Render the first-layer kernels as a PNG of tiles, `COLUMNS` per row."""
    return _file(Image.fromarray(mosaic(kernel_tiles(network), COLUMNS, gap=0)), "PNG")


def jpeg(pixels: np.ndarray) -> bytes:
    """Encode an image (H, W, 3) uint8 as a JPEG file."""
    return _file(Image.fromarray(pixels), "JPEG")


def jpeg_url(pixels: np.ndarray) -> str:
    """Encode an image (H, W, 3) uint8 as the `data:` URL of a JPEG."""
    return _url(Image.fromarray(pixels), "JPEG")


def _file(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **({"quality": QUALITY} if form == "JPEG" else {}))
    return file.getvalue()


def _url(image: Image.Image, form: str) -> str:
    return f"data:image/{form.lower()};base64,{base64.b64encode(_file(image, form)).decode()}"
