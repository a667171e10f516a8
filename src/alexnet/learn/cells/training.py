# %%
from typing import Any

import torch

from alexnet.training.optimizers import PaperSGD


def path(kind: Any, drop: int, steps: int = 30) -> torch.Tensor:
    """Two weights on a bowl; the learning rate is divided by ten after `drop` steps."""
    w = torch.tensor([-4.0, 1.6], dtype=torch.float64, requires_grad=True)
    rule = kind([w], lr=0.05, momentum=0.9, weight_decay=0.0005)
    for step in range(steps):
        rule.param_groups[0]["lr"] = 0.05 if step < drop else 0.005
        rule.zero_grad()
        (w.square() @ torch.tensor([0.5, 4.0], dtype=torch.float64)).backward()
        rule.step()
    return w.detach()


for drop in (30, 12):
    print("drop after", drop, "paper:", path(PaperSGD, drop).tolist(), "torch:", path(torch.optim.SGD, drop).tolist())
# %%
import math

from alexnet.learn.digits import digits, network, train

data = digits()
for std in (0.01, None):
    built = network((64, *[64] * 7, 10), seed=0, std=std)
    losses = train(built, data, epochs=10, lr=0.02, seed=0)[:, 0]
    print("std", std or "He", "loss after 10 epochs:", round(float(losses[-1]), 4), "ln(10) =", round(math.log(10), 4))
# %%
# Exercise: what does a constant gradient of 1 do to the velocity, in units of the learning rate? Solution:
velocity = 0.0
for _ in range(200):
    velocity = 0.9 * velocity - 1
print(round(velocity, 3))
assert abs(velocity + 10) < 1e-6
# %%
# Exercise: with how many hidden layers does N(0, 0.01²) still leave the plateau in 20 epochs? Solution:
for hidden in (1, 2, 3, 4):
    built = network((64, *[64] * hidden, 10), seed=0, std=0.01)
    print(hidden, "hidden layers, loss", round(float(train(built, data, epochs=20, lr=0.02, seed=0)[-1, 0]), 4))
