# %%
import torch

x = torch.linspace(-6, 6, 121, requires_grad=True)
for name, function in (("ReLU", torch.relu), ("tanh", torch.tanh), ("logistic", torch.sigmoid)):
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    print(name, "gradient at 2:", round(gradient[80].item(), 4))
# %%
from alexnet.experiments.figure_1 import crossing
from alexnet.learn.digits import digits, network, train

data = digits()
for tanh in (False, True):
    for lr in (0.01, 0.03, 0.1):
        built = network((64, 32, 32, 32, 10), seed=0, tanh=tanh)
        curve = train(built, data, images=300, epochs=20, lr=lr, seed=0, batch=30)
        print("tanh" if tanh else "ReLU", lr, "epochs to 10% training error:", crossing(curve[:, 1].tolist(), 0.1))
# %%
# Exercise: with how many hidden layers of 32 units does tanh at 0.1 need more epochs? Try 1, 3, 6.
for hidden in (1, 3, 6):
    built = network((64, *[32] * hidden, 10), seed=0, tanh=True)
    curve = train(built, data, images=300, epochs=20, lr=0.1, seed=0, batch=30)
    print(hidden, crossing(curve[:, 1].tolist(), 0.1))
