"""Measurements after an epoch: the validation split, and the updates of the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.data.augmentation import Preprocessing
from alexnet.data.dataset import Split
from alexnet.data.loading import Batch, evaluation_batches
from alexnet.parallel.communicator import Communicator
from alexnet.training.diagnostics import EpochValidation, LayerUpdate
from alexnet.training.state import TrainingState


@torch.no_grad()
def validate(
    state: TrainingState,
    split: Split,
    preprocess: Preprocessing,
    communicator: Communicator,
    batch_size: int,
    dtype: torch.dtype,
) -> EpochValidation:
    """Loss and error of the central crops of a split, with the weights that would be kept now."""
    state.network.eval()
    with state.averaged_weights():
        return measure(state.working, split, preprocess, communicator, batch_size, dtype)


@torch.no_grad()
def measure(
    network: Callable[[Tensor], Tensor],
    split: Split,
    preprocess: Preprocessing,
    communicator: Communicator,
    batch_size: int,
    dtype: torch.dtype,
) -> EpochValidation:
    """Loss and error of the central crops of a split; `network` gives their logits."""
    device, classes = preprocess.mean.device, len(split.class_counts)
    loss, errors = 0.0, 0
    predicted = torch.zeros(classes, dtype=torch.int64)
    for batch in evaluation_batches(split, batch_size, communicator.rows):
        labels = communicator.start_batch(batch).to(device)
        logits = network(central_crops(batch, preprocess, dtype)).float()
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        answers = logits.argmax(1)
        errors += int((answers != labels).sum())
        predicted += torch.bincount(answers.cpu(), minlength=classes)
    count, summed = len(split), communicator.sum_over_logits
    loss, errors = summed(torch.tensor(loss, dtype=torch.float64)).item(), int(summed(torch.tensor(errors)))
    predicted = summed(predicted)
    return EpochValidation(loss / count, errors / count, predicted.tolist(), split.class_counts)


def layer_updates(
    state: TrainingState, before: Mapping[str, Tensor], mean: Callable[[str, Tensor], float]
) -> list[LayerUpdate]:
    """Mean absolute weight and update of each layer since `before`."""
    return [
        LayerUpdate(name, mean(name, weight.abs()), mean(name, (weight - before[name]).abs()))
        for name, weight in state.layer_weights()
    ]


def central_crops(batch: Batch, preprocess: Preprocessing, dtype: torch.dtype) -> Tensor:
    """The central crops of a batch on the device, as the network without rounded weights reads them."""
    crops = preprocess.center(batch.images.to(preprocess.mean.device))
    return crops.double() if dtype == torch.float64 else crops
