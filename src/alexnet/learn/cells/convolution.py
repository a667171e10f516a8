# %%
from alexnet import AlexNet

network = AlexNet("paper", 1000)
print(network.summary())
# %%
import torch
from torch.nn import functional

image, kernel = torch.rand(1, 3, 11, 11), torch.rand(1, 3, 11, 11)
by_hand = (image * kernel).sum()
by_layer = functional.conv2d(image, kernel).item()
print(float(by_hand), by_layer)
# %%
import matplotlib.pyplot as plt

from alexnet.learn.computation import Starter

first = Starter().first_layer()
figure, axes = plt.subplots(4, 24, figsize=(12, 2.2))
for axis, kernel_values in zip(axes.flat, first["kernels"], strict=True):
    largest = abs(kernel_values).max()
    axis.imshow((kernel_values.transpose(1, 2, 0) / largest + 1) / 2)
    axis.axis("off")
# %%
# Exercise: count the parameters of conv2 with one group instead of two. Solution:
costs = {cost.name: cost.parameters for cost in network.costs()}
one_group = 256 * 96 * 25 + 256
print(costs["conv2"], one_group)
assert one_group - costs["conv2"] == 307_200
