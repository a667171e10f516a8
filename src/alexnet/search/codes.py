"""Short binary codes from an auto-encoder, searched by the number of bits that differ (paper, section 6.1).

The encoder is linear and then a threshold, so that a code is the sign of 128 sums over fc7; the decoder, which exists
while the codes are learned, has a hidden layer. Both work on the principal components of fc7. A bit has no gradient: it
is passed on as if it were tanh.
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
from alexnet.search.components import SEED, principal_components, sample_of

BITS = 128
HIDDEN = 256
STEPS = 500
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
ROWS = 4096


def learn(stored: np.ndarray, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Train the auto-encoder on `stored` (n, d); returns weight (128, d) and bias (128,) of its encoder, float32.

    The same seed gives the same codes.
    """
    sample = sample_of(stored)
    mean, components = principal_components(sample)
    projected = torch.from_numpy((sample - mean) @ components.T)
    scale = projected.std(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    points = projected / scale
    with torch.random.fork_rng(devices=[]), progress(STEPS, "learn binary codes") as bar:
        torch.manual_seed(seed)
        encoder = nn.Linear(points.shape[1], BITS)
        decoder = nn.Sequential(nn.Linear(BITS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, points.shape[1]))
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
    """The codes of `features` (n, d): (n, 16) uint8, eight bits a byte."""
    return np.packbits(features @ weight.T + bias > 0, axis=1)


def build(path: Path, stored: np.ndarray) -> None:
    """Learn an encoder for `stored` and write it with the code of every row."""
    weight, bias = learn(stored)
    blocks = [encode(stored[start : start + ROWS], weight, bias) for start in range(0, len(stored), ROWS)]
    write_atomic(path, to_safetensors({"weight": weight, "bias": bias, "codes": np.concatenate(blocks)}))


class Codes:
    """The codes at `path`."""

    def __init__(self, path: Path, faiss: Any) -> None:
        read = load_file(path)
        self.weight, self.bias, self.codes = read["weight"], read["bias"], read["codes"]
        self._index = faiss.IndexBinaryFlat(BITS)
        self._index.add(self.codes)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The images whose codes differ least from those of `queries` (n, d): how many bits, as float32, and rows."""
        bits, rows = self._index.search(encode(queries, self.weight, self.bias), min(k, len(self.codes)))
        order = np.lexsort((rows, bits), axis=1)
        return np.take_along_axis(bits, order, 1).astype(np.float32), np.take_along_axis(rows, order, 1)
