"""Run folders with random weights: no training, but every step after it is real."""

from pathlib import Path

import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.recipe import recipes
from alexnet.run import Config, Run


def make_run(path: Path, data: Path, seed: int, crop: int = 64) -> Path:
    """A run folder for the dataset `data` of 72 × 72 pictures, whose random network says different things of them."""
    dataset = PreparedDataset.open(data)
    recipe = recipes()["paper"].override({"init": "he", "crop": crop, "seed": seed})
    config = Config(
        recipe=recipe,
        classes=dataset.classes,
        size=dataset.size,
        crop=crop,
        side=crop,
        scale=1 / 64,
        dataset={"path": str(data)},
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
