"""Short binary codes from an auto-encoder, compared by Hamming distance (paper, section 6.1).

The encoder is linear and followed by a threshold: a code is the signs of 128 linear functions of fc7. The decoder, used
during training only, has one hidden layer. Both operate on the principal components of fc7. The gradient of the
threshold is that of tanh (straight-through estimator).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.numpy import save as to_safetensors
from torch import nn
from torch.nn import functional

from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import progress
from alexnet.search.pca import SEED, principal_components, random_sample

BITS = 128
HIDDEN_UNITS = 256
STEPS = 500
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
ROWS = 4096  # that are encoded at a time


def learn(stored: np.ndarray, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Train the auto-encoder.

    Parameters
    ----------
    stored : ndarray
        The features, (n, d) float32.
    seed : int
        The same seed gives the same codes.

    Returns
    -------
    weight : ndarray
        Of the encoder, (128, d) float32.
    bias : ndarray
        Of the encoder, (128,) float32.
    """
    sample = random_sample(stored)
    mean, components = principal_components(sample)
    projected = torch.from_numpy((sample - mean) @ components.T)
    scale = projected.std(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    points = projected / scale
    with torch.random.fork_rng(devices=[]), progress(STEPS, "learn binary codes") as bar:
        torch.manual_seed(seed)
        encoder = nn.Linear(points.shape[1], BITS)
        decoder = nn.Sequential(nn.Linear(BITS, HIDDEN_UNITS), nn.ReLU(), nn.Linear(HIDDEN_UNITS, points.shape[1]))
        parameters = [*encoder.parameters(), *decoder.parameters()]
        optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            batch = points[torch.randint(len(points), (BATCH_SIZE,))]
            sums = encoder(batch)
            soft = torch.tanh(sums)
            bits = soft + (torch.where(sums > 0, 1.0, -1.0) - soft).detach()
            loss = functional.mse_loss(decoder(bits), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.advance()
    weight = encoder.weight.detach().numpy() @ components / scale.numpy()
    return weight, encoder.bias.detach().numpy() - weight @ mean


def encode(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Compute the codes of `features`, (n, d) float32 → (n, 16) uint8, eight bits per byte."""
    return np.packbits(features @ weight.T + bias > 0, axis=1)


def build(path: Path, stored: np.ndarray) -> None:
    """Train an encoder, and write it with the code of every row of `stored`, (n, d) float32."""
    weight, bias = learn(stored)
    blocks = [encode(stored[start : start + ROWS], weight, bias) for start in range(0, len(stored), ROWS)]
    write_atomic(path, to_safetensors({"weight": weight, "bias": bias, "codes": np.concatenate(blocks)}))


class BinaryCodes:
    """Codes that `build` wrote.

    Parameters
    ----------
    path : Path
        Their file.
    faiss : module
        The package faiss.
    """

    def __init__(self, path: Path, faiss: Any) -> None:
        arrays = load_file(path)
        self.weight, self.bias, self.codes = arrays["weight"], arrays["bias"], arrays["codes"]
        self._index = faiss.IndexBinaryFlat(BITS)
        self._index.add(self.codes)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the codes nearest to those of `queries`, (n, d) float32.

        Returns
        -------
        distances : ndarray
            Hamming distances, (n, k) float32, ascending.
        rows : ndarray
            (n, k) int64, ascending among equal distances.
        """
        bits, rows = self._index.search(encode(queries, self.weight, self.bias), min(k, len(self.codes)))
        order = np.lexsort((rows, bits), axis=1)
        return np.take_along_axis(bits, order, 1).astype(np.float32), np.take_along_axis(rows, order, 1)
