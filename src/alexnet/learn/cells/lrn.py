# %%
import torch

from alexnet.network.normalization import local_response_norm_reference

column = torch.full((1, 96, 1, 1), 100.0, dtype=torch.float64)
for divide in (False, True):
    after = local_response_norm_reference(column, 5, 1e-4, 0.75, 2.0, divide_by_n=divide)
    print("alpha / n" if divide else "alpha", [round(v, 2) for v in after[0, :4, 0, 0].tolist()])
# %%
# The same as torch's layer, which divides by n.
layer = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
print((layer(column) - local_response_norm_reference(column, 5, 1e-4, 0.75, 2.0, divide_by_n=True)).abs().max().item())
# %%
# Exercise: how large must 96 equal units be until the printed formula halves them more than alpha = 0 does? Solution:
for value in (1.0, 10.0, 100.0):
    unit = torch.full((1, 96, 1, 1), value, dtype=torch.float64)
    after = local_response_norm_reference(unit, 5, 1e-4, 0.75, 2.0, divide_by_n=False)
    print(value, round((after / unit)[0, 50, 0, 0].item(), 4), "against", round(2**-0.75, 4))
