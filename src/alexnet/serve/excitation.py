"""A scan of the dataset: the images with the largest activations of each unit, and the predictions."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation.metrics import Predictions
from alexnet.network.layers import CodeDistances, Convolution, GlobalAvgPool2d, ResidualBlock
from alexnet.network.model import AlexNet
from alexnet.prediction.classifier import Classifier
from alexnet.serve.tasks import center_inputs

TOP_IMAGES = 9
"""Images kept per unit."""
MAX_SCANNED = 2000
"""Images scanned, evenly spaced over the split."""
BATCH_SIZE = 8
"""A request waits for one such batch at most."""


class ReceptiveField(NamedTuple):
    """The pixels of the network input that a position of a feature map depends on.

    Position p depends on `size` pixels from `start` + p · `step` on.
    """

    size: int
    step: int
    start: int


@dataclass
class TopActivations:
    """The largest activations of each unit of a layer, descending: (units, TOP_IMAGES) each.

    `positions` are those of the images in the split, -1 where there is none; `places` index the flattened feature map.
    """

    values: Tensor
    positions: Tensor
    places: Tensor

    @classmethod
    def empty(cls, units: int) -> TopActivations:
        """Return the state before any image."""
        none = torch.full((units, TOP_IMAGES), -1)
        return cls(torch.full((units, TOP_IMAGES), -torch.inf), none, none)

    def merged(self, activations: Tensor, positions: Tensor) -> TopActivations:
        """Return the state after more images: activations (N, C, H, W) or (N, units), positions (N,) in the split."""
        values = activations.float().cpu().flatten(2 if activations.ndim > 2 else 1)
        if values.ndim == 3:
            values, places = values.max(2)
        else:
            places = torch.zeros_like(values, dtype=torch.int64)
        all_values = torch.cat([self.values, values.T], 1)
        all_positions = torch.cat([self.positions, positions.expand(values.shape[1], -1)], 1)
        all_places = torch.cat([self.places, places.T], 1)
        best, order = all_values.topk(TOP_IMAGES, dim=1)
        return TopActivations(best, all_positions.gather(1, order), all_places.gather(1, order))


class DatasetScan:
    """The state of the scan. The worker advances `steps`; any thread may read the rest."""

    def __init__(self, classifier: Classifier, dataset: PreparedDataset, layers: list[str]) -> None:
        self.classifier, self.layers = classifier, layers
        self.train = dataset.split("train") if "train" in dataset.splits else None
        self.evaluated_split = dataset.split(dataset.measured_on) if dataset.measured_on else None
        self.top_activations: dict[str, TopActivations] = {}
        self.predictions: Predictions | None = None
        self.scanned = self.evaluated = 0

    def positions(self, split: Split | None) -> np.ndarray:
        """Return the positions of the images of a split that are scanned."""
        count = len(split) if split is not None else 0
        return np.linspace(0, count - 1, min(MAX_SCANNED, count)).round().astype(np.int64)

    def steps(self) -> Generator[None, None, None]:
        """Scan one batch per step, alternating between both splits so that each soon has first results."""
        remaining = [self._evaluate(), self._scan_activations()]
        while remaining:
            for steps in list(remaining):
                if next(steps, self) is self:
                    remaining.remove(steps)
                else:
                    yield

    def _evaluate(self) -> Iterator[None]:
        split = self.evaluated_split
        if split is None:
            return
        for positions, images in split.batches(self.positions(split), BATCH_SIZE):
            batch = Predictions.from_probabilities(self.classifier.probabilities(images), split.labels[positions])
            self.predictions = batch if self.predictions is None else Predictions.concatenate([self.predictions, batch])
            self.evaluated += len(positions)
            yield None

    def _scan_activations(self) -> Iterator[None]:
        network, split = self.classifier.network, self.train
        if split is None:
            return
        for positions, images in split.batches(self.positions(split), BATCH_SIZE):
            with torch.inference_mode():
                for layer, activations in network.iter_features(center_inputs(self.classifier, images), self.layers):
                    top = self.top_activations.get(layer) or TopActivations.empty(activations.shape[1])
                    self.top_activations[layer] = top.merged(activations, torch.from_numpy(positions))
            self.scanned += len(positions)
            yield None


def receptive_field(network: AlexNet, layer: str) -> ReceptiveField | None:
    """Return the receptive field of a layer; None for one that reads the whole input, such as a fully connected one."""
    field: ReceptiveField | None = ReceptiveField(1, 1, 0)
    for name, module in network.named_children():
        field = _field_after(field, module)
        if name == layer or field is None:
            return field
    return None


def _field_after(field: ReceptiveField | None, module: nn.Module) -> ReceptiveField | None:
    """The receptive field of a module whose input has that `field`."""
    if field is None or isinstance(module, nn.Linear | CodeDistances | GlobalAvgPool2d):
        return None
    if isinstance(module, ResidualBlock):
        for inner in module.body:  # the shortcut reads no more
            field = _field_after(field, inner)
        return field
    if not isinstance(module, Convolution | nn.MaxPool2d | nn.AvgPool2d):
        return field
    kernel, stride, padding = (
        int(value[0] if isinstance(value, tuple) else value)
        for value in (module.kernel_size, module.stride, module.padding)
    )
    size, step, start = field
    return ReceptiveField(size + (kernel - 1) * step, step * stride, start - padding * step)
