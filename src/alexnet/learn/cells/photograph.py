# %%
from importlib.resources import files

import matplotlib.pyplot as plt
from safetensors.numpy import load

arrays = load((files("alexnet.learn") / "data" / "course.safetensors").read_bytes())
images = arrays["images"]
print(images.shape, images.dtype, images.min(), images.max())
# %%
mean = images.astype(float).mean(axis=0)
figure, axes = plt.subplots(1, 4, figsize=(10, 3))
for axis, image in zip(axes, [*images, mean.astype("uint8")], strict=True):
    axis.imshow(image)
    axis.axis("off")
# %%
import torch

from alexnet.network.layers import OverhangConv2d

for side in (224, 227):
    plain, overhang = torch.nn.Conv2d(3, 96, 11, 4), OverhangConv2d(3, 96, 11, 4)
    x = torch.zeros(1, 3, side, side)
    print(side, "without overhang:", plain(x).shape[-1], "with:", overhang(x).shape[-1])
# %%
# Exercise: at which sides between 216 and 232 do both agree? Solution:
both = [side for side in range(216, 233) if (side - 11) % 4 == 0]
print(both)
assert both == [219, 223, 227, 231]
