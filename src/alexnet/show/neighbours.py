"""Pictures that the network finds alike: near in the 4096 activations of fc7 (paper, section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from alexnet.data.augment import Preprocess
from alexnet.data.dataset import Split
from alexnet.model import AlexNet
from alexnet.show.style import GREEN, MUTED, RED, Figure, canvas, clipped, drawn, place
from alexnet.training.precision import autocast

BATCH_SIZE = 64


@torch.inference_mode()
def fc7_features(
    network: AlexNet,
    preprocess: Preprocess,
    split: Split,
    indices: np.ndarray,
    precision: torch.dtype = torch.float32,
    done: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """The activations of fc7 for the central view of the pictures of `indices`: (n, 4096) float32.

    `done` is called with the number of pictures after every batch.
    """
    device = preprocess.mean.device
    parts = []
    # One context around all batches: the weights are rounded to bfloat16 once.
    with autocast(device, precision):
        for start in range(0, len(indices), BATCH_SIZE):
            pictures = torch.from_numpy(split.gather(indices[start : start + BATCH_SIZE])).to(device)
            parts.append(network.features(preprocess.centre(pictures), "fc7").float().cpu())
            done(len(pictures))
    return torch.cat(parts).numpy()


def nearest(queries: np.ndarray, stored: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` of `stored` (m, d) nearest to each of `queries` (n, d) by Euclidean distance, the nearest first.

    Returns their rows (n, k) int64 and their distances (n, k) float32.
    """
    distances = torch.cdist(
        torch.from_numpy(queries), torch.from_numpy(stored), compute_mode="donot_use_mm_for_euclid_dist"
    )
    found = distances.topk(min(k, len(stored)), largest=False)
    return found.indices.numpy(), found.values.numpy()


@drawn
def neighbours(
    queries: np.ndarray,
    query_labels: Sequence[str],
    found: np.ndarray,
    found_labels: Sequence[Sequence[str]],
) -> Figure:
    """Each picture in a row with those nearest to it (paper, figure 4, right).

    `queries`: (n, h, w, 3) uint8; `found`: (n, k, h, w, 3). Labels under the pictures, red where they differ.
    """
    count, k = found.shape[:2]
    side, gap, cell = 0.86, 0.06, 1.12
    figure, axes = canvas(0.3 + count * cell, 0.2 + (k + 1) * (side + gap) + gap)
    axes.text(0.1, 0.2, "asked", fontsize=8, color=MUTED)
    axes.text(0.1 + side + 3 * gap, 0.2, "nearest in training", fontsize=8, color=MUTED)
    for row, label in enumerate(query_labels):
        top = 0.3 + row * cell
        place(axes, queries[row], 0.1, top, side)
        axes.text(0.1, top + side + 0.14, clipped(label, 15), fontsize=7)
        for column, other in enumerate(found_labels[row]):
            left = 0.1 + 2 * gap + (column + 1) * (side + gap)
            place(axes, found[row, column], left, top, side)
            colour = GREEN if other == label else RED
            axes.text(left, top + side + 0.14, clipped(other, 15), fontsize=7, color=colour)
    return figure
