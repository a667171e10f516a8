# %%
from importlib.resources import files

import numpy as np
import torch
from safetensors.numpy import load

from alexnet.data.augmentation import PCAColor
from alexnet.data.statistics import pixel_sum, statistics

images = load((files("alexnet.learn") / "data" / "course.safetensors").read_bytes())["images"]
pixels = images.reshape(-1, 3).astype(np.int64)
colors = statistics(pixel_sum(images).astype(np.int64), pixels.T @ pixels, len(images))
print("standard deviations along the components:", np.sqrt(colors.eigenvalues).round(1))
print("components, in columns:\n", colors.eigenvectors.round(2))
# %%
for unit in ("eigenvalues", "std"):
    op = PCAColor(colors.eigenvectors, colors.eigenvalues, unit=unit)
    print(unit, op.shifts(torch.tensor([[0.1, -0.1, 0.1]])).numpy().round(1))
# %%
from alexnet.learn.digits import digits, trained_on_crops

found, _ = trained_on_crops(digits(), epochs=15, seeds=1)
for network_name in ("crops", "flips"):
    print("trained on", network_name, {views: f"{values[0]:.1%}" for views, values in found[network_name].items()})
# %%
# Exercise: how many different crops of 6×6 has a digit of 8×8, flips included? Solution:
crops = 2 * (8 - 6 + 1) ** 2
print(crops)
assert crops == 18
# %%
# Exercise: an augmentation of your own, with three seeds beside none. A solution: noise.
from alexnet.learn.digits import TRAIN, error, network, train


def noise(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return batch + 0.3 * torch.randn(batch.shape, generator=generator)


data = digits()
for name, change in (("none", None), ("noise", noise)):
    errors = []
    for seed in range(3):
        built = network((64, 64, 10), seed=seed)
        train(built, data, images=200, epochs=60, lr=0.05, seed=seed, batch=20, change=change)
        errors.append(100 * error(built, data, TRAIN))
    print(name, "test error", round(float(np.mean(errors)), 1), "±", round(float(np.std(errors, ddof=1)), 1))
