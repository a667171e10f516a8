# %%
import torch
from torch.nn import functional

generator = torch.Generator().manual_seed(0)
maps = torch.rand(1, 96, 55, 55, generator=generator)
for size, stride in ((3, 2), (2, 2), (3, 3)):
    print(size, stride, tuple(functional.max_pool2d(maps, size, stride).shape))
# %%
# How much does the output change when the input moves by one column?
moved = torch.roll(maps, 1, dims=3)
for name, pool in (("max", functional.max_pool2d), ("average", functional.avg_pool2d)):
    for size, stride in ((3, 2), (2, 2)):
        before, after = pool(maps, size, stride), pool(moved, size, stride)
        print(name, size, stride, f"{((after - before).norm() / before.norm()).item():.1%}")
# %%
# Exercise: which share of the units of a random map is the maximum of no window, 3×3 with stride 2? Solution:
_, where = functional.max_pool2d(maps, 3, 2, return_indices=True)
unused = 1 - sum(len(one.unique()) for one in where[0].flatten(1)) / (96 * 55 * 55)
print(f"{unused:.1%}")
assert 0.7 < unused < 0.95
