"""The data type in which a finished run stores its weights: 16 bits where the predictions allow it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Split
from alexnet.network.model import AlexNet
from alexnet.runs.run import Run, float32_of, stored_tensor
from alexnet.runtime.errors import AlexNetError

MIN_BYTES = 32_000_000
"""Size of a file of weights from which "auto" stores 16 bits: a smaller one gains nothing."""
TOLERANCE = 0.005
"""Largest change of a probability that "auto" allows."""
IMAGES = 256
BATCH_SIZE = 64


def store_weights(run: Run, split: Split) -> tuple[Run, str | None]:
    """Store the weights that a finished training keeps in the data type of its recipe, and record it in config.json.

    "auto" becomes float16 where the file has more than `MIN_BYTES`, and where on up to `IMAGES` images of `split` no
    probability of the center crop changes by more than `TOLERANCE` and no most probable class changes. Otherwise it is
    float32. A second call changes nothing.

    Parameters
    ----------
    run : Run
        The run folder.
    split : Split
        The images on which the change is measured.

    Returns
    -------
    run : Run
        The run with the data type in its recipe.
    message : str or None
        What was measured and chosen; None where the weights stay float32 without a measurement.

    Raises
    ------
    AlexNetError
        If the files can't be written, or the weights exceed the range of a data type that was asked for.
    """
    chosen = run.config.recipe.weights_dtype
    small = not run.weights_file().is_file() or run.weights_file().stat().st_size <= MIN_BYTES
    if chosen == "float32" or (chosen == "auto" and small):
        return run.with_recipe_value("weights_dtype", "float32"), None
    name = "float16" if chosen == "auto" else chosen
    dtype: torch.dtype = getattr(torch, name)
    network, preprocess = run.load()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    rounded = {key: float32_of(stored_tensor(value, dtype)) for key, value in state.items()}
    if not all(torch.isfinite(value).all() for value in rounded.values() if value.is_floating_point()):
        if chosen != "auto":
            raise AlexNetError(f"the weights of {run.path} exceed the range of {name}: choose --weights-dtype float32")
        return run.with_recipe_value("weights_dtype", "float32"), f"weights stored as float32: not all fit {name}"
    images = torch.from_numpy(np.array(split.gather(_evenly_spaced(len(split)))))
    crops = [preprocess.center(batch) for batch in images.split(BATCH_SIZE)]
    before = _probabilities(network, crops)
    network.load_state_dict(rounded)
    after = _probabilities(network, crops)
    change = float((after - before).abs().max())
    changed = int((after.argmax(1) != before.argmax(1)).sum())
    measured = (
        f"on {len(images):,} images of {split.name} {name} changes a probability by at most {change:.2g} and the "
        f"predicted class of {changed}"
    )
    if chosen == "auto" and (changed or not change <= TOLERANCE):
        return run.with_recipe_value("weights_dtype", "float32"), f"weights stored as float32: {measured}"
    run.save_weights(run.config.recipe.keep, state, preprocess.mean, dtype)
    return run.with_recipe_value("weights_dtype", name), f"weights stored as {name}: {measured}"


def _evenly_spaced(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, IMAGES)).astype(np.int64))


@torch.inference_mode()
def _probabilities(network: AlexNet, crops: list[Tensor]) -> Tensor:
    return torch.cat([network(crop).softmax(1) for crop in crops])
