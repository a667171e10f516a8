"""What the network makes of its own data: which images excite each unit most, and which it gets wrong."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation.metrics import Predictions
from alexnet.network.model import AlexNet
from alexnet.prediction.classifier import Classifier
from alexnet.serve.tasks import central

KEPT = 9
"""Images kept for each unit."""
MOST = 2000
"""Images looked at, spread over the split."""
BATCH_SIZE = 8
"""A request waits for one such batch at most."""


class Field(NamedTuple):
    """What a place of a layer's map reads of the network's input, in pixels: place p reads `size` from
    `start` + p · `step` on."""

    size: int
    step: int
    start: int


@dataclass
class Excited:
    """The images that excite each unit of a layer most: (units, KEPT) each, falling. `places`: where in the map."""

    values: Tensor
    positions: Tensor
    places: Tensor

    @classmethod
    def none(cls, units: int) -> Excited:
        empty = torch.full((units, KEPT), -1)
        return cls(torch.full((units, KEPT), -torch.inf), empty, empty)

    def after(self, activations: Tensor, positions: Tensor) -> Excited:
        """With those of more images, (N, C, H, W) or (N, units), at these positions (N,) in the split."""
        values, places = activations.float().cpu().flatten(2 if activations.ndim > 2 else 1), None
        if values.ndim == 3:
            values, places = values.max(2)
        else:
            places = torch.zeros_like(values, dtype=torch.int64)
        all_values = torch.cat([self.values, values.T], 1)
        all_positions = torch.cat([self.positions, positions.expand(values.shape[1], -1)], 1)
        all_places = torch.cat([self.places, places.T], 1)
        best, order = all_values.topk(KEPT, dim=1)
        return Excited(best, all_positions.gather(1, order), all_places.gather(1, order))


class Survey:
    """Both, as far as it has come; `steps` are done by the worker, the rest may be read from any thread."""

    def __init__(self, classifier: Classifier, dataset: PreparedDataset, layers: list[str]) -> None:
        self.classifier, self.layers = classifier, layers
        self.train = dataset.split("train") if "train" in dataset.splits else None
        self.measured = dataset.split(dataset.measured_on) if dataset.measured_on else None
        self.excited: dict[str, Excited] = {}
        self.predictions: Predictions | None = None
        self.looked_at = self.answered = 0

    def wanted(self, split: Split | None) -> np.ndarray:
        """The positions looked at in a split."""
        count = len(split) if split is not None else 0
        return np.linspace(0, count - 1, min(MOST, count)).round().astype(np.int64)

    def steps(self) -> Generator[None, None, None]:
        """One batch after the other: a few of each in turn, so that there is soon something of both."""
        both = [self._answers(), self._excitements()]
        while both:
            for steps in list(both):
                if next(steps, self) is self:
                    both.remove(steps)
                else:
                    yield

    def _answers(self) -> Iterator[None]:
        split = self.measured
        if split is None:
            return
        for positions, images in split.batches(self.wanted(split), BATCH_SIZE):
            said = Predictions.of(self.classifier.probabilities(images), split.labels[positions])
            self.predictions = said if self.predictions is None else Predictions.joined([self.predictions, said])
            self.answered += len(positions)
            yield None

    def _excitements(self) -> Iterator[None]:
        network, split = self.classifier.network, self.train
        if split is None:
            return
        for positions, images in split.batches(self.wanted(split), BATCH_SIZE):
            with torch.inference_mode():
                for layer, activations in network.iter_features(central(self.classifier, images), self.layers):
                    known = self.excited.get(layer) or Excited.none(activations.shape[1])
                    self.excited[layer] = known.after(activations, torch.from_numpy(positions))
            self.looked_at += len(positions)
            yield None


def field_of(network: AlexNet, layer: str) -> Field | None:
    """The receptive field of a layer's maps; None for a fully connected one, which reads the whole input."""
    size, step, start = 1, 1, 0
    for name, module in network.named_children():
        if isinstance(module, nn.Linear):
            return None
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            kernel, stride, padding = (
                value[0] if isinstance(value, tuple) else value
                for value in (module.kernel_size, module.stride, module.padding)
            )
            start -= int(padding) * step
            size += (int(kernel) - 1) * step
            step *= int(stride)
        if name == layer:
            return Field(size, step, start)
    return None
