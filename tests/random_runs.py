"""Run folders with random weights: no training, but every step after it is real."""

from pathlib import Path
from typing import Any

import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.runs.config import Config
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run

SMALL_TRAINING: dict[str, Any] = {
    "recipe": "small",
    "views": 1,
    "epochs": 1,
    "variant": "convolutions",
    "init": "he",
    "crop_size": 64,
    "input_size": 64,
    "precision": "float32",
}
"""Options of the smallest training, for 72 × 72 images: seconds."""


def make_run(path: Path, data: Path, seed: int, crop_size: int = 64, variant: str = "paper") -> Path:
    """A run folder for the dataset `data` of 72 × 72 images, whose random network says different things of them."""
    dataset = PreparedDataset.open(data)
    recipe = recipes()["paper"].override({"init": "he", "crop_size": crop_size, "seed": seed, "variant": variant})
    config = Config(
        recipe=recipe,
        classes=dataset.classes,
        size=dataset.size,
        crop_size=crop_size,
        input_size=crop_size,
        scale=1 / 64,
        dataset={"path": str(data)},
        pixel_range=dataset.pixel_range.to_dict() if dataset.pixel_range else None,
    )
    run = Run.create(path, config)
    torch.manual_seed(seed)
    with torch.device("meta"):
        network = config.network()
    network.to_empty(device="cpu").initialize("he")
    with torch.no_grad():
        network.logits.weight.normal_(0, 0.05)
    run.save_weights(recipe.keep, network.state_dict(), torch.from_numpy(dataset.mean_image.copy()))
    return path
